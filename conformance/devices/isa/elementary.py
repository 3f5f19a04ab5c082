"""exp2 and log2 from additions, multiplications and divisions in float64.

Every step is one IEEE operation, so that interpreted and native code agree in every bit, which two
libraries' functions do not. Rounded to float32 the results are within 0.5001 units in the last
place; hardware's are within one.
"""

from __future__ import annotations

import math

import numpy as np

from .state import Lanes

F64, I64, U64 = np.float64, np.int64, np.uint64
# 2**x on [-1/2, 1/2] as its Taylor series: the next term is below 3e-13.
_EXP2 = tuple(math.log(2) ** k / math.factorial(k) for k in range(11))
# atanh(t)/t in t*t: |t| < 0.172, so that the next term is below 1e-16.
_ATANH = tuple(1.0 / (2 * k + 1) for k in range(10))


def _polynomial(coefficients: tuple[float, ...], x: Lanes) -> Lanes:
    """Horner's scheme, without fused steps."""
    total = x * F64(0) + F64(coefficients[-1])
    for one in reversed(coefficients[:-1]):
        total = total * x + F64(one)
    return total


def exp2(a: Lanes) -> Lanes:
    """2**a in float64, of values that float32 or float16 can hold."""
    wide = a.astype(F64)
    # Past these ends the result is 0 or infinity in float32.
    near = np.where(np.isnan(wide), F64(0), np.clip(wide, -400, 400))
    whole = np.rint(near)
    power = ((whole.astype(I64) + I64(1023)) << I64(52)).view(F64)
    return np.where(np.isnan(wide), wide, _polynomial(_EXP2, near - whole) * power)


def log2(a: Lanes) -> Lanes:
    """The logarithm to base 2 in float64: -infinity of 0, NaN of negative values."""
    bits = a.astype(F64).view(U64)
    power = ((bits >> U64(52)) & U64(0x7FF)).astype(I64) - I64(1023)
    fraction = ((bits & U64((1 << 52) - 1)) | U64(1023 << 52)).view(F64)
    high = fraction > math.sqrt(2)
    fraction = np.where(high, fraction * F64(0.5), fraction)
    exponent = np.where(high, power + I64(1), power).astype(F64)
    t = (fraction - F64(1)) / (fraction + F64(1))
    value = exponent + t * _polynomial(_ATANH, t * t) * F64(2 / math.log(2))
    special = np.where(a == 0, F64(-np.inf), np.where(a < 0, F64(np.nan), a.astype(F64)))
    return np.where((a > 0) & (a < np.inf), value, special)
