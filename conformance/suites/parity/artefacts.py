"""Files about a finished run: what problems asked, and what ran of emulated kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from conformance.results import SMALLEST, CaseResult, emulation_coverage, markdown
from conformance.suites.parity.coverage import AXIS, REQUIREMENT

SPACE_COLUMNS = ("subject", "backend", "axis", "problems by value")


def artefacts(cases: Sequence[CaseResult], folder: Path) -> Iterator[str]:
    """Writes ``problem-coverage.md``, and if any kernel was emulated ``isa-coverage.md``,
    ``isa-lines.txt`` and ``isa-coverage.info``.

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
    yield from _line_files(cases, folder)


def _line_files(cases: Sequence[CaseResult], folder: Path) -> Iterator[str]:
    """Writes which source lines of kernels were executed: for lcov's tools, and to be read."""
    lines = emulation_coverage.lines_of(cases)
    if not lines:
        return
    trace, shown = folder / "isa-coverage.info", folder / "isa-lines.txt"
    trace.write_text(emulation_coverage.lcov(lines), encoding="utf-8")
    shown.write_text(emulation_coverage.listing(lines, _source), encoding="utf-8")
    files = f"{len(lines)} file{'' if len(lines) == 1 else 's'}"
    yield f"source lines of kernels that were executed, in {files}: {shown}; for lcov: {trace}"


def _source(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _space_rows(case: CaseResult) -> Iterator[tuple[str, str, str, str]]:
    """A row for each axis: how many problems have which value."""
    by_axis: dict[str, list[str]] = {}
    for name, count in case.counts.items():
        if name.startswith(AXIS):
            axis, _, value = name.removeprefix(AXIS).partition("=")
            by_axis.setdefault(axis, []).append(f"{value} ({count})")
    for axis, values in by_axis.items():
        yield case.subject, case.backend, axis, ", ".join(values)
