"""``rocm-conformance report``: merges all results below a folder into one report."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from conformance.commands.options import FORMAT
from conformance.commands.shared import say
from conformance.errors import ExitCode, UsageError
from conformance.reports.baseline import Comparison
from conformance.reports.console import Format, render, show
from conformance.reports.report_files import Built, build
from conformance.requirements import all_requirements


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the report goes. [default: FOLDER/report]",
)
@click.option(
    "--expect-cells",
    multiple=True,
    metavar="CELL",
    help="A cell or pattern that must have results; '*' is the whole matrix. Repeatable.",
)
@click.option(
    "--expect-results",
    multiple=True,
    metavar="BELOW",
    help="A subfolder that must contain a run's results.jsonl. Repeatable.",
)
@click.option(
    "--baseline",
    default="",
    metavar="OLD",
    help="Compare with an earlier build: a folder, a results.jsonl, or its artifact's address.",
)
@click.option(
    "--new-only",
    is_flag=True,
    help="With --baseline: exit 1 for new failures alone, not for those that were there before.",
)
@FORMAT
def report(
    folder: Path,
    output: Path | None,
    expect_cells: Sequence[str],
    expect_results: Sequence[str],
    baseline: str,
    new_only: bool,
    style: Format,
) -> int:
    """Merge all results below FOLDER into one page, one JUnit file and one build annotation.

    Reads every results*.jsonl and junit-*.xml of any number of cells, subjects and shards, and
    writes report.html, report.xml (in parts of 5,000 results) and annotation.md. Missing, broken
    or duplicate results are reported as errors of their cell, with exit code 75.

    Cases link to their CI job if a job.json ({"id", "url", "label"}) lies beside the results or
    the file or folder name contains the job id; BUILDKITE_BUILD_URL is the build's address.
    """
    if new_only and not baseline:
        raise UsageError("--new-only: new since when? Name an earlier build with --baseline")
    target = output or folder / "report"
    build_url = os.environ.get("BUILDKITE_BUILD_URL", "")
    built = build(folder, target, expect_cells, build_url, expect_results, baseline)
    if style == "markdown":
        sys.stdout.write(built.annotation)
    elif style == "json" and built.comparison is not None:
        summary = json.loads(render(built.merged.run, "json", requirements=all_requirements()))
        click.echo(json.dumps({**summary, "baseline": built.comparison.as_json()}, indent=2))
    else:
        if built.comparison is not None:
            click.echo("\n".join(_changes(built.comparison)))
        show(built.merged.run, style, sys.stdout, all_requirements())
    parts = sum(path.suffix == ".xml" for path in built.paths)
    junit = "report.xml" + (f" in {parts} parts" if parts > 1 else "")
    read = len(built.merged.files)
    say(f"read {read} results files; wrote {junit}, annotation.md and report.html to {target}/")
    return _exit_code(built, new_only=new_only)


def _changes(comparison: Comparison) -> Iterator[str]:
    """What changed, for a terminal; what was fixed and what still fails is only counted."""
    yield comparison.sentence
    for each in comparison.changes:
        if each.change in ("new", "flaky", "without verdict"):
            about = f"{each.requirement or 'no requirement'}  {each.title}"
            yield f"  {each.change}: {about}, {each.cases:,} results in {len(each.cells)} cells"
            yield f"      {each.first}"
    yield ""


def _exit_code(built: Built, *, new_only: bool) -> ExitCode:
    """The report's exit code; with ``new_only`` failures of the baseline's are let pass.

    What is flaky has failed in this build too. Without anything to compare there is no verdict.
    """
    code, comparison = built.merged.exit_code, built.comparison
    if not new_only or comparison is None or code is not ExitCode.NOT_CONFORMANT:
        return code
    if not comparison.compared:
        return ExitCode.INFRASTRUCTURE
    if comparison.count("new") or comparison.count("flaky"):
        return code
    no_verdict = built.merged.problems or comparison.count("without verdict")
    return ExitCode.INFRASTRUCTURE if no_verdict else ExitCode.CONFORMANT
