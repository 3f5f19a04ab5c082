"""``rocm-conformance diff``: two subjects on every target and flag."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import click

from conformance.commands import differential
from conformance.commands.options import EDITION, FORMAT, SEED, SIMULATE, TIMEOUT
from conformance.commands.shared import say
from conformance.config import RunConfig
from conformance.errors import ExitCode
from conformance.matrix.targets import target as known_target
from conformance.runners.preparation import settle_all
from conformance.runners.progress import ProgressLine


@click.command()
@click.argument("subject_a")
@click.argument("subject_b")
@EDITION
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="Ask about this GPU alone. Repeatable. [default: all]",
)
@SIMULATE
@TIMEOUT
@click.option(
    "--sweep",
    type=click.IntRange(min=1),
    default=1_000_000,
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
@FORMAT
def diff(
    subject_a: str,
    subject_b: str,
    edition: str,
    targets: Sequence[str],
    simulate: str,
    timeout: float,
    sweep: int,
    seed: int,
    processes: int,
    style: str,
) -> int:
    """Compare what two subjects select on every target, with and without aiter, for all flags.

    Differences are grouped by requirement.

    Exits 0 if every selection and every reason agrees, 1 if any differs.

    \b
    rocm-conformance diff reference vllm==0.19.0
    rocm-conformance diff reference vllm==0.33.0 --target gfx942 --target gfx1201
    rocm-conformance diff --edition 0.19 vllm==0.18.1 vllm==0.19.0
    """
    config = RunConfig(
        subjects=(subject_a, subject_b),
        cells=("*",),
        edition=edition,
        sweep=sweep,
        seed=seed,
        simulate=simulate,
        timeout=timeout,
    )
    for name in targets:
        known_target(name)
    return compare(config, processes, style, targets)


def compare(config: RunConfig, processes: int, style: str, targets: Sequence[str] = ()) -> int:
    """Runs the comparison and prints it."""
    settled = settle_all(config, say)
    with ProgressLine() as line:
        found = differential.run(settled, processes, line.show, targets)
    if style == "json":
        click.echo(json.dumps(found.as_json(), indent=2))
    else:
        click.echo(found.as_markdown() if style == "markdown" else found.in_words())
    return ExitCode.NOT_CONFORMANT if found.wrong else ExitCode.CONFORMANT
