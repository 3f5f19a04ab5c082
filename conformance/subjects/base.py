"""What every subject is: a build under test that opens sessions, one platform each."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from conformance.errors import UsageError
from conformance.matrix.requests import Ask, Platform, Selection
from conformance.worker.contract import BackendDescription, Variable
from vllm_editions import AUTO_EDITION, DEFAULT_EDITION


@dataclass(frozen=True)
class SubjectInfo:
    """What a subject says of itself on one platform; ``root`` is the folder of its package."""

    name: str
    version: str
    simulated: bool
    root: Path | None = None
    fields: tuple[str, ...] = ()


class Session(Protocol):
    """A subject on one platform."""

    @property
    def info(self) -> SubjectInfo: ...

    @property
    def alive(self) -> bool:
        """Whether it can still be asked: a worker may have died."""
        ...

    def ask(self, asks: Sequence[Ask]) -> Iterator[Selection]:
        """Answers in the order asked; all asks must be of one kind of question."""
        ...

    def variables(self, names: Sequence[str]) -> dict[str, Variable]:
        """What the build knows of each environment variable."""
        ...

    def describe(self, backends: Sequence[str]) -> dict[str, BackendDescription]:
        """What each backend's class says that it supports."""
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

    @property
    def note(self) -> str:
        """What reports must say of the build besides its version; empty: nothing."""
        ...

    def info(self) -> SubjectInfo:
        """What the build says of itself, whatever the platform."""
        ...

    def open(self, platform: Platform) -> Session: ...

    def reopen(self, platform: Platform) -> Session:
        """A session on a platform; the one that is open, where that can go on with it."""
        ...

    def source_tree(self) -> Path | None:
        """The subject's source tree (docs, CI scripts), if it has one."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Options:
    """How subjects are run: ``simulate`` is auto, always or never; ``timeout`` is in seconds, for
    each answer. ``edition`` may be ``auto`` while it is not known which release a subject is.
    ``wrap`` is a command that runs the command of every worker, which follows it."""

    edition: str
    simulate: str = "auto"
    timeout: float = 120.0
    wrap: str = ""

    @property
    def prefix(self) -> list[str]:
        """The words before a worker's command.

        Raises:
            UsageError: they are not quoted as for a shell.
        """
        try:
            return shlex.split(self.wrap)
        except ValueError as error:
            raise UsageError(f"--wrap {self.wrap!r}: {error}: quote it as for a shell") from error

    @property
    def edition_or_default(self) -> str:
        return DEFAULT_EDITION if self.edition == AUTO_EDITION else self.edition
