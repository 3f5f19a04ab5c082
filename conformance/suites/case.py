"""What suites are made of: cases, their context, and the two ways in which a case ends early."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

from conformance.config import RunConfig
from conformance.errors import OtherMachineError
from conformance.matrix.requests import Ask, Platform, Selection
from conformance.matrix.stacks import match_cells, platform_cells
from conformance.requirements import Requirement, requirements_of
from conformance.results import Identity
from conformance.subjects.base import Session, Subject, SubjectInfo
from conformance.subjects.reference import edition_table
from conformance.subjects.spellings import SubjectKind, kind_of, parse_subject
from conformance.suites.failure_limit import FailureLimit
from vllm_editions import Edition


@dataclass(frozen=True)
class Measured:
    """What a case counted and measured, whatever its verdict.

    ``proviso``: what a case that passed rests on, if it is nothing that the suite can know.
    """

    counts: dict[str, int] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)
    proviso: str = ""


class Nonconformance(Exception):  # noqa: N818 - a finding, not an error
    """The subject does not do what the requirement says.

    ``findings`` is what is wrong, one text each; a case with a single finding gives the message
    alone. ``identities`` says what each finding is, in the same order. ``reproduce`` is a command
    line, ``measured`` what was measured nevertheless, ``detail`` long text, such as the subject's
    stderr. ``requirement`` is the one that is not met, if that is not the case's own.
    """

    def __init__(
        self,
        message: str,
        reproduce: str = "",
        measured: Measured | None = None,
        detail: str = "",
        requirement: str = "",
        findings: Sequence[str] = (),
        identities: Sequence[Identity] = (),
    ) -> None:
        super().__init__(message)
        self.findings = tuple(findings) or (message,)
        self.identities = tuple(identities)
        self.requirement = requirement
        self.reproduce = reproduce
        self.measured = measured
        self.detail = detail


def in_one_line(findings: Sequence[str]) -> str:
    """Findings as they stand in a case's message."""
    return "; ".join(findings)


class Unsupported(Exception):  # noqa: N818 - likewise
    """The case cannot be asked of this subject; the message is the reason."""


@dataclass(frozen=True)
class Case:
    """One requirement on one platform of one subject, for every cell that has the platform.

    ``asked_on`` is the platform of the questions: the cells' own, or the same with more variables.
    """

    suite: str
    kind: str
    subject: str
    requirement: str
    platform: Platform
    cells: tuple[str, ...]
    asked_on: Platform

    @property
    def name(self) -> str:
        return f"{self.requirement} {self.kind} [{self.asked_on}]"

    @property
    def group(self) -> str:
        """Cases of a group run in one process, one after another: they share sessions."""
        return f"{self.subject} on {self.platform}"

    @property
    def machine(self) -> str:
        """Groups of a machine run in one process too, because a session can go from one to another.

        They differ in variables that a build reads again; starting anew takes it seconds.
        """
        return f"{self.subject} on {replace(self.platform, env=())}"

    @property
    def where(self) -> dict[str, str]:
        """The fields of a result that say where the case was asked."""
        return {"target": self.platform.target, "platform": str(self.asked_on)}


@dataclass
class Context:
    """What the cases of a run are made from."""

    config: RunConfig
    subjects: dict[str, Subject] = field(default_factory=dict)
    infos: dict[str, SubjectInfo] = field(default_factory=dict)
    failures: FailureLimit = field(default_factory=FailureLimit)

    def edition(self, spec: str) -> str:
        """The edition that judges a subject."""
        return self.config.edition_of(spec)

    def asked_edition(self, spec: str) -> Edition:
        """The edition that judges a subject, without the fields that its selector lacks."""
        table = edition_table(self.edition(spec), self.release(spec))
        missing = self.config.missing.get(spec, ())
        fields = tuple(name for name in table.asked.fields if name not in missing)
        if not missing:
            return table
        return table.model_copy(update={"asked": table.asked.model_copy(update={"fields": fields})})

    def requirements(self, spec: str) -> dict[str, Requirement]:
        """The requirements of a subject's edition, by id."""
        return requirements_of(self.edition(spec))

    @cached_property
    def platforms(self) -> dict[Platform, tuple[str, ...]]:
        """The platforms of the run's cells, each with the cells that share it."""
        config = self.config
        return platform_cells(match_cells(config.cells), config.targets, config.env)

    @cached_property
    def cells(self) -> tuple[str, ...]:
        """The run's cells, each once."""
        return tuple(dict.fromkeys(c for cells in self.platforms.values() for c in cells))

    def subject(self, spec: str) -> Subject:
        if spec not in self.subjects:
            self.subjects[spec] = parse_subject(spec, self.config.options_of(spec))
        return self.subjects[spec]

    def release(self, spec: str) -> str:
        return self.config.releases.get(spec) or self.subject(spec).release

    def is_model(self, spec: str) -> bool:
        """Whether a subject is the reference selector, which the sweep compares others with."""
        return kind_of(spec) is SubjectKind.REFERENCE

    def close(self) -> None:
        for subject in self.subjects.values():
            subject.close()


class SessionPool:
    """Keeps each subject's last session open, because cases on one platform follow one another."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._open: dict[str, tuple[Platform, Session]] = {}

    def session(self, spec: str, platform: Platform) -> Session:
        current = self._open.get(spec)
        if current is not None and current[0] == platform and current[1].alive:
            return current[1]
        self._open.pop(spec, None)
        self._context.failures.check(spec, str(platform))
        try:
            session = self._context.subject(spec).reopen(platform)
        except OtherMachineError as error:
            raise Unsupported(f"{error}; --simulate always asks about other machines") from error
        self._context.infos[spec] = session.info
        self._open[spec] = (platform, session)
        return session


def cases_per_platform(
    context: Context, suite: str, kind: str, requirements: Sequence[str]
) -> Iterator[Case]:
    """A case for each of these requirements on every platform of every subject.

    Requirements that the edition does not have are left out.
    """
    for subject in context.config.subjects:
        for platform, cells in context.platforms.items():
            for requirement in requirements:
                if requirement in context.requirements(subject):
                    yield Case(suite, kind, subject, requirement, platform, cells, platform)


def cases_per_subject(
    context: Context, suite: str, kind: str, requirements: Sequence[str]
) -> Iterator[Case]:
    """A case for each requirement that no platform changes: asked once per subject.

    The result is reported in every cell.
    """
    platform = next(iter(context.platforms))
    cells = context.cells
    for subject in context.config.subjects:
        for requirement in requirements:
            if requirement in context.requirements(subject):
                yield Case(suite, kind, subject, requirement, platform, cells, platform)


def reproduce(case: Case, edition: str, ask: Ask) -> str:
    """A command line that asks the subject one question of the case."""
    kinds = {"PagedAttention": "paged_attention", "Vit": "vit"}
    kind = kinds.get(type(ask.question).__name__)
    defaults = asdict(type(ask.question)())
    line = {
        **({"question": kind} if kind else {}),
        "request": {k: v for k, v in asdict(ask.question).items() if v != defaults[k]},
        **({"backend": ask.backend} if ask.backend else {}),
    }
    return f"echo {shlex.quote(json.dumps(line))} | {select_command(case, edition)}"


def select_command(case: Case, edition: str) -> str:
    """The ``select`` command of a case's subject and platform."""
    platform = case.asked_on
    parts = ["rocm-conformance", "select", "--subject", case.subject, "--target", platform.target]
    is_reference = kind_of(case.subject) is SubjectKind.REFERENCE
    parts += ["--edition", edition] if is_reference else []
    parts += ["--aiter"] if platform.aiter else []
    parts += ["--flash-attn"] if platform.flash_attn else []
    for name, value in platform.env:
        parts += ["--env", f"{name}={value}"]
    return shlex.join(parts)


def show(selection: Selection) -> str:
    """An answer in half a line: the backend or the error, and why the others were rejected."""
    chosen = selection.selected or f"error {selection.error}"
    if selection.error == "crash":
        chosen += f" ({selection.message})"
    if not selection.candidates:
        return f"got {chosen}"
    listed = ", ".join(
        f"{c.backend} ({', '.join(c.rejected)})" if c.rejected else c.backend
        for c in selection.candidates
    )
    return f"got {chosen}; candidates: {listed}"


def show_ask(ask: Ask) -> str:
    """A question in half a line: the fields that differ from the default request."""
    defaults = asdict(type(ask.question)())
    parts = [f"{k}={v}" for k, v in asdict(ask.question).items() if v != defaults[k]]
    parts += [f"backend={ask.backend}"] if ask.backend else []
    return f"request: {' '.join(parts) or 'the default'}"
