"""What right code does: how long each case takes, and which lines it runs; found side by side."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from conformance.errors import InfrastructureError

Lines = dict[str, set[int]]
Ask = TypeVar("Ask")
Told = TypeVar("Told")


@dataclass
class Baseline:
    """What the right kernels did with the problems of the quick tier, by the case's name.

    ``seconds``, and ``lines``: those that each ran. ``unfit``: what the subject does not take, or
    what the right kernels fail; these are in neither.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, Lines] = field(default_factory=dict)
    unfit: list[str] = field(default_factory=list)

    def dumps(self) -> str:
        lines = {
            name: {file: sorted(numbers) for file, numbers in files.items()}
            for name, files in self.lines.items()
        }
        return json.dumps({"seconds": self.seconds, "lines": lines, "unfit": self.unfit})

    @classmethod
    def loads(cls, text: str) -> Baseline:
        told = json.loads(text)
        lines = {
            name: {file: set(numbers) for file, numbers in files.items()}
            for name, files in told["lines"].items()
        }
        return cls(told["seconds"], lines, told["unfit"])

    @classmethod
    def kept_in(cls, path: Path) -> Baseline:
        """What a file holds of one; an empty one where there is no file."""
        return cls.loads(path.read_text(encoding="utf-8")) if path.is_file() else cls()

    @property
    def known(self) -> set[str]:
        return {*self.lines, *self.unfit}


@dataclass(frozen=True)
class Ran:
    """A case on right code. ``wrong``: why it shows nothing of a mutant; None: it passed, in
    ``seconds``, and ran ``lines``. ``says``: whether the reader is told why."""

    name: str
    seconds: float = 0.0
    lines: Lines = field(default_factory=dict)
    wrong: str | None = None
    says: bool = True

    def note(self, baseline: Baseline, say: Callable[[str], None]) -> None:
        """Adds it to a baseline."""
        if self.wrong is None:
            baseline.seconds[self.name] = self.seconds
            baseline.lines[self.name] = self.lines
            return
        baseline.unfit.append(self.name)
        if self.says:
            say(f"left out, for right code fails it: {self.name}: {self.wrong[:120]}")


def side_by_side(
    begin: Callable[[], None], ask: Callable[[Ask], Told], asks: Sequence[Ask], workers: int
) -> Iterator[Told]:
    """Answers, as they come, of processes forked from this one, each of which calls ``begin``.

    Raises:
        InfrastructureError: one of them died.
    """
    fork = multiprocessing.get_context("fork")
    try:
        with ProcessPoolExecutor(min(workers, len(asks)), fork, begin) as pool:
            for future in as_completed([pool.submit(ask, one) for one in asks]):
                yield future.result()
    except BrokenProcessPool as error:
        raise InfrastructureError("a process that ran right code died") from error
