"""Faults in a copy of vLLM 0.33.0's kernels, each caught by a problem of the quick tier, or of the
standard one where the table says so.

Slow, because vLLM is imported anew for each fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.mutation.kernel_sources import vllm_source
from conformance.mutation.kernels import Runner
from conformance.requirements.waivers import load_waivers
from conformance.suites.case import Nonconformance
from conformance.suites.parity.case import ParityCase
from conformance.suites.parity.harness import run_problem
from tests.suites.faults.of_kernels import BY_KERNEL, RELEASE, KernelFault

LEAST = 30  # faults that there must be
# What is accepted of the release.
KNOWN = {
    deviation
    for waiver in load_waivers().waivers
    if waiver.of_release(RELEASE)
    for deviation in waiver.deviations
}

FAULTS = {f"{of}: {fault.name}": fault for of, faults in BY_KERNEL.items() for fault in faults}


class Judged:
    """The release's kernels, and the cases of both tiers."""

    def __init__(self, folder: Path) -> None:
        self.runner = Runner(vllm_source(RELEASE), folder)
        # As released: vLLM reads the source of helpers, and a campaign's probes are none of it.
        workspace = self.runner.workspace
        for file in self.runner.source.files():
            workspace.replace(file, workspace.source(file))
        self._tiers = {tier: self.runner.cases(tier) for tier in ("quick", "standard")}
        self._unknown: dict[str, str] = {}

    def case(self, fault: KernelFault) -> ParityCase:
        """The case that must show a fault."""
        backend, words = fault.caught_by
        return next(
            case
            for case in self._tiers[fault.tier]
            if case.problem and case.backend == backend and words in case.problem.id
        )

    def wrong(self, case: ParityCase) -> Nonconformance | None:
        """What is wrong with what the kernels make of a case."""
        assert case.problem is not None
        try:
            run_problem(case, case.problem, self.runner.context, self.runner.workers)
        except Nonconformance as error:
            return error
        return None

    def unknown(self, case: ParityCase) -> str:
        """What is wrong with the right kernels, but for known deviations."""
        if case.name not in self._unknown:
            found = self.wrong(case)
            self._unknown[case.name] = "" if found is None or is_known(found) else str(found)
        return self._unknown[case.name]


def is_known(found: Nonconformance) -> bool:
    """Whether all that was found are deviations that are accepted of the release."""
    return all(each.deviations and KNOWN.issuperset(each.deviations) for each in found.identities)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judged]:
    kernels = Judged(tmp_path_factory.mktemp("kernels"))
    yield kernels
    kernels.runner.close()


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.xdist_group("faults in kernels")
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_in_a_kernel_is_caught(fault: KernelFault, judged: Judged) -> None:
    """What it does is not accepted, and all that the right kernels do wrong there is."""
    runner, case = judged.runner, judged.case(fault)
    runner.workspace.edit(fault.file, fault.put_into(runner.workspace.source(fault.file)))
    try:
        runner.workers.restart()
        found = judged.wrong(case)
    finally:
        runner.restore()
    assert found is not None, "nothing is wrong"
    assert not is_known(found), str(found)
    assert judged.unknown(case) == ""


def test_there_are_thirty_in_every_kind_of_kernel() -> None:
    assert len(FAULTS) >= LEAST
    assert all(fault.old != fault.new for fault in FAULTS.values())
