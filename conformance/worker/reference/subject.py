"""The reference kernels behind the protocol: ``attend`` on the device of the environment."""

import importlib
import sys
from typing import Any

from ..kernel_device import KernelDevice
from ..wire import Message, WorkerError


def open_session(start: Message) -> "KernelSession":
    """Chooses the device, then loads Triton and the kernels."""
    return KernelSession(start, KernelDevice.of_environment("interpreter"))


class KernelSession:
    """The package ``rocm_reference`` on one device."""

    def __init__(self, start: Message, device: KernelDevice) -> None:
        self._device = device
        place = device.activate()
        import torch  # noqa: PLC0415 - Triton is chosen before torch loads it
        import triton  # noqa: PLC0415

        self._contestant = _contestant(importlib.import_module("..attend", __package__), place)
        self.info: Message = {
            "subject": "reference",
            "version": start.get("edition", ""),
            "simulated": torch.version.hip is None or device.name != "gpu",
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "triton": triton.__version__,
            "device": torch.cuda.get_device_name() if device.name == "gpu" else device.name,
        }

    def handle(self, op: str, message: Message) -> Message:
        if op == "compile":
            return self._device.compile(self._contestant, message)
        if op != "attend":
            raise WorkerError(f"unknown op {op!r}; this worker knows: attend, compile")
        return self._device.attend(self._contestant, message)

    def modules_to_share(self) -> list[str]:
        return []


def _contestant(attend: Any, device: Any) -> Any:
    backends = importlib.import_module("rocm_reference.backends.registry")
    seam = importlib.import_module("rocm_reference.attention")

    class Reference(attend.Contestant):  # type: ignore[misc] # loaded by name
        """The backends of the package ``rocm_reference``."""

        def __init__(self) -> None:
            self.device = device

        def backend(self, name: str) -> Any:
            return backends.backend(name)

        def seam(self) -> Any:
            return seam

    return Reference()
