"""Subjects: the builds under test, and how each spelling of ``--subject`` becomes one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from conformance.errors import UsageError
from conformance.requests import Platform, Selection
from conformance.subjects.protocol import Ask

SPELLINGS = (
    "'reference' (this suite's own selector), 'vllm==X.Y.Z' (a release, fetched once), 'vllm' "
    "(installed beside the suite), PATH/TO/python (another interpreter's vLLM), or "
    "'worker:COMMAND' (any program that speaks the worker protocol)"
)


@dataclass(frozen=True)
class SubjectInfo:
    """What a subject turned out to be on one platform."""

    name: str
    version: str
    simulated: bool
    root: Path | None = None
    fields: tuple[str, ...] = ()


class Session(Protocol):
    """A subject on one platform."""

    @property
    def info(self) -> SubjectInfo: ...

    def ask(self, asks: Sequence[Ask]) -> Iterator[Selection]:
        """Answers in the order asked; all asks must be of one kind of question."""
        ...

    def variables(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Per variable: ``registered`` and ``value`` (None: reading it raises AttributeError)."""
        ...

    def describe(self, backends: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What each backend's class says it supports."""
        ...

    def close(self) -> None: ...


class Subject(Protocol):
    """A build under test."""

    @property
    def spec(self) -> str:
        """As the user spelled it; the name of the subject in reports."""
        ...

    @property
    def release(self) -> str:
        """The version the build says it is; known before any session is opened."""
        ...

    def open(self, platform: Platform) -> Session: ...

    def source_tree(self) -> Path | None:
        """The subject's source tree (docs, CI scripts), if it has one."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Options:
    """How subjects are run: ``simulate`` auto|always|never; ``timeout`` seconds per answer."""

    edition: str
    simulate: str = "auto"
    timeout: float = 120.0


def parse_subject(
    spec: str, options: Options, progress: Callable[[str], None] = lambda _text: None
) -> Subject:
    """Makes a subject from its spelling; fetches a release that is not there yet.

    Raises:
        UsageError: the spelling is none of those known.
        InfrastructureError: the subject cannot be had.
    """
    from conformance.subjects.reference import ReferenceSubject
    from conformance.subjects.vllm import managed, own_interpreter
    from conformance.subjects.workers import WorkerSubject

    if spec == "reference":
        return ReferenceSubject(options.edition)
    if spec == "vllm":
        return own_interpreter(options)
    if spec.startswith("vllm=="):
        return managed(spec.removeprefix("vllm=="), options, progress)
    if spec.startswith("worker:"):
        return WorkerSubject.from_command(spec, options)
    if "/" in spec:
        from conformance.subjects.vllm import other_interpreter

        return other_interpreter(Path(spec), options)
    raise UsageError(f"unknown subject {spec!r}. A subject is {SPELLINGS}.")
