"""The architecture that a launch is compiled for, where it changes how to launch."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import triton

if TYPE_CHECKING:
    from rocm_reference.ops.launch import Launch


@cache
def architecture() -> str:
    """``gfx1100`` and so on; empty on NVIDIA GPUs and in Triton's interpreter."""
    try:
        target = triton.runtime.driver.active.get_current_target()
    except RuntimeError:  # no driver: the interpreter without a GPU
        return ""
    return str(target.arch) if target.backend == "hip" else ""


def is_rdna(architecture: str) -> bool:
    """Whether a lane has 256 vector registers and waves have 32 lanes."""
    return architecture.startswith(("gfx11", "gfx120"))


def without_spills(launch: Launch, least: int, wide: bool, architecture: str) -> Launch:
    """A launch, changed so that RDNA's 256 registers hold it; but RDNA3's no ``wide`` rows.

    ``least`` rows are needed; ``wide``: of more than 256 bytes. Waves share the tile of keys, so
    eight of them hold half as much each as four do; RDNA3 holds matrix operands twice
    (https://gpuopen.com/learn/wmma_on_rdna3/), so its tiles are the smallest that there are. With
    two stages a tile waits in LDS, not in registers. Found by compiling (the suite codegen): which
    of these is fastest nobody has measured.
    """
    if not is_rdna(architecture):
        return launch
    if architecture.startswith("gfx12"):
        if wide and launch.block_m <= 16:
            return replace(launch, tile=16, num_warps=8, num_stages=2)
        return replace(launch, tile=min(launch.tile, 32), num_warps=8)
    block_m = max(least, min(launch.block_m, 32))
    if block_m <= 16:
        return replace(launch, tile=16)
    return replace(launch, block_m=block_m, tile=16, num_warps=8)
