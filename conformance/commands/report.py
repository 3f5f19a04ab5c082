"""``rocm-conformance report``: merges all results below a folder into one report."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from conformance.commands.options import FORMAT
from conformance.commands.shared import say
from conformance.reports.console import Format, show
from conformance.reports.report_files import build
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
@FORMAT
def report(
    folder: Path,
    output: Path | None,
    expect_cells: Sequence[str],
    expect_results: Sequence[str],
    style: Format,
) -> int:
    """Merge all results below FOLDER into one page, one JUnit file and one build annotation.

    Reads every results*.jsonl and junit-*.xml of any number of cells, subjects and shards, and
    writes report.html, report.xml (in parts of 5,000 results) and annotation.md. Missing, broken
    or duplicate results are reported as errors of their cell, with exit code 75.

    Cases link to their CI job if a job.json ({"id", "url", "label"}) lies beside the results or
    the file or folder name contains the job id; BUILDKITE_BUILD_URL is the build's address.
    """
    target = output or folder / "report"
    build_url = os.environ.get("BUILDKITE_BUILD_URL", "")
    built = build(folder, target, expect_cells, build_url, expect_results)
    if style == "markdown":
        sys.stdout.write(built.annotation)
    else:
        show(built.merged.run, style, sys.stdout, all_requirements())
    parts = sum(path.suffix == ".xml" for path in built.paths)
    junit = "report.xml" + (f" in {parts} parts" if parts > 1 else "")
    read = len(built.merged.files)
    say(f"read {read} results files; wrote {junit}, annotation.md and report.html to {target}/")
    return built.merged.exit_code
