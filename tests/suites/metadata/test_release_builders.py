"""Faults in the metadata builders of a copy of vLLM 0.33.0, each caught by what names it.

A fault is judged by what is found with it and not without it: the release itself is not free of
findings. One is judged with every change, the others slowly, because each imports vLLM once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest

from conformance.errors import InfrastructureError
from conformance.matrix.requests import AITER, Platform
from conformance.subjects.base import Options
from conformance.subjects.protocol import Worker, start
from conformance.subjects.spellings import parse_subject
from conformance.subjects.workers import WorkerSubject
from conformance.suites.metadata.asked import questions
from conformance.suites.metadata.harness import INTERPRETED, ask_all
from tests.suites.faults.of_builders import FAULTS, RELEASE, SERIES, BuilderFault
from tests.support.release_copy import Copy
from tests.support.some import one_in

PLATFORM = Platform.make("gfx942", aiter=True, env={AITER: "1"})
PATIENCE = 600.0  # seconds for an answer: on a busy machine an import of vLLM takes minutes
FEWEST = 15
Found = frozenset[tuple[str, str, str]]


@dataclass
class Judge:
    """A copy of the release, and a worker that imports it anew for each fault."""

    copy: Copy
    worker: Worker
    in_session: bool = False

    def found(self, backend: str) -> Found:
        """What is found in a backend now: requirement, field and words of each."""
        if self.in_session:
            self.worker.call("stop")
        start(self.worker, PLATFORM, "always", [])
        self.in_session = True
        judged = ask_all(self.worker, backend, questions(backend, SERIES, "quick", 1))
        assert judged.steps, judged.refused
        return frozenset((one.requirement, one.field, one.text) for one in judged.found)

    @cache  # noqa: B019 - a judge lives as long as the module's tests
    def without_fault(self, backend: str) -> Found:
        return self.found(backend)

    def __hash__(self) -> int:
        return id(self)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    folder = tmp_path_factory.mktemp("release") / "site"
    copy = Copy.of(RELEASE, folder)
    subject = parse_subject(str(folder), Options(SERIES, "always"))
    assert isinstance(subject, WorkerSubject)
    worker = Worker(subject.command, {**subject.environment, **INTERPRETED}, PATIENCE)
    yield Judge(copy, worker)
    worker.close()


@pytest.mark.vllm
@pytest.mark.xdist_group("builders")
@pytest.mark.parametrize("fault", one_in(len(FAULTS), FAULTS, [f.name for f in FAULTS]))
def test_a_fault_in_a_builder_is_caught_by_the_requirement_that_names_it(
    fault: BuilderFault, judge: Judge
) -> None:
    before = judge.without_fault(fault.backend)
    with judge.copy.with_fault(fault):
        try:
            now = judge.found(fault.backend)
        except InfrastructureError as error:
            pytest.fail(f"{error.args[0]}\n{error.stderr[-2000:]}")
    new = now - before
    assert fault.caught_by in {requirement for requirement, *_ in new}, new


def test_there_are_enough_of_every_kind() -> None:
    assert len(FAULTS) >= FEWEST
    assert len({fault.caught_by for fault in FAULTS}) >= FEWEST
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
