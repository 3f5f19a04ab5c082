"""The data of the HTML page: all counts, and the cases as columns with shared texts.

Twenty thousand cases repeat a few hundred texts, so each text is embedded once and columns hold
its number. Beyond its limits the page has the worst cases only, and says so; counts are complete.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from conformance.reports.ci_jobs import Job, is_link
from conformance.reports.collect import Defect
from conformance.reports.junit_writer import cells_of, clip, reproduce_line
from conformance.reports.merge import SEVERITY, Entry, Merged
from conformance.reports.safe_text import plain
from conformance.reports.summary import Summary, in_order, natural
from conformance.requirements import Requirement
from conformance.results import CaseResult, subject_label

CASES_LIMIT = 60_000
TEXT_LIMIT = 16 * 1024
TEXTS_LIMIT = 24 * 1024 * 1024  # total bytes of texts: beyond that, details are left out
PROBLEMS_LIMIT = 1_000
MEASURES = ("error_over_bound", "max_error", "bound_at_max", "torch_error")
WITHOUT_REQUIREMENT = "(none)"
SEVERAL = "(several)"


def payload(
    merged: Merged,
    summary: Summary,
    requirements: Mapping[str, Requirement],
    build_url: str = "",
) -> dict[str, Any]:
    """The page's data as JSON values; texts are plain, links are http(s) or absent."""
    worst_first = sorted(merged.entries, key=lambda e: SEVERITY.index(e.case.outcome))
    shown = worst_first[:CASES_LIMIT]
    ids = in_order(e.case.requirement or WITHOUT_REQUIREMENT for e in merged.entries)
    columns = _Columns(build_url)
    for entry in shown:
        columns.add(entry, backend_of(entry.case, requirements.get(entry.case.requirement)))
    return {
        "exit": int(merged.exit_code),
        "verdicts": [_verdict(subject) for subject in summary.subjects],
        "cells": _cells(merged),
        "expected": sorted(merged.expected, key=natural),
        "runs": [_run(header) for header in merged.headers[:200]],
        "files": len(merged.files),
        "problems": [_problem(p, build_url) for p in merged.problems[:PROBLEMS_LIMIT]],
        "problemCount": len(merged.problems),
        "requirements": [_requirement(i, requirements.get(i)) for i in ids],
        "byRequirement": _counts(
            merged.entries, lambda case: case.requirement or WITHOUT_REQUIREMENT
        ),
        "byBackend": _counts(
            merged.entries, lambda case: backend_of(case, requirements.get(case.requirement))
        ),
        "simulated": sum(e.case.simulated for e in merged.entries),
        "total": len(merged.entries),
        "cellsWithResults": len({c for e in merged.entries for c in cells_of(e.case)}),
        "left": len(worst_first) - len(shown),
        "cases": columns.as_json(),
    }


def backend_of(case: CaseResult, requirement: Requirement | None) -> str:
    """The backend of a case: its own, or that of its requirement.

    If all rows of a requirement ask for the same backend, it is that one; requirements on paged
    attention are about ROCM_ATTN. The others are about several backends.
    """
    if case.backend:
        return case.backend
    if requirement is None:
        return SEVERAL
    if requirement.question == "paged_attention":
        return "ROCM_ATTN"
    asked: set[str | None] = set()
    for row in requirement.row:
        asked |= set(row.backend) if isinstance(row.backend, list) else {row.backend}
    only = asked.pop() if len(asked) == 1 else None
    return only or SEVERAL


class _Columns:
    """Cases as columns of numbers; ``texts`` maps every text to its number."""

    def __init__(self, build_url: str) -> None:
        self._build_url = build_url
        self._numbers: dict[str, int] = {}
        self._size = 0
        self._cut = 0
        self._columns: dict[str, list[Any]] = defaultdict(list)

    def add(self, entry: Entry, backend: str) -> None:
        case = entry.case
        cells = cells_of(case)
        row = {
            "outcome": SEVERITY.index(case.outcome),
            "cells": self._text("\n".join(plain(cell) for cell in cells)),
            "requirement": self._text(case.requirement or WITHOUT_REQUIREMENT),
            "backend": self._text(backend),
            "subject": self._text(subject_label(case.subject, case.subject_version)),
            "suite": self._text(case.suite),
            "name": self._text(case.name),
            "target": self._text(case.target),
            "platform": self._text(f"{case.platform}{f', beside {case.gpu}' if case.gpu else ''}"),
            "edition": self._text(case.edition),
            "simulated": int(case.simulated),
            "seed": "" if case.seed is None else str(case.seed),
            "seconds": round(case.seconds, 3),
            "message": self._text(case.message),
            "detail": self._text(case.detail, spare=True),
            "reproduce": self._text(reproduce_line(case, cells[0])),
            "source": self._text(case.source),
            "waiver": self._text(case.waiver),
            "file": self._text(entry.file),
            "job": self._text(_link(entry.job, self._build_url)),
            "jobName": self._text(_job_name(entry.job)),
            "measures": [case.measures.get(name) for name in MEASURES] if case.measures else 0,
        }
        for name, value in row.items():
            self._columns[name].append(value)

    def _text(self, text: str, *, spare: bool = False) -> int:
        """The number of a text; ``spare`` texts are dropped if the page is full."""
        if spare and text and self._size > TEXTS_LIMIT:
            self._cut += 1
            text = "(left out: this page is full; results.jsonl has it)"
        shown = plain(clip(text, TEXT_LIMIT))
        number = self._numbers.setdefault(shown, len(self._numbers))
        if number == len(self._numbers) - 1:
            self._size += len(shown)
        return number

    def as_json(self) -> dict[str, Any]:
        return {"texts": list(self._numbers), "columns": self._columns, "cut": self._cut}


def _counts(entries: Iterable[Entry], row_of: Any) -> list[list[Any]]:
    """Rows of [row, subject, cell, counts by severity]: the complete heat maps."""
    found: dict[tuple[str, str, str], Counter[int]] = defaultdict(Counter)
    for entry in entries:
        case = entry.case
        label = subject_label(case.subject, case.subject_version)
        for cell in cells_of(case):
            found[row_of(case), label, cell][SEVERITY.index(case.outcome)] += 1
    return [
        [*map(plain, key), [counts[severity] for severity in range(len(SEVERITY))]]
        for key, counts in sorted(found.items(), key=lambda item: tuple(map(natural, item[0])))
    ]


def _cells(merged: Merged) -> list[str]:
    names = {cell for entry in merged.entries for cell in cells_of(entry.case)}
    names |= {cell for problem in merged.problems for cell in problem.cells}
    return [plain(name) for name in in_order([*names, *merged.expected])]


def _verdict(subject: Any) -> dict[str, Any]:
    return {
        "label": plain(subject.label),
        "verdict": subject.verdict,
        "note": plain(subject.note),
        "outcomes": subject.outcomes,
        "edition": plain(subject.edition),
        "how": subject.simulated,
        "seconds": subject.seconds,
        "compared": subject.compared,
    }


def _run(header: Any) -> dict[str, Any]:
    values = asdict(header)
    return {
        "started": plain(header.started),
        "command": plain(header.command_line),
        "host": plain(f"{header.host.platform}, {header.host.cpus} CPUs"),
        "suite": plain(header.suite_version),
        "python": plain(header.python),
        "shard": plain(header.shard),
        "seed": values["seed"],
        "sweep": values["sweep"],
    }


def _requirement(identifier: str, about: Requirement | None) -> dict[str, Any]:
    known = {"id": plain(identifier), "title": "", "sentence": "", "source": ""}
    if about is None:
        return {**known, "introducedBy": "", "contested": []}
    return {
        **known,
        "title": about.title,
        "sentence": about.sentence,
        "source": about.source,
        "introducedBy": about.introduced_by,
        "contested": list(about.contested),
    }


def _problem(problem: Defect, build_url: str) -> dict[str, Any]:
    cells: Sequence[str] = problem.cells
    return {
        "cells": [plain(cell) for cell in cells],
        "file": plain(problem.file),
        "text": plain(clip(problem.text, 2_000)),
        "job": _link(problem.job, build_url),
        "jobName": _job_name(problem.job),
    }


def _link(job: Job | None, build_url: str) -> str:
    link = job.link(build_url) if job else ""
    return link if is_link(link) else ""  # a bare anchor works on the build's page only


def _job_name(job: Job | None) -> str:
    return plain((job.label or f"job {job.id}")[:200]) if job else ""
