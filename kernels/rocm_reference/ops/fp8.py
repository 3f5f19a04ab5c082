"""8-bit floats as raw bytes, decoded and encoded with integer arithmetic on any processor.

Three encodings occur in KV caches: E4M3FN and E5M2 (the OCP 8-bit floating point specification,
https://www.opencompute.org/documents/ocp-8-bit-floating-point-specification-ofp8-revision-1-0-2023-12-01-pdf-1)
and E4M3FNUZ (exponent bias 8, no infinity, no negative zero, 0x80 is NaN), which gfx942's hardware
reads (https://onnx.ai/onnx/technical/float8.html). No processor supports all three in hardware.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

NONE = 0
E4M3FN = 1
E4M3FNUZ = 2
E5M2 = 3
FORMATS = {
    torch.float8_e4m3fn: E4M3FN,
    torch.float8_e4m3fnuz: E4M3FNUZ,
    torch.float8_e5m2: E5M2,
}


def format_of(dtype: torch.dtype) -> int:
    """The ``FORMAT`` constant of a cache's dtype; ``NONE`` for 16- and 32-bit caches."""
    return FORMATS.get(dtype, NONE)


def as_bytes(cache: torch.Tensor) -> torch.Tensor:
    """An fp8 cache as the bytes that kernels take; any other cache as it is."""
    return cache.view(torch.uint8) if cache.dtype in FORMATS else cache


@triton.jit
def decode(stored, DTYPE: tl.constexpr, FORMAT: tl.constexpr):
    """Stored elements as ``DTYPE``, exactly: float16 and bfloat16 can hold every fp8 value.

    Shifted to float16's exponent, the bits of an E4M3 value read as value / 2**(15 - bias).
    """
    if FORMAT == 0:
        return stored.to(DTYPE)
    bits = stored.to(tl.uint16)
    if FORMAT == 3:
        return (bits << 8).to(tl.float16, bitcast=True).to(DTYPE)
    half = (((bits & 0x80) << 8) | ((bits & 0x7F) << 7)).to(tl.float16, bitcast=True)
    if FORMAT == 1:
        value = tl.where((bits & 0x7F) == 0x7F, float("nan"), half.to(tl.float32) * 256.0)
    else:
        value = tl.where(bits == 0x80, float("nan"), half.to(tl.float32) * 128.0)
    return value.to(DTYPE)


@triton.jit
def encode(x, FORMAT: tl.constexpr):
    """float32 values as fp8 bytes, rounded to nearest even and saturated at the largest value."""
    MANTISSA: tl.constexpr = 2 if FORMAT == 3 else 3
    BIAS: tl.constexpr = 15 if FORMAT == 3 else (8 if FORMAT == 2 else 7)
    LARGEST: tl.constexpr = 57344.0 if FORMAT == 3 else (240.0 if FORMAT == 2 else 448.0)
    SMALLEST_NORMAL: tl.constexpr = 2.0 ** (1 - BIAS)
    STEPS: tl.constexpr = 2.0 ** (BIAS - 1 + MANTISSA)  # subnormals are multiples of 1 / STEPS
    DROPPED: tl.constexpr = 23 - MANTISSA
    ROUNDER: tl.constexpr = 12582912.0  # 1.5 * 2**23: adding it rounds to an integer
    magnitude = tl.minimum(tl.abs(x), LARGEST)
    bits = magnitude.to(tl.uint32, bitcast=True)
    rounded = bits + ((1 << (DROPPED - 1)) - 1) + ((bits >> DROPPED) & 1)
    normal = (rounded >> DROPPED) - ((127 - BIAS) << MANTISSA)
    subnormal = ((magnitude * STEPS + ROUNDER) - ROUNDER).to(tl.uint32)
    code = tl.where(magnitude < SMALLEST_NORMAL, subnormal, normal)
    sign = (x.to(tl.uint32, bitcast=True) >> 24) & 0x80
    is_nan = x != x  # noqa: PLR0124 - what a NaN is
    if FORMAT == 2:
        sign = tl.where(code == 0, 0, sign)
        return tl.where(is_nan, 0x80, code | sign).to(tl.uint8)
    return tl.where(is_nan, 0x7F, code | sign).to(tl.uint8)
