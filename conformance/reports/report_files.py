"""Merges the results below a folder and writes the report's files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from conformance.errors import ExitCode, InfrastructureError, UsageError
from conformance.matrix.stacks import match_cells
from conformance.reports import codegen_tables as compiled
from conformance.reports.annotation import annotation
from conformance.reports.baseline import BROKEN, Comparison, compare
from conformance.reports.collect import Collected, collect
from conformance.reports.earlier_builds import opened
from conformance.reports.history import Trend, trend
from conformance.reports.html_page import page
from conformance.reports.junit_writer import write_merged
from conformance.reports.merge import Merged, merge
from conformance.reports.test_engine import write_test_engine
from conformance.requirements import all_requirements
from conformance.results import codegen_table


@dataclass(frozen=True)
class Earlier:
    """Earlier builds to set a report beside: each a folder, a file, an archive or an address.

    ``baseline`` is compared with case by case, and ``called`` so, "" by its own name; ``history``
    are the builds of the trend.
    """

    baseline: str = ""
    called: str = ""
    history: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What earlier builds say of a report."""

    comparison: Comparison | None = None
    trend: Trend | None = None

    def as_json(self) -> dict[str, Any]:
        """What there is of it, for the summary's JSON."""
        found: dict[str, Any] = {}
        if self.comparison is not None:
            found["baseline"] = self.comparison.as_json()
        if self.trend is not None:
            found["history"] = self.trend.as_json()
        return found


@dataclass(frozen=True)
class Built:
    """A written report: its content, its annotation and its files."""

    merged: Merged
    annotation: str
    paths: tuple[Path, ...]
    found: Found = field(default_factory=Found)

    @property
    def comparison(self) -> Comparison | None:
        return self.found.comparison

    def exit_code(self, *, new_only: bool = False) -> ExitCode:
        """The report's exit code; with ``new_only`` failures of the baseline's are let pass.

        What is flaky has failed in this build too. Without anything to compare there is no verdict.
        """
        code, comparison = self.merged.exit_code, self.comparison
        if not new_only or comparison is None or code is not ExitCode.NOT_CONFORMANT:
            return code
        if not comparison.compared:
            return ExitCode.INFRASTRUCTURE
        if any(map(comparison.count, BROKEN)):
            return code
        no_verdict = self.merged.problems or comparison.count("without verdict")
        return ExitCode.INFRASTRUCTURE if no_verdict else ExitCode.CONFORMANT


def build(
    folder: Path,
    output: Path,
    expect_cells: Sequence[str] = (),
    build_url: str = "",
    expect_results: Sequence[str] = (),
    earlier: Earlier | None = None,
    test_engine: Path | None = None,
) -> Built:
    """Merge the results below ``folder`` into ``report.html``, ``report*.xml``, ``annotation.md``.

    If kernels were compiled, their resources are written to ``codegen.md``.

    ``expect_cells`` are names or patterns of cells; ``build_url`` is the build's page;
    ``expect_results`` are folders below ``folder`` that must contain a run's results;
    ``test_engine`` is a folder for the files of Buildkite's Test Engine.

    Raises:
        UsageError: ``folder`` is not a folder, or a pattern matches no cell.
        InfrastructureError: ``output`` cannot be written.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: give the one that holds the runs' results")
    expected = [cell.name for cell in match_cells(expect_cells)] if expect_cells else []
    collected = collect(folder.resolve(), expect_results)
    merged = merge(collected, expected)
    known = all_requirements()
    found = _found(collected, earlier or Earlier())
    note = annotation(
        merged, known, build_url=build_url, comparison=found.comparison, trend=found.trend
    )
    try:
        paths = write_merged(chain(merged.cases, merged.problem_cases()), output)
        paths.append(_write(output / "annotation.md", note))
        if kernels := compiled.rows(merged):
            paths.append(_write(output / "codegen.md", codegen_table.as_markdown(kernels)))
        html = page(merged, known, build_url, found.comparison, found.trend)
        paths.append(_write(output / "report.html", html))
        if test_engine is not None:
            paths += write_test_engine(merged.entries, test_engine)
    except OSError as error:
        raise InfrastructureError(
            f"cannot write the report to {output}: {error.strerror or error}; "
            "name a writable folder with free space"
        ) from error
    return Built(merged, note, tuple(paths), found)


def _found(collected: Collected, earlier: Earlier) -> Found:
    known = all_requirements()
    comparison = None
    if earlier.baseline:
        with opened(earlier.baseline) as before:
            called = earlier.called or earlier.baseline
            comparison = compare(collected, before, called, known)
    return Found(comparison, trend(collected, earlier.history, known))


def _write(path: Path, text: str) -> Path:
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path
