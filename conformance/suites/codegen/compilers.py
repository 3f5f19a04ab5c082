"""Compiles a case's kernels in a worker of the subject, on a device that runs nothing.

There are three libraries of kernels: the reference's ``kernels``, ``vllm``, and ``aiter`` if the
subject's Python has it. :func:`configurations` lists what each is compiled for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from packaging.version import Version

from conformance.errors import InfrastructureError, WorkerDiedError
from conformance.matrix.requests import Platform
from conformance.matrix.targets import Target
from conformance.problems.aiter import aiter_problems
from conformance.problems.hip_instances import HIP, hip_problems
from conformance.problems.problem import Problem
from conformance.problems.shipped import shipped
from conformance.problems.tensors import materialise
from conformance.subjects.kernels import KernelWorker, reference_command
from conformance.subjects.spellings import SubjectKind, kind_of
from conformance.subjects.vllm.hip_sources import hip_environment
from conformance.subjects.workers import WorkerSubject, worker_command
from conformance.suites.case import Context, Unsupported
from conformance.suites.codegen.findings import Compiled
from conformance.suites.codegen.options import of_hip
from conformance.suites.codegen.served import served
from conformance.suites.codegen.vllm_calls import later_calls, shipped_calls
from conformance.worker.contract import Call, CompileAnswer

Configuration = Call | Problem
# vLLM's backends that launch Triton kernels of its own; FLEX_ATTENTION's are torch's.
VLLM_BACKENDS = ("ROCM_ATTN", "TRITON_ATTN", "TRITON_MLA")
# Later ones, whose kernels are compiled as the backend's own code launches them, and the series
# from which on these are Triton's and its own.
THROUGH_BACKENDS = {"TURBOQUANT": "0.20", "ROCM_AITER_MLA_SPARSE": "0.30", "ULTRAQUANT": "0.32"}


@dataclass(frozen=True)
class Asked:
    """A library of a subject on a platform."""

    subject: str
    library: str
    platform: Platform


def libraries(context: Context, subject: str) -> dict[str, str]:
    """A subject's libraries, each with the reason why it is missing; empty if it is there."""
    if kind_of(subject) is SubjectKind.REFERENCE:
        return {"kernels": ""}
    build = context.subject(subject)
    return build.libraries if isinstance(build, WorkerSubject) else {}


def configurations(
    library: str, target: Target, edition: str, *, as_served: bool = False, of_hip: bool = False
) -> Iterator[Configuration]:
    """What a library's kernels are compiled for on a target: examples, or what models launch.

    As served, aiter's kernels are those of no backend that a problem reaches without a GPU. Of HIP,
    every instance of the decode that vLLM's host code can launch.
    """
    if of_hip:
        if library == "vllm":
            yield from hip_problems(target.family, target.fp8, target.wave_size)
    elif as_served:
        for problem in served(target.fp8, edition):
            if library == "kernels" or (library == "vllm" and problem.backend in VLLM_BACKENDS):
                yield problem
    elif library == "kernels":
        yield from shipped(target.fp8, edition)
    elif library == "aiter":
        yield from aiter_problems(target.fp8)
    else:
        yield from shipped_calls(target.fp8 != "none")
        yield from later_calls(target, edition)
        yield from _through_backends(target, edition)


def _through_backends(target: Target, edition: str) -> Iterator[Problem]:
    """Caches with a scale per token and head, packed caches, and sparse MLA with its indexer."""
    begun = [b for b, series in THROUGH_BACKENDS.items() if Version(edition) >= Version(series)]
    for problem in shipped(target.fp8, edition):
        if problem.backend in begun or (
            problem.backend in VLLM_BACKENDS and problem.is_head_scaled
        ):
            yield problem


def name_of(configuration: Configuration) -> str:
    return configuration.id if isinstance(configuration, Problem) else configuration.name


def is_of_hip(configuration: Configuration) -> bool:
    """Whether it is an instance of vLLM's HIP decode."""
    return isinstance(configuration, Problem) and configuration.id.startswith(HIP)


class Compilations:
    """What each configuration compiled to.

    Each is compiled once, and one that gave no answer is not asked again. A compiler that aborts
    fails only the configuration it was compiling.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[tuple[Asked, Configuration], Compiled | InfrastructureError] = {}
        self._open: tuple[Asked, bool] | None = None
        self._worker: KernelWorker | None = None

    def of(self, asked: Asked, configuration: Configuration) -> Compiled:
        """What a configuration compiled to.

        Raises:
            Unsupported: the subject does not claim to support it, or cannot be asked.
            InfrastructureError: the worker hung, was killed, or gave no answer.
        """
        key = (asked, configuration)
        if key not in self._known:
            try:
                self._known[key] = self._compile(asked, configuration)
            except InfrastructureError as error:
                self._known[key] = error
        compiled = self._known[key]
        if isinstance(compiled, InfrastructureError):
            raise compiled
        if compiled.refused:
            raise Unsupported(compiled.refused)
        return compiled

    def _compile(self, asked: Asked, configuration: Configuration) -> Compiled:
        by_problem = isinstance(configuration, Problem)
        if self._open != (asked, by_problem):
            self._start(asked, by_problem=by_problem)
        try:
            answer = self._ask(asked, configuration)
        except WorkerDiedError as error:
            self.close()
            if not error.aborted:
                raise
            return Compiled((), f"the compiler aborted its process: {error}", error.stderr)
        except InfrastructureError:
            self.close()
            raise
        return Compiled(
            tuple(answer["kernels"]), answer["failed"], answer["trace"], answer.get("refused", "")
        )

    def _ask(self, asked: Asked, configuration: Configuration) -> CompileAnswer:
        if isinstance(configuration, Problem):
            assert self._worker is not None
            return self._worker.compile(configuration, materialise(configuration))
        subject = self._context.subject(asked.subject)
        assert isinstance(subject, WorkerSubject)
        answer: CompileAnswer = subject.call("compile", call=asdict(configuration))
        return answer

    def _start(self, asked: Asked, *, by_problem: bool) -> None:
        self.close()
        subject = self._context.subject(asked.subject)
        if asked.library == "vllm" and not by_problem:
            assert isinstance(subject, WorkerSubject)
            self._context.infos[asked.subject] = subject.open(asked.platform).info
        else:
            self._worker = self._kernel_worker(asked)
            self._context.infos.setdefault(asked.subject, self._worker.info)
        self._open = asked, by_problem

    def _kernel_worker(self, asked: Asked) -> KernelWorker:
        env: dict[str, str] = {}
        command = reference_command(sys.executable)
        subject = self._context.subject(asked.subject)
        if isinstance(subject, WorkerSubject):
            command = worker_command(subject.python, asked.library)
            env |= subject.environment
        config, target = self._context.config, asked.platform.target
        if of_hip(config) and isinstance(subject, WorkerSubject):
            env |= hip_environment(subject)
        return KernelWorker(
            [*config.options.prefix, *command],
            f"aot:{target}",
            config.timeout,
            env,
            target,
            config.simulate,
        )

    def close(self) -> None:
        self._open = None
        if self._worker is not None:
            self._worker.close()
            self._worker = None
