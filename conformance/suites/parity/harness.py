"""Gives a case's problem to its subject's kernels, in a worker process, and judges the answer."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import torch

from conformance.errors import InfrastructureError, OutOfMemoryError
from conformance.problems.families import NO_LSE
from conformance.problems.problem import Problem
from conformance.problems.tensors import Tensors, materialise
from conformance.results import Identity
from conformance.subjects.kernels import (
    Attended,
    KernelWorker,
    card_environment,
    card_of,
    reference_command,
)
from conformance.subjects.vllm.hip_sources import hip_environment
from conformance.subjects.workers import WorkerSubject, worker_command
from conformance.suites.case import (
    Context,
    Measured,
    Nonconformance,
    Unsupported,
    in_one_line,
)
from conformance.suites.parity.aiter_backends import from_aiter
from conformance.suites.parity.case import ParityCase
from conformance.suites.parity.deviation import UNUSED_SLOTS
from conformance.suites.parity.gpu_sharing import using
from conformance.suites.parity.judging import kernel_names, verdict
from conformance.suites.parity.resources import resource_findings
from conformance.suites.parity.shown_gpu import USUAL, shows_one_gpu
from conformance.worker.contract import lacks_memory

LANES_OFF = (
    "right if lanes that are off bring zeros to matrix products, and wrong if they bring what "
    "their registers hold, as AMD's manuals have it; no hardware was asked "
    "(docs/explanation/parity.md, unused slots from 0.30 on)"
)


class KernelWorkers:
    """The kernel workers of this process, one for each subject and target.

    Where cases of a target follow one another, a subject has one worker, which goes from target to
    target: its packages stay imported. A worker that died is replaced. ``card`` is the GPU of this
    process, or "". ``env``: variables of every worker.
    """

    def __init__(self, context: Context, env: Mapping[str, str] | None = None) -> None:
        self._context = context
        self._env = dict(env or {})
        self._workers: dict[tuple[str, str, bool], KernelWorker] = {}
        number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        self.card = card_of(number) if context.config.device == "gpu" else ""

    def worker(self, case: ParityCase) -> KernelWorker:
        key = self._key(case)
        if key not in self._workers or not self._workers[key].alive:
            self._workers[key] = self._moved(case) or self._start(case)
            self._context.infos[case.subject] = self._workers[key].info
        return self._workers[key]

    def _moved(self, case: ParityCase) -> KernelWorker | None:
        """The worker that another target's cases had, on the target of this one."""
        if not shows_one_gpu(self._context.config):
            return None
        subject, target, by_aiter = self._key(case)
        for key in self._workers:
            if key[0] == subject and key[2] == by_aiter and key[1] != target:
                worker = self._workers.pop(key)
                with suppress(InfrastructureError):
                    worker.restart(target or USUAL)
                    return worker
                worker.close()
                return None
        return None

    def _key(self, case: ParityCase) -> tuple[str, str, bool]:
        by_aiter = from_aiter(self._context, case.subject, case.backend)
        return case.subject, case.target, by_aiter

    def _start(self, case: ParityCase) -> KernelWorker:
        config = self._context.config
        env = {**card_environment(self.card), **self._env}
        prefix = config.options.prefix
        command = [*prefix, *reference_command(sys.executable)]
        if case.of_vllm:
            subject = self._context.subject(case.subject)
            if not isinstance(subject, WorkerSubject):
                raise Unsupported(f"{case.subject} has no kernels that the suite can drive")
            command, env = subject.command, {**subject.environment, **env}
            env |= hip_environment(subject) if config.device.startswith("isa:") else {}
            if from_aiter(self._context, case.subject, case.backend):
                command = [*prefix, *worker_command(subject.python, "aiter")]
        target = case.target or USUAL
        return KernelWorker(
            *(command, config.device, config.timeout, env, target, config.simulate), config.env
        )

    def allow(self, case: ParityCase, seconds: float) -> None:
        """Gives the worker of a case so many seconds for each answer from now on."""
        self.worker(case).allow(seconds)

    def restart(self) -> None:
        """Begins every worker's session anew, with the subject's files as they are now.

        Raises:
            InfrastructureError: a subject cannot be imported.
        """
        for worker in self._workers.values():
            if worker.alive:
                worker.restart()

    def close(self, case: ParityCase | None = None) -> None:
        """Ends the worker of a case's subject and target, or all."""
        keys = [*self._workers] if case is None else [self._key(case)]
        for key in keys:
            if key in self._workers:
                self._workers.pop(key).close()


def run_problem(
    case: ParityCase, problem: Problem, context: Context, workers: KernelWorkers
) -> Measured:
    """Runs and judges one problem; if GPU memory ran out, once more with the GPU to itself.

    Raises:
        Nonconformance: the answer is wrong, or the backend raised an error.
        Unsupported: the subject's backend does not support the problem, or cannot run here.
        InfrastructureError: the worker died or hung.
    """
    if workers.card:
        with suppress(OutOfMemoryError), using(workers.card):
            return _computed_and_judged(case, problem, context, workers)
    # There is no GPU, or the processes that share it left too little memory.
    with using(workers.card, alone=True):
        return _computed_and_judged(case, problem, context, workers)


def _computed_and_judged(
    case: ParityCase, problem: Problem, context: Context, workers: KernelWorkers
) -> Measured:
    """One problem's verdict.

    If a wrong answer may come from lanes that were off during a matrix product, the one that counts
    is that of zeros in such lanes: nobody knows what hardware does.

    If the contents of the cache's unused slots may have caused a wrong answer, the problem runs
    again with zeros there. If the answer is then right, the requirement about unused slots is the
    one that is not met. What is known to deviate must deviate in the same way then: poison may
    hide another fault.
    """
    tensors = materialise(problem)
    attended = attend(case, problem, workers, tensors)
    command = case.command(context.config)
    if case.device.startswith("aot:"):
        return _compiled(case, problem, attended, command)
    try:
        judged, lanes_off = verdict(case, attended, tensors), ""
        if judged.wrong and any(kernel["lanes_off"] for kernel in attended.emulated):
            lanes_off = "zero"
            attended = attend(case, problem, workers, tensors, lanes_off=lanes_off)
            judged = verdict(case, attended, tensors).with_counts_of(judged)
        if not judged.wrong:
            return replace(judged.measured, proviso=LANES_OFF if lanes_off else "")
        if problem.has_cache and judged.may_be_poison(problem) and not judged.only_resources():
            with_zeros = attend(
                case, problem, workers, tensors, cache_filling="zero", lanes_off=lanes_off
            )
            zeros = verdict(case, with_zeros, tensors, poison=False)
            if zeros.only_resources():
                raise judged.only_with_poison().as_error(command, attended, UNUSED_SLOTS)
            judged = judged.with_zeros_too(zeros)
        raise judged.as_error(command, attended)
    except RuntimeError as error:
        if lacks_memory(error):
            raise OutOfMemoryError(
                f"judging {problem} took more memory than the GPU has"
            ) from error
        raise
    finally:
        if case.device == "gpu":
            torch.cuda.empty_cache()


def attend(
    case: ParityCase,
    problem: Problem,
    workers: KernelWorkers,
    tensors: Tensors,
    *,
    cache_filling: str = "",
    lanes_off: str = "",
) -> Attended:
    """Runs a problem on the case's backend; the worker is told ``cache_filling``, ``lanes_off``.

    Raises:
        Unsupported: the subject's backend does not support the problem, or cannot run here.
        InfrastructureError: the worker died or hung.
    """
    # vLLM's operations give no log-sum-exp, or one that is rounded to 16 bits.
    wants_lse = not case.of_vllm and case.backend not in NO_LSE
    worker = workers.worker(case)
    try:
        attended = worker.attend(
            *(problem, tensors),
            wants_lse=wants_lse,
            cache_filling=cache_filling,
            lanes_off=lanes_off,
        )
    except InfrastructureError:
        workers.close(case)
        raise
    if attended.raised and case.device == "gpu":
        # An error may leave the device unusable, so the next problem gets a new process.
        workers.close(case)
    elif attended.raised:
        worker.restart()
    if attended.refused:
        raise Unsupported(attended.refused)
    return attended


def _compiled(case: ParityCase, problem: Problem, attended: Attended, command: str) -> Measured:
    """Ends a case on a device that only compiles."""
    found = [*resource_findings(case.device, problem, attended)]
    if found:
        identities = [identity for _, identity in found]
        own = {identity.requirement for identity in identities}
        findings = [text for text, _ in found]
        raise Nonconformance(
            in_one_line(findings),
            command,
            detail=attended.trace,
            requirement=min(own),
            findings=findings,
            identities=identities,
        )
    if attended.raised:
        raise Nonconformance(
            f"{case.backend} does not compile for {case.device}: {attended.raised}",
            command,
            detail=attended.trace,
            identities=[Identity("compile-error", kernel_names(attended.dispatch))],
        )
    kernels = ", ".join(attended.dispatch)
    raise Unsupported(f"compiled, and nothing was run whose result could be judged: {kernels}")
