"""What vLLM asks of a GPU while it attends, answered for a target that is simulated."""

from __future__ import annotations

import importlib
import inspect
import sys
from types import FunctionType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..guarded_memory import is_nan
from ..targets import target_facts
from .objects import current_platform

PINNED, PARAMETER = "PIN_MEMORY", "pin_memory"


def install(target: str) -> None:
    """Makes vLLM's platform have the target's compute units, and no pinned memory."""
    platform = type(current_platform())
    units = target_facts(target).compute_units
    for name, answer in (("num_compute_units", units), ("is_pin_memory_available", False)):
        if hasattr(platform, name):
            setattr(platform, name, classmethod(_answering(answer)))
    # vLLM keeps some of the platform's answers.
    for kept in vars(importlib.import_module("vllm.utils.platform_utils")).values():
        if hasattr(kept, "cache_clear"):
            kept.cache_clear()
    # Modules that are imported later take it from the one that defines it.
    for name, module in list(sys.modules.items()):
        if name.startswith("vllm") and PINNED in vars(module):
            vars(module)[PINNED] = False
            for function in vars(module).values():
                if isinstance(function, FunctionType):
                    unpin(function)


def unpin(function: FunctionType) -> None:
    """Makes a function's parameter ``pin_memory`` False where it is not given."""
    if PARAMETER in (by_name := function.__kwdefaults__ or {}):
        function.__kwdefaults__ = {**by_name, PARAMETER: False}
    names = inspect.getfullargspec(function).args
    given = function.__defaults__ or ()
    if PARAMETER in names[len(names) - len(given) :]:
        defaults = dict(zip(names[len(names) - len(given) :], given, strict=True))
        function.__defaults__ = tuple({**defaults, PARAMETER: False}.values())


def _answering(answer: object) -> Any:
    def answering(_cls: object, *_: object, **_named: object) -> object:
        return answer

    return answering


class Pageable(TorchFunctionMode):
    """Host memory is never pinned, which needs a GPU, whoever asks for it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.pin_memory:
            return args[0]
        return func(*args, **{**(kwargs or {}), **_unpinned(kwargs)})


def _unpinned(kwargs: dict[str, object] | None) -> dict[str, object]:
    return {"pin_memory": False} if kwargs and "pin_memory" in kwargs else {}


class SeenOnGpu(TorchFunctionMode):
    """Tensors say that a GPU has them, and what is allocated holds NaN until it is written."""

    _IS_CUDA = torch.Tensor.is_cuda.__get__  # type: ignore[attr-defined] # a property, in C
    _IS_CPU = torch.Tensor.is_cpu.__get__  # type: ignore[attr-defined] # likewise

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (self._IS_CUDA, self._IS_CPU):
            return func == self._IS_CUDA
        made = func(*args, **(kwargs or {}))
        if func is torch.empty and made.is_floating_point() and not is_nan(made):
            made.fill_(float("nan"))
        return made
