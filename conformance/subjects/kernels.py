"""A subject's attention kernels: a worker on one device, given problems one at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from conformance.errors import InfrastructureError
from conformance.matrix.requests import Platform
from conformance.problems.problem import Problem
from conformance.problems.tensors import Tensors
from conformance.subjects.base import SubjectInfo
from conformance.subjects.protocol import Worker, start
from conformance.subjects.workers import WORKER
from conformance.worker.contract import DEVICE

INTERPRET = "TRITON_INTERPRET"
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Attended:
    """What a backend made of a problem.

    ``results``: ``output`` [T, H, V] and ``lse`` [T, H], padding rows left out, or ``indices``
    [T, topk]; on the CPU. ``dispatch``: the kernels that ran. ``violations``: what was touched and
    must not be, a sentence each. ``raised``: the error that the backend ended with, if it did,
    and ``trace`` where. ``refused``: why the subject's backend is not to be given the problem.
    ``seconds``: of writing the cache and attending. ``emulated``: the kernels that a device of
    ours reports, as ``devices.collect`` gives them.
    """

    results: dict[str, torch.Tensor]
    dispatch: tuple[str, ...]
    violations: tuple[str, ...]
    raised: str
    trace: str
    seconds: float
    emulated: tuple[dict[str, Any], ...] = ()
    refused: str = ""


class KernelWorker:
    """A worker process that attends; tensors travel in files of a folder of its own.

    ``target`` is the GPU that a vLLM is shown where none is; ``simulate`` auto|always|never.
    """

    def __init__(
        self,
        command: Sequence[str],
        device: str,
        timeout: float,
        env: dict[str, str] | None = None,
        target: str = "gfx942",
        simulate: str = "auto",
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix="rocm-conformance-", dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        )
        # Every core has a worker: threads of several would wait for one another.
        usual = {
            "TRITON_CACHE_DIR": str(Path(self._folder.name) / "triton"),
            "OMP_NUM_THREADS": "1",
            **os.environ,
        }
        if device == "interpreter":
            # Before the worker's first import of Triton, which may be before it knows its device.
            usual[INTERPRET] = "1"
        self._worker = Worker(command, {**usual, **(env or {}), DEVICE: device}, timeout)
        answer = start(self._worker, Platform.make(target), simulate, [])
        self.device = str(answer.get("device", device))
        self.info = SubjectInfo(
            str(answer["subject"]), str(answer["version"]), bool(answer["simulated"])
        )

    @property
    def alive(self) -> bool:
        return self._worker.alive

    def attend(
        self, problem: Problem, tensors: Tensors, *, wants_lse: bool, cache_filling: str = ""
    ) -> Attended:
        """Runs a problem; ``cache_filling`` ("zero") stands in unused slots instead of poison.

        Raises:
            InfrastructureError: the worker died or hung, or its answer cannot be read.
        """
        answer = self._ask("attend", problem, tensors, wants_lse, cache_filling)
        try:
            return Attended(
                {}
                if answer["raised"] or answer.get("refused")
                else torch.load(self._made, weights_only=True),
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

    def compile(self, problem: Problem, tensors: Tensors) -> dict[str, Any]:
        """Launches a problem's kernels on an ``aot`` device: the worker's answer as it is.

        Raises:
            InfrastructureError: the worker died, hung or refused.
        """
        return self._ask("compile", problem, tensors, wants_lse=False)

    def _ask(
        self,
        op: str,
        problem: Problem,
        tensors: Tensors,
        wants_lse: bool,
        cache_filling: str = "",
    ) -> dict[str, Any]:
        given = Path(self._folder.name) / "given.pt"
        torch.save(tensors.to("cpu").named(), given)
        return self._worker.call(
            op,
            problem={
                **asdict(problem),
                "softmax_scale": problem.softmax_scale,
                "num_blocks": problem.num_blocks,
                "key_size": problem.key_size,
                "wants_lse": wants_lse,
                "cache_filling": cache_filling,
            },
            tensors=str(given),
            output=str(self._made),
        )

    @property
    def _made(self) -> Path:
        return Path(self._folder.name) / "made.pt"

    def close(self) -> None:
        """Ends the process and removes its files."""
        self._worker.close()
        self._folder.cleanup()


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
    """Each test process's own card, as far as there are enough; "" where there is none."""
    found = cards()
    return found[worker_number % len(found)] if found else ""


def card_environment(card: str) -> dict[str, str]:
    """Shows a process one card, or what it sees already."""
    return {"HIP_VISIBLE_DEVICES": card, "CUDA_VISIBLE_DEVICES": card} if card else {}
