"""``rocm-conformance explain``: why one request gets the backend it gets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console

from conformance.commands.explanation import as_markdown, render
from conformance.commands.explanation import explain as explain_selection
from conformance.commands.options import EDITION, FORMAT, SIMULATE, TIMEOUT, platform_options
from conformance.commands.shared import platform_of, say
from conformance.errors import ExitCode, UsageError
from conformance.matrix.requests import Platform
from conformance.requirements import requirements_of
from conformance.requirements.attribution import rules_on
from conformance.results import subject_label
from conformance.runners.preparation import judging_of
from conformance.subjects import request_lines as streams
from conformance.subjects.base import Options
from conformance.subjects.reference import edition_table, selector_on
from conformance.subjects.spellings import SPELLINGS, parse_subject
from vllm_editions import AUTO_EDITION


@click.command()
@click.option("--subject", default="reference", show_default=True, help=SPELLINGS)
@platform_options
@EDITION
@SIMULATE
@TIMEOUT
@click.option("--backend", help="Ask for this backend explicitly.")
@click.option("--head-size", type=int, help="[default: 128]")
@click.option("--dtype", help="Dtype of the query. [default: float16]")
@click.option("--kv-cache-dtype", help="[default: auto]")
@click.option("--block-size", type=int, help="Tokens per cache block. [default: 16]")
@click.option("--attn-type", help="[default: decoder]")
@click.option("--mla", "use_mla", is_flag=True, help="Multi-head latent attention.")
@click.option("--sparse", "use_sparse", is_flag=True, help="Sparse attention.")
@click.option("--sinks", "has_sink", is_flag=True, help="Attention sinks.")
@click.option("--mm-prefix", "use_mm_prefix", is_flag=True, help="Multimodal prefix attention.")
@click.option(
    "--per-head-quant-scales",
    "use_per_head_quant_scales",
    is_flag=True,
    help="The quantised cache has one scale per head.",
)
@click.option("--sliding-window", "has_sliding_window", is_flag=True, help="A sliding window.")
@click.option("--non-causal", "use_non_causal", is_flag=True, help="Attention is not causal.")
@click.option(
    "--batch-invariant", "use_batch_invariant", is_flag=True, help="VLLM_BATCH_INVARIANT."
)
@click.option("--kv-connector", "use_kv_connector", is_flag=True, help="A KV connector is in use.")
@click.option("--pcp", "use_pcp", is_flag=True, help="Prefill context parallelism.")
@click.option("--dcp", "use_dcp", is_flag=True, help="Decode context parallelism.")
@click.option("--rswa", "use_rswa", is_flag=True, help="The model has an R-SWA window.")
@click.option(
    "--adaptive-verification",
    "use_adaptive_verification",
    is_flag=True,
    help="Adaptive verification of speculated tokens.",
)
@click.option(
    "--encoder-decoder", "encoder_decoder_model", is_flag=True, help="An encoder-decoder model."
)
@click.option(
    "--run-kv-cache-dtype", help="The run's, if this layer's is another one. [default: auto]"
)
@FORMAT
def explain(
    subject: str,
    target: str,
    aiter: bool,
    flash_attn: bool,
    env: Sequence[str],
    edition: str,
    simulate: str,
    timeout: float,
    backend: str | None,
    style: str,
    **fields: Any,
) -> int:
    """Explain which backend a request gets on a platform, and why not the others.

    \b
    rocm-conformance explain --target gfx942 --aiter --env VLLM_ROCM_USE_AITER=1 --sinks
    rocm-conformance explain --subject vllm==0.19.0 --target gfx90a --mla --head-size 576
    """
    platform = platform_of(target, aiter, flash_attn, env)
    given = {name: value for name, value in fields.items() if value is not None}
    request = {name: value for name, value in given.items() if value is not False}
    return ask_and_explain(subject, platform, edition, simulate, timeout, request, backend, style)


def ask_and_explain(
    spec: str,
    platform: Platform,
    edition: str,
    simulate: str,
    timeout: float,
    request: dict[str, Any],
    backend: str | None,
    style: str,
) -> int:
    """Asks a subject and prints the explanation of its answer."""
    if edition != AUTO_EDITION:
        edition_table(edition)
    subject = parse_subject(spec, Options(edition, simulate, timeout), say)
    judging = judging_of(subject, edition)
    edition = judging.edition
    if judging.note:
        say(f"{spec}: {judging.note}")
    table = edition_table(edition)
    text = json.dumps({"request": request, "backend": backend})
    line = streams.parse(1, text, {"attention": list(table.backends)})
    if line.ask is None:
        raise UsageError(line.problem)
    try:
        session = subject.open(platform)
        (selection,) = session.ask([line.ask])
        name = subject_label(spec, session.info.version)
        name += " (simulated platform)" if session.info.simulated else ""
        rules = rules_on(platform, requirements_of(edition), subject.release)
    finally:
        subject.close()
    explanation = explain_selection(
        name,
        platform,
        line.ask,
        selection,
        selector_on(table, platform),
        rules,
        requirements_of(edition),
    )
    if style == "json":
        click.echo(json.dumps(explanation.as_json(), indent=2))
    elif style == "markdown":
        click.echo(as_markdown(explanation))
    else:
        render(Console(), explanation)
    return ExitCode.CONFORMANT
