"""The report's tables of kernel resources, beside the stored baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from conformance.reports.merge import Merged
from conformance.reports.safe_text import plain
from conformance.results.codegen_table import COLUMNS, Row, load_baseline, rows_of, table_of


@dataclass(frozen=True)
class Line:
    """One kernel; ``cells`` are its numbers, each with the baseline's number if that differs."""

    configuration: str
    kernel: str
    cells: tuple[tuple[str, str], ...]
    spills: bool
    new: bool

    @property
    def differs(self) -> bool:
        return self.new or any(was for _, was in self.cells)


@dataclass(frozen=True)
class Group:
    """A subject's kernels on one target; all tables have the same ``columns``."""

    subject: str
    target: str
    lines: tuple[Line, ...]
    columns: tuple[str, ...] = field(default=COLUMNS)

    @property
    def spilling(self) -> int:
        return sum(line.spills for line in self.lines)

    @property
    def differing(self) -> int:
        return sum(line.differs for line in self.lines)


def rows(merged: Merged) -> list[Row]:
    """Every row of the merged results."""
    return list(rows_of(table_of(merged.cases), load_baseline()))


def groups(found: Sequence[Row]) -> list[Group]:
    """The rows grouped by subject and target, in the order of the run."""
    return [
        Group(plain(subject), plain(target), tuple(map(_line, of)))
        for (subject, target), of in groupby(found, lambda row: (row.subject, row.target))
    ]


def _line(row: Row) -> Line:
    cells = tuple((f"{row.numbers[c]:,}", _was(row, c)) for c in COLUMNS)
    return Line(
        plain(row.configuration), plain(row.kernel), cells, row.numbers["spills"] > 0, row.new
    )


def _was(row: Row, column: str) -> str:
    was = row.changes.get(column)
    return "" if was is None else f"{was:,}"
