"""Simulates a machine with an AMD GPU, as far as vLLM's platform detection looks at it.

Simulated packages say only what the platform states: ``amdsmi`` reports one GPU of the target,
``aiter`` and ``flash_attn`` can be imported. Packages that the platform says are absent are hidden
even if they are installed, and so is NVIDIA's management library, so that a machine with an NVIDIA
GPU can simulate an AMD one.
"""

from __future__ import annotations

import importlib.machinery
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from importlib.abc import Loader, MetaPathFinder
from typing import NoReturn, Protocol

from ..targets import target_facts

# The packages that a platform states, present or absent.
STATED = ("aiter", "flash_attn")
# Parameters by which vLLM recognises a newer aiter: the simulated one is new enough.
# https://github.com/vllm-project/vllm/blob/v0.30.0/vllm/_aiter_ops.py#L2054
PARAMETERS = {"aiter.mla.mla_decode_fwd": ("causal",)}


class _Simulated(types.ModuleType):
    """A module in which every public name exists; calling one is an error."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)

        def unavailable(*_args: object, **_kwargs: object) -> NoReturn:
            raise RuntimeError(f"{self.__name__}.{name} is simulated: it cannot compute")

        unavailable.__name__ = name
        if newer := PARAMETERS.get(f"{self.__name__}.{name}"):
            keywords = [inspect.Parameter(p, inspect.Parameter.KEYWORD_ONLY) for p in newer]
            signature = inspect.Signature(keywords)
            unavailable.__signature__ = signature  # type: ignore[attr-defined] # inspect reads it
        return unavailable


class _SimulatedPackages(MetaPathFinder, Loader):
    """Finds the simulated packages, and every module below them."""

    def __init__(self, target: str, packages: Sequence[str]) -> None:
        self._target = target
        self._packages = frozenset(packages)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - the import system's signature
        target: types.ModuleType | None = None,  # noqa: ARG002 - likewise
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] in self._packages:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Simulated(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        if module.__name__ == "amdsmi":
            module.__dict__.update(_amdsmi(self._target))


class _Finder(Protocol):
    """An entry of ``sys.meta_path``."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: types.ModuleType | None = ...,
        /,
    ) -> importlib.machinery.ModuleSpec | None: ...


class _Hiding(MetaPathFinder):
    """Another finder, without the packages that the platform says are absent."""

    def __init__(self, inner: _Finder, hidden: Sequence[str]) -> None:
        self._inner = inner
        self._hidden = frozenset(hidden)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] in self._hidden:
            return None
        return self._inner.find_spec(fullname, path, target)

    def invalidate_caches(self) -> None:
        if hasattr(self._inner, "invalidate_caches"):
            self._inner.invalidate_caches()

    def find_distributions(self, *args: object, **kwargs: object) -> Iterable[object]:
        found: Iterable[object] = ()
        if hasattr(self._inner, "find_distributions"):
            found = self._inner.find_distributions(*args, **kwargs)
        return iter(found)


class NvmlError(Exception):
    """NVML is absent, which vLLM recognises by the word "nvml" in the class's name."""


def install(target: str, present: dict[str, bool], real: Sequence[str] = ()) -> None:
    """Makes this process see a machine with one GPU of ``target``.

    ``present`` says whether each of the stated packages can be imported; those in ``real`` are left
    as they are installed.

    Raises:
        WorkerError: nothing is known of the target.
    """
    target_facts(target)
    hidden = [name for name in STATED if not present[name]]
    made = [name for name in STATED if present[name] and name not in real]
    simulated = _SimulatedPackages(target, ["amdsmi", *made])
    for name in list(sys.modules):
        if name.partition(".")[0] in ("amdsmi", *STATED):
            del sys.modules[name]
    sys.meta_path[:] = [simulated, *(_Hiding(finder, hidden) for finder in sys.meta_path)]
    for name in ("pynvml", "vllm.third_party.pynvml"):
        sys.modules[name] = _absent_nvml(name)


def _absent_nvml(name: str) -> types.ModuleType:
    module = types.ModuleType(name)

    def refuse(*_args: object) -> NoReturn:
        raise NvmlError("this machine is simulated as one with an AMD GPU")

    module.__dict__.update(nvmlInit=refuse, nvmlShutdown=refuse, NVMLError=NvmlError)
    return module


def _amdsmi(target: str) -> dict[str, object]:
    """What the simulated ``amdsmi`` has."""
    # vLLM only logs it.
    name = target_facts(target).market_name

    class AmdSmiException(Exception):  # noqa: N818 - amdsmi's own name
        pass

    class AmdSmiMemoryType:
        VRAM = 0

    return {
        "AmdSmiException": AmdSmiException,
        "AmdSmiMemoryType": AmdSmiMemoryType,
        "amdsmi_init": lambda *_: None,
        "amdsmi_shut_down": lambda: None,
        "amdsmi_get_processor_handles": lambda: [0],
        "amdsmi_get_gpu_asic_info": lambda _handle: {
            "target_graphics_version": target,
            "market_name": name,
            "device_id": "0x0000",
        },
        "amdsmi_topo_get_link_type": lambda _a, _b: {"hops": 1, "type": 2},
        "amdsmi_get_gpu_device_uuid": lambda _handle: "00000000-0000-0000-0000-000000000000",
        "amdsmi_topo_get_numa_node_number": lambda _handle: 0,
        "amdsmi_get_gpu_memory_total": lambda _handle, _kind: 0,
    }
