"""The MODE register: how results are rounded, which denormals are flushed, what clamping does.

It starts as the kernel's descriptor says, and instructions change it. Bits, from AMD's instruction
set manuals and https://llvm.org/docs/AMDGPUUsage.html: 0-3 rounding, of float32 and then of 16 and
64 bits; 4-7 denormals, likewise; 8 DX10_CLAMP; 9 IEEE; 23 FP16_OVFL. gfx12 has neither DX10_CLAMP
nor IEEE: it clamps NaN to 0 and heeds output modifiers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from ..targets import Family

NEAREST, UP, DOWN, TOWARDS_ZERO = range(4)
DX10_CLAMP, IEEE, FP16_OVFL = 1 << 8, 1 << 9, 1 << 23
ROUND_BITS, DENORM_BITS = 0xF, 0xF0
SETTABLE = ROUND_BITS | DENORM_BITS | DX10_CLAMP | IEEE | FP16_OVFL
# Nearest even, every denormal kept, no NaN clamped, output modifiers heeded.
PLAIN = DENORM_BITS


@dataclass(frozen=True)
class Mode:
    """MODE's bits by what they do: ``32`` is about float32, ``16`` about 16 and 64 bits.

    ``round``: one of NEAREST, UP, DOWN, TOWARDS_ZERO. ``flush_in``, ``flush_out``: denormals
    become zeros where they are read, and where they are written. ``clamps_nan``: ``clamp`` makes 0
    of a NaN. ``scales``: output modifiers (``mul:2``) are heeded. ``saturates``: a float16 result
    that is too large is the largest number, not infinity.
    """

    round32: int
    round16: int
    flush_in32: bool
    flush_out32: bool
    flush_in16: bool
    flush_out16: bool
    clamps_nan: bool
    scales: bool
    saturates: bool


@lru_cache(maxsize=256)
def decode_mode(bits: int) -> Mode:
    """MODE's bits, taken apart."""
    return Mode(
        round32=bits & 3,
        round16=bits >> 2 & 3,
        flush_in32=not bits >> 4 & 1,
        flush_out32=not bits >> 5 & 1,
        flush_in16=not bits >> 6 & 1,
        flush_out16=not bits >> 7 & 1,
        clamps_nan=bool(bits & DX10_CLAMP),
        scales=not bits & IEEE,
        saturates=bool(bits & FP16_OVFL),
    )


def initial_mode(descriptor: Mapping[str, int], family: Family) -> int:
    """MODE's bits at a kernel's start; what its descriptor leaves out is as LLVM has it then."""
    bits = (
        descriptor.get("float_round_mode_32", 0) | descriptor.get("float_round_mode_16_64", 0) << 2
    )
    bits |= descriptor.get("float_denorm_mode_32", 0) << 4
    bits |= descriptor.get("float_denorm_mode_16_64", 3) << 6
    if descriptor.get("fp16_overflow", 0):
        bits |= FP16_OVFL
    if family.isa == "gfx12":
        return bits | DX10_CLAMP
    if descriptor.get("dx10_clamp", 1):
        bits |= DX10_CLAMP
    return bits | (IEEE if descriptor.get("ieee_mode", 1) else 0)
