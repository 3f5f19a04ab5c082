"""The results of cases, the header of a run, and the exit code that follows from them."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from enum import Enum
from typing import Any

from conformance import __version__
from conformance.errors import ExitCode
from conformance.matrix.installed_gpus import amd_gpus

SCHEMA = 1
# Counts 1 in the case of a problem that another one was shrunk to.
SMALLEST = "smallest"


# What a finding can be. Of an answer: some element is wrong, or all that are wrong are NaN or
# infinite, or chosen positions are. Of memory: reached outside a tensor, changed outside the rows
# that are the backend's, or left unwritten. Of the subject: an error instead of an answer. Of
# compiled code: registers spilled, too much LDS, and what else the codegen suite looks at. Of
# metadata: which of its parts is wrong.
KINDS = (
    *("wrong-value", "non-finite", "wrong-choice"),
    *("out-of-bounds", "write-outside", "not-written", "violation", "raised"),
    *("compile-error", "lds", "spill", "no-matrix", "encoding", "no-fp8", "launch", "waits"),
    *("hazards", "no-kernel"),
    *("length", "table", "split", "chunk", "pages", "map", "cascade", "padding", "stale"),
    *("schedule", "buffer", "dtype", "input"),
    *("selected", "order", "candidates", "reason", "error", "message", "changed", "crash"),
)


class Outcome(str, Enum):
    """How a case ends. ``ERRORED`` means the infrastructure failed; it is no verdict."""

    PASSED = "passed"
    FAILED = "failed"
    UNSUPPORTED = "unsupported"
    WAIVED = "waived"
    ERRORED = "errored"


@dataclass(frozen=True)
class Identity:
    """What a finding is, in words that stay the same from run to run: what a waiver can name.

    ``kind`` is one of ``KINDS``, ``kernels`` are those that were at work: the one at fault where it
    is known, else all that were launched. ``deviations`` name what was computed instead, where that
    is known (``conformance.suites.parity.deviations``): together they explain the whole answer.
    ``requirement`` is the one that is not met, if it is not the case's own.
    """

    kind: str = ""
    kernels: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()
    requirement: str = ""


@dataclass(frozen=True)
class CaseResult:
    """The result of one case, in every cell that shares its platform.

    ``name`` is unique within (subject, suite); ``message`` is one human sentence or more;
    ``detail`` may hold long text (stderr, tracebacks); ``seconds`` is wall time. ``backend`` is
    the one the case is about, ``measures`` what was measured or compared of it. ``gpu`` names the
    AMD GPUs of the machine it ran on: the same case on two machines is two results. ``findings``
    are what is wrong, one text each, if a suite's case failed; the message has them in one line.
    ``identities`` say what each of them is, in the same order; none: the suite does not say.
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
    gpu: str = ""
    findings: tuple[str, ...] = ()
    identities: tuple[Identity, ...] = ()

    @classmethod
    def of_the_run(
        cls,
        suite: str,
        name: str,
        message: str,
        *,
        cells: tuple[str, ...] = (),
        subject: str = "",
        detail: str = "",
    ) -> CaseResult:
        """What went wrong with a run or its record, as an errored case: it is of no requirement."""
        return cls(
            suite=suite,
            name=name,
            outcome=Outcome.ERRORED,
            cells=cells,
            subject=subject,
            subject_version="",
            edition="",
            requirement="",
            source="",
            target="",
            platform="",
            simulated=False,
            message=message,
            detail=detail,
        )

    def as_json(self) -> dict[str, Any]:
        """The fields, for JSON. ``dataclasses.asdict`` would copy every value."""
        return {**vars(self), "identities": [asdict(each) for each in self.identities]}

    @property
    def found(self) -> tuple[tuple[str, Identity], ...]:
        """Each finding with what it is; the message is the one of a case that lists none."""
        texts = self.findings or (self.message,)
        known = (
            self.identities if len(self.identities) == len(texts) else (Identity(),) * len(texts)
        )
        return tuple(zip(texts, known, strict=True))


def subject_label(name: str, version: str) -> str:
    """A subject as reports write it, ``vllm==0.19.0``; a name may include the version already."""
    whole = not version or name.endswith(f"=={version}")
    return (name or "unknown subject") if whole else f"{name}=={version}"


@dataclass(frozen=True)
class JudgedSubject:
    """A build that a run was asked to judge; the header names it, so that its absence shows.

    ``note`` is what a reader must know of how it was judged, such as an edition that was not
    written for it; empty: nothing.
    """

    name: str
    version: str
    simulated: bool
    note: str = ""


@dataclass(frozen=True)
class Host:
    """The machine of a run: what helps to understand its times and failures."""

    platform: str
    cpus: int


@dataclass(frozen=True)
class RunHeader:
    """The first line of a results file: what was asked of the run, and where it ran.

    ``started`` is UTC in ISO 8601, ``sweep`` the number of generated requests or problems per
    platform (None: the suite's own number), ``command_line`` can be pasted into a shell, ``shard``
    is this run's part of the cases, such as "2/4", and empty where it has them all, ``image`` the
    container image it ran in, ``gpu`` the machine's AMD GPUs, empty where it has none.
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
    gpu: str = ""

    @classmethod
    def now(cls, **asked: Any) -> RunHeader:
        """The header of a run that starts in this process; ``asked`` gives the other fields."""
        facts = {
            "started": utc_now(),
            "suite_version": __version__,
            "command_line": shlex.join(sys.argv),
            "python": platform.python_version(),
            "host": Host(platform.platform(), os.cpu_count() or 1),
            "gpu": " ".join(amd_gpus()),
        }
        return cls(**{**facts, **asked})


@dataclass(frozen=True)
class Run:
    """A results file as read: its good lines, and every problem with it.

    ``complete`` is true only if the file has no problem at all.
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
    """Outcomes by (subject, version); a subject without cases has an empty counter."""
    counts: Tally = {(subject.name, subject.version): Counter() for subject in subjects}
    for case in cases:
        counts.setdefault((case.subject, case.subject_version), Counter())[case.outcome] += 1
    return counts


def verdict(outcomes: Mapping[Outcome, int], problems: Sequence[str] = ()) -> ExitCode:
    """One subject's exit code from its outcomes and from the problems of the run's record.

    A failure outranks an error: code 75 tells a pipeline to try again, which cannot undo a failure.
    Reports list the errors in any case. A subject whose cases are all unsupported has no verdict.
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
    """A run's exit code: the worst of its subjects' verdicts, a failure before an error."""
    return exit_code_of(tally(cases, subjects), problems)


def exit_code_of(counts: Tally, problems: Sequence[str] = ()) -> ExitCode:
    """The exit code of outcomes that were counted by subject."""
    verdicts = {verdict(outcomes, problems) for outcomes in counts.values()}
    order = (ExitCode.NOT_CONFORMANT, ExitCode.INFRASTRUCTURE, ExitCode.CONFORMANT)
    return next((code for code in order if code in verdicts), ExitCode.INFRASTRUCTURE)


def outcome_counts(outcomes: Counter[Outcome]) -> dict[str, int]:
    return {outcome.value: outcomes[outcome] for outcome in Outcome}


def utc_now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
