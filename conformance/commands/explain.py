"""``rocm-conformance explain``: why a model, or one request, gets the backends it gets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click
from packaging.version import InvalidVersion, Version

from conformance.commands.explain_options import request_options, serving_of, vllm_options
from conformance.commands.explain_printing import Asked, show
from conformance.commands.options import (
    EDITION,
    FORMAT,
    SIMULATE,
    TIMEOUT,
    complete_model,
    platform_options,
)
from conformance.commands.shared import platform_of, say
from conformance.errors import ExitCode, UsageError
from conformance.explanations.asked import (
    CACHE_SPELLINGS,
    DTYPE_SPELLINGS,
    LayerQuestion,
    Serving,
    check_backend,
    check_cache_dtype,
    questions,
    single,
    spelled,
)
from conformance.explanations.asked import known_to as as_known_to
from conformance.explanations.explanation import Explanation, Judgement
from conformance.explanations.explanation import explain as explain_selection
from conformance.explanations.what_if import Asks, changes_of_machine, history, next_release
from conformance.matrix import variables
from conformance.matrix.requests import Ask, Platform, Request, Vit
from conformance.models.layers import Layers, Model
from conformance.models.presets import find_model, presets
from conformance.requirements.edition_choice import edition_note, judging_edition
from conformance.results import subject_label
from conformance.runners.preparation import judging_of
from conformance.subjects import request_lines as streams
from conformance.subjects.base import Options, Subject
from conformance.subjects.reference import REFERENCE, edition_table
from conformance.subjects.spellings import SPELLINGS, parse_subject
from vllm_editions import AUTO_EDITION, Edition, editions, nearest_edition

LIST = "list"


@click.command()
@click.option(
    "--model",
    shell_complete=complete_model,
    help="A model by name (list: prints them), or PATH/config.json.",
)
@click.option("--vllm", "release", metavar="X.Y.Z", help="Answer for this vLLM, by its edition.")
@click.option("--subject", help=f"Ask this build itself: {SPELLINGS}. [default: reference]")
@platform_options
@EDITION
@click.option("--since", metavar="X.Y", help="Say how the answer changed since this release.")
@SIMULATE
@TIMEOUT
@vllm_options
@request_options
@FORMAT
def explain(
    model: str | None,
    release: str | None,
    subject: str | None,
    target: str | None,
    aiter: bool,
    flash_attn: bool,
    env: Sequence[str],
    edition: str,
    since: str | None,
    simulate: str,
    timeout: float,
    style: str,
    **values: Any,
) -> int:
    """Explain which backend each layer of a model gets on a GPU, and why not the others.

    Without --model, explain a single request, whose options are the fields of vLLM's selector.

    \b
    rocm-conformance explain --model Llama-3.1-70B-Instruct --gpu MI300X --tp 8 --vllm 0.33.0
    rocm-conformance explain --model ./config.json --gpu "RX 9070 XT" --kv-cache-dtype fp8
    rocm-conformance explain --gpu MI300X --aiter --env VLLM_ROCM_USE_AITER=1 --sinks
    rocm-conformance explain --subject vllm==0.19.0 --target gfx90a --mla --head-size 576

    --vllm is answered by the suite's edition of that release, at once and without a network;
    --subject vllm==X.Y.Z fetches that release and asks its own code.
    """
    if model == LIST:
        return _list_presets(style)
    _refuse_mixed(model, subject, release, edition, values)
    asked = Asked(
        subject or REFERENCE,
        _release(release) if release else "",
        target or "",
        platform_of(target, aiter, flash_attn, env),
        edition,
        simulate,
        timeout,
        _series(since) if since else "",
        style,
    )
    return _answer(asked, find_model(model) if model else None, values)


def _list_presets(style: str) -> int:
    if style == "json":
        click.echo(json.dumps({name: row.source for name, row in presets().items()}, indent=2))
    else:
        click.echo("\n".join(presets()))
    return ExitCode.CONFORMANT


def _refuse_mixed(
    model: str | None,
    subject: str | None,
    release: str | None,
    edition: str,
    values: dict[str, Any],
) -> None:
    """Options that would say one thing twice, or nothing."""
    if release and subject:
        raise UsageError(
            "--vllm is answered by an edition, --subject asks a build itself: give one of them"
        )
    if release and edition != AUTO_EDITION:
        raise UsageError("--vllm names the edition already: leave out --edition")
    only_single = (
        *("head_size", "attn_type", "use_mla", "use_sparse", "has_sink", "use_mm_prefix"),
        *("sliding_window", "gqa", "alibi", "vit", "use_per_head_quant_scales"),
    )
    given = [name for name in only_single if values[name]]
    if model and given:
        shown = given[0].removeprefix("use_").removeprefix("has_").replace("_", "-")
        raise UsageError(f"--{shown} describes a single request: with --model, the model says it")
    if not model and values["tensor_parallel_size"] > 1:
        raise UsageError("--tensor-parallel-size: for --model; of one request say --gqa instead")
    if not model and values["mm_backend"] and not values["vit"]:
        raise UsageError("--mm-encoder-attn-backend: for --model, or together with --vit")
    if values["vit"] and (values["use_mla"] or values["use_sparse"] or values["has_sink"]):
        raise UsageError("--vit asks about a vision tower, which has no MLA, sparsity or sinks")


def _release(text: str) -> str:
    """A release as vLLM writes it: three numbers."""
    try:
        version = Version(text)
    except InvalidVersion:
        raise UsageError(f"--vllm {text!r}: expected a release, such as 0.33.0") from None
    return text if len(version.release) > 2 else f"{text}.0"


def _series(text: str) -> str:
    series = nearest_edition(_release(text))
    if not _release(text).startswith(f"{series}."):
        known = ", ".join(editions())
        raise UsageError(f"--since {text!r}: expected one of {known}")
    return series


def _answer(asked: Asked, model: Model | None, values: dict[str, Any]) -> int:
    """Asks, and prints what came out."""
    if asked.edition != AUTO_EDITION:
        edition_table(asked.edition)
    subject, release, edition, label = _build(asked)
    table = edition_table(edition)
    for warning in variables.warnings(list(asked.platform.variables), edition):
        say(f"warning: {warning}")
    request = {name: True for name in REQUEST_FLAGS if values.get(name)}
    serving, notes = serving_of(values, request)
    serving = _spelled(serving, values, table)
    for note in notes:
        say(note)
    asks = _asks_of_model(model, serving) if model else _asks_of_request(values, serving, request)
    here = asks(table, asked.platform)
    try:
        session = subject.open(asked.platform)
        selections = [next(iter(session.ask([each.ask]))) if each.ask else None for each in here]
        if asked.spec != REFERENCE:
            label = subject_label(asked.spec, session.info.version)
        simulated = session.info.simulated and not asked.release
        label += " (simulated platform)" if simulated else ""
    finally:
        subject.close()
    # What a release is bound to, whichever edition judges it.
    by = Judgement(label, edition_table(edition, release), release, asked.platform)
    explained = [
        _with_comparisons(explain_selection(by, each, selection), _only(asks, place), table, asked)
        for place, (each, selection) in enumerate(zip(here, selections, strict=True))
    ]
    show(explained, model, serving, asked, by)
    return ExitCode.CONFORMANT


def _build(asked: Asked) -> tuple[Subject, str, str, str]:
    """The subject, its release, the edition that judges it, and its name in the answer."""
    if asked.release:
        edition = judging_edition(AUTO_EDITION, asked.release)
        if note := edition_note(edition, asked.release):
            say(f"vLLM {asked.release}: {note}")
        options = Options(edition, asked.simulate, asked.timeout)
        label = f"vLLM {asked.release}, answered by this suite's edition {edition}"
        return parse_subject(REFERENCE, options, say), asked.release, edition, label
    options = Options(asked.edition, asked.simulate, asked.timeout)
    subject = parse_subject(asked.spec, options, say)
    judging = judging_of(subject, asked.edition)
    edition = judging.edition
    if judging.note:
        say(f"{asked.spec}: {judging.note}")
    release = f"{edition}.0" if asked.spec == REFERENCE else subject.release
    return subject, release, edition, subject_label(asked.spec, edition)


def _spelled(serving: Serving, values: dict[str, Any], table: Edition) -> Serving:
    """The options' values as vLLM and the edition have them."""
    per_kind = {
        kind: check_backend(name, table, "backend_per_kind")
        for kind, name in serving.backend_per_kind.items()
    }
    vision = values["vit"]
    return replace(
        serving,
        dtype=spelled(values["dtype"] or "", DTYPE_SPELLINGS).replace("auto", ""),
        kv_cache_dtype=check_cache_dtype(
            values["kv_cache_dtype"] or "auto", table, "--kv-cache-dtype"
        ),
        backend=serving.backend
        and check_backend(serving.backend, table, "--attention-backend", vision=vision),
        backend_per_kind=per_kind,
        mm_backend=serving.mm_backend
        and check_backend(serving.mm_backend, table, "--mm-encoder-attn-backend", vision=True),
    )


# ---- questions -------------------------------------------------------------------------------

REQUEST_FLAGS = (
    *("use_mla", "use_sparse", "has_sink", "use_mm_prefix", "use_per_head_quant_scales"),
    *("use_non_causal", "use_batch_invariant", "use_kv_connector", "use_pcp", "use_dcp"),
    *("use_rswa", "use_adaptive_verification", "encoder_decoder_model"),
)
AsksAll = Any  # (Edition, Platform) -> list[LayerQuestion]


def _asks_of_model(model: Model, serving: Serving) -> AsksAll:
    return lambda table, platform: list(questions(model, serving, table, platform))


def _asks_of_request(values: dict[str, Any], serving: Serving, flags: dict[str, bool]) -> AsksAll:
    """The question of a single request, checked as `select` checks its lines."""
    given: dict[str, Any] = {
        **flags,
        "head_size": values["head_size"],
        "dtype": serving.dtype or None,
        "block_size": serving.block_size,
    }
    shape = {
        "gqa_ratio": values["gqa"],
        "sliding_window": values["sliding_window"],
        "alibi": values["alibi"],
        "max_seq_len": serving.max_model_len or None,
    }
    if not values["vit"]:
        given |= {
            "kv_cache_dtype": serving.kv_cache_dtype,
            "attn_type": values["attn_type"],
            "has_sliding_window": values["sliding_window"] is not None or None,
            "use_kv_connector": serving.kv_connector or None,
            "use_pcp": serving.pcp or None,
            "use_dcp": serving.dcp or None,
            "use_non_causal": serving.non_causal or None,
            "use_adaptive_verification": serving.adaptive_verification or None,
            "use_prefill_decode_attention": serving.prefill_decode or None,
            "run_kv_cache_dtype": values["run_kv_cache_dtype"]
            and spelled(values["run_kv_cache_dtype"], CACHE_SPELLINGS),
        }
    request = {name: value for name, value in given.items() if value is not None}
    backend = serving.mm_backend or serving.backend
    text = {
        "request": request,
        "backend": backend,
        "question": "vit" if values["vit"] else "attention",
    }
    known = list(dict.fromkeys(name for e in editions() for name in edition_table(e).backends))
    vision = ["FLASH_ATTN", "TORCH_SDPA", *known]
    line = streams.parse(1, json.dumps(text), {"attention": known, "vit": vision})
    if line.ask is None:
        raise UsageError(line.problem)
    question = line.ask.question
    shaped = {name: value for name, value in shape.items() if value}

    def asks(table: Edition, _platform: Platform) -> list[LayerQuestion]:
        if isinstance(question, Vit):
            layers = Layers("vision", 1, question.head_size, 1, 1)
            return [LayerQuestion(layers, Ask(question, backend))]
        assert isinstance(question, Request)
        return [single(as_known_to(question, table), backend, shaped)]

    return asks


def _only(asks: AsksAll, place: int) -> Asks:
    """One of the questions."""
    return lambda table, platform: asks(table, platform)[place]


def _with_comparisons(
    explanation: Explanation, asks: Asks, table: Edition, asked: Asked
) -> Explanation:
    """The explanation with what changes of the machine and other releases would do."""
    if explanation.ask is None:
        return explanation
    platform = asked.platform
    later = (
        history(asks, asked.since, table.edition, platform)
        if asked.since
        else (next_release(asks, table, platform),)
    )
    what_if = tuple(changes_of_machine(asks, table, platform))
    return replace(explanation, what_if=what_if, later=later)
