"""Kernels with one fault each, in Triton's interpreter, and the problem that must show it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from conformance.problems.features import features
from conformance.problems.problem import Problem
from tests.kernels.kernel_faults.catalogue import FAULTS
from tests.kernels.kernel_faults.fault import Edit, Fault, copy_kernels
from tests.kernels.kernel_faults.verdict import EditedKernels

# Each problem with the setting that it is put under, by what it is called.
PUT = {
    f"{problem.id}{' in small chunks' if fault.setting else ''}": (fault.setting, problem)
    for fault in FAULTS
    for problem in fault.problems()
}


@pytest.fixture(scope="module")
def kernels() -> Iterator[EditedKernels]:
    # The oracle's tensors are small: threads cost more than they give.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = EditedKernels()
    yield found
    found.close()
    torch.set_num_threads(threads)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_shows(fault: Fault, kernels: EditedKernels) -> None:
    problems = fault.problems()
    assert problems, f"no problem is tagged {fault.caught_by}"
    kernels.use((*fault.setting, *fault.edits))
    assert any(kernels.findings(problem) for problem in problems)


@pytest.mark.parametrize("name", PUT)
def test_without_a_fault_the_problem_passes(name: str, kernels: EditedKernels) -> None:
    setting, problem = PUT[name]
    kernels.use(setting)
    assert kernels.findings(problem) == []


def test_the_catalogue() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(names) == len(set(names)) >= 40
    assert len({fault.edits for fault in FAULTS}) >= 40
    asked = {problem.backend for fault in FAULTS for problem in fault.problems()}
    assert asked == set(features())


@pytest.mark.parametrize("count", [0, 2])
def test_an_edit_must_find_its_text_once(count: int, tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text("x = 1\n" * count, encoding="utf-8")
    with pytest.raises(ValueError, match=f"{count} times, not once"):
        Edit("kernel.py", "x = 1", "x = 2").apply(tmp_path)


def test_kernels_themselves_are_not_edited(tmp_path: Path) -> None:
    edit = Edit("ops/softmax.py", "seen & (key_pos <= query_pos)", "seen")
    copy = copy_kernels(tmp_path, (edit,)) / "rocm_reference" / edit.file
    assert edit.find not in copy.read_text(encoding="utf-8")
    copy_kernels(tmp_path / "again", (edit,))


def test_a_problem_is_one() -> None:
    assert all(isinstance(problem, Problem) for _, problem in PUT.values())
