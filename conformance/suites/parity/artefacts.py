"""Files about a finished run: what problems asked, and what ran of emulated kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from conformance.results import SMALLEST, CaseResult, emulation_coverage, markdown
from conformance.suites.parity.coverage import AXIS, REQUIREMENT

SPACE_COLUMNS = ("subject", "backend", "axis", "problems by value")


def artefacts(cases: Sequence[CaseResult], folder: Path) -> Iterator[str]:
    """Writes ``problem-coverage.md``, and ``isa-coverage.md`` if any kernel was emulated.

    Says where the problems are that others were shrunk to.
    """
    closing = [case for case in cases if case.requirement == REQUIREMENT]
    if closing:
        path = folder / "problem-coverage.md"
        rows = [row for case in closing for row in _space_rows(case)]
        path.write_text(markdown.table(SPACE_COLUMNS, rows) + "\n", encoding="utf-8")
        asked = sum(case.counts.get("problems", 0) for case in closing)
        yield f"what {asked:,} problems reach of the values of each axis: {path}"
    for case in cases:
        if SMALLEST in case.counts:
            yield f"smallest problem with the finding of {case.name}; reproduce: {case.reproduce}"
    coverage = emulation_coverage.coverage_of(cases)
    if not coverage:
        return
    path = folder / "isa-coverage.md"
    rows = emulation_coverage.rows(coverage)
    path.write_text(markdown.table(emulation_coverage.COLUMNS, rows) + "\n", encoding="utf-8")
    least = min(coverage, key=lambda kernel: kernel.share)
    sentence = emulation_coverage.sentence(coverage)
    yield f"{sentence}; least of {least.kernel}, {least.share:.1%}: {path}"


def _space_rows(case: CaseResult) -> Iterator[tuple[str, str, str, str]]:
    """A row for each axis: how many problems have which value."""
    by_axis: dict[str, list[str]] = {}
    for name, count in case.counts.items():
        if name.startswith(AXIS):
            axis, _, value = name.removeprefix(AXIS).partition("=")
            by_axis.setdefault(axis, []).append(f"{value} ({count})")
    for axis, values in by_axis.items():
        yield case.subject, case.backend, axis, ", ".join(values)
