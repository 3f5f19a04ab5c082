"""Makes this process one whose kernels run on a device without a GPU."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from ..inventory import aiter_folder
from ..kernel_device import KernelDevice
from ..targets import target_facts
from .after_import import after_import

# torch multiplies instead of HIP; nothing is compiled by torch for a GPU that is not here.
# One thread: what is measured of a case is the processor's time.
SETTINGS = {
    "VLLM_ROCM_USE_SKINNY_GEMM": "0",
    "TORCHDYNAMO_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
DEVICES: list[KernelDevice] = []  # the one of this process, once it is chosen


def has_aiter() -> bool:
    """Whether this Python has an aiter with Triton kernels, which then need not be simulated."""
    with contextlib.suppress(LookupError):
        return aiter_folder().is_dir()
    return False


def prepare(target: str, device: str, real: Sequence[str] = ()) -> None:
    """Chooses the device; the rest follows when torch and vLLM are imported.

    ``device`` is ``interpreter`` or ``isa:<target>``; ``real`` are packages that are not simulated.
    """
    target_facts(target)
    os.environ.update(SETTINGS)
    chosen = KernelDevice(device)
    DEVICES[:] = [chosen]

    def with_torch(_: object) -> None:
        from ..aiter import loading  # noqa: PLC0415 - torch is imported now
        from . import cpu_tensors, cuda_calls, vllm_parts  # noqa: PLC0415 - likewise

        chosen.activate()
        if "aiter" in real:
            loading.prepare(target)
        cuda_calls.install(target)
        vllm_parts.install(chosen)
        cpu_tensors.install()

    after_import("torch", with_torch)
