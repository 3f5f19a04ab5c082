"""Merges the results below a folder and writes the report's files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from conformance.errors import InfrastructureError, UsageError
from conformance.matrix.stacks import match_cells
from conformance.reports import codegen_tables as compiled
from conformance.reports.annotation import annotation
from conformance.reports.baseline import Comparison, compare, opened
from conformance.reports.collect import collect
from conformance.reports.html_page import page
from conformance.reports.junit_writer import write_merged
from conformance.reports.merge import Merged, merge
from conformance.requirements import all_requirements
from conformance.results import codegen_table


@dataclass(frozen=True)
class Built:
    """A written report: its content, its annotation and its files."""

    merged: Merged
    annotation: str
    paths: tuple[Path, ...]
    comparison: Comparison | None = None


def build(
    folder: Path,
    output: Path,
    expect_cells: Sequence[str] = (),
    build_url: str = "",
    expect_results: Sequence[str] = (),
    baseline: str = "",
) -> Built:
    """Merge the results below ``folder`` into ``report.html``, ``report*.xml``, ``annotation.md``.

    If kernels were compiled, their resources are written to ``codegen.md``.

    ``expect_cells`` are names or patterns of cells; ``build_url`` is the build's page;
    ``expect_results`` are folders below ``folder`` that must contain a run's results;
    ``baseline`` is an earlier build to compare with.

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
    comparison = None
    if baseline:
        with opened(baseline) as before:
            comparison = compare(collected, before, baseline, known)
    note = annotation(merged, known, build_url=build_url, comparison=comparison)
    try:
        paths = write_merged(chain(merged.cases, merged.problem_cases()), output)
        paths.append(_write(output / "annotation.md", note))
        if found := compiled.rows(merged):
            paths.append(_write(output / "codegen.md", codegen_table.as_markdown(found)))
        paths.append(_write(output / "report.html", page(merged, known, build_url, comparison)))
    except OSError as error:
        raise InfrastructureError(
            f"cannot write the report to {output}: {error.strerror or error}; "
            "name a writable folder with free space"
        ) from error
    return Built(merged, note, tuple(paths), comparison)


def _write(path: Path, text: str) -> Path:
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path
