"""What became of a mutant, and what each part of a campaign has to offer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from conformance.mutation.mutant import Mutant


class Fate(Enum):
    """How a mutant ended, in the words of
    https://stryker-mutator.io/docs/mutation-testing-elements/mutant-states-and-metrics where there
    are any."""

    CAUGHT = "caught"  # by a wrong answer
    RAISED = "raised"  # caught, because the code stopped with an error
    TIMEOUT = "timeout"  # caught, because no answer came in time, or the process died
    SURVIVED = "survived"
    NOT_REACHED = "not reached"  # no problem, row or test that was asked runs the edited code
    UNDECIDED = "time ran out"  # not judged: not all cases that reach it were asked, in the time
    ERRORED = "errored"  # no verdict: asked again by the next run

    @property
    def is_caught(self) -> bool:
        return self in (Fate.CAUGHT, Fate.RAISED, Fate.TIMEOUT)


@dataclass(frozen=True)
class Verdict:
    """``tier``: what it took (quick, standard; else empty). ``by``: the case that caught it, and
    ``message`` what that said. ``asked``: how many cases were asked that reach it. ``seconds``
    passed; ``cpu_seconds`` are the processors' own."""

    fate: Fate
    tier: str = ""
    by: str = ""
    message: str = ""
    asked: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class Judge(Protocol):
    """Judges mutants one after another, in a process of its own."""

    def judge(self, mutant: Mutant) -> Verdict: ...

    def close(self) -> None: ...


class Part(Protocol):
    """What a campaign puts wrong. ``made_of`` are texts that decide the verdicts, for a digest."""

    name: str
    says: str

    def mutants(self) -> Sequence[Mutant]:
        """All there are."""
        ...

    def prepare(self, workers: int) -> None:
        """Finds out, before the first verdict, what every judge must know; once for all, in so many
        processes."""
        ...

    def judge(self) -> Judge:
        """A judge for this process."""
        ...

    def close(self) -> None:
        """Removes what :meth:`prepare` made."""
        ...
