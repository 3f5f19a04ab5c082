"""The reference kernels behind the protocol: ``attend`` on the device of the environment."""

from __future__ import annotations

import importlib
import sys

from ..contract import StartAnswer, StartMessage
from ..errors import WorkerError
from ..kernel_device import KernelDevice
from ..wire import Answer, Message


def open_session(start: StartMessage) -> ReferenceHandler:
    """Chooses the device, then loads Triton and the kernels."""
    return ReferenceHandler(start, KernelDevice.of_environment("interpreter"))


class ReferenceHandler:
    """The package ``rocm_reference`` on one device."""

    def __init__(self, _start: StartMessage, device: KernelDevice) -> None:
        self._device = device
        tensors_on = device.activate()
        import torch  # noqa: PLC0415 - Triton is chosen before torch loads it
        import triton  # noqa: PLC0415

        kernels = importlib.import_module(".kernels", __package__)
        self._kernels = kernels.ReferenceKernels(tensors_on)
        self.info: StartAnswer = {
            "subject": "reference",
            "version": "",
            "simulated": torch.version.hip is None or device.name != "gpu",
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "triton": triton.__version__,
            "device": torch.cuda.get_device_name() if device.name == "gpu" else device.name,
        }

    def handle(self, message: Message) -> Answer:
        if message["op"] == "attend":
            return self._device.attend(self._kernels, message)
        if message["op"] == "compile" and "problem" in message:
            return self._device.compile(self._kernels, message)
        raise WorkerError(f"unknown op {message['op']!r}; this worker knows: attend, compile")

    def modules_to_share(self) -> list[str]:
        """Where Triton interprets, nothing of it depends on the session; elsewhere it does."""
        return ["torch", "triton"] if self._device.name == "interpreter" else []
