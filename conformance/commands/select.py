"""``rocm-conformance select``: requests as JSON lines in, selections out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from conformance.commands.options import EDITION, SIMULATE, TIMEOUT, platform_options
from conformance.commands.shared import platform_of, say
from conformance.errors import ExitCode
from conformance.matrix.requests import Platform
from conformance.runners.preparation import judging_of
from conformance.subjects import request_lines as streams
from conformance.subjects.base import Options
from conformance.subjects.reference import edition_table
from conformance.subjects.spellings import SPELLINGS, parse_subject
from vllm_editions import AUTO_EDITION


@click.command()
@click.option("--subject", default="reference", show_default=True, help=SPELLINGS)
@platform_options
@EDITION
@SIMULATE
@TIMEOUT
@click.argument("source", type=click.File(encoding="utf-8", errors="replace"), default="-")
def select(
    subject: str,
    target: str | None,
    aiter: bool,
    flash_attn: bool,
    env: Sequence[str],
    edition: str,
    simulate: str,
    timeout: float,
    source: Any,
) -> int:
    """Answer requests, one JSON object per line from SOURCE or stdin, with one selection per line.

    \b
    echo '{"id": 1, "request": {"head_size": 128, "has_sink": true}}' |
        rocm-conformance select --target gfx942 --aiter

    A request has the fields of vLLM's AttentionSelectorConfig. Missing fields default to a plain
    decoder request (head size 128, float16, KV auto, block 16). "backend" asks for a backend
    explicitly. "question" may be "paged_attention" (ROCM_ATTN's decode kernel) or "vit".
    """
    platform = platform_of(target, aiter, flash_attn, env)
    return answer(subject, platform, edition, simulate, timeout, source)


def answer(
    spec: str,
    platform: Platform,
    edition: str,
    simulate: str,
    timeout: float,
    source: Iterable[str],
) -> int:
    """Answers a stream of requests; exits 2 if any line was bad."""
    if edition != AUTO_EDITION:
        edition_table(edition)
    subject = parse_subject(spec, Options(edition, simulate, timeout), say)
    judging = judging_of(subject, edition)
    if judging.note:
        say(f"{spec}: {judging.note}")
    table = edition_table(judging.edition)
    backends = {
        "attention": list(table.backends),
        "paged_attention": [],
        "vit": [*table.vit.explicit, *table.backends],
    }
    bad = False
    try:
        session = subject.open(platform)
        for answer in streams.answer_lines(source, session, backends):
            bad = bad or answer.get("error") == "bad_request"
            sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    finally:
        subject.close()
    return ExitCode.USAGE if bad else ExitCode.CONFORMANT
