"""What vLLM asks of a GPU while it attends, answered for a target that is simulated."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..targets import target_facts
from .objects import current_platform

PINNED = "PIN_MEMORY"


def install(target: str) -> None:
    """Makes vLLM's platform have the target's compute units, and no pinned memory."""
    platform = type(current_platform())
    units = target_facts(target).compute_units
    for name, answer in (("num_compute_units", units), ("is_pin_memory_available", False)):
        if hasattr(platform, name):
            setattr(platform, name, classmethod(_answering(answer)))
    # Modules that are imported later take it from the one that defines it.
    for module in list(sys.modules.values()):
        if module.__name__.startswith("vllm") and PINNED in vars(module):
            vars(module)[PINNED] = False


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
