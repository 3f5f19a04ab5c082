"""aiter's kernels behind the protocol: ``attend`` and ``compile`` on one device."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

from ..contract import StartAnswer, StartMessage
from ..errors import WorkerError
from ..kernel_device import KernelDevice
from ..wire import Answer, Message
from . import loading

if TYPE_CHECKING:
    from .kernels import AiterKernels


def open_session(start: StartMessage) -> AiterHandler:
    """Chooses the device, then loads Triton and torch; aiter's modules load when they are used."""
    return AiterHandler(start, KernelDevice.of_environment())


class AiterHandler:
    """aiter on one device; without a device it only says what it is."""

    def __init__(self, start: StartMessage, device: KernelDevice) -> None:
        loading.folder()
        os.environ.update(start["platform"]["env"])
        self._loaded: AiterKernels | None = None
        self._device = device
        import torch  # noqa: PLC0415 - the device is chosen in the environment
        import triton  # noqa: PLC0415 - likewise

        if device.name == "interpreter":
            raise WorkerError(f"aiter's kernels run on aot, isa and gpu, not on {device.name!r}")
        self._tensors_on = device.activate()
        target = device.name.partition(":")[2].partition(",")[0] or start["platform"]["target"]
        if device.name:
            loading.prepare(target)
        self.info: StartAnswer = {
            "subject": "aiter",
            "version": loading.version(),
            "simulated": torch.version.hip is None or device.name != "gpu",
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "triton": triton.__version__,
            "device": device.name,
        }

    def handle(self, message: Message) -> Answer:
        if message["op"] == "attend":
            return self._device.attend(self._kernels(), message)
        if message["op"] == "compile" and "problem" in message:
            return self._device.compile(self._kernels(), message)
        raise WorkerError(
            f"this Python has aiter and no vLLM, so it selects nothing ({message['op']}): name the "
            "suites codegen or parity"
        )

    def _kernels(self) -> AiterKernels:
        """aiter's functions; its modules load when they are first asked for."""
        if self._loaded is None:
            kernels = importlib.import_module(f"{__package__}.kernels")
            self._loaded = kernels.AiterKernels(self._tensors_on, self._device.driver)
        return self._loaded

    def modules_to_share(self) -> list[str]:
        return []
