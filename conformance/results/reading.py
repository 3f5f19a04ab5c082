"""Reads ``results.jsonl``, which may come from another machine and be damaged."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from math import isfinite
from pathlib import Path
from types import UnionType
from typing import Any, BinaryIO, NoReturn, get_args, get_origin, get_type_hints

from conformance.results.records import (
    SCHEMA,
    CaseResult,
    Outcome,
    Run,
    RunHeader,
    exit_code,
    outcome_counts,
)

# So that neither a long line nor a file of bad lines exhausts this machine.
LINE_LIMIT = 16 * 1024 * 1024
PROBLEM_LIMIT = 1_000


def read_results(path: Path) -> Run:
    """Reads a results file; keeps the good lines of a damaged one, and names every problem."""
    reading = _Reading(path)
    try:
        with path.open("rb") as stream:
            for number, raw in enumerate(_lines(stream), start=1):
                reading.take(number, raw)
    except OSError as error:
        reading.problems.append(f"{path}: cannot be read: {error.strerror or error}")
    return reading.result()


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; a line beyond the limit is cut off there."""
    while raw := stream.readline(LINE_LIMIT):
        end = raw
        while len(end) == LINE_LIMIT and not end.endswith(b"\n"):
            end = stream.readline(LINE_LIMIT)
        yield raw


@dataclass(frozen=True)
class _Footer:
    cases: int
    outcomes: dict[str, int]
    exit: int
    finished: str


@dataclass
class _Reading:
    path: Path
    header: RunHeader | None = None
    footer: _Footer | None = None
    cases: list[CaseResult] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    lines: int = 0
    line_problems: int = 0

    def take(self, number: int, raw: bytes) -> None:
        self.lines = number
        if len(raw) == LINE_LIMIT:
            self._problem(number, f"longer than {LINE_LIMIT:,} bytes; the line is left out")
            return
        ended = raw.endswith(b"\n")
        try:
            self._take_object(number, _json_object(raw))
        except (ValueError, OverflowError, RecursionError) as error:
            self._problem(number, f"{error}; the line is left out")
        if not ended:
            self._problem(number, "has no line end: the file was cut short here")

    def _take_object(self, number: int, value: dict[str, Any]) -> None:
        if self.footer is not None:
            self._problem(number, "comes after the footer: two runs in one file?")
        kind = value.pop("kind", None)
        if kind == "case":
            self.cases.append(_fit(value, CaseResult, "case"))
        elif kind == "footer":
            self.footer = _fit(value, _Footer, "footer")
        elif kind == "header":
            self._take_header(number, value)
        else:
            _misfit(kind, "header, case or footer", "kind")

    def _take_header(self, number: int, value: dict[str, Any]) -> None:
        schema = value.get("schema")
        if schema != SCHEMA:
            known = f"this suite reads {SCHEMA}; read it with the suite version that wrote it"
            self._problem(number, f"unknown schema {schema!r}, {known}")
        if self.header is not None:
            self._problem(number, "a second header: two runs in one file? The first is used")
        self.header = self.header or _fit(value, RunHeader, "header")

    def _problem(self, line: int, text: str) -> None:
        self.line_problems += 1
        if self.line_problems <= PROBLEM_LIMIT:
            self.problems.append(f"{self.path}: line {line}: {text}")

    def result(self) -> Run:
        if self.lines or not self.problems:
            self.problems += [f"{self.path}: {text}" for text in self._whole_file()]
        return Run(self.header, tuple(self.cases), not self.problems, tuple(self.problems))

    def _whole_file(self) -> Iterable[str]:
        if self.line_problems > PROBLEM_LIMIT:
            yield f"{self.line_problems - PROBLEM_LIMIT:,} more problems of lines are not listed"
        if not self.lines:
            yield "is empty: the run wrote no results"
            return
        if self.header is None:
            yield "no readable header line: subjects and cells of the run are not known"
        footer = self.footer
        if footer is None:
            yield "no footer line: the run was cut short, its last cases are missing"
            return
        if footer.cases != len(self.cases):
            yield f"the footer counts {footer.cases} cases, {len(self.cases)} could be read"
        outcomes = outcome_counts(Counter(case.outcome for case in self.cases))
        if footer.outcomes != outcomes:
            yield f"the footer counts {footer.outcomes}; the cases are {outcomes}"
        code = exit_code(self.cases, self.header.subjects if self.header else ())
        if footer.exit != code:
            yield f"the footer says exit code {footer.exit}, its cases amount to {int(code)}"


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw.decode())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not JSON: {error}") from error
    return value if isinstance(value, dict) else _misfit(value, "a JSON object", "line")


_types_of = cache(get_type_hints)


def _fit(value: Any, kind: Any, where: str) -> Any:  # noqa: PLR0911 - one for each kind
    """``value`` as a value of ``kind``, which must be a type that records consist of."""
    if type(value) is kind and kind is not float:
        return value
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None else _fit(value, arguments[0], where)
    if is_dataclass(kind) and isinstance(value, dict):
        return _fit_record(value, kind, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_fit(item, arguments[0], f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _fit(item, arguments[1], f"{where}.{key}") for key, item in value.items()}
    if kind is Outcome and value in [outcome.value for outcome in Outcome]:
        return Outcome(value)
    if kind is float and type(value) is int:
        value = float(value)
    fits = type(value) is kind and (kind is not float or isfinite(value))
    return value if fits else _misfit(value, getattr(kind, "__name__", kind), where)


def _fit_record(value: dict[str, Any], kind: Any, where: str) -> Any:
    types = _types_of(kind)
    values = {
        name: _fit(value[name], types[name], f"{where}.{name}") for name in types if name in value
    }
    needed = {f.name for f in fields(kind) if f.default is f.default_factory is MISSING}
    if missing := needed - set(values):
        raise ValueError(f"{where}: missing fields: {', '.join(sorted(missing))}")
    return kind(**values)


def _misfit(value: object, expected: object, where: str) -> NoReturn:
    raise ValueError(f"{where}: expected {expected}, got {value!r:.80}")
