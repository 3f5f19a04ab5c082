"""``explain``: models and machines by name, vLLM's options, and what follows from the answer."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.cli import run_cli
from conformance.explanations import explanation
from conformance.explanations.asked import Serving, known_to, questions, single
from conformance.explanations.explanation import Judgement
from conformance.explanations.inside import reasons_against
from conformance.explanations.what_if import outcome
from conformance.matrix.requests import (
    Ask,
    Candidate,
    PagedAttention,
    Platform,
    Request,
    Selection,
)
from conformance.matrix.targets import TARGETS
from conformance.models.presets import find_model
from conformance.requirements import requirements_of, truth_rows
from conformance.subjects.reference import answer, edition_table, selector_on
from rocm_reference.selector import CUSTOM_KERNEL
from vllm_editions import Edition, editions
from vllm_editions.causes import rows_behind

Told = Callable[..., dict[str, Any]]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """What ``explain`` answers, as JSON."""

    def ask(*arguments: str) -> dict[str, Any]:
        assert run_cli(["explain", *arguments, "--format", "json"]) == 0
        answered: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answered

    return ask


def selected(whole: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (each["layers"]["kind"], each.get("selected") or each.get("error", "not asked"))
        for each in whole["layers"]
    ]


MODELS = {
    "sinks, AITER installed": (
        ["gpt-oss-120b", "MI355X", "0.19.0", "--aiter"],
        [("sliding", "ROCM_AITER_UNIFIED_ATTN"), ("full", "ROCM_AITER_UNIFIED_ATTN")],
    ),
    "sinks, later": (
        ["gpt-oss-120b", "MI355X", "0.33.0", "--aiter", "--env", "VLLM_ROCM_USE_AITER=1"],
        [("sliding", "ROCM_AITER_FA"), ("full", "ROCM_AITER_FA")],
    ),
    "latent": (
        ["DeepSeek-V3", "MI300X", "0.33.0", "--aiter", "--env", "VLLM_ROCM_USE_AITER=1"],
        [("mla", "ROCM_AITER_MLA")],
    ),
    "sparse": (
        ["DeepSeek-V3.2-Exp", "MI300X", "0.33.0"],
        [("sparse MLA", "ROCM_AITER_MLA_SPARSE")],
    ),
    "image tokens": (
        ["gemma-3-27b-it", "RX 9070 XT", "0.33.0"],
        [("sliding", "TRITON_ATTN"), ("full", "TRITON_ATTN"), ("vision", "TORCH_SDPA")],
    ),
    "image tokens, earlier": (
        ["gemma-3-27b-it", "RX 9070 XT", "0.31.0"],
        [("sliding", "ROCM_ATTN"), ("full", "ROCM_ATTN"), ("vision", "TORCH_SDPA")],
    ),
    "no images": (
        ["gemma-3-27b-it", "RX 9070 XT", "0.33.0", "--language-model-only"],
        [("sliding", "ROCM_ATTN"), ("full", "ROCM_ATTN")],
    ),
    "encoder-decoder": (
        ["whisper-large-v3", "MI300X", "0.19.0"],
        [("full", "ROCM_ATTN"), ("cross", "TRITON_ATTN"), ("audio", "TORCH_SDPA")],
    ),
    "encoder-decoder, later": (
        ["whisper-large-v3", "MI300X", "0.33.0"],
        [("full", "TRITON_ATTN"), ("cross", "TRITON_ATTN"), ("audio", "TORCH_SDPA")],
    ),
    "connector": (
        [
            "Llama-3.1-8B-Instruct",
            "MI300X",
            "0.33.0",
            "--kv-transfer-config",
            '{"kv_connector": "NixlConnector"}',
        ],
        [("full", "TRITON_ATTN")],
    ),
    "a cache that no other reads": (
        ["Llama-3.1-8B-Instruct", "MI300X", "0.33.0", "--kv-cache-dtype", "turboquant_k8v4"],
        [("full", "TURBOQUANT")],
    ),
    "a backend for a kind of layer": (
        [
            "gemma-2-9b-it",
            "MI300X",
            "0.33.0",
            "--attention-config",
            '{"backend_per_kind": {"sliding_window": "TRITON_ATTN"}}',
        ],
        [("sliding", "TRITON_ATTN"), ("full", "ROCM_ATTN")],
    ),
    "hybrid": (
        ["Qwen3-Next", "MI300X", "0.33.0"],
        [("linear", "not asked"), ("full", "ROCM_ATTN")],
    ),
    "encoder": (["bge-m3", "MI300X", "0.33.0"], [("encoder", "ROCM_ATTN")]),
}


@pytest.mark.parametrize("name", MODELS)
def test_each_kind_of_layer_gets_its_answer(name: str, told: Told) -> None:
    (model, gpu, release, *more), expected = MODELS[name]
    whole = told("--model", model, "--gpu", gpu, "--vllm", release, *more)
    assert selected(whole) == expected
    assert f"vLLM {release}, answered by this suite's edition" in whole["subject"]


def kernels(each: dict[str, Any]) -> dict[str, str]:
    return {inside["phase"]: f"{inside['kernel']} {inside['why']}" for inside in each["kernels"]}


def test_the_decode_kernel_depends_on_the_heads_of_one_gpu(told: Told) -> None:
    on = ("--model", "Llama-3.1-70B-Instruct", "--vllm", "0.33.0")
    (whole,) = told(*on, "--gpu", "MI300X", "--tp", "8")["layers"]
    assert whole["layers"]["num_heads"] == 8
    assert whole["layers"]["num_kv_heads"] == 1
    assert "a HIP kernel" in kernels(whole)["decode"]
    assert "131,072" in kernels(whole)["decode"]
    # RDNA's takes 3 to 16 query heads to a KV head, and 16 GPUs have 4 and 1 each, 32 have 2 and 1.
    (many,) = told(*on, "--gpu", "PRO W7900", "--tp", "32")["layers"]
    assert "2 query heads share a KV head, and it takes 3 to 16" in kernels(many)["decode"]


def test_an_encoder_has_nothing_to_decode(told: Told) -> None:
    (encoder,) = told("--model", "bge-m3", "--gpu", "MI300X")["layers"]
    assert list(kernels(encoder)) == ["encoder"]
    alone = told("--gpu", "MI300X", "--attn-type", "encoder_only")
    assert list(kernels(alone)) == ["encoder"]


def test_blocks_of_a_hybrid_model_keep_the_hip_kernel_away(told: Told) -> None:
    hybrid = told("--model", "granite-4.0-h-small", "--gpu", "MI300X", "--vllm", "0.33.0")
    attention = hybrid["layers"][1]
    assert "528 tokens" in attention["note"]
    assert "the block size is 528, and it takes 16 or 32" in kernels(attention)["decode"]


def test_a_window_alibi_and_the_ratio_decide_for_a_single_request(told: Told) -> None:
    assert "HIP" in kernels(told("--gpu", "MI300X", "--gqa", "16"))["decode"]
    for more, why in (
        (["--gqa", "17"], "17 query heads"),
        (["--sliding-window", "128"], "the layer has a sliding window"),
        (["--max-model-len", "131073"], "131,073 tokens are longer"),
    ):
        assert why in kernels(told("--gpu", "MI300X", *more))["decode"]
    assert "HIP" in kernels(told("--gpu", "MI300X", "--alibi"))["decode"]
    assert "it has no ALiBi" in kernels(told("--gpu", "gfx1100", "--alibi"))["decode"]


def test_a_vision_tower_alone(told: Told) -> None:
    plain = told("--gpu", "MI300X", "--vit", "--dtype", "bf16")
    assert plain["selected"] == "TORCH_SDPA"
    assert plain["request"] == {"head_size": 80, "dtype": "bfloat16"}
    assert {"with": "flash_attn installed", "then": "FLASH_ATTN"} in plain["what_if"]
    assert told("--gpu", "MI300X", "--vit", "--backend", "TRITON_ATTN")["selected"] == "TRITON_ATTN"


@pytest.mark.parametrize(
    ("option", "said", "field", "meant"),
    [
        ("--dtype", "bf16", "dtype", "bfloat16"),
        ("--dtype", "half", "dtype", "float16"),
        ("--dtype", "FP32", "dtype", "float32"),
        ("--kv-cache-dtype", "fp8", "kv_cache_dtype", "fp8"),
        ("--kv-cache-dtype", "e5m2", "kv_cache_dtype", "fp8_e5m2"),
        ("--kv-cache-dtype", "bf16", "kv_cache_dtype", "bfloat16"),
    ],
)
def test_dtypes_as_people_spell_them(
    option: str, said: str, field: str, meant: str, told: Told
) -> None:
    assert told("--gpu", "MI300X", option, said)["request"][field] == meant


def test_what_one_variable_or_package_would_change(told: Told) -> None:
    on = ("--model", "gpt-oss-20b", "--gpu", "MI300X", "--vllm", "0.33.0")
    sliding, _ = told(*on)["layers"]
    assert {e["with"]: e["then"] for e in sliding["what_if"]} == {
        "aiter installed": "ROCM_AITER_UNIFIED_ATTN",
        "aiter installed and VLLM_ROCM_USE_AITER=1": "ROCM_AITER_FA",
    }
    sliding, _ = told(*on, "--aiter")["layers"]
    assert {e["with"]: e["then"] for e in sliding["what_if"]} == {
        "VLLM_ROCM_USE_AITER=1": "ROCM_AITER_FA",
        "VLLM_BATCH_INVARIANT=1": "TRITON_ATTN",
        "aiter not installed": "TRITON_ATTN",
    }


def test_what_the_next_release_changes_and_by_which_line(told: Told) -> None:
    on = ("--model", "gemma-3-27b-it", "--gpu", "MI300X")
    (line,) = told(*on, "--vllm", "0.31.0")["layers"][0]["releases"]
    assert line.startswith("vLLM 0.32: TRITON_ATTN (because of backends.ROCM_ATTN.mm_prefix is no")
    assert "v0.32.0/vllm/v1/attention/backends/rocm_attn.py#L164" in line
    (line,) = told(*on, "--vllm", "0.19.0")["layers"][0]["releases"]
    assert line == "vLLM 0.20 selects the same"
    (line,) = told(*on, "--vllm", f"{editions()[-1]}.0")["layers"][0]["releases"]
    assert "newest" in line


def test_why_a_backend_changed_since_a_release(told: Told) -> None:
    on = ("--model", "Llama-3.1-8B-Instruct", "--gpu", "MI300X", "--aiter", "--vllm", "0.33.0")
    (layers,) = told(*on, "--since", "0.18")["layers"]
    first, change = layers["releases"]
    assert first == "vLLM 0.18: TRITON_ATTN"
    assert change.startswith("vLLM 0.19: ROCM_ATTN, decoding with its HIP kernel")
    assert "https://github.com/vllm-project/vllm/pull/36702" in change


def test_the_rows_behind_an_answer_are_the_fewest() -> None:
    """A connector keeps ROCM_ATTN off in two ways: one of them, and that it is asked about."""
    platform = Platform.make("gfx942")

    def asked(edition: Edition) -> str:
        question = single(known_to(Request(use_kv_connector=True), edition), None, {})
        return str(outcome(question, edition, platform))

    rows = rows_behind("0.23", asked, asked(edition_table("0.23")))
    assert [row.path for row in rows] == ["asked.fields", "candidates.dense.ROCM_ATTN.when"]


# ---- what is cited ---------------------------------------------------------------------------


def test_a_build_that_answers_otherwise_deviates_and_is_not_explained_by_the_rule() -> None:
    """As vLLM 0.18.1 does of sinks, judged by edition 0.19."""
    platform = Platform.make("gfx942", aiter=True)
    by = Judgement("a build", edition_table("0.19"), "0.19.0", platform)
    question = single(Request(has_sink=True), None, {})
    got = Selection("TRITON_ATTN", (Candidate("TRITON_ATTN"),))
    found = explanation.explain(by, question, got)
    assert "SEL-003" in dict(found.deviates)
    assert all(step.requirement != "SEL-003" for step in found.steps)
    same = explanation.explain(
        by, question, answer(selector_on(by.table, platform), Ask(Request(has_sink=True)))
    )
    assert same.deviates == ()


@pytest.mark.parametrize("edition", editions())
def test_no_requirement_is_cited_that_its_own_rows_contradict(edition: str) -> None:
    """A request a field away from the usual one, on every target: each citation holds in the
    edition, and no row of it that asks the same says otherwise."""
    table = edition_table(edition)
    known = requirements_of(edition)
    requests = [
        Request(),
        Request(dtype="float32"),
        Request(dtype="float64"),
        Request(head_size=257),
        Request(kv_cache_dtype="fp8_e5m2"),
        Request(block_size=17),
        Request(has_sink=True),
        Request(use_mm_prefix=True),
        Request(use_mla=True, head_size=576),
        Request(attn_type="encoder_only"),
        Request(attn_type="encoder_decoder"),
    ]
    rows = {name: list(truth_rows(known[name], edition)) for name in known}
    for target, request in itertools.product(("gfx90a", "gfx942", "gfx1201"), requests):
        platform = Platform.make(target, aiter=True)
        by = Judgement("edition", table, f"{edition}.0", platform)
        question = single(request, None, {})
        got = answer(selector_on(table, platform), Ask(request))
        found = explanation.explain(by, question, got)
        assert found.deviates == ()
        for name in found.requirements:
            assert name in known
            for row in rows[name]:
                if row.ask == Ask(request) and row.on.includes(platform) and not row.on.set:
                    assert row.expect.selected in (None, got.selected)
                    listed = tuple(c.backend for c in got.candidates)
                    assert row.expect.candidates in (None, listed)


def test_reasons_against_the_hip_kernel_are_the_selectors() -> None:
    """There is a reason exactly where the selector takes the Triton kernel."""
    platforms = [Platform.make(name) for name in TARGETS]
    asked = [
        PagedAttention(head_size=head, gqa_ratio=ratio, sliding_window=window, alibi=alibi)
        for head, ratio, window, alibi in itertools.product(
            (64, 80, 128), (1, 8, 17), (0, 128), (False, True)
        )
    ]
    asked += [PagedAttention(dtype="float32"), PagedAttention(block_size=64)]
    asked += [PagedAttention(sinks=True), PagedAttention(kv_cache_dtype="fp8")]
    asked += [PagedAttention(max_seq_len=131073)]
    for edition, platform, inner in itertools.product(("0.18", "0.19", "0.33"), platforms, asked):
        table = edition_table(edition)
        custom = selector_on(table, platform).paged_attention(inner) == CUSTOM_KERNEL
        assert custom == (not reasons_against(table, platform, inner)), (edition, platform, inner)


# ---- what the suite has found ----------------------------------------------------------------


def test_findings_on_record_are_told_where_they_concern_the_layer(told: Told) -> None:
    on = ("--gpu", "MI300X", "--vllm", "0.19.0")
    (windowed,) = told("--model", "Mistral-7B-v0.1", *on)["layers"]
    assert any("one key too few" in reason for reason, _ in windowed["judged"]["findings"])
    (plain,) = told("--model", "Mistral-7B-Instruct-v0.3", *on)["layers"]
    assert not any("one key too few" in reason for reason, _ in plain["judged"]["findings"])
    assert all(url.startswith("https://") for _, url in windowed["judged"]["findings"])
    aiter = told("--gpu", "MI300X", "--aiter", "--backend", "ROCM_AITER_FA")
    assert "on an AMD GPU only" in aiter["judged"]["status"]


# ---- variables and options -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("VLLM_ROCM_USE_AITR=1", "Did you mean VLLM_ROCM_USE_AITER?"),
        ("VLLM_ROCM_CUSTOM_PAGED_ATTN=1", "only releases 0.18 know it"),
        ("VLLM_NO_SUCH_THING=1", "does not know VLLM_NO_SUCH_THING"),
        ("VLLM_ROCM_USE_AITER=1", ""),
        ("HIP_VISIBLE_DEVICES=0", ""),
    ],
)
def test_a_variable_that_vllm_does_not_know_is_a_warning(
    name: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["explain", "--gpu", "MI300X", "--vllm", "0.33.0", "--env", name]) == 0
    err = capsys.readouterr().err
    assert (says in err) if says else (err == "")


def test_options_of_vllm_without_influence_are_taken_and_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["explain", "--gpu", "MI300X", "--enable-prefix-caching", "--no-enforce-eager"]
    assert run_cli(arguments) == 0
    assert "--enable-prefix-caching, --enforce-eager: changes no" in capsys.readouterr().err


def test_a_file_is_read_like_a_preset(tmp_path: Path, told: Told) -> None:
    file = tmp_path / "config.json"
    file.write_text(
        json.dumps(
            {
                "model_type": "llama",
                "hidden_size": 4096,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "num_hidden_layers": 3,
                "torch_dtype": "bfloat16",
            }
        ),
        encoding="utf-8",
    )
    whole = told("--model", str(file), "--gpu", "MI300X")
    assert selected(whole) == [("full", "ROCM_ATTN")]
    assert whole["layers"][0]["layers"]["count"] == 3


def test_every_question_of_every_preset_can_be_asked_of_every_edition() -> None:
    for edition, name in itertools.product(
        editions(), ("gpt-oss-20b", "gemma-3-4b-it", "whisper-large-v3", "DeepSeek-V3.2-Exp")
    ):
        table, platform = edition_table(edition), Platform.make("gfx942", aiter=True)
        for question in questions(find_model(name), Serving(), table, platform):
            assert str(outcome(question, table, platform))


def test_markdown_has_a_heading_a_kind_of_layer(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["explain", "--model", "gpt-oss-20b", "--gpu", "MI300X", "--format", "markdown"]
    assert run_cli(arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith("# openai/gpt-oss-20b on MI300X (gfx942)\n")
    assert "## 12 sliding-window layers: TRITON_ATTN" in out
    assert "|  | backend | verdict | requirement |" in out


def test_nothing_is_wrapped_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["explain", "--model", "gemma-3-27b-it", "--gpu", "MI300X"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) > 120
    assert all(line == line.rstrip() for line in lines)
