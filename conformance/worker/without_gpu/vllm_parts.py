"""What of vLLM itself has to know that its tensors live on the CPU."""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType
from typing import Any

from ..errors import Refused
from ..kernel_device import KernelDevice
from ..launches import Launches
from .after_import import after_import

# What the harness's FlashAttention takes for granted, by the names of its parameters.
PLAIN = {"window_size": (-1, -1), "softcap": 0.0, "dropout_p": 0.0, "alibi_slopes": None}
# Compiled, and not in a wheel's Python files: tests import them for the operators they declare.
COMPILED = ("vllm._C", "vllm._C_stable_libtorch", "vllm._rocm_C", "vllm._moe_C")


def install(device: KernelDevice) -> None:
    """Once vLLM's modules are imported, by whoever imports them."""
    for name in COMPILED:
        sys.modules.setdefault(name, ModuleType(name))
    after_import("vllm.platforms.rocm", _tensors_are_the_cpu_s)
    after_import("vllm.third_party", _without_nvml)
    after_import("vllm._custom_ops", lambda _: _operators(device))
    after_import("flash_attn", _flash_attention)


def _tensors_are_the_cpu_s(platform: ModuleType) -> None:
    """vLLM registers its own torch operators for the platform's kind of tensors."""
    platform.RocmPlatform.dispatch_key = "CPU"


def _without_nvml(package: ModuleType) -> None:
    """``import vllm.third_party.pynvml as pynvml`` asks the package for it."""
    vars(package)["pynvml"] = sys.modules["vllm.third_party.pynvml"]


@cache
def _launches() -> Launches:
    return Launches()


def _operators(device: KernelDevice) -> None:
    """HIP operators on an emulated target, where they can be compiled; else the harness's own."""
    from ..vllm import hip_ops, replaced_ops  # noqa: PLC0415 - torch is imported now

    why_not = "" if device.driver is None else hip_ops.install(_launches(), device.driver)
    hip = device.driver is not None and not why_not
    replaced_ops.install(_launches(), why_not, hip=hip)


def _flash_attention(package: ModuleType) -> None:
    """FlashAttention for MLA's prefill, exact, where the package is simulated."""
    from ..vllm import replaced_ops  # noqa: PLC0415 - torch is imported now

    if package.__spec__ is not None and package.__spec__.origin is not None:
        return
    exact = replaced_ops.flash_attention(_launches())

    def attend(*given: Any, **named: Any) -> Any:
        for name, plain in PLAIN.items():
            value = named.get(name)
            if (tuple(value) if isinstance(value, list) else value) not in (None, plain):
                raise Refused(f"the harness's FlashAttention has no {name}")
        return exact(*given, **named)

    vars(package)["flash_attn_varlen_func"] = attend
