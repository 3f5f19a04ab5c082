"""The reference kernels behind the protocol: ``attend`` on the device of the environment."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from .wire import Message, WorkerError

DEVICE = "ROCM_CONFORMANCE_DEVICE"


def open_session(start: Message) -> "KernelSession":
    """Chooses the device, then loads Triton and the kernels."""
    device = os.environ.get(DEVICE, "interpreter")
    return KernelSession(start, device)


class KernelSession:
    """The package ``kernels`` on one device."""

    def __init__(self, start: Message, device: str) -> None:
        interpreter = device_module("interpreter") if device == "interpreter" else None
        if interpreter is not None:
            interpreter.choose()
        import torch  # noqa: PLC0415 - Triton is chosen before torch loads it

        if device == "gpu" and not torch.cuda.is_available():
            raise WorkerError("--device gpu: torch sees no GPU here")
        import triton  # noqa: PLC0415

        if interpreter is not None:
            interpreter.repair()
        self._devices: Any = None
        if device.startswith(("aot:", "isa:")):
            self._devices = importlib.import_module(f"{__package__}.codegen").devices()
            self._devices.activate(device)
        attend = importlib.import_module(f"{__package__}.attend")
        self._attend = attend.attend
        self._contestant = _contestant(attend, torch.device("cuda" if device == "gpu" else "cpu"))
        self.info: Message = {
            "subject": "reference",
            "version": start.get("edition", ""),
            "simulated": torch.version.hip is None or device != "gpu",
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "triton": triton.__version__,
            "device": torch.cuda.get_device_name() if device == "gpu" else device,
        }

    def handle(self, op: str, message: Message) -> Message:
        if op != "attend":
            raise WorkerError(f"unknown op {op!r}; this worker knows: attend")
        answer: Message = self._attend(self._contestant, message)
        if answer["raised"].startswith("UnknownInstructionError"):
            raise WorkerError(f"the emulator cannot run this kernel: {answer['raised']}")
        answer["emulated"] = self._devices.collect()["kernels"] if self._devices else []
        return answer

    def modules_to_share(self) -> list[str]:
        return []


def _contestant(attend: Any, device: Any) -> Any:
    backends = importlib.import_module("kernels.backends")
    seam = importlib.import_module("kernels.attention")

    class Reference(attend.Contestant):  # type: ignore[misc] # loaded by name
        """The backends of the package ``kernels``."""

        def __init__(self) -> None:
            self.device = device

        def backend(self, name: str) -> Any:
            return backends.backend(name)

        def seam(self) -> Any:
            return seam

    return Reference()


def device_module(name: str) -> Any:
    """A module of ``conformance/devices``, loaded by its place: the suite need not be installed."""
    path = Path(__file__).resolve().parents[2] / "devices" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"conformance_device_{name}", path)
    if spec is None or spec.loader is None:
        raise WorkerError(f"{path} is missing: is the suite's installation complete?")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
