"""``rocm-conformance diff``: what moves between two builds or editions."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import click

from conformance.commands.options import EDITION, FORMAT, GPUS, SEED, SIMULATE, TIMEOUT
from conformance.commands.shared import platform_of, say
from conformance.comparison import differential
from conformance.comparison.report import Report
from conformance.comparison.sides import sides
from conformance.config import RunConfig
from conformance.errors import ExitCode
from conformance.runners.progress import ProgressLine


@click.command()
@click.argument("side_a", metavar="A")
@click.argument("side_b", metavar="B")
@EDITION
@GPUS
@click.option(
    "--aiter/--no-aiter",
    "aiter",
    default=None,
    help="aiter is installed, or is not. [default: both]",
)
@click.option("--flash-attn", is_flag=True, help="flash_attn is installed on every platform.")
@click.option(
    "--env",
    "env",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set these variables and no others. Repeatable. [default: every setting of all that "
    "either side's selector reads]",
)
@SIMULATE
@TIMEOUT
@click.option(
    "--sweep",
    type=click.IntRange(min=1),
    default=200_000,
    show_default=True,
    help="Requests in all.",
)
@SEED
@click.option(
    "-n",
    "--processes",
    type=click.IntRange(min=1),
    default=min(os.cpu_count() or 1, 8),
    help="[default: one per CPU, 8 at most]",
)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if any answer differs.")
@FORMAT
def diff(
    side_a: str,
    side_b: str,
    edition: str,
    targets: Sequence[str],
    aiter: bool | None,
    flash_attn: bool,
    env: Sequence[str],
    simulate: str,
    timeout: float,
    sweep: int,
    seed: int,
    processes: int,
    exit_code: bool,
    style: str,
) -> int:
    """Show what moves from A to B: which requests select another backend, how many, and why.

    A and B are subjects, or editions such as 0.32: the reference selector answers for an edition,
    so that two of them need no vLLM and take seconds. Both sides are asked the same random
    requests, with every field, KV-cache dtype and backend that either of them knows.

    Differences are grouped by cause: the order of candidates, a capability of a backend, a new
    check, a variable, or words only. Each cause comes with its simplest request and, where
    editions explain it, with the lines of the release's source.

    Exits with 0, or with --exit-code with 1 if any selection or reason differs.

    \b
    rocm-conformance diff 0.32 0.33
    rocm-conformance diff vllm==0.32.0 vllm==0.33.0 --target gfx942 --format markdown
    rocm-conformance diff 0.22 0.23 --target gfx950 --aiter --env VLLM_ROCM_USE_AITER=1
    rocm-conformance diff --exit-code reference vllm==0.33.0
    """
    config = RunConfig(
        subjects=(side_a, side_b),
        cells=("*",),
        edition=edition,
        sweep=sweep,
        seed=seed,
        simulate=simulate,
        timeout=timeout,
    )
    scope = differential.Scope(tuple(targets), aiter, flash_attn, _variables(env))
    both = sides(config, say)
    with ProgressLine() as line:
        found = differential.run(config, both, scope, processes, line.show)
    _print(Report(both, found), style)
    differs = exit_code and found.differing
    return ExitCode.NOT_CONFORMANT if differs else ExitCode.CONFORMANT


def _variables(env: Sequence[str]) -> tuple[tuple[str, str], ...] | None:
    """The variables of ``--env``; None where the option is not given."""
    return platform_of("gfx942", False, False, env).env if env else None


def _print(report: Report, style: str) -> None:
    if style == "json":
        click.echo(json.dumps(report.as_json(), indent=2))
    else:
        click.echo(report.as_markdown() if style == "markdown" else report.in_words())
