"""``rocm-conformance diff``: what moves between two builds or editions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from click.core import ParameterSource

from conformance.commands.options import EDITION, FORMAT, GPUS, SEED, SIMULATE, TIMEOUT
from conformance.commands.shared import platform_of, say
from conformance.comparison import differential, outcomes
from conformance.comparison.report import Report
from conformance.comparison.sides import sides
from conformance.config import RunConfig
from conformance.errors import ExitCode, InfrastructureError, UsageError
from conformance.problems.tiers import TIERS
from conformance.requirements.waivers import load_waivers
from conformance.runners import local, processors
from conformance.runners.preparation import settle_all
from conformance.runners.progress import ProgressLine

SELECTION = "selection"
SUITES = (SELECTION, "parity", "codegen")
# Options that say something of selections alone, by the names of their parameters.
OF_SELECTION = {
    "aiter": "--aiter",
    "flash_attn": "--flash-attn",
    "env": "--env",
    "sweep": "--sweep",
}


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
    default=min(processors.usable(), 8),
    help="[default: one per CPU, 8 at most]",
)
@click.option(
    "--suite",
    type=click.Choice(SUITES),
    default=SELECTION,
    show_default=True,
    help="Compare what the builds select, or what they fail in another suite.",
)
@click.option(
    "--device",
    default="interpreter",
    show_default=True,
    help="Where kernels run; for --suite parity.",
)
@click.option(
    "--problems",
    type=click.Choice(list(TIERS)),
    default="quick",
    show_default=True,
    help="How many attention problems; for --suite parity.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if anything differs.")
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
    suite: str,
    device: str,
    problems: str,
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

    With --suite parity or codegen the two builds run that suite instead, and what fails in one and
    not in the other is listed: new faults apart from those that waivers know, and kernels that
    spill more registers.

    Exits with 0, or with --exit-code with 1 if any selection or reason differs, or any fault is one
    build's alone.

    \b
    rocm-conformance diff 0.32 0.33
    rocm-conformance diff vllm==0.32.0 vllm==0.33.0 --target gfx942 --format markdown
    rocm-conformance diff 0.22 0.23 --target gfx950 --aiter --env VLLM_ROCM_USE_AITER=1
    rocm-conformance diff --exit-code reference vllm==0.33.0
    rocm-conformance diff --suite parity vllm==0.32.0 vllm==0.33.0
    rocm-conformance diff --suite codegen --target gfx942 vllm==0.32.0 vllm==0.33.0
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
    if suite != SELECTION:
        _refuse_selections_options(suite)
        config = replace(
            config, suites=(suite,), targets=tuple(targets), device=device, tier=problems
        )
        return _of_suite(config, (side_a, side_b), processes, style, exit_code=exit_code)
    scope = differential.Scope(tuple(targets), aiter, flash_attn, _variables(env))
    both = sides(config, say)
    with ProgressLine() as line:
        found = differential.run(config, both, scope, processes, line.show)
    _print(Report(both, found), style)
    differs = exit_code and found.differing
    return ExitCode.NOT_CONFORMANT if differs else ExitCode.CONFORMANT


def _refuse_selections_options(suite: str) -> None:
    """Refuses options that say something of selections alone.

    Raises:
        UsageError: names the option.
    """
    context = click.get_current_context()
    for name, option in OF_SELECTION.items():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"{option} is about selections, and --suite {suite} makes none")


def _of_suite(
    config: RunConfig, both: tuple[str, str], processes: int, style: str, *, exit_code: bool
) -> int:
    """Runs a suite on both builds, and prints what fails in one and not in the other.

    Raises:
        InfrastructureError: a build cannot be prepared, or nothing was judged in both.
    """
    if both[0] == both[1]:
        raise UsageError(f"{both[0]} and {both[1]} are one build: name two")
    with TemporaryDirectory(prefix="rocm-conformance-") as folder, ProgressLine() as line:
        outcome = local.run(
            settle_all(config, say),
            Path(folder),
            load_waivers(),
            processes=processes,
            on_progress=line.show,
        )
    found = outcomes.compare(outcome.cases, both, config.suites[0])
    if style == "json":
        click.echo(json.dumps(found.as_json(), indent=2))
    else:
        click.echo(found.as_markdown() if style == "markdown" else found.in_words())
    if not found.compared:
        raise InfrastructureError(f"not one case was judged in both {both[0]} and {both[1]}")
    return ExitCode.NOT_CONFORMANT if exit_code and found.differ else ExitCode.CONFORMANT


def _variables(env: Sequence[str]) -> tuple[tuple[str, str], ...] | None:
    """The variables of ``--env``; None where the option is not given."""
    return platform_of("gfx942", False, False, env).env if env else None


def _print(report: Report, style: str) -> None:
    if style == "json":
        click.echo(json.dumps(report.as_json(), indent=2))
    else:
        click.echo(report.as_markdown() if style == "markdown" else report.in_words())
