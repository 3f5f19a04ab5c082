"""The device of a session that runs kernels: chosen before Triton loads, the same for all subjects.

The environment names it, because Triton and vLLM look at theirs while they are imported.
"""

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

from .contract import DEVICE
from .wire import Message, WorkerError


class KernelDevice:
    """One of ``interpreter``, ``gpu``, ``aot:<target>`` and ``isa:<target>``; "" runs nothing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._devices: Any = None
        self._interpreter = interpreter_module() if name == "interpreter" else None
        if self._interpreter is not None:
            self._interpreter.choose()

    @classmethod
    def of_environment(cls, default: str = "") -> "KernelDevice":
        return cls(os.environ.get(DEVICE, default))

    def activate(self) -> Any:
        """Makes it the device of every launch from now on; returns where torch's tensors are.

        Raises:
            WorkerError: it is not to be had here.
        """
        import torch  # noqa: PLC0415 - Triton is chosen before torch loads it

        if self.name == "gpu" and not torch.cuda.is_available():
            raise WorkerError("--device gpu: torch sees no GPU here")
        if self._interpreter is not None:
            self._interpreter.repair()
        if self.name.startswith(("aot:", "isa:")):
            self._devices = importlib.import_module(f"{__package__}.codegen").devices()
            self._devices.activate(self.name)
        return torch.device("cuda" if self.name == "gpu" else "cpu")

    def attend(self, contestant: Any, message: Message) -> Message:
        """The op ``attend``, and on ``isa`` what the emulator ran."""
        answer = self._attended(contestant, message)
        if self.name.startswith("isa:"):
            answer["emulated"] = self._devices.collect()["kernels"]
        return answer

    def compile(self, contestant: Any, message: Message) -> Message:
        """The op ``compile``: the kernels of one problem."""
        codegen = importlib.import_module(f"{__package__}.codegen")
        compiled: Message = codegen.compile_problem(lambda: self._attended(contestant, message))
        return compiled

    @staticmethod
    def _attended(contestant: Any, message: Message) -> Message:
        """What the emulator cannot run says nothing about the kernel."""
        attend = importlib.import_module(f"{__package__}.attend")
        answer: Message = attend.attend(contestant, message)
        if answer["raised"].startswith("UnknownInstructionError"):
            raise WorkerError(f"the emulator cannot run this kernel: {answer['raised']}")
        return answer


def interpreter_module() -> Any:
    """The suite's Triton interpreter, loaded by its path: the suite need not be installed."""
    path = Path(__file__).resolve().parents[1] / "devices" / "triton" / "interpreter.py"
    spec = importlib.util.spec_from_file_location("conformance_interpreter", path)
    if spec is None or spec.loader is None:
        raise WorkerError(f"{path} is missing: is the suite's installation complete?")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
