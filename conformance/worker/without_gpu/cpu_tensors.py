"""Tensors that are asked for on "cuda" are made on the CPU.

Every call of torch's from Python passes a function mode, which reads "cuda" as "cpu" wherever a
device is named, and leaves host memory unpinned: pinning needs a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _device as device_contexts

GPU = ("cuda", "hip")
# Methods whose positional arguments may name a device.
_MOVES = ("to", "new_tensor", "new_empty", "new_zeros", "new_ones", "new_full")


def on_cpu(value: Any) -> Any:
    """``value``, and "cpu" if it names a GPU, as text, as an index or as a ``torch.device``."""
    if isinstance(value, str) and value.partition(":")[0] in GPU:
        return "cpu"
    if isinstance(value, torch.device) and value.type in GPU:
        return torch.device("cpu")
    return value


class CpuForGpu(TorchFunctionMode):
    """Reads every GPU that a call of torch's names as the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("cuda", "pin_memory") and args and isinstance(args[0], torch.Tensor):
            return args[0]
        given = dict(kwargs or {})
        if "device" in given:
            # A bare number is the number of a GPU.
            given["device"] = "cpu" if type(given["device"]) is int else on_cpu(given["device"])
        if given.get("pin_memory"):
            given["pin_memory"] = False
        if name in _MOVES:
            args = (args[0], *map(on_cpu, args[1:]))
        return func(*args, **given)


def install() -> None:
    """From here on, in this process."""
    make_context = device_contexts.DeviceContext.__init__

    def context_on_cpu(self: Any, device: Any) -> None:
        make_context(self, torch.device(on_cpu(device)))

    device_contexts.DeviceContext.__init__ = context_on_cpu  # type: ignore[method-assign] # "with torch.device"
    set_default = torch.set_default_device
    vars(torch)["set_default_device"] = lambda device: set_default(on_cpu(device))
    make_generator: Any = torch.Generator

    class GeneratorOnCpu(make_generator):  # type: ignore[misc] # torch's own class
        """The CPU's, whatever GPU it is asked for."""

        def __new__(cls, device: Any = "cpu") -> Any:
            return make_generator.__new__(cls, device=on_cpu(device))

    vars(torch)["Generator"] = GeneratorOnCpu
    mode: Any = CpuForGpu()  # torch's modes are untyped
    mode.__enter__()
