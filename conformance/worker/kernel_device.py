"""The device that a session's kernels run on; every subject chooses it the same way.

An environment variable names it, because Triton and vLLM must not be imported before it is chosen.
So this module imports torch, and what needs it, only when the device is used.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING

from . import suite_devices
from .codegen import compile_problem
from .contract import (
    DEVICE,
    AttendAnswer,
    AttendMessage,
    CompileAnswer,
    CompileProblemMessage,
)
from .errors import WorkerError
from .lines import expect, noted

if TYPE_CHECKING:
    import torch

    from ..devices.triton.driver import Driver
    from .interfaces import KernelSubject


class KernelDevice:
    """One of ``interpreter``, ``gpu``, ``aot:<target>`` and ``isa:<target>``; "" runs nothing."""

    def __init__(self, name: str) -> None:
        self.name = name
        # What runs the kernels of an aot or isa device, once it is active.
        self.driver: Driver | None = None
        expect()
        self._interpreter = suite_devices.interpreter() if name == "interpreter" else None
        if self._interpreter is not None:
            self._interpreter.choose()
        self._programs: suite_devices.Programs | None = None

    @classmethod
    def of_environment(cls, default: str = "") -> KernelDevice:
        return cls(os.environ.get(DEVICE, default))

    def activate(self) -> torch.device:
        """Makes it the device of every later launch; returns the device of torch's tensors.

        Raises:
            WorkerError: it cannot be used here.
        """
        import torch  # noqa: PLC0415 - Triton is chosen before torch loads it

        if self.name == "gpu" and not torch.cuda.is_available():
            raise WorkerError("--device gpu: torch sees no GPU here")
        if self._interpreter is not None:
            self._interpreter.repair()
            self._programs = suite_devices.programs()
            self._programs.install(import_module("triton.runtime.interpreter"))
        if self.name.startswith(("aot:", "isa:")):
            self.driver = suite_devices.devices().activate(self.name)
        return torch.device("cuda" if self.name == "gpu" else "cpu")

    def begin_case(self, order: str = "forwards", seed: int = 0) -> None:
        """Forgets what launches did so far."""
        if self._programs is not None:
            self._programs.begin(order, seed)
        if self.driver is not None:
            suite_devices.devices().collect()

    def violations(self) -> list[str]:
        """What kernels did that they must not, since the case began, a sentence each."""
        if self._programs is not None:
            return self._programs.violations()
        if self.driver is None:
            return []
        return [f"{v['kernel']}: {v['message']}" for v in self.driver.recorder.violations]

    def kernels_of_case(self) -> list[str]:
        """The kernels that were launched since the case began, where the device records them."""
        return (
            []
            if self.driver is None
            else [ran.kernel.name for ran in self.driver.recorder.ran.values()]
        )

    def attend(self, subject: KernelSubject, message: AttendMessage) -> AttendAnswer:
        """The op ``attend``; of kernels for an AMD target the answer also has what they compiled to
        and, where they were emulated, what ran."""
        problem = message["problem"]
        if self._programs is not None:
            self._programs.begin(problem["order"], problem["seed"])
        if self.driver is not None:
            self.driver.recorder.lanes_off = problem["lanes_off"]
        answer = self._attended(subject, message)
        if self._programs is not None:
            answer["violations"] += self._programs.violations()
        if self.driver is not None:
            answer["emulated"] = suite_devices.devices().collect()["kernels"]
        return answer

    def compile(self, subject: KernelSubject, message: CompileProblemMessage) -> CompileAnswer:
        """The op ``compile``: the kernels of one problem."""
        return compile_problem(lambda: self._attended(subject, message))

    def _empties(self) -> AbstractContextManager[object]:
        """While a kernel is emulated, what ``torch.empty`` gives tells whether it was written."""
        if not self.name.startswith("isa:"):
            return nullcontext()
        return suite_devices.empty_tensors()

    def _attended(
        self, subject: KernelSubject, message: AttendMessage | CompileProblemMessage
    ) -> AttendAnswer:
        """Attends; a kernel that the emulator cannot run is no failure of the kernel, nor is one
        that native code and the interpreter differ about."""
        from .attend import attend  # noqa: PLC0415 - it imports torch

        with noted(), self._empties():
            answer = attend(subject, message)
        if answer["raised"].startswith("UnknownInstructionError"):
            raise WorkerError(f"the emulator cannot run this kernel: {answer['raised']}")
        if answer["raised"].startswith("DifferenceError"):
            raise WorkerError(f"the emulator contradicts itself: {answer['raised']}")
        return answer
