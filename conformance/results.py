"""What a case of the suite ends as, and ``results.jsonl``: the stable record of a run.

A results file is a header line, one line per case, and a footer line that counts them. A file
without its footer was cut short, and every reader says so.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from datetime import datetime, timezone
from enum import Enum
from functools import cache
from math import isfinite
from pathlib import Path
from types import UnionType
from typing import Any, BinaryIO, NoReturn, TextIO, get_args, get_origin, get_type_hints

from conformance import __version__
from conformance.errors import ExitCode, InfrastructureError

SCHEMA = 1
# Results come from other machines: neither one line nor a file of bad lines may exhaust this one.
LINE_LIMIT = 16 * 1024 * 1024
PROBLEM_LIMIT = 1_000


class Outcome(str, Enum):
    """How a case ends. ``ERRORED`` is infrastructure: it says nothing about the subject."""

    PASSED = "passed"
    FAILED = "failed"
    UNSUPPORTED = "unsupported"
    WAIVED = "waived"
    ERRORED = "errored"


@dataclass(frozen=True)
class CaseResult:
    """One case's end, in every cell that shares its platform.

    ``name`` is unique within (subject, suite); ``message`` is one human sentence or more;
    ``detail`` may hold long text (stderr, tracebacks); ``seconds`` is wall time. ``backend`` is
    the one the case is about, ``measures`` what was measured or compared of it.
    """

    suite: str
    name: str
    outcome: Outcome
    cells: tuple[str, ...]
    subject: str
    subject_version: str
    edition: str
    requirement: str
    source: str
    target: str
    platform: str
    simulated: bool
    seed: int | None = None
    message: str = ""
    detail: str = ""
    reproduce: str = ""
    waiver: str = ""
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)
    backend: str = ""


def subject_label(name: str, version: str) -> str:
    """A subject as reports write it, ``vllm==0.19.0``; a name may hold its version already."""
    whole = not version or name.endswith(f"=={version}")
    return (name or "unknown subject") if whole else f"{name}=={version}"


@dataclass(frozen=True)
class JudgedSubject:
    """A build that a run was asked to judge; named in the header so that its absence shows."""

    name: str
    version: str
    simulated: bool


@dataclass(frozen=True)
class Host:
    """The machine of a run, as far as a reader needs it to judge times and failures."""

    platform: str
    cpus: int


@dataclass(frozen=True)
class RunHeader:
    """The first line of a results file: what was asked of the run, and where it ran.

    ``started`` is UTC in ISO 8601, ``sweep`` the number of generated requests or problems per
    platform (None: the suite's own number), ``command_line`` can be pasted into a shell, ``shard``
    is this run's part of the cases, such as "2/4", and empty where it has them all, ``image`` the
    container image it ran in.
    """

    started: str
    suite_version: str
    edition: str
    subjects: tuple[JudgedSubject, ...]
    cells: tuple[str, ...]
    suites: tuple[str, ...]
    seed: int | None
    sweep: int | None
    command_line: str
    python: str
    host: Host
    schema: int = SCHEMA
    image: str = ""
    shard: str = ""

    @classmethod
    def now(cls, **asked: Any) -> RunHeader:
        """The header of a run that starts in this process; ``asked`` gives the other fields."""
        facts = {
            "started": _utc_now(),
            "suite_version": __version__,
            "command_line": shlex.join(sys.argv),
            "python": platform.python_version(),
            "host": Host(platform.platform(), os.cpu_count() or 1),
        }
        return cls(**{**facts, **asked})


@dataclass(frozen=True)
class Run:
    """A results file as read: everything good in it, and every problem it had.

    ``complete`` is true only for a file without any problem: header, footer and every line.
    """

    header: RunHeader | None
    cases: tuple[CaseResult, ...]
    complete: bool
    problems: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the recorded run, its problems included."""
        return exit_code(self.cases, self.header.subjects if self.header else (), self.problems)


Tally = dict[tuple[str, str], Counter[Outcome]]


def tally(cases: Iterable[CaseResult], subjects: Iterable[JudgedSubject] = ()) -> Tally:
    """Outcomes by (subject, version); an expected subject without cases is there with none."""
    counts: Tally = {(subject.name, subject.version): Counter() for subject in subjects}
    for case in cases:
        counts.setdefault((case.subject, case.subject_version), Counter())[case.outcome] += 1
    return counts


def verdict(outcomes: Mapping[Outcome, int], problems: Sequence[str] = ()) -> ExitCode:
    """One subject's exit code from its outcomes and from the problems of the run's record.

    A failure outranks an error: code 75 tells a pipeline to try again, and trying again does not
    undo a failure that was really seen. The errors stay listed in every report. A subject of which
    nothing was judged has no verdict: unsupported cases did not run.
    """
    if outcomes.get(Outcome.FAILED):
        return ExitCode.NOT_CONFORMANT
    judged = outcomes.get(Outcome.PASSED, 0) + outcomes.get(Outcome.WAIVED, 0)
    if outcomes.get(Outcome.ERRORED) or problems or not judged:
        return ExitCode.INFRASTRUCTURE
    return ExitCode.CONFORMANT


def exit_code(
    cases: Iterable[CaseResult],
    subjects: Iterable[JudgedSubject] = (),
    problems: Sequence[str] = (),
) -> ExitCode:
    """A run's exit code: its subjects' verdicts, a failure before an error before conformance."""
    return _exit_code(tally(cases, subjects), problems)


def _exit_code(counts: Tally, problems: Sequence[str] = ()) -> ExitCode:
    verdicts = {verdict(outcomes, problems) for outcomes in counts.values()}
    order = (ExitCode.NOT_CONFORMANT, ExitCode.INFRASTRUCTURE, ExitCode.CONFORMANT)
    return next((code for code in order if code in verdicts), ExitCode.INFRASTRUCTURE)


class ResultsWriter:
    """Writes ``results.jsonl`` line by line, each flushed, so that a killed run leaves its cases.

    As a context manager it writes the footer only when the block ends without an exception: a
    file without footer is how a reader knows that the run was cut short.
    """

    def __init__(self, path: Path, header: RunHeader) -> None:
        self.path = path
        self.header = header
        self._counts = tally((), header.subjects)
        self._stream: TextIO | None = None

    def __enter__(self) -> ResultsWriter:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        (self.close if kind is None else self.abandon)()

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the cases written so far."""
        return _exit_code(self._counts)

    def open(self) -> None:
        """Start the file, in place of an older one, with the header line."""
        self._guarded(lambda: self.path.parent.mkdir(parents=True, exist_ok=True))
        self._stream = self._guarded(lambda: self.path.open("w", encoding="ascii", newline="\n"))
        self._line("header", asdict(self.header))

    def write(self, case: CaseResult) -> None:
        """Append one case; it is in the file when this returns."""
        self._line("case", asdict(case))
        for subject, outcomes in tally([case]).items():
            self._counts.setdefault(subject, Counter()).update(outcomes)

    def close(self) -> None:
        """Write the footer and close: the run is whole."""
        outcomes = sum(self._counts.values(), Counter[Outcome]())
        footer = {
            "cases": outcomes.total(),
            "outcomes": outcome_counts(outcomes),
            "exit": int(self.exit_code),
            "finished": _utc_now(),
        }
        try:
            self._line("footer", footer)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close without a footer: the run was cut short, and its record shows it."""
        if self._stream is not None:
            self._guarded(self._stream.close)
            self._stream = None

    def _line(self, kind: str, payload: dict[str, Any]) -> None:
        if (stream := self._stream) is None:
            raise RuntimeError(f"{self.path} is not open: write between open() and close()")
        text = json.dumps({"kind": kind, **payload}, sort_keys=True, allow_nan=False)
        self._guarded(lambda: print(text, file=stream, flush=True))

    def _guarded(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except OSError as error:
            raise InfrastructureError(
                f"cannot write results to {self.path}: {error.strerror or error}; "
                "give a folder that can be written and has space left"
            ) from error


def outcome_counts(outcomes: Counter[Outcome]) -> dict[str, int]:
    return {outcome.value: outcomes[outcome] for outcome in Outcome}


def read_results(path: Path) -> Run:
    """Read a results file, however broken: good lines are kept, and every problem is named."""
    reading = _Reading(path)
    try:
        with path.open("rb") as stream:
            for number, raw in enumerate(_lines(stream), start=1):
                reading.take(number, raw)
    except OSError as error:
        reading.problems.append(f"{path}: cannot be read: {error.strerror or error}")
    return reading.result()


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of a line past the limit, its beginning, as long as the limit."""
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
        found = outcome_counts(Counter(case.outcome for case in self.cases))
        if footer.outcomes != found:
            yield f"the footer counts {footer.outcomes}; the cases are {found}"
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


def _fit(value: Any, kind: Any, where: str) -> Any:
    """``value`` as ``kind``: the types that the records above are made of, and no others."""
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
    found = {
        name: _fit(value[name], types[name], f"{where}.{name}") for name in types if name in value
    }
    needed = {f.name for f in fields(kind) if f.default is f.default_factory is MISSING}
    if missing := needed - set(found):
        raise ValueError(f"{where}: missing fields: {', '.join(sorted(missing))}")
    return kind(**found)


def _misfit(value: object, expected: object, where: str) -> NoReturn:
    raise ValueError(f"{where}: expected {expected}, got {value!r:.80}")


def _utc_now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
