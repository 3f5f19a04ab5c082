"""Loads the suite's devices by their path: the suite need not be installed in this Python.

They need Triton and torch, which are the subject's.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, TypedDict, cast

from .contract import KernelReport
from .errors import WorkerError

if TYPE_CHECKING:
    from ..devices.triton.driver import Driver

FOLDER = Path(__file__).resolve().parents[1] / "devices"


class Ran(TypedDict):
    """What a device ran since it was last asked, as far as the worker reads it."""

    kernels: list[KernelReport]


class Devices(Protocol):
    """The package ``conformance.devices``."""

    def activate(self, device: str) -> Driver:
        """Runs every later Triton launch on this device."""
        ...

    def collect(self) -> Ran: ...


class Interpreter(Protocol):
    """The module ``conformance.devices.triton.interpreter``."""

    def choose(self) -> None:
        """Makes Triton interpret its kernels. To be called before Triton is imported."""
        ...

    def repair(self) -> None:
        """Corrects the interpreter. To be called after Triton is imported."""
        ...


class Programs(Protocol):
    """The class ``Programs`` of ``conformance.devices.triton.programs``."""

    def install(self, interpreter: object) -> None:
        """Orders and watches the programs of every later launch in Triton's interpreter."""
        ...

    def begin(self, order: str, seed: int) -> None: ...

    def violations(self) -> list[str]: ...


def devices() -> Devices:
    """The device package, loaded once."""
    package: Devices = load_by_path("conformance_devices", FOLDER / "__init__.py")
    return package


def interpreter() -> Interpreter:
    """The module that makes Triton interpret, and corrects how it does."""
    return cast("Interpreter", device_part("triton.interpreter"))


def programs() -> Programs:
    """What orders and watches the programs that the interpreter runs."""
    made: Programs = device_part("triton.programs").Programs()
    return made


def empty_tensors() -> AbstractContextManager[object]:
    """While it is entered, an emulated device knows what of an ``empty`` tensor is written."""
    mode: AbstractContextManager[object] = device_part("empty_tensors").EmptyTensors()
    return mode


def device_part(name: str) -> ModuleType:
    """A module of the device package, such as ``hip.clang``."""
    devices()
    return import_module(f"conformance_devices.{name}")


def load_by_path(name: str, path: Path) -> ModuleType:
    """A module or package of the suite under a name of its own, loaded once."""
    if name not in sys.modules:
        folders = [str(path.parent)] if path.name == "__init__.py" else None
        spec = spec_from_file_location(name, path, submodule_search_locations=folders)
        if spec is None or spec.loader is None or not path.is_file():
            raise WorkerError(f"{path} is missing: is the suite's installation complete?")
        module = module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
