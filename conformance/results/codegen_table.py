"""The table of resources that compiled kernels use, and its stored baseline.

A row is one kernel of one configuration on one target. The table is made from a run's cases, so
that every results file contains it and a merged report has all of it.
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
    """A kernel of a configuration on a target.

    ``before``: the numbers of the baseline. ``new``: the subject's baseline has no such row; a
    subject without a baseline has no new rows.
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
        """The columns that differ from the baseline, each with its old value."""
        return {c: n for c, n in self.before.items() if n != self.numbers[c]}


def table_of(cases: Iterable[CaseResult]) -> Table:
    """The table of a run, from the measures of CGN-001's cases."""
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
    # A file of another version or of somebody else may lack a column.
    whole = {
        subject: {key: numbers for key, numbers in rows.items() if numbers.keys() >= set(COLUMNS)}
        for subject, rows in table.items()
    }
    return {subject: rows for subject, rows in whole.items() if rows}


def load_baseline() -> Table:
    """The stored tables of all subjects; the file names the Triton that made them."""
    text = resources.files("conformance").joinpath("suites", "codegen", BASELINE).read_text("utf-8")
    return {
        subject: {key: dict(zip(COLUMNS, values, strict=True)) for key, values in rows.items()}
        for subject, rows in json.loads(text)["subjects"].items()
    }


def rows_of(table: Table, baseline: Table) -> Iterator[Row]:
    """The table's rows with those of the baseline; rows only in the baseline are left out."""
    for subject, rows in table.items():
        known = baseline.get(subject)
        for key, numbers in rows.items():
            target, configuration, kernel = key.split(" | ")
            before = (known or {}).get(key, {})
            new = known is not None and not before
            yield Row(subject, target, configuration, kernel, numbers, before, new)


def differences(rows: Iterable[Row]) -> list[str]:
    """A line for each row that differs from the baseline."""
    lines = []
    for row in rows:
        where = f"{row.subject}: {row.target} | {row.configuration} | {row.kernel}"
        changed = [f"{c} {was} -> {row.numbers[c]}" for c, was in row.changes.items()]
        if row.new or changed:
            lines.append(f"{where}: {', '.join(changed) or 'not in the baseline'}")
    return lines


def dump(table: Table, triton: str) -> str:
    """The table in the format of the baseline file: sorted, a row per line."""
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
    """The table as Markdown; a number that differs from the baseline has the old one beside it."""
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
    """Numbers of kernels, of kernels that spill and of differences, by subject and target."""
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
