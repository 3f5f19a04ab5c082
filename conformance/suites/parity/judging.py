"""Judges what a backend computed, and says in words what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from conformance.oracle.arithmetic import HIP_PARTIAL_ROUNDINGS, Arithmetic
from conformance.oracle.judgement import judge, judge_topk, solve, solve_indexer
from conformance.problems.problem import Problem
from conformance.problems.tensors import Tensors
from conformance.results.emulation_coverage import counts_of
from conformance.subjects.kernels import Attended
from conformance.suites.case import Measured, Nonconformance, in_one_line
from conformance.suites.parity.case import ParityCase
from conformance.suites.parity.coverage import RAN


@dataclass(frozen=True)
class Verdict:
    """What is wrong with an answer, a sentence each, and what was measured; none: it is right.

    ``not_finite``: elements that are NaN or infinite where they must not be.
    """

    wrong: tuple[str, ...]
    measured: Measured
    not_finite: int = 0

    def may_be_poison(self, problem: Problem) -> bool:
        """Whether what is wrong could come from the contents of unused slots."""
        return self.not_finite > 0 or problem.poison == "huge"

    def as_error(self, command: str, attended: Attended, requirement: str = "") -> Nonconformance:
        """``requirement``: the one that is not met, if it is not the backend's own."""
        findings = self.wrong
        if requirement:
            first = f"with zeros in the cache's unused slots it is right, with poison {findings[0]}"
            findings = (first, *findings[1:])
        kernels = f"kernels: {', '.join(attended.dispatch)}"
        return Nonconformance(
            in_one_line([*findings, kernels]),
            command,
            self.measured,
            attended.trace,
            requirement,
            findings,
        )


def verdict(case: ParityCase, attended: Attended, tensors: Tensors) -> Verdict:
    """Judges an answer, on the GPU where that is the device."""
    problem = case.problem
    assert problem is not None
    tensors = tensors.to("cuda") if case.device == "gpu" else tensors
    counts = {f"{RAN}{kernel}": 1 for kernel in attended.dispatch} | counts_of(attended.emulated)
    wrong = list(attended.violations)
    measures: dict[str, float] = {"seconds": attended.seconds}
    not_finite = 0
    if attended.raised:
        wrong.append(f"{case.backend} refused a problem that it admits: {attended.raised}")
    elif problem.kind == "indexer":
        wrong += judge_topk(problem, solve_indexer(problem, tensors), attended.results["indices"])
    else:
        truth = solve(problem, tensors, arithmetic_of(case, attended.dispatch))
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
        not_finite = judgement.not_finite
    finite = {name: value for name, value in measures.items() if math.isfinite(value)}
    return Verdict(tuple(wrong), Measured(counts, finite), not_finite)


def arithmetic_of(case: ParityCase, dispatch: Sequence[str]) -> Arithmetic:
    """How a subject computes: vLLM rounds the parts of a latent prefill before it merges them, and
    its HIP kernels those of a decode. ``dispatch``: the kernels that ran."""
    problem = case.problem
    if not case.of_vllm or problem is None:
        return Arithmetic()
    rounded = int(problem.kind == "mla_prefill")
    for kernel, by_dtype in HIP_PARTIAL_ROUNDINGS.items():
        if any(kernel in name for name in dispatch):
            rounded = max(rounded, by_dtype[problem.dtype])
    return Arithmetic(partial_roundings=rounded)
