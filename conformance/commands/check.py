"""``rocm-conformance check``: judges a change of vLLM against the commit that it started from."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from conformance.changes.judging import ALWAYS, CELLS, OF_KERNELS, TARGETS, Asked, judge, moves
from conformance.changes.trees import Change, change_of
from conformance.changes.verdict import KERNELS_SHOWN, Verdict, verdict_of
from conformance.commands.options import FORMAT, TIMEOUT, gpus
from conformance.commands.shared import say
from conformance.reports.console import Format
from conformance.results.folder import held
from conformance.suites.registry import SUITES


@click.command()
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--base",
    default="",
    metavar="REF",
    help="What the change goes to: a branch or commit, with which HEAD has the base in common, or "
    "a folder with another tree. [default: the branch a CI names, else origin's main branch]",
)
@click.option(
    "--cell", "cells", multiple=True, help=f"A cell or pattern. Repeatable. [default: {CELLS}]"
)
@gpus(f"A GPU to ask about. Repeatable. [default: {' '.join(TARGETS)}]")
@click.option(
    "--suite",
    "suites",
    multiple=True,
    type=click.Choice(list(SUITES)),
    help=f"A suite to run. Repeatable. [default: {', '.join(ALWAYS)}; "
    f"{', '.join(OF_KERNELS)} too if anything changed that kernels depend on]",
)
@click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results/check"),
    show_default=True,
    help="Folder for both records, and for the report in its report/.",
)
@TIMEOUT
@FORMAT
def check(
    checkout: Path,
    base: str,
    cells: Sequence[str],
    targets: Sequence[str],
    suites: Sequence[str],
    results: Path,
    timeout: float,
    style: Format,
) -> int:
    """Judge the change that a CHECKOUT of vLLM is, uncommitted files included.

    Both the checkout and its merge base are judged: selection and removal always, quick parity and
    what kernels compile to if anything changed that they depend on. Nothing is built and no GPU is
    needed. The base's record is kept, so that only the change is waited for the next time.

    Exits with 1 only for what the change broke. report/annotation.md says what that is, what moves
    in the selection, and which kernels compile differently.

    \b
    rocm-conformance check path/to/vllm
    rocm-conformance check path/to/vllm --base origin/releases/v0.33.0
    """
    change = change_of(checkout, base, say)
    chosen = tuple(suites) or (*ALWAYS, *(OF_KERNELS if change.code_changed else ()))
    asked = Asked(tuple(cells) or (CELLS,), tuple(targets) or TARGETS, chosen, timeout=timeout)
    say(f"files of vLLM that differ: {len(change.files):,}; suites: {', '.join(chosen)}")
    with held(results):
        judge(change, asked, results, say)
        verdict = verdict_of(change, moves(change, asked), results)
    _print(verdict, change, style)
    say(f"wrote annotation.md, report.html and report.xml to {results / 'report'}/")
    return verdict.code


def _print(verdict: Verdict, change: Change, style: Format) -> None:
    comparison = verdict.built.comparison
    assert comparison is not None
    if style == "markdown":
        sys.stdout.write(verdict.note)
    elif style == "json":
        told = {
            "exit": int(verdict.code),
            "sentence": verdict.sentence,
            "against": change.against,
            "files": list(change.files),
            "baseline": comparison.as_json(),
            "kernels": verdict.kernels,
        }
        click.echo(json.dumps(told, indent=2))
    else:
        moved = verdict.moves or "What moves in the selection could not be found out."
        kernels = [f"{len(verdict.kernels):,} kernels compile differently"]
        kernels += [f"  {line}" for line in verdict.kernels[:KERNELS_SHOWN]]
        blocks = [moved, "\n".join(kernels), "\n".join(comparison.in_lines()), verdict.sentence]
        click.echo("\n\n".join(blocks))
