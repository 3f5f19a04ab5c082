"""Every backend's kernels against the float64 oracle, to within the derived bound."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch

from conformance.config import RunConfig
from conformance.errors import InfrastructureError, OutOfMemoryError
from conformance.oracle.arithmetic import Arithmetic
from conformance.oracle.judgement import judge, judge_topk, solve, solve_indexer
from conformance.problems.families import NO_LSE, problems_for
from conformance.problems.problem import Problem
from conformance.problems.tensors import Tensors, materialise
from conformance.requirements import requirements_of
from conformance.results.emulation_coverage import counts_of
from conformance.subjects.kernels import (
    Attended,
    KernelWorker,
    card_environment,
    card_of,
    reference_command,
)
from conformance.subjects.workers import WorkerSubject, worker_command
from conformance.suites.case import Case, Context, Found, Nonconformance, Unsupported
from conformance.suites.parity.aiter_backends import from_aiter
from conformance.suites.parity.coverage import RAN
from conformance.suites.parity.gpu_sharing import turn
from conformance.worker.contract import BACKEND_NEEDS, lacks_memory, needs_amd_gpu

SUITE = "parity"
NO_PROBLEM = "all"
UNUSED_SLOTS = "PAR-080"


# The GPUs that a vLLM is shown where no kernel is compiled: it stores fp8 as its GPU does.
SHOWN = {"fp8_e4m3fn": "gfx950"}
USUALLY_SHOWN = "gfx942"
# The most keys of a problem that a vLLM is given in the quick tier where its kernels are
# interpreted: its cache write takes a launch's time for each of them, twice.
QUICK_KEYS = 400


@dataclass(frozen=True)
class ParityCase(Case):
    """One problem on one backend; no cell changes what a kernel computes, so all share it.

    ``target`` is the GPU that a vLLM is shown; the reference kernels ask for none.
    """

    problem: Problem | None = None
    backend: str = ""
    device: str = ""
    target: str = ""

    @property
    def name(self) -> str:
        return f"{self.requirement} {self.backend} [{self.problem or NO_PROBLEM}]"

    @property
    def group(self) -> str:
        # Each problem may go to any process: workers keep nothing from one to the next.
        return f"{self.subject} {self.backend} {self.problem}"

    @property
    def where(self) -> dict[str, str]:
        return {
            "target": self.target,
            "platform": f"device {self.device}",
            "backend": self.backend,
        }


def cases(context: Context) -> Iterator[ParityCase]:
    config = context.config
    platform = next(iter(context.platforms))
    for subject in config.subjects:
        for requirement, backend in backends(config.edition):
            made = ParityCase(
                SUITE, "parity", subject, requirement, platform, context.cells, platform
            )
            made = replace(made, backend=backend, device=config.device)
            whole = config.device != "gpu" and not config.problem
            if subject.startswith("worker:"):
                yield made
                continue
            by_aiter = from_aiter(context, subject, backend)
            if subject != "reference" and whole and backend in BACKEND_NEEDS and not by_aiter:
                yield replace(made, target=shown(config))
                continue
            for problem in problems_for(backend, config.tier, config.seed):
                if config.problem:
                    wanted = config.problem == problem.id
                else:
                    wanted = subject == "reference" or not too_long(config, problem)
                if wanted:
                    target = "" if subject == "reference" else shown(config, problem)
                    yield replace(made, problem=problem, target=target)


def too_long(config: RunConfig, problem: Problem) -> bool:
    """Whether a vLLM's quick run leaves a problem to the standard one."""
    quick = config.tier == "quick" and config.device == "interpreter"
    return quick and problem.has_cache and sum(problem.seq_lens) > QUICK_KEYS


def shown(config: RunConfig, problem: Problem | None = None) -> str:
    """The GPU that a vLLM is shown; a quick run is content with one, as its start takes long."""
    if config.device == "gpu":
        return real_target()
    _, colon, rest = config.device.partition(":")
    if colon:
        return rest.partition(",")[0]
    if problem is None or config.tier == "quick":
        return USUALLY_SHOWN
    return SHOWN.get(problem.kv_cache_dtype, USUALLY_SHOWN)


@cache
def real_target() -> str:
    """The AMD GPU of this machine; "" where torch sees none."""
    if torch.version.hip is None or not torch.cuda.is_available():
        return ""
    name: str = torch.cuda.get_device_properties(0).gcnArchName
    return name.partition(":")[0]


@cache
def backends(edition: str) -> tuple[tuple[str, str], ...]:
    """The parity requirements of an edition, each with the backend that it is about."""
    titled = {k: r.title for k, r in requirements_of(edition).items() if k.startswith("PAR-0")}
    end = " computes attention"
    return tuple((k, t.removesuffix(end)) for k, t in titled.items() if t.endswith(end))


class Kernels:
    """The kernel workers of this process, one a subject and target; a new one for each lost."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._workers: dict[tuple[str, str, bool], KernelWorker] = {}
        number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        self.card = card_of(number) if context.config.device == "gpu" else ""

    def worker(self, case: ParityCase) -> KernelWorker:
        key = self._key(case)
        if key not in self._workers or not self._workers[key].alive:
            self._workers[key] = self._start(case)
            self._context.infos[case.subject] = self._workers[key].info
        return self._workers[key]

    def _key(self, case: ParityCase) -> tuple[str, str, bool]:
        by_aiter = from_aiter(self._context, case.subject, case.backend)
        return case.subject, case.target, by_aiter

    def _start(self, case: ParityCase) -> KernelWorker:
        config = self._context.config
        env = card_environment(self.card)
        command = reference_command(sys.executable)
        if case.subject != "reference":
            subject = self._context.subject(case.subject)
            if not isinstance(subject, WorkerSubject):
                raise Unsupported(f"{case.subject} has no kernels that the suite can drive")
            command, env = subject.command, {**subject.environment, **env}
            if from_aiter(self._context, case.subject, case.backend):
                command = worker_command(subject.python, "aiter")
        target = case.target or USUALLY_SHOWN
        return KernelWorker(command, config.device, config.timeout, env, target, config.simulate)

    def close(self, case: ParityCase | None = None) -> None:
        """Ends the worker of a case's subject and target, or all."""
        keys = [*self._workers] if case is None else [self._key(case)]
        for key in keys:
            if key in self._workers:
                self._workers.pop(key).close()


@pytest.fixture(scope="session")
def kernels(context: Context) -> Iterator[Kernels]:
    # Most of the oracle's tensors are small: more threads wait for one another.
    torch.set_num_threads(1)
    found = Kernels(context)
    yield found
    found.close()


def test_parity(case: ParityCase, context: Context, kernels: Kernels) -> Found:
    problem = case.problem
    if problem is None and case.subject.startswith("worker:"):
        raise Unsupported("kernels are those of the reference and of vLLMs: this is neither")
    if problem is None:
        raise Unsupported(needs_amd_gpu(*BACKEND_NEEDS[case.backend]))
    if kernels.card:
        with suppress(OutOfMemoryError), turn(kernels.card):
            return put_and_judged(case, problem, context, kernels)
    # Nobody shares the card, or those who do left too little of its memory.
    with turn(kernels.card, alone=True):
        return put_and_judged(case, problem, context, kernels)


def put_and_judged(case: ParityCase, problem: Problem, context: Context, kernels: Kernels) -> Found:
    """One problem's verdict; a wrong answer is put again where unused slots may be at fault."""
    tensors = materialise(problem)
    attended = put(case, kernels, tensors)
    if case.device.startswith("aot:"):
        return compiled(case, attended, context)
    try:
        found = judged(case, attended, tensors)
        if not found.wrong:
            return found.found
        if problem.has_cache and found.may_be_poison(problem):
            with_zeros = put(case, kernels, tensors, cache_filling="zero")
            if not judged(case, with_zeros, tensors).wrong:
                raise found.as_error(reproduce(case, context), attended, UNUSED_SLOTS)
        raise found.as_error(reproduce(case, context), attended)
    except RuntimeError as error:
        if lacks_memory(error):
            raise OutOfMemoryError(
                f"judging {problem} took more memory than the GPU has"
            ) from error
        raise
    finally:
        if case.device == "gpu":
            torch.cuda.empty_cache()


def put(
    case: ParityCase, kernels: Kernels, tensors: Tensors, *, cache_filling: str = ""
) -> Attended:
    """What the case's backend makes of its problem.

    Raises:
        Unsupported: the subject's backend does not claim to take it, or cannot here.
        InfrastructureError: the worker died or hung.
    """
    assert case.problem is not None
    # vLLM's operations give no log-sum-exp, or one that is rounded to 16 bits.
    wants_lse = case.subject == "reference" and case.backend not in NO_LSE
    worker = kernels.worker(case)
    try:
        attended = worker.attend(
            case.problem, tensors, wants_lse=wants_lse, cache_filling=cache_filling
        )
    except InfrastructureError:
        kernels.close(case)
        raise
    if attended.raised:
        # A device may be lost after an error of its own: the next problem gets a new process.
        kernels.close(case)
    if attended.refused:
        raise Unsupported(attended.refused)
    return attended


def compiled(case: ParityCase, attended: Attended, context: Context) -> Found:
    """The end of a case on a device that compiles and runs nothing."""
    if attended.raised:
        raise Nonconformance(
            f"{case.backend} does not compile for {case.device}: {attended.raised}",
            reproduce(case, context),
            detail=attended.trace,
        )
    ran = ", ".join(attended.dispatch)
    raise Unsupported(f"compiled, and nothing was run whose result could be judged: {ran}")


@dataclass
class Judged:
    """What is wrong with an answer, in words, and what was measured of it."""

    wrong: list[str]
    found: Found
    not_finite: int = 0

    def may_be_poison(self, problem: Problem) -> bool:
        """Whether what is wrong could stem from what stands in unused slots."""
        return self.not_finite > 0 or problem.poison == "huge"

    def as_error(self, command: str, attended: Attended, requirement: str = "") -> Nonconformance:
        """``requirement``: the one that is not met, if it is not that of the backend."""
        said = "; ".join(self.wrong)
        if requirement:
            said = f"with zeros in the cache's unused slots it is right, with poison {said}"
        ran = ", ".join(attended.dispatch)
        return Nonconformance(
            f"{said}; kernels: {ran}", command, self.found, attended.trace, requirement
        )


def judged(case: ParityCase, attended: Attended, tensors: Tensors) -> Judged:
    """The verdict on an answer, on the GPU where that is the device."""
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
        truth = solve(problem, tensors, arithmetic_of(case))
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
    found = Found(counts, {k: v for k, v in measures.items() if _is_finite(v)})
    return Judged(wrong, found, not_finite)


def arithmetic_of(case: ParityCase) -> Arithmetic:
    """How a subject computes: vLLM rounds the parts of a latent prefill before it merges them."""
    problem = case.problem
    rounded = case.subject != "reference" and problem is not None and problem.kind == "mla_prefill"
    return Arithmetic(partial_roundings=int(rounded))


def reproduce(case: ParityCase, context: Context) -> str:
    """The command that gives one problem to one backend again."""
    config = context.config
    words = ["rocm-conformance", "run", "--suite", "parity", "--subject", case.subject]
    words += ["--device", config.device, "--problems", config.tier, "--seed", str(config.seed)]
    return shlex.join([*words, "--problem", str(case.problem)])


def _is_finite(value: float) -> bool:
    return bool(torch.tensor(value).isfinite())
