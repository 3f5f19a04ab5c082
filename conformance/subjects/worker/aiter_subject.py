"""aiter's Triton kernels behind the protocol: ``attend`` and ``compile`` on one device."""

import importlib
import os
import sys
from typing import Any

from . import aiter_import
from .kernel_device import DEVICE
from .wire import Message, WorkerError


def open_session(start: Message) -> "AiterSession":
    """Chooses the device, then loads Triton and torch; aiter's modules as they are asked for."""
    return AiterSession(start, os.environ.get(DEVICE, ""))


class AiterSession:
    """aiter on one device, or on none: then it only says what it is."""

    def __init__(self, start: Message, device: str) -> None:
        aiter_import.place()
        self._contestant: Any = None
        self._device = device
        self._codegen = importlib.import_module(f"{__package__}.codegen")
        import torch  # noqa: PLC0415 - the device is chosen in the environment
        import triton  # noqa: PLC0415 - likewise

        if device.startswith(("aot:", "isa:")):
            self._codegen.devices().activate(device)
            target = device.partition(":")[2].partition(",")[0]
        elif device in ("", "gpu"):
            target = start["platform"]["target"]
        else:
            raise WorkerError(f"aiter's kernels run on aot, isa and gpu, not on {device!r}")
        if device:
            aiter_import.prepare(target)
        self.info: Message = {
            "subject": "aiter",
            "version": aiter_import.version(),
            "simulated": torch.version.hip is None or device != "gpu",
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "triton": triton.__version__,
            "device": device,
        }

    def handle(self, op: str, message: Message) -> Message:
        if op == "attend":
            answer = self._attend(message)
            if answer["raised"].startswith("UnknownInstructionError"):
                raise WorkerError(f"the emulator cannot run this kernel: {answer['raised']}")
            return answer
        if op == "compile":
            compiled: Message = self._codegen.compile_problem(lambda: self._attend(message))
            return compiled
        raise WorkerError(
            f"this Python has aiter and no vLLM, so it selects nothing ({op}): name the suites "
            "codegen or parity"
        )

    def _attend(self, message: Message) -> Message:
        attend = importlib.import_module(f"{__package__}.attend")
        if self._contestant is None:
            kernels = importlib.import_module(f"{__package__}.aiter_kernels")
            place = attend.torch.device("cuda" if self._device == "gpu" else "cpu")
            self._contestant = kernels.AiterContestant(place)
        answer: Message = attend.attend(self._contestant, message)
        return answer

    def modules_to_share(self) -> list[str]:
        return []
