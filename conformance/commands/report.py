"""``rocm-conformance report``: merges all results below a folder into one report."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from conformance.commands.options import FORMAT
from conformance.commands.shared import say
from conformance.errors import UsageError
from conformance.reports.console import Format, render, show
from conformance.reports.report_files import Earlier, Found, build
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
    "--history",
    multiple=True,
    metavar="BUILD",
    help="An earlier build for the trend: a folder, a file or an address, or a folder with one "
    "build in each subfolder. Repeatable.",
)
@click.option(
    "--new-only",
    is_flag=True,
    help="With --baseline: exit 1 for new failures alone, not for those that were there before.",
)
@click.option(
    "--test-engine",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the results for Buildkite's Test Engine, with tags, into this folder too.",
)
@FORMAT
def report(
    folder: Path,
    output: Path | None,
    expect_cells: Sequence[str],
    expect_results: Sequence[str],
    baseline: str,
    history: Sequence[str],
    new_only: bool,
    test_engine: Path | None,
    style: Format,
) -> int:
    """Merge all results below FOLDER into one page, one JUnit file and one build annotation.

    Reads every results*.jsonl and junit-*.xml of any number of cells, subjects and shards, and
    writes report.html, report.xml (in parts of 5,000 results) and annotation.md. Missing, broken
    or duplicate results are reported as errors of their cell, with exit code 75.

    With --baseline what changed since an earlier build comes first: new failures, flaky ones, what
    still fails, what was fixed or waived, what is no longer asked. --history adds the trend.

    Cases link to their CI job if a job.json ({"id", "url", "label"}) lies beside the results or
    the file or folder name contains the job id; BUILDKITE_BUILD_URL is the build's address.
    """
    if new_only and not baseline:
        raise UsageError("--new-only: new since when? Name an earlier build with --baseline")
    target = output or folder / "report"
    built = build(
        folder,
        target,
        expect_cells,
        os.environ.get("BUILDKITE_BUILD_URL", ""),
        expect_results,
        Earlier(baseline, history=tuple(history)),
        test_engine,
    )
    if style == "markdown":
        sys.stdout.write(built.annotation)
    elif style == "json" and built.found != Found():
        summary = json.loads(render(built.merged.run, "json", requirements=all_requirements()))
        click.echo(json.dumps({**summary, **built.found.as_json()}, indent=2))
    else:
        if built.comparison is not None:
            click.echo("\n".join([*built.comparison.in_lines(), ""]))
        if built.found.trend is not None:
            click.echo(f"Trend: {built.found.trend.sentence}\n")
        show(built.merged.run, style, sys.stdout, all_requirements())
    parts = sum(path.suffix == ".xml" for path in built.paths)
    junit = "report.xml" + (f" in {parts} parts" if parts > 1 else "")
    read = len(built.merged.files)
    say(f"read {read} results files; wrote {junit}, annotation.md and report.html to {target}/")
    return built.exit_code(new_only=new_only)
