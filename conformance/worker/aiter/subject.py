"""aiter's Triton kernels behind the protocol: ``attend`` and ``compile`` on one device."""

import importlib
import sys
from typing import Any

from ..kernel_device import KernelDevice
from ..wire import Message, WorkerError
from . import loading as aiter_import


def open_session(start: Message) -> "AiterSession":
    """Chooses the device, then loads Triton and torch; aiter's modules as they are asked for."""
    return AiterSession(start, KernelDevice.of_environment())


class AiterSession:
    """aiter on one device, or on none: then it only says what it is."""

    def __init__(self, start: Message, device: KernelDevice) -> None:
        aiter_import.place()
        self._contestant: Any = None
        self._device = device
        import torch  # noqa: PLC0415 - the device is chosen in the environment
        import triton  # noqa: PLC0415 - likewise

        if device.name == "interpreter":
            raise WorkerError(f"aiter's kernels run on aot, isa and gpu, not on {device.name!r}")
        self._place = device.activate()
        target = device.name.partition(":")[2].partition(",")[0] or start["platform"]["target"]
        if device.name:
            aiter_import.prepare(target)
        self.info: Message = {
            "subject": "aiter",
            "version": aiter_import.version(),
            "simulated": torch.version.hip is None or device.name != "gpu",
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "triton": triton.__version__,
            "device": device.name,
        }

    def handle(self, op: str, message: Message) -> Message:
        if op == "attend":
            return self._device.attend(self._loaded(), message)
        if op == "compile":
            return self._device.compile(self._loaded(), message)
        raise WorkerError(
            f"this Python has aiter and no vLLM, so it selects nothing ({op}): name the suites "
            "codegen or parity"
        )

    def _loaded(self) -> Any:
        """The contestant; aiter's modules load when it is first asked for."""
        if self._contestant is None:
            kernels = importlib.import_module(f"{__package__}.kernels")
            self._contestant = kernels.AiterContestant(self._place)
        return self._contestant

    def modules_to_share(self) -> list[str]:
        return []
