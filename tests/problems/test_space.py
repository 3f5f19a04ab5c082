"""The space of problems: what tiers reach of it, and that what they leave out is noticed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from conformance.config import RunConfig
from conformance.problems.axes import AXES, values_of
from conformance.problems.families import backends, problems_for
from conformance.problems.problem import Problem
from conformance.problems.space import admitted_values, coverage_of, covered
from conformance.problems.tiers import TIERS
from conformance.suites.parity.coverage import kernel_rows
from conformance.suites.parity.test_parity import too_long
from tests.kernels.kernel_faults.problems import FA, TRITON, decode, latent, latent_prefill, window
from vllm_editions import DEFAULT_EDITION, editions

SEED = RunConfig.seed
NEWEST = editions()[-1]


@pytest.mark.parametrize("seed", [SEED, 1, 2])
@pytest.mark.parametrize("edition", [DEFAULT_EDITION, NEWEST])
@pytest.mark.parametrize("backend", backends())
def test_quick_reaches_every_admitted_value(backend: str, edition: str, seed: int) -> None:
    found = coverage_of(backend, "quick", seed, edition)
    assert found.missing == {}
    assert found.apart == ()


@pytest.mark.parametrize("backend", backends())
def test_every_value_that_is_reached_is_an_admitted_one(backend: str) -> None:
    """So that what a value is called here and there is the same."""
    wanted = admitted_values(backend, "standard")
    for problem in problems_for(backend, "standard", SEED):
        for axis, value in values_of(problem).items():
            assert axis not in wanted or value in wanted[axis] or value in UNASKED, problem


# Values that problems may have and that no tier is held to.
UNASKED = {"decodes", "no power of 2", "without a window", "kept"}


# What each family asks that no other problem of the backend does.
ONLY_IN = {
    "many_segments": ("TRITON_ATTN", "pieces", "over 16"),
    "heads": ("ROCM_AITER_MLA", "latent heads", "over 16"),
    "chunks": (FA, "chunks", "several"),
    "capped": (TRITON, "soft cap", "far below the logits"),
    "long_prefixes": (TRITON, "prefix", "across tiles"),
    "many_chosen": ("ROCM_AITER_MLA_SPARSE", "chosen keys", "over 256"),
    "fp8_values": (FA, "values", "fp8's edges"),
    "topk": ("ROCM_AITER_MLA_SPARSE", "chunks", "several"),
    "not_causal": ("ROCM_SEGMENTED_ATTN", "later keys", "seen"),
    "some_packed": ("FLASH_ATTN", "batch", "keys of their own"),
    "a_cross": (TRITON, "batch", "cross attention"),
}


@pytest.mark.parametrize("family", ONLY_IN)
def test_a_family_left_out_of_quick_is_noticed(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, axis, value = ONLY_IN[family]
    tier = TIERS["quick"]
    edges = {k: tuple(f for f in names if f != family) for k, names in tier.edges.items()}
    monkeypatch.setitem(TIERS, "quick", replace(tier, edges=edges))
    assert value in coverage_of(backend, "quick", SEED).missing[axis]


def test_a_layout_that_is_never_dealt_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conformance.problems.layouts._BLOCK_PADS", (0,))
    monkeypatch.setattr("conformance.problems.layouts._POISONS", ("nan", "inf"))
    found = coverage_of(TRITON, "quick", SEED)
    assert found.missing["block stride"] == ("padded",)
    assert found.missing["poison"] == ("huge",)
    assert (("kind", "paged"), ("block stride", "padded")) in found.apart


def changed(problem: Problem, **fields: Any) -> dict[str, str]:
    """The axes on which the change moves the problem."""
    before, after = values_of(problem), values_of(replace(problem, **fields))
    return {axis: value for axis, value in after.items() if before.get(axis) != value}


PAGED = decode(TRITON)
MOVED: dict[str, tuple[Problem, dict[str, Any], dict[str, str]]] = {
    "batch": (
        PAGED,
        {"query_lens": (1, 5)},
        {"batch": "decodes and prefills"},
    ),
    "no context": (
        replace(PAGED, query_lens=(4, 5)),
        {"context_lens": (0, 0)},
        {"batch": "prefills", "longest": "to 16"},
    ),
    "group": (PAGED, {"num_heads": 6}, {"group": "no power of 2"}),
    "head size": (PAGED, {"head_size": 256, "v_head_size": 256}, {"head size": "over 128"}),
    "smaller values": (PAGED, {"v_head_size": 64}, {"value head size": "smaller"}),
    "larger values": (PAGED, {"v_head_size": 96}, {"value head size": "larger"}),
    "dtype": (PAGED, {"dtype": "bfloat16"}, {"dtype": "bfloat16"}),
    "block size": (PAGED, {"block_size": 48}, {"block size": "no power of 2"}),
    "block of one": (PAGED, {"block_size": 1}, {"block size": "1"}),
    "block stride": (PAGED, {"block_pad": 16}, {"block stride": "padded"}),
    "rows": (PAGED, {"head_pad": 8}, {"rows": "padded"}),
    "padding": (PAGED, {"extra_rows": 1}, {"padding": "without slots"}),
    "more padding": (PAGED, {"extra_rows": 5}, {"padding": "some without slots"}),
    "skipped": (PAGED, {"skipped_writes": 2}, {"skipped writes": "some"}),
    "window": (
        PAGED,
        {"window": (9, 0)},
        {"window": "to the left", "before the window": "kept"},
    ),
    "later keys": (PAGED, {"causal": False}, {"later keys": "seen"}),
    "evicted": (window(TRITON), {"evicted": True}, {"before the window": "given up"}),
    "alibi": (PAGED, {"alibi": "sqrt"}, {"alibi": "sqrt"}),
    "sinks": (PAGED, {"sinks": True}, {"sinks": "yes"}),
    "prefix": (PAGED, {"mm_prefix": (((0, 4),), ())}, {"prefix": "without a window"}),
    "soft cap": (PAGED, {"soft_cap": 4.0}, {"soft cap": "usual"}),
    "far above": (
        replace(PAGED, soft_cap=1.2),
        {"large_logits": True},
        {"soft cap": "far below the logits", "logits": "beyond exp"},
    ),
    "pieces": (PAGED, {"pieces": 20}, {"pieces": "over 16"}),
    "order": (PAGED, {"order": "backwards"}, {"order": "backwards"}),
    "poison": (PAGED, {"poison": "huge"}, {"poison": "huge"}),
    "prompts": (replace(PAGED, window=(2, 0)), {"prompts": (3, 1)}, {"prompt": "seen"}),
    "interleaved": (PAGED, {"interleaved": True}, {"place of values": "interleaved"}),
    "a scale per token and head": (
        PAGED,
        {"kv_cache_dtype": "int8_per_token_head"},
        {"cache": "int8_per_token_head"},
    ),
    "heads": (latent("TRITON_MLA"), {"num_heads": 17}, {"latent heads": "over 16"}),
    "rank": (latent("TRITON_MLA"), {"latent_rank": 256}, {"latent rank": "256"}),
    "chunks": (latent_prefill("TRITON_MLA"), {"at_once": 32}, {"chunks": "several"}),
    "fp8": (
        PAGED,
        {"kv_cache_dtype": "fp8_e5m2", "k_scale": 0.5},
        {"cache": "fp8_e5m2", "cache scale": "a power of 2", "values": "usual"},
    ),
}


@pytest.mark.parametrize("name", MOVED)
def test_an_axis_tells_problems_apart(name: str) -> None:
    problem, fields, axes = MOVED[name]
    assert changed(problem, **fields) == axes


def test_axes_have_names_of_their_own() -> None:
    assert len({axis.name for axis in AXES}) == len(AXES)
    assert all(axis.meaning for axis in AXES)


def test_pairs_are_those_that_meet_in_a_problem() -> None:
    one = covered([PAGED], TRITON, "quick", DEFAULT_EDITION)
    count = len(values_of(PAGED))
    assert one.pairs == count * (count - 1) // 2
    assert one.values == count
    two = covered([PAGED, replace(PAGED, order="backwards")], TRITON, "quick", DEFAULT_EDITION)
    assert two.pairs == one.pairs + count - 1
    assert two.reached["order"] == {"backwards": 1, "forwards": 1}


# ---- vLLM's kernels ---------------------------------------------------------------------------

QUICK = RunConfig(subjects=(), cells=(), tier="quick", device="interpreter")
DRIVEN = (
    *("ROCM_ATTN", "TRITON_ATTN", "FLEX_ATTENTION", "TRITON_MLA", "TORCH_SDPA"),
    *("TRITON_ATTN_DIFFKV", "ROCM_SEGMENTED_ATTN", "ROCM_AITER_MLA_SPARSE"),
)
# What a GPU that is shown for a backend of its own stores as fp8; others are shown an MI300X.
OWN = {"ROCM_SEGMENTED_ATTN": "fp8_e4m3fn"}
KERNELS = [
    (series, backend, row.name)
    for series in ("0.19", "0.33")
    for backend in DRIVEN
    for row in kernel_rows(backend, series)
]


@pytest.mark.parametrize("tier", ["isa", "isa-quick"])
@pytest.mark.parametrize("backend", ["TRITON_ATTN", "ROCM_AITER_MLA_SPARSE"])
def test_emulated_tiers_reach_kernels_that_one_kind_of_problem_has(backend: str, tier: str) -> None:
    """A cache with a scale per token and head, chosen keys with sinks, an indexer."""
    made = problems_for(backend, tier, SEED, "0.33")
    rows = [row for row in kernel_rows(backend, "0.33") if row.when.keys() & {"cache", "sinks"}]
    rows += [row for row in kernel_rows(backend, "0.33") if row.when["kind"] == "indexer"]
    assert len(rows) >= 3
    for row in rows:
        reached = [p for p in made if row.reached_by(p)]
        assert reached, row.name
        if backend == "ROCM_AITER_MLA_SPARSE" and "sinks" in row.when:
            assert any(p.topk % 128 == 0 for p in reached), "vLLM looks up 128 at a time"


@pytest.mark.parametrize(("series", "backend", "kernel"), KERNELS)
def test_each_of_vllms_kernels_is_in_its_quick_tier(series: str, backend: str, kernel: str) -> None:
    """By a problem that the simulated GPU takes; what then ran is PAR-090's to say."""
    (row,) = (row for row in kernel_rows(backend, series) if row.name == kernel)
    given = [p for p in problems_for(backend, "quick", SEED, series) if not too_long(QUICK, p)]
    encoding = OWN.get(backend, "fp8_e4m3fnuz")
    scaled = (f"{encoding}_per_token_head", "int8_per_token_head", "int4_per_token_head")
    caches = ("auto", encoding, *scaled)
    taken = [p for p in given if p.kv_cache_dtype in caches]
    reached = [p for p in taken if row.reached_by(p)]
    assert reached, f"no quick problem is one of {dict(row.when)}"


def test_what_vllm_splits_has_keys_in_several_segments() -> None:
    """vLLM makes 16 of every decode: the longest has more tiles of 16 keys than that."""
    given = [p for p in problems_for("TRITON_ATTN", "quick", SEED) if not too_long(QUICK, p)]
    split = [p for p in given if values_of(p)["batch"] == "decodes" and p.kind == "paged"]
    assert max(max(p.seq_lens) for p in split) > 16 * 16
    names = {name for series, _, name in KERNELS if series == "0.19"}
    assert {
        "triton_unified_attention.kernel_unified_attention_3d",
        "triton_unified_attention.reduce_segments",
    } <= names
