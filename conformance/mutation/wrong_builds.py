"""Judges a selector in this process: the selection suite's own cases, without pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from conformance.config import RunConfig
from conformance.matrix.requests import Ask, Platform, Selection
from conformance.subjects.base import Session, SubjectInfo
from conformance.subjects.reference import answer
from conformance.suites.case import Case, Context, Nonconformance, SessionPool, Unsupported
from conformance.suites.selection import test_flags, test_properties, test_sweep, test_truth
from conformance.worker.contract import BackendDescription, Variable
from rocm_reference.selector import Selector

# A module of the suite, with the function that judges a case.
Judge = tuple[ModuleType, Callable[[Any, Context, SessionPool], Any]]
JUDGES: tuple[Judge, ...] = (
    (test_truth, test_truth.test_rows),
    (test_flags, test_flags.test_flags),
    (test_sweep, test_sweep.test_sweep),
    (test_properties, test_properties.test_property),
)
Failure = tuple[Case, Nonconformance]


@dataclass(frozen=True)
class Build:
    """A build that has a release's number and selects as it likes.

    ``spec`` is the subject's spelling, ``worker:`` and a name that no other build has: sweeps are
    remembered by it.
    """

    spec: str
    release: str
    selector_on: Callable[[Platform], Selector]
    note: str = ""

    def info(self) -> SubjectInfo:
        return SubjectInfo("fake", self.release, simulated=True)

    def open(self, platform: Platform) -> Session:
        return _Session(self, platform)

    def reopen(self, platform: Platform) -> Session:
        return self.open(platform)

    def source_tree(self) -> Path | None:
        return None

    def close(self) -> None:
        pass


class _Session:
    """A build on one platform."""

    def __init__(self, build: Build, platform: Platform) -> None:
        self._selector = build.selector_on(platform)
        self.info = build.info()
        self.alive = True

    def ask(self, asks: Sequence[Ask]) -> Iterator[Selection]:
        return (answer(self._selector, ask) for ask in asks)

    def variables(self, names: Sequence[str]) -> dict[str, Variable]:
        raise NotImplementedError

    def describe(self, backends: Sequence[str]) -> dict[str, BackendDescription]:
        raise NotImplementedError

    def close(self) -> None:
        pass


def failures(
    build: Build,
    edition: str,
    cells: tuple[str, ...],
    *,
    sweep: int,
    examples: int,
    judges: Sequence[Judge] = JUDGES,
    targets: tuple[str, ...] = (),
) -> Iterator[Failure]:
    """The cases that a build fails, one after another: whoever needs the first alone waits less.

    ``targets``: on these alone, where any are named.
    """
    config = RunConfig(
        subjects=(build.spec,),
        cells=cells,
        edition=edition,
        sweep=sweep,
        examples=examples,
        releases={build.spec: build.release},
        targets=targets,
    )
    context = Context(config, subjects={build.spec: build})
    sessions = SessionPool(context)
    for module, judge in judges:
        for case in module.cases(context):
            try:
                judge(case, context, sessions)
            except Nonconformance as error:
                yield case, error
            except Unsupported:
                continue
