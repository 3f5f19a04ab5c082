"""Number formats and the arithmetic that numpy does not have: fused multiply-add, fp8, bf16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .mode import Mode
from .primitives import primitive

Lanes = npt.NDArray[Any]
Function = Callable[..., Any]
F32, F64, U32, U64 = np.float32, np.float64, np.uint32, np.uint64
SIGN = U32(0x80000000)
MIN_NORMAL = F32(2.0**-126)


@primitive("fma32")
def fma32(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """float32 a*b+c, rounded once.

    The product is exact in float64. Its sum with c is rounded to 53 bits; only where those end in
    exactly half a float32 step can rounding again go wrong, and there the sum is made odd first.
    """
    product = np.multiply(a, b, dtype=F64)
    total = product + c
    bits = np.atleast_1d(total).view(U64)
    near_half = (bits & U64(0x1FFFFFFF)) == U64(0x10000000)
    small = (np.abs(total) < 2.0**-125) & (total != 0)
    if near_half.any() or small.any():
        total = _round_to_odd(product, np.asarray(c, dtype=F64), total)
    return np.asarray(total.astype(F32))


def _round_to_odd(product: Lanes, c: Lanes, total: Lanes) -> Lanes:
    """The sum with its last bit set where it is inexact: a second rounding then errs nowhere."""
    back = total - product
    error = (product - (total - back)) + (c - back)
    bits = np.array(total, dtype=F64, ndmin=1, copy=True).view(U64)
    even = (bits & U64(1)) == 0
    inexact = (error != 0) & np.isfinite(total)
    towards_zero = (error < 0) != (total < 0)
    step = np.where(towards_zero, U64(0xFFFFFFFFFFFFFFFF), U64(1))
    return np.asarray(np.where(inexact & even, bits + step, bits)).view(F64).reshape(total.shape)


def odd_sum(one: Lanes, two: Lanes, *, down: bool) -> Lanes:
    """float64 sum whose last bit is set where it is inexact: it can be rounded once more.

    ``down``: rounding is to go down, so that a sum of zeros of both signs is -0.
    """
    total = one + two
    odd = _round_to_odd(one, two, total)
    if down:
        negative = np.signbit(one) | np.signbit(two)
        odd = np.where((total == 0) & negative, -0.0, odd)
    return odd


def rounded(value: Lanes, dtype: type, direction: int) -> Lanes:
    """A float64 (exact, or rounded to odd) rounded up (1), down (2) or towards zero (3)."""
    near: Lanes = np.asarray(value).astype(dtype)
    wide = near.astype(F64)
    if direction == 1:
        wrong, goal = wide < value, dtype(np.inf)
    elif direction == 2:
        wrong, goal = wide > value, dtype(-np.inf)
    else:
        wrong, goal = np.abs(wide) > np.abs(value), dtype(0)
    return np.where(wrong, np.nextafter(near, goal), near)


def flush32(value: Lanes) -> Lanes:
    """float32 denormals become zeros of their sign: what the transcendental unit does."""
    return np.where(np.abs(value) < MIN_NORMAL, np.copysign(F32(0), value), value)


def max_num(a: Lanes, b: Lanes) -> Lanes:
    """The larger; of a number and a NaN the number; +0 is larger than -0."""
    bits = a.view(U32) & b.view(U32)
    return np.where(a == b, bits.view(F32), np.fmax(a, b))


def min_num(a: Lanes, b: Lanes) -> Lanes:
    """The smaller; of a number and a NaN the number; -0 is smaller than +0."""
    bits = a.view(U32) | b.view(U32)
    return np.where(a == b, bits.view(F32), np.fmin(a, b))


def maximum(a: Lanes, b: Lanes) -> Lanes:
    """The larger; a NaN wins; +0 is larger than -0."""
    bits = a.view(U32) & b.view(U32)
    return np.where(a == b, bits.view(F32), np.maximum(a, b))


def minimum(a: Lanes, b: Lanes) -> Lanes:
    """The smaller; a NaN wins; -0 is smaller than +0."""
    bits = a.view(U32) | b.view(U32)
    return np.where(a == b, bits.view(F32), np.minimum(a, b))


def from_half(raw: Lanes) -> Lanes:
    """float32 values of the low 16 bits as IEEE half."""
    return raw.astype(np.uint16).view(np.float16).astype(F32)


def flush16(value: Lanes) -> Lanes:
    """float32 values of half denormals become zeros of their sign."""
    return np.where(np.abs(value) < F32(2.0**-14), np.copysign(F32(0), value), value)


def half_encoder(mode: Mode) -> Function:
    """How a value becomes the bits of a half in a mode; in uint32."""
    if (mode.round16, mode.flush_out16, mode.saturates) == (0, False, False):
        return to_half

    def encode(value: Lanes) -> Lanes:
        if mode.round16:
            bits = rounded(value, np.float16, mode.round16).view(np.uint16).astype(U32)
        else:
            bits = to_half(value)
        if mode.saturates:
            over = ((bits & U32(0x7FFF)) == U32(0x7C00)) & np.isfinite(value)
            bits = np.where(over, bits - U32(1), bits)
        if mode.flush_out16:
            bits = np.where((bits & U32(0x7C00)) == 0, bits & U32(0x8000), bits)
        return bits

    return encode


@primitive("to_half")
def to_half(value: Lanes) -> Lanes:
    """The bits of a value rounded to IEEE half, in uint32."""
    return np.asarray(value).astype(np.float16).view(np.uint16).astype(U32)


def from_bf16(raw: Lanes) -> Lanes:
    """float32 values of the low 16 bits as bfloat16."""
    return (raw << U32(16)).view(F32)


def to_bf16(value: Lanes) -> Lanes:
    """The bits of a float32 rounded to bfloat16, nearest even, in uint32; a NaN stays one."""
    bits = value.astype(F32).view(U32)
    rounded = (bits + U32(0x7FFF) + ((bits >> U32(16)) & U32(1))) >> U32(16)
    return np.where(np.isnan(value), (bits >> U32(16)) | U32(0x40), rounded)


def half_towards_zero(value: Lanes) -> Lanes:
    """The bits of a value rounded towards zero to IEEE half, in uint32."""
    bits = to_half(value)
    finite = np.isfinite(value)
    away = finite & (np.abs(from_half(bits)) > np.abs(value))
    return np.where(away, bits - U32(1), bits)


def to_int(low: int, high: int, dtype: type) -> Function:
    """A conversion that truncates and saturates; NaN becomes 0."""

    def convert(a: Lanes) -> Lanes:
        wide = np.clip(np.trunc(np.where(np.isnan(a), 0, a).astype(F64)), low, high)
        return wide.astype(dtype)

    return convert


def transcendental(function: Function) -> Function:
    """float32, one unit in the last place; denormals are flushed on the way in and out."""
    return lambda a: flush32(function(flush32(a)).astype(F32))


ORDERED: dict[str, Function] = {
    "lt": lambda a, b: a < b,
    "eq": lambda a, b: a == b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}
FLOAT_COMPARISONS: dict[str, Function] = {
    **ORDERED,
    "lg": lambda a, b: (a < b) | (a > b),
    "o": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
    "u": lambda a, b: np.isnan(a) | np.isnan(b),
    "nge": lambda a, b: ~(a >= b),
    "nlg": lambda a, b: ~((a < b) | (a > b)),
    "ngt": lambda a, b: ~(a > b),
    "nle": lambda a, b: ~(a <= b),
    "neq": lambda a, b: ~(a == b),
    "nlt": lambda a, b: ~(a < b),
}
INT_COMPARISONS: dict[str, Function] = {**ORDERED, "ne": lambda a, b: a != b}


class Fp8:
    """An 8-bit float: ``exponent`` and ``mantissa`` bits, and its special values.

    "ocp": the encodings of the Open Compute Project, as gfx950 and gfx12 have them: e4m3 has
    no infinity and its largest value is 448. "fnuz": gfx942's, with a bias one larger, no
    infinity, no negative zero, and NaN where that would be.
    https://onnx.ai/onnx/technical/float8.html
    """

    def __init__(self, exponent: int, mantissa: int, flavour: str) -> None:
        self.mantissa, self.flavour = mantissa, flavour
        self.bias = (1 << (exponent - 1)) - (0 if flavour == "fnuz" else 1)
        codes = np.arange(256)
        self.values = self._decode(codes, exponent).astype(F32)
        finite = self.values[:128][np.isfinite(self.values[:128])]
        self.largest = F32(finite.max())
        self.has_inf = bool(np.isinf(self.values).any())
        self.nan = 0x80 if flavour == "fnuz" else 0x7F

    def _decode(self, codes: Lanes, exponent: int) -> Lanes:
        power = (codes >> self.mantissa) & ((1 << exponent) - 1)
        fraction = codes & ((1 << self.mantissa) - 1)
        scale = 2.0 ** (np.maximum(power, 1) - self.bias - self.mantissa)
        value = np.where(power > 0, fraction + (1 << self.mantissa), fraction) * scale
        value = np.where(codes & 0x80, -value, value)
        top = power == (1 << exponent) - 1
        if self.flavour == "fnuz":
            value = np.where(codes == 0x80, np.nan, value)
        elif self.mantissa == 3:
            value = np.where((codes & 0x7F) == 0x7F, np.nan, value)
        else:
            special = np.where(fraction == 0, np.copysign(np.inf, value), np.nan)
            value = np.where(top, special, value)
        return np.asarray(value)

    def decode(self, codes: Lanes) -> Lanes:
        """float32 values of codes 0..255."""
        return _decoded(self, codes)

    def encode(self, value: Lanes, saturate: bool) -> Lanes:
        """Codes (uint32) of float32 values: nearest even.

        Past the largest finite value: that value if ``saturate``, else infinity or NaN.
        """
        magnitude = np.abs(value)
        _, power = np.frexp(magnitude)
        step = np.maximum(power - 1, 1 - self.bias) - self.mantissa
        rounded = np.ldexp(np.rint(np.ldexp(magnitude, -step)), step)
        over = ~(rounded <= float(self.largest))
        rounded = np.where(over, float(self.largest), rounded)
        code = np.searchsorted(self.values[: self._count], rounded.astype(F32)).astype(U32)
        if not saturate:
            code = np.where(over, U32(0x7C if self.has_inf else self.nan), code)
        sign = np.where(np.signbit(value), U32(0x80), U32(0))
        if self.flavour == "fnuz":
            sign = np.where(code == 0, U32(0), sign)
        return np.where(np.isnan(value), U32(self.nan), code | sign)

    @property
    def _count(self) -> int:
        """How many codes from 0 on are finite and ascending."""
        return int(np.isfinite(self.values[:128]).sum())


@primitive("decode_fp8")
def _decoded(codec: Fp8, codes: Lanes) -> Lanes:
    return np.asarray(codec.values[codes])


FP8 = {
    ("fp8", "ocp"): Fp8(4, 3, "ocp"),
    ("bf8", "ocp"): Fp8(5, 2, "ocp"),
    ("fp8", "fnuz"): Fp8(4, 3, "fnuz"),
    ("bf8", "fnuz"): Fp8(5, 2, "fnuz"),
}
