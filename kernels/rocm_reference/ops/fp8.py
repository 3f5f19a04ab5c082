"""8-bit floats as raw bytes: converted by the processor where it can, else by integer arithmetic.

Three encodings occur in KV caches: E4M3FN and E5M2 (the OCP 8-bit floating point specification,
https://www.opencompute.org/documents/ocp-8-bit-floating-point-specification-ofp8-revision-1-0-2023-12-01-pdf-1)
and E4M3FNUZ (exponent bias 8, no infinity, no negative zero, 0x80 is NaN), which gfx942's hardware
reads (https://onnx.ai/onnx/technical/float8.html). No processor converts all three. Both ways give
the same value for each of the 256 codes, and the same code for each float32 but the sign of a NaN.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl

from rocm_reference.ops.launch import current_target, family, family_of, padded

NONE = 0
E4M3FN = 1
E4M3FNUZ = 2
E5M2 = 3
FORMATS = {
    torch.float8_e4m3fn: E4M3FN,
    torch.float8_e4m3fnuz: E4M3FNUZ,
    torch.float8_e5m2: E5M2,
}
# Added to the encodings that the processor converts.
HARDWARE = 4
# Added where kernels read values as pairs of neighbouring columns: see :func:`in_pairs`.
PAIRS = 8
FEWEST_PAIRED = 128  # columns
# The encodings for which a family has instructions that Triton uses. RDNA4 has those of OCP, and
# Triton does without (https://github.com/triton-lang/triton/issues/11497).
CONVERTED = {
    "CDNA3": (E4M3FNUZ,),
    "CDNA4": (E4M3FN, E5M2),
}
CUDA_WITH_FP8 = 89  # PTX: cvt with .e4m3x2 and .e5m2x2 needs sm_89


def format_of(dtype: torch.dtype) -> int:
    """The ``FORMAT`` constant of a cache's dtype; ``NONE`` for 16- and 32-bit caches.

    It depends on the processor that kernels are compiled for, and never asks for hardware in
    Triton's interpreter, which knows no NaN of E4M3.
    """
    code = FORMATS.get(dtype, NONE)
    return code + HARDWARE if code in converted() else code


@cache
def converted() -> tuple[int, ...]:
    """The encodings that the processor of this run converts."""
    target = current_target()
    if target is None or not isinstance(decode, triton.JITFunction):
        return ()
    if target.backend == "cuda":
        return (E4M3FN, E5M2) if int(target.arch) >= CUDA_WITH_FP8 else ()
    return CONVERTED.get(family_of(str(target.arch)), ())


def in_pairs(values: torch.Tensor) -> torch.Tensor | None:
    """Bytes [N, G, V, B] as int16 pairs [N, G, V / 2, B]; None where they are read one by one.

    An NVIDIA GPU transposes 16-bit elements on their way from shared memory to the matrix unit, but
    no bytes: an H200 decodes 64 sequences of 8k keys in 330 us by pairs, by bytes in 382. They need
    columns that are neighbours, at even addresses. Triton's interpreter reads pairs too. Rows of 64
    columns and less are read by bytes: of tiles of 32 pairs Triton 3.6 makes code for Hopper that
    computes something else, and may read past the cache.
    """
    block, head, column, slot = values.stride()
    size = values.shape[2]
    even = not any(n % 2 for n in (size, block, head, slot, values.data_ptr()))
    if column != 1 or not even or padded(size) < FEWEST_PAIRED or family():
        return None
    return values.transpose(2, 3).view(torch.int16).transpose(2, 3)


def as_bytes(cache: torch.Tensor) -> torch.Tensor:
    """An fp8 cache as the bytes that kernels take; any other cache as it is."""
    return cache.view(torch.uint8) if cache.dtype in FORMATS else cache


@triton.jit
def decode(stored, DTYPE: tl.constexpr, FORMAT: tl.constexpr):
    """Stored elements as ``DTYPE``, exactly: float16 and bfloat16 can hold every fp8 value.

    E5M2 is the upper half of float16. Shifted to float16's exponent, the bits of an E4M3 value read
    as value / 2**(15 - bias).
    """
    if FORMAT == 0:
        return stored.to(DTYPE)
    if FORMAT == 5:
        return exactly(stored.to(tl.float8e4nv, bitcast=True), DTYPE)
    if FORMAT == 6:
        return exactly(stored.to(tl.float8e4b8, bitcast=True), DTYPE)
    bits = stored.to(tl.uint16)
    if FORMAT % 4 == 3:
        return (bits << 8).to(tl.float16, bitcast=True).to(DTYPE)
    half = (((bits & 0x80) << 8) | ((bits & 0x7F) << 7)).to(tl.float16, bitcast=True)
    if FORMAT == 1:
        value = tl.where((bits & 0x7F) == 0x7F, float("nan"), half.to(tl.float32) * 256.0)
    else:
        value = tl.where(bits == 0x80, float("nan"), half.to(tl.float32) * 128.0)
    return value.to(DTYPE)


@triton.jit
def exactly(value, DTYPE: tl.constexpr):
    """An fp8 value as ``DTYPE``, by the processor and by way of float32.

    Nothing is lost, so nothing need be rounded. CDNA3 would round to bfloat16 in software, and an
    H200 takes twice as long to convert fp8 to bfloat16 in one step.
    """
    wide = value.to(tl.float32)
    if tl.bfloat16 == DTYPE:
        upper = wide.to(tl.uint32, bitcast=True) >> 16
        return upper.to(tl.uint16).to(tl.bfloat16, bitcast=True)
    return wide.to(DTYPE)


@triton.jit
def encode(x, FORMAT: tl.constexpr):
    """float32 values as fp8 bytes, rounded to nearest even and saturated at the largest value."""
    ENCODING: tl.constexpr = FORMAT % 4
    LARGEST: tl.constexpr = 57344.0 if ENCODING == 3 else (240.0 if ENCODING == 2 else 448.0)
    if FORMAT >= 4:
        # Processors differ in what they make of larger values, so none are left to them.
        code = tl.clamp(x, -LARGEST, LARGEST, propagate_nan=tl.PropagateNan.ALL)
        if ENCODING == 1:
            return code.to(tl.float8e4nv).to(tl.uint8, bitcast=True)
        if ENCODING == 2:
            return code.to(tl.float8e4b8).to(tl.uint8, bitcast=True)
        return code.to(tl.float8e5).to(tl.uint8, bitcast=True)
    MANTISSA: tl.constexpr = 2 if ENCODING == 3 else 3
    BIAS: tl.constexpr = 15 if ENCODING == 3 else (8 if ENCODING == 2 else 7)
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
    if ENCODING == 2:
        sign = tl.where(code == 0, 0, sign)
        return tl.where(is_nan, 0x80, code | sign).to(tl.uint8)
    return tl.where(is_nan, 0x7F, code | sign).to(tl.uint8)
