"""How much of each kernel's machine code the problems of an emulated run executed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from conformance.results import CaseResult, emulation_coverage, markdown


def artefacts(cases: Sequence[CaseResult], folder: Path) -> Iterator[str]:
    """Writes ``isa-coverage.md``, if any kernel was emulated."""
    coverage = emulation_coverage.coverage_of(cases)
    if not coverage:
        return
    path = folder / "isa-coverage.md"
    rows = emulation_coverage.rows(coverage)
    path.write_text(markdown.table(emulation_coverage.COLUMNS, rows) + "\n", encoding="utf-8")
    least = min(coverage, key=lambda kernel: kernel.share)
    sentence = emulation_coverage.sentence(coverage)
    yield f"{sentence}; least of {least.kernel}, {least.share:.1%}: {path}"
