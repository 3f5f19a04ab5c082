"""Kernels with one fault each, in Triton's interpreter, and the problem that must show it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from conformance.problems.features import features
from conformance.problems.problem import Problem
from rocm_reference.backends.registry import NAMES
from tests.kernels.kernel_faults.catalogue import FAULTS
from tests.kernels.kernel_faults.edited_kernels import EditedKernels
from tests.kernels.kernel_faults.fault import Fault
from tests.support.some import one_in

# Each problem and the setting that it is run under, by name.
ASKED = {
    f"{problem.id}{' in small chunks' if fault.setting else ''}": (fault.setting, problem)
    for fault in FAULTS
    for problem in fault.problems()
}


@pytest.fixture(scope="module")
def kernels() -> Iterator[EditedKernels]:
    # The oracle's tensors are small: threads cost more than they give.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    edited = EditedKernels()
    yield edited
    edited.close()
    torch.set_num_threads(threads)


@pytest.mark.parametrize("fault", one_in(5, FAULTS, [fault.name for fault in FAULTS]))
def test_a_fault_shows(fault: Fault, kernels: EditedKernels) -> None:
    problems = fault.problems()
    assert problems, f"no problem is tagged {fault.caught_by}"
    kernels.use((*fault.setting, *fault.edits))
    assert any(kernels.findings(problem) for problem in problems)


@pytest.mark.parametrize("name", one_in(5, ASKED))
def test_without_a_fault_the_problem_passes(name: str, kernels: EditedKernels) -> None:
    setting, problem = ASKED[name]
    kernels.use(setting)
    assert kernels.findings(problem) == []


def test_the_catalogue() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(names) == len(set(names)) >= 40
    assert len({fault.edits for fault in FAULTS}) >= 40
    asked = {problem.backend for fault in FAULTS for problem in fault.problems()}
    assert asked == set(features()) & set(NAMES)


def test_a_problem_is_one() -> None:
    assert all(isinstance(problem, Problem) for _, problem in ASKED.values())
