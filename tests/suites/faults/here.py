"""Judges a wrong selector in this process: the selection suite's own cases, without pytest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from conformance.config import RunConfig
from conformance.matrix.requests import Ask, Platform, Selection
from conformance.subjects.base import Session, SubjectInfo
from conformance.subjects.reference import answer
from conformance.suites.case import Case, Context, Nonconformance, SessionPool, Unsupported
from conformance.suites.selection import test_properties, test_sweep, test_truth
from conformance.worker.contract import BackendDescription, Variable
from tests.suites.faults.fault import EDITION, RELEASE, Fault

# The modules of the suite, each with the function that judges a case.
JUDGES = (
    (test_truth, test_truth.test_rows),
    (test_properties, test_properties.test_property),
    (test_sweep, test_sweep.test_sweep),
)


class FaultySession:
    """A build with a fault on one platform."""

    def __init__(self, fault: Fault, platform: Platform) -> None:
        self._selector = fault.selector_on(platform)
        self.info = SubjectInfo("fake", RELEASE, simulated=True)
        self.alive = True

    def ask(self, asks: Sequence[Ask]) -> Iterator[Selection]:
        return (answer(self._selector, ask) for ask in asks)

    def variables(self, names: Sequence[str]) -> dict[str, Variable]:
        raise NotImplementedError

    def describe(self, backends: Sequence[str]) -> dict[str, BackendDescription]:
        raise NotImplementedError

    def close(self) -> None:
        pass


class FaultySubject:
    """A build with a fault."""

    release = RELEASE
    note = ""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self.spec = f"worker:{fault.name}"

    def info(self) -> SubjectInfo:
        return SubjectInfo("fake", RELEASE, simulated=True)

    def open(self, platform: Platform) -> Session:
        return FaultySession(self._fault, platform)

    def reopen(self, platform: Platform) -> Session:
        return self.open(platform)

    def source_tree(self) -> Path | None:
        return None

    def close(self) -> None:
        pass


def failures(fault: Fault) -> list[tuple[Case, Nonconformance]]:
    """The cases that a build with a fault fails."""
    subject = FaultySubject(fault)
    config = RunConfig(
        subjects=(subject.spec,),
        cells=fault.cells,
        edition=EDITION,
        sweep=300,
        examples=15,
        releases={subject.spec: RELEASE},
    )
    context = Context(config, subjects={subject.spec: subject})
    sessions = SessionPool(context)
    failed = []
    for module, judge in JUDGES:
        for case in module.cases(context):
            try:
                judge(case, context, sessions)
            except Nonconformance as error:
                failed.append((case, error))
            except Unsupported:
                continue
    return failed
