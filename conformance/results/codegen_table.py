"""The table of what compiled kernels take of their targets, and its stored baseline.

A row is one kernel of one configuration on one target. The table comes out of a run's cases, so
that it is in every results file, and a merged report has it whole.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources

from conformance.results import CaseResult, markdown, subject_label

BASELINE = "baseline.json"
COLUMNS = ("vgprs", "agprs", "sgprs", "lds", "spills", "scratch", "code", "occupancy")
Numbers = dict[str, int]
# By subject as reports write it, and by "target | configuration | kernel".
Table = dict[str, dict[str, Numbers]]


@dataclass(frozen=True)
class Row:
    """A kernel of a configuration; ``before`` is the baseline's, ``new`` one it has no row of.

    A subject without a baseline has neither.
    """

    subject: str
    target: str
    configuration: str
    kernel: str
    numbers: Numbers
    before: Numbers
    new: bool

    @property
    def changes(self) -> dict[str, int]:
        """The columns that differ from the baseline, each with what it was."""
        return {c: n for c, n in self.before.items() if n != self.numbers[c]}


def table_of(cases: Iterable[CaseResult]) -> Table:
    """The table of a run: from CGN-001's cases, which carry the measures."""
    table: Table = {}
    for case in cases:
        if case.suite != "codegen" or case.requirement != "CGN-001":
            continue
        configuration = case.name.partition(" ")[2].rpartition(" on ")[0]
        rows = table.setdefault(subject_label(case.subject, case.subject_version), {})
        for name, number in case.measures.items():
            kernel, _, column = name.rpartition(" ")
            key = f"{case.target} | {configuration} | {kernel}"
            rows.setdefault(key, {})[column] = int(number)
    return {subject: rows for subject, rows in table.items() if rows}


def load_baseline() -> Table:
    """The stored tables, each made with the Triton that the file names."""
    text = resources.files("conformance").joinpath("suites", "codegen", BASELINE).read_text("utf-8")
    return {
        subject: {key: dict(zip(COLUMNS, values, strict=True)) for key, values in rows.items()}
        for subject, rows in json.loads(text)["subjects"].items()
    }


def rows_of(table: Table, baseline: Table) -> Iterator[Row]:
    """The table's rows beside the baseline's; rows that were not run are not missed."""
    for subject, rows in table.items():
        known = baseline.get(subject)
        for key, numbers in rows.items():
            target, configuration, kernel = key.split(" | ")
            before = (known or {}).get(key, {})
            new = known is not None and not before
            yield Row(subject, target, configuration, kernel, numbers, before, new)


def differences(rows: Iterable[Row]) -> list[str]:
    """What differs from the baseline, a line for each row that does."""
    lines = []
    for row in rows:
        where = f"{row.subject}: {row.target} | {row.configuration} | {row.kernel}"
        changed = [f"{c} {was} -> {row.numbers[c]}" for c, was in row.changes.items()]
        if row.new or changed:
            lines.append(f"{where}: {', '.join(changed) or 'not in the baseline'}")
    return lines


def dump(table: Table, triton: str) -> str:
    """The table as the baseline file holds it, sorted, a row a line."""
    subjects = []
    for subject, rows in sorted(table.items()):
        body = ",\n".join(
            f"   {json.dumps(key)}: {json.dumps([row[c] for c in COLUMNS])}"
            for key, row in sorted(rows.items())
        )
        subjects.append(f"  {json.dumps(subject)}: {{\n{body}\n  }}")
    head = (
        f'{{"triton": {json.dumps(triton)},\n "columns": {json.dumps(COLUMNS)},\n "subjects": {{\n'
    )
    return head + ",\n".join(subjects) + "\n }}\n"


def as_markdown(rows: Iterable[Row]) -> str:
    """The table for a reader; a number that differs from the baseline has the old one beside it."""
    lines = [
        (row.target, row.configuration, row.kernel, *(_cell(row, c) for c in COLUMNS))
        for row in rows
    ]
    return markdown.table(("target", "configuration", "kernel", *COLUMNS), lines) + "\n"


def _cell(row: Row, column: str) -> str:
    number = f"{row.numbers[column]:,}"
    was = row.changes.get(column)
    return number if was is None else f"{number} (was {was:,})"


def summary(rows: Iterable[Row]) -> str:
    """Kernels, spills and differences by subject and target, as Markdown."""
    kernels: Counter[tuple[str, str]] = Counter()
    spills: Counter[tuple[str, str]] = Counter()
    differ: Counter[tuple[str, str]] = Counter()
    for row in rows:
        key = (row.subject, row.target)
        kernels[key] += 1
        spills[key] += row.numbers["spills"] > 0
        differ[key] += row.new or bool(row.changes)
    lines = [
        (*key, f"{count:,}", f"{spills[key]:,}", f"{differ[key]:,}")
        for key, count in kernels.items()
    ]
    return markdown.table(("subject", "target", "kernels", "that spill", "not as before"), lines)
