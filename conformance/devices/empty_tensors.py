"""Tensors that torch makes without contents: an emulated device knows that nobody wrote them."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from .isa.unwritten import fill

_MAKERS = frozenset(
    (
        *(torch.empty, torch.empty_like, torch.empty_strided, torch.empty_permuted),
        *(torch.Tensor.new_empty, torch.Tensor.new_empty_strided),
    )
)


class EmptyTensors(TorchFunctionMode):
    """Fills what is made empty with the pattern by which a launch knows that nobody wrote it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in _MAKERS:
            mark(made)
        return made


def mark(tensor: torch.Tensor) -> None:
    """Makes the memory of a tensor that which nobody wrote, the whole of its storage."""
    storage = tensor.untyped_storage()
    if tensor.device.type == "cpu" and storage.nbytes():
        fill(storage.data_ptr(), storage.nbytes())
