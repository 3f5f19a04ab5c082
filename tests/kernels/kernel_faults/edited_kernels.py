"""Runs problems on edited kernels and judges the results."""

from __future__ import annotations

import sys
import tempfile
from functools import cache
from pathlib import Path

from conformance.mutation.edit import Edit
from conformance.mutation.kernel_copy import copy_kernels
from conformance.oracle.judgement import (
    IndexerTruth,
    Truth,
    judge,
    judge_topk,
    solve,
    solve_indexer,
)
from conformance.problems.families import NO_LSE
from conformance.problems.problem import Problem
from conformance.problems.tensors import Tensors, materialise
from conformance.subjects.kernels import KernelWorker
from conformance.worker.contract import PROTOCOL

SERVER = Path(__file__).parent / "edited_worker.py"
# Seconds for one answer. The first waits until torch and Triton are imported, which takes more than
# a minute on a machine that is busy with something else.
TIMEOUT = 240


class EditedKernels(KernelWorker):
    """A worker that changes its kernels from one problem to the next."""

    def __init__(self) -> None:
        command = [sys.executable, str(SERVER)]
        super().__init__(command, "interpreter", TIMEOUT, {"OMP_NUM_THREADS": "1"})
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        # Where the copy is that the worker will import.
        self.folder: Path | None = None

    def use(self, edits: tuple[Edit, ...]) -> None:
        """Gives the worker a copy of the kernels with these edits."""
        self._remove()
        self._copy = tempfile.TemporaryDirectory(prefix="kernel-fault-")
        self.folder = folder = copy_kernels(Path(self._copy.name), edits)
        self._worker.call("stop")
        self._worker.call("start", protocol=PROTOCOL, kernels=str(folder))

    def set_timeout(self, seconds: float) -> None:
        """Changes how long an answer may take."""
        self._worker.timeout = seconds

    def close(self) -> None:
        super().close()
        self._remove()

    def _remove(self) -> None:
        if self._copy is not None:
            self._copy.cleanup()

    def findings(self, problem: Problem) -> list[str]:
        """What is wrong with the results of a problem, in words; nothing if they conform.

        No fault of the catalogue makes a kernel raise: if one does, the edit itself is wrong.
        """
        tensors = _tensors(problem)
        attended = self.attend(problem, tensors, wants_lse=problem.backend not in NO_LSE)
        assert not attended.raised, attended.trace
        wrong = list(attended.violations)
        truth = _truth(problem)
        if isinstance(truth, IndexerTruth):
            return wrong + judge_topk(problem, truth, attended.results["indices"])
        results = attended.results
        judgement = judge(problem, truth, results["output"], results.get("lse"))
        return wrong if judgement.passed else [*wrong, str(judgement)]


@cache
def _tensors(problem: Problem) -> Tensors:
    return materialise(problem)


@cache
def _truth(problem: Problem) -> Truth | IndexerTruth:
    if problem.kind == "indexer":
        return solve_indexer(problem, _tensors(problem))
    return solve(problem, _tensors(problem), with_torch=False)
