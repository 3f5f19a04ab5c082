"""Every backend's kernels against the float64 oracle, to within the derived bound."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch

from conformance.emulation import counts_of
from conformance.errors import InfrastructureError
from conformance.judgement import judge, judge_topk, solve, solve_indexer
from conformance.problems.families import NO_LSE, problems_for
from conformance.problems.problem import Problem
from conformance.problems.tensors import Tensors, materialise
from conformance.requirements import requirements_of
from conformance.subjects.kernels import (
    Attended,
    KernelWorker,
    card_environment,
    reference_command,
)
from conformance.suites.case import Case, Context, Found, Nonconformance, Unsupported
from conformance.suites.parity.coverage import RAN

SUITE = "parity"
NO_PROBLEM = "all"


@dataclass(frozen=True)
class ParityCase(Case):
    """One problem on one backend; no cell changes what a kernel computes, so all share it."""

    problem: Problem | None = None
    backend: str = ""
    device: str = ""

    @property
    def name(self) -> str:
        return f"{self.requirement} {self.backend} [{self.problem or NO_PROBLEM}]"

    @property
    def group(self) -> str:
        # Each problem may go to any process: workers keep nothing from one to the next.
        return f"{self.subject} {self.backend} {self.problem}"

    @property
    def where(self) -> dict[str, str]:
        return {"target": "", "platform": f"device {self.device}", "backend": self.backend}


def cases(context: Context) -> Iterator[ParityCase]:
    config = context.config
    platform = next(iter(context.platforms))
    for subject in config.subjects:
        for requirement, backend in backends(config.edition):
            made = ParityCase(
                SUITE, "parity", subject, requirement, platform, context.cells, platform
            )
            made = replace(made, backend=backend, device=config.device)
            if subject != "reference":
                yield made
                continue
            for problem in problems_for(backend, config.tier, config.seed):
                if config.problem in ("", problem.id):
                    yield replace(made, problem=problem)


@cache
def backends(edition: str) -> tuple[tuple[str, str], ...]:
    """The parity requirements of an edition, each with the backend that it is about."""
    titled = {k: r.title for k, r in requirements_of(edition).items() if k.startswith("PAR-0")}
    end = " computes attention"
    return tuple((k, t.removesuffix(end)) for k, t in titled.items() if t.endswith(end))


class Kernels:
    """The kernel worker of this process, and a new one after each that was lost."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._worker: KernelWorker | None = None

    def worker(self) -> KernelWorker:
        if self._worker is None or not self._worker.alive:
            config = self._context.config
            number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
            card = card_environment(number) if config.device == "gpu" else {}
            self._worker = KernelWorker(
                reference_command(sys.executable), config.device, config.timeout, card
            )
            self._context.infos["reference"] = self._worker.info
        return self._worker

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None


@pytest.fixture(scope="session")
def kernels(context: Context) -> Iterator[Kernels]:
    found = Kernels(context)
    yield found
    found.close()


def test_parity(case: ParityCase, context: Context, kernels: Kernels) -> Found:
    problem = case.problem
    if problem is None:
        raise Unsupported(
            f"the suite does not drive {case.subject}'s own kernels of {case.backend} yet"
        )
    tensors = materialise(problem)
    worker = kernels.worker()
    try:
        attended = worker.attend(problem, tensors, wants_lse=case.backend not in NO_LSE)
    except InfrastructureError:
        kernels.close()
        raise
    if attended.raised:
        # A device may be lost after an error of its own: the next problem gets a new process.
        kernels.close()
    if case.device != "gpu":
        return verdict(case, attended, tensors, context)
    try:
        return verdict(case, attended, tensors.to("cuda"), context)
    except torch.cuda.OutOfMemoryError as error:
        raise InfrastructureError(f"judging {problem} took more memory than the GPU has") from error
    finally:
        torch.cuda.empty_cache()


def verdict(case: ParityCase, attended: Attended, tensors: Tensors, context: Context) -> Found:
    """What was measured, or the nonconformance."""
    problem = case.problem
    assert problem is not None
    counts = {f"{RAN}{kernel}": 1 for kernel in attended.dispatch} | counts_of(attended.emulated)
    wrong = list(attended.violations)
    measures: dict[str, float] = {"seconds": attended.seconds}
    if attended.raised:
        wrong.append(f"{case.backend} refused a problem that it admits: {attended.raised}")
    elif problem.kind == "indexer":
        wrong += judge_topk(problem, solve_indexer(problem, tensors), attended.results["indices"])
    else:
        truth = solve(problem, tensors)
        judgement = judge(problem, truth, attended.results["output"], attended.results.get("lse"))
        measures |= {
            "error_over_bound": judgement.ratio,
            "lse_error_over_bound": judgement.lse_ratio,
            "max_error": judgement.max_error,
            "torch_error": judgement.torch_error,
        }
        if judgement.worst is not None:
            measures["bound_at_max"] = judgement.worst.bound
        wrong += [] if judgement.passed else [str(judgement)]
    found = Found(counts, {k: v for k, v in measures.items() if _is_finite(v)})
    if wrong:
        raise Nonconformance(
            f"{'; '.join(wrong)}; kernels: {', '.join(attended.dispatch)}",
            reproduce(case, context),
            found,
            attended.trace,
        )
    return found


def reproduce(case: ParityCase, context: Context) -> str:
    """The command that gives one problem to one backend again."""
    config = context.config
    words = ["rocm-conformance", "run", "--suite", "parity", "--subject", case.subject]
    words += ["--device", config.device, "--problems", config.tier, "--seed", str(config.seed)]
    return shlex.join([*words, "--problem", str(case.problem)])


def _is_finite(value: float) -> bool:
    return bool(torch.tensor(value).isfinite())
