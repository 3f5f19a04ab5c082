"""A subject's attention kernels: a worker on one device that gets problems one at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from conformance.cache import TRITON_BYTES, TRITON_VARIABLE, prune, triton_cache
from conformance.errors import InfrastructureError
from conformance.matrix.requests import Platform
from conformance.problems.problem import Problem
from conformance.problems.tensors import Tensors
from conformance.subjects.base import SubjectInfo
from conformance.subjects.protocol import Worker, start
from conformance.subjects.workers import WORKER
from conformance.worker.contract import DEVICE, AttendAnswer, CompileAnswer, Op

INTERPRET = "TRITON_INTERPRET"
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Attended:
    """What a backend computed for a problem.

    ``results``: ``output`` [T, H, V] and ``lse`` [T, H] without padding rows, or ``indices``
    [T, topk]; on the CPU. ``dispatch``: the kernels that ran. ``violations``: what was written and
    must not be, a sentence each. ``raised``: the error that the backend ended with, if it did, and
    ``trace`` its traceback. ``refused``: why the subject's backend does not take the problem.
    ``seconds``: the time that writing the cache and attending took. ``emulated``: the kernels that
    the emulator ran, as ``devices.collect`` reports them.
    """

    results: dict[str, torch.Tensor]
    dispatch: tuple[str, ...]
    violations: tuple[str, ...]
    raised: str
    trace: str
    seconds: float
    emulated: tuple[Mapping[str, Any], ...] = ()
    refused: str = ""


class KernelWorker:
    """A worker process that runs attention; tensors travel in files of a folder of its own.

    What Triton compiles for an AMD target is kept from run to run, and shared by processes: it is
    the larger part of emulating a short problem.

    ``target`` is the GPU that is simulated for a vLLM on a machine without one; ``simulate`` is
    auto, always or never. ``env`` is the process's environment over this one's, ``variables`` that
    of the platform.
    """

    def __init__(
        self,
        command: Sequence[str],
        device: str,
        timeout: float,
        env: dict[str, str] | None = None,
        target: str = "gfx942",
        simulate: str = "auto",
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix="rocm-conformance-", dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        )
        # Every core has a worker: with more threads each, they would wait for one another.
        usual = {
            TRITON_VARIABLE: str(Path(self._folder.name) / "triton"),
            "OMP_NUM_THREADS": "1",
            **os.environ,
        }
        self._compiles = device.startswith(("aot:", "isa:"))
        if self._compiles:
            usual[TRITON_VARIABLE] = str(triton_cache())
        if device == "interpreter":
            # The worker may import Triton before it knows its device.
            usual[INTERPRET] = "1"
        self._worker = Worker(command, {**usual, **(env or {}), DEVICE: device}, timeout)
        self._platform, self._simulate = Platform.make(target, env=variables), simulate
        answer = start(self._worker, self._platform, simulate, [])
        self._in_session = True
        self.device = str(answer.get("device", device))
        self.info = SubjectInfo(
            str(answer["subject"]), str(answer["version"]), bool(answer["simulated"])
        )

    @property
    def alive(self) -> bool:
        return self._worker.alive

    def allow(self, seconds: float) -> None:
        """Gives the process so many seconds for each answer from now on."""
        self._worker.timeout = seconds

    def restart(self, target: str = "") -> None:
        """Begins a session anew, which imports the subject's files as they are now.

        ``target``: the GPU that is simulated from now on, if it is another.

        Raises:
            InfrastructureError: the worker died or hung, or the subject cannot be imported.
        """
        if target:
            self._platform = replace(self._platform, target=target)
        if self._in_session:
            self._in_session = False
            self._worker.call("stop")
        start(self._worker, self._platform, self._simulate, [])
        self._in_session = True

    def attend(
        self,
        problem: Problem,
        tensors: Tensors,
        *,
        wants_lse: bool,
        cache_filling: str = "",
        lanes_off: str = "",
    ) -> Attended:
        """Runs a problem; unused slots of the cache hold ``cache_filling`` ("zero") or poison.

        ``lanes_off``: what lanes that are off bring to an emulated matrix product ("zero"), or
        empty: what their registers hold.

        Raises:
            InfrastructureError: the worker died or hung, or its answer cannot be read.
        """
        answer: AttendAnswer = self._ask(
            "attend", problem, tensors, wants_lse, cache_filling, lanes_off
        )
        try:
            return Attended(
                {}
                if answer["raised"] or answer.get("refused")
                else torch.load(self._computed, weights_only=True),
                tuple(answer["dispatch"]),
                tuple(answer["violations"]),
                str(answer["raised"]),
                str(answer["trace"]),
                float(answer["seconds"]),
                refused=str(answer.get("refused", "")),
                emulated=tuple(answer.get("emulated", ())),
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InfrastructureError(
                f"the worker's answer cannot be read: {type(error).__name__}: {error}",
                self._worker.stderr(),
            ) from error

    def compile(self, problem: Problem, tensors: Tensors) -> CompileAnswer:
        """Compiles a problem's kernels on an ``aot`` device; gives the worker's answer.

        Raises:
            InfrastructureError: the worker died, hung or refused.
        """
        answer: CompileAnswer = self._ask("compile", problem, tensors, wants_lse=False)
        return answer

    def _ask(
        self,
        op: Op,
        problem: Problem,
        tensors: Tensors,
        wants_lse: bool,
        cache_filling: str = "",
        lanes_off: str = "",
    ) -> Any:
        given = Path(self._folder.name) / "given.pt"
        torch.save(tensors.to("cpu").named(), given)
        return self._worker.call(
            op,
            problem=problem_fields(
                problem, wants_lse=wants_lse, cache_filling=cache_filling, lanes_off=lanes_off
            ),
            tensors=str(given),
            output=str(self._computed),
        )

    @property
    def _computed(self) -> Path:
        return Path(self._folder.name) / "computed.pt"

    def close(self) -> None:
        """Ends the process and removes its files."""
        self._worker.close()
        self._folder.cleanup()
        if self._compiles:
            prune(triton_cache(), TRITON_BYTES)


def problem_fields(
    problem: Problem, *, wants_lse: bool, cache_filling: str = "", lanes_off: str = ""
) -> dict[str, Any]:
    """A problem as the worker takes it: ``ProblemFields``, and what only the judge reads."""
    return {
        **asdict(problem),
        "softmax_scale": problem.softmax_scale,
        "num_blocks": problem.num_blocks,
        "key_size": problem.key_size,
        "wants_lse": wants_lse,
        "cache_filling": cache_filling,
        "lanes_off": lanes_off,
    }


def reference_command(python: str) -> list[str]:
    """The command of the worker that holds the reference kernels."""
    return [python, str(WORKER), "reference"]


def cards() -> list[str]:
    """The GPUs that the environment allows, as ``HIP_VISIBLE_DEVICES`` names them."""
    for name in ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"):
        if os.environ.get(name):
            return os.environ[name].split(",")
    return [str(i) for i in range(torch.cuda.device_count())]


def card_of(worker_number: int) -> str:
    """The card of a test process; processes share one if there are too few, "" if none."""
    allowed = cards()
    return allowed[worker_number % len(allowed)] if allowed else ""


def card_environment(card: str) -> dict[str, str]:
    """The variables that show a process one card; none of them for no card."""
    return {"HIP_VISIBLE_DEVICES": card, "CUDA_VISIBLE_DEVICES": card} if card else {}
