"""The rows of ``reports.toml``, and what a release answers to one."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from conformance.matrix.requests import Ask, Platform, Request
from conformance.problems.defects import SMALLEST, KnownDefect
from conformance.problems.features import features
from conformance.problems.problem import Problem
from conformance.suites.case import Context
from conformance.suites.parity.defects import seen_in
from conformance.suites.parity.defects_table import RIGHT, WRONG

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE = Path(__file__).with_name("reports.toml")


@dataclass(frozen=True)
class Question:
    """A question to the selector, and its answers: a backend's name, or an error's."""

    target: str
    question: dict[str, Any]
    wrong: str
    right: str
    backend: str | None = None
    aiter: bool = False
    env: dict[str, str] = field(default_factory=dict)

    @property
    def ask(self) -> Ask:
        return Ask(Request(**self.question), self.backend)

    @property
    def platform(self) -> Platform:
        return Platform.make(self.target, aiter=self.aiter, env=self.env)


@dataclass(frozen=True)
class Report:
    """A row; the table explains its columns."""

    url: str
    says: str
    shown_by: str
    right_in: str
    unused: Literal["zero", "poison"] = "zero"
    problem: dict[str, Any] | None = None
    request: Question | None = None

    def defect(self, name: str) -> KnownDefect:
        """The problem, as the parity suite asks it."""
        assert self.problem is not None
        computed = features()[self.problem["backend"]].new_tokens == "computed"
        fields = {**SMALLEST, "id": name, "new_tokens_from_cache": not computed, **self.problem}
        problem = TypeAdapter(Problem).validate_python(fields)
        problem.check()
        return KnownDefect(problem, "", self.says, self.unused)


@cache
def reports() -> dict[str, Report]:
    """The table's rows, by name."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return TypeAdapter(dict[str, Report]).validate_python(table)


def is_right(name: str, release: str, context: Context) -> bool:
    """Whether a release answers a report's question rightly.

    Raises:
        AssertionError: it gives neither the right answer nor the wrong one.
    """
    report, subject = reports()[name], f"vllm=={release}"
    if report.problem is not None:
        (seen,) = seen_in([report.defect(name)], [subject], context, ())
        assert seen.answer in (RIGHT, WRONG), seen.answer
        return seen.answer == RIGHT
    asked = report.request
    assert asked is not None
    (got,) = context.subject(subject).open(asked.platform).ask([asked.ask])
    answer = got.selected or got.error
    assert answer in (asked.right, asked.wrong), answer
    return answer == asked.right
