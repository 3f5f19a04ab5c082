"""The instructions that a division is made of, for float32 and float64.

A compiler divides by Newton's iteration: v_div_scale keeps its steps among normal numbers,
v_div_fmas undoes that in the last step, v_div_fixup puts right what no iteration gives. Sources:
the VOP3 chapters of AMD's MI300 (CDNA3) and RDNA3 manuals. Where they leave open what zeros and an
estimate that is no number give, captures of hardware decide:
https://github.com/tinygrad/tinygrad/blob/a9069c177a9da9cca18593edf55acd2e6073cca6/test/amd/hw/test_vop3.py
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from ..numbers import fma32
from ..primitives import primitive
from ..state import Lanes
from .alu import Build, Function, vector

F64, I32 = np.float64, np.int32


@dataclass(frozen=True)
class Division:
    """A float and how it is divided: ``far``, ``least``, ``under`` are differences of exponents
    from which a quotient is near the largest number, a numerator tiny, a quotient zero; scaling is
    by 2 to the power of ``scale``."""

    dtype: Any
    bits: Any
    mantissa: int
    exponents: int
    far: int
    least: int
    under: int
    scale: int
    fma: Function

    @property
    def middle(self) -> int:
        """The exponent field of 1."""
        return self.exponents // 2

    @property
    def tiny(self) -> float:
        """The smallest normal number."""
        return float(2.0 ** (1 - self.middle))

    def exponent(self, value: Lanes) -> Lanes:
        """The exponent's field."""
        field = value.view(self.bits) >> self.bits(self.mantissa)
        return (field & self.bits(self.exponents)).astype(I32)


@primitive("fma64")
def fma64(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """float64 a*b+c, rounded once: exact fractions, where numpy has no such operation."""
    one, two, three = np.broadcast_arrays(a, b, c)
    flat = zip(one.reshape(-1), two.reshape(-1), three.reshape(-1), strict=True)
    return np.array([_fma64(*map(float, row)) for row in flat], dtype=F64).reshape(one.shape)


def _fma64(a: float, b: float, c: float) -> float:
    if not np.isfinite([a, b, c]).all():
        return a * b + c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return a * b + c
    try:
        return float(exact)
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")


SINGLE = Division(np.float32, np.uint32, 23, 0xFF, 96, 23, -150, 64, fma32)
DOUBLE = Division(np.float64, np.uint64, 52, 0x7FF, 768, 53, -1075, 128, fma64)


def _scale(of: Division, s0: Lanes, den: Lanes, num: Lanes) -> tuple[Lanes, Lanes]:
    """Scales the numerator or denominator so that the quotient's steps stay normal."""
    s0, den, num = np.broadcast_arrays(s0, den, num)
    below, above = of.exponent(den), of.exponent(num)
    # Between these ends nothing is scaled, whichever number the first one is.
    usual = (below > of.least) & (below < 2 * of.middle - 1) & (above > of.least)
    if (usual & (np.abs(above - below) < of.far)).all():
        return s0, np.zeros(s0.shape, dtype=bool)
    with np.errstate(all="ignore"):
        inverse, ratio = 1.0 / den.astype(F64), num.astype(F64) / den.astype(F64)
    low_inverse = (np.abs(inverse) < of.tiny) & (inverse != 0)
    low_ratio = (np.abs(ratio) < of.tiny) & (num != 0) & ~np.isinf(den)
    den_tiny = (np.abs(den) < of.tiny) & (den != 0)
    far = above - below >= of.far
    is_den, is_num = s0.view(of.bits) == den.view(of.bits), s0.view(of.bits) == num.view(of.bits)
    up, down = np.ldexp(s0, of.scale), np.ldexp(s0, -of.scale)
    conditions = [far, den_tiny, low_inverse & low_ratio, low_inverse, low_ratio]
    values = [
        np.where(is_den, up, s0),
        up,
        np.where(is_den, up, s0),
        down,
        np.where(is_num, up, s0),
    ]
    value = np.select([*conditions, above <= of.least], [*values, up], s0)
    flag = np.select(conditions, [True, False, True, False, True], default=False)
    bad = (num == 0) | (den == 0)
    return np.where(bad, of.dtype(np.nan), value), flag | bad


def _fmas(of: Division, a: Lanes, b: Lanes, c: Lanes, scaled: Lanes) -> Lanes:
    """The last step, and the quotient scaled back."""
    value = of.fma(a, b, c)
    if not scaled.any():
        return value
    power = np.where(of.exponent(c) > of.middle, of.scale, -of.scale)
    return np.where(scaled, np.ldexp(value, power), value).astype(of.dtype)


def _fixup(of: Division, quotient: Lanes, den: Lanes, num: Lanes) -> Lanes:
    """Puts right what the iteration cannot give: signs, zeros, infinities and NaNs."""
    quotient, den, num = np.broadcast_arrays(quotient, den, num)
    sign = np.where(np.signbit(den) != np.signbit(num), of.dtype(-1), of.dtype(1))
    zero, infinite = (num == 0) & (den == 0), np.isinf(num) & np.isinf(den)
    under = of.exponent(num) - of.exponent(den) < of.under
    return np.select(
        [
            np.isnan(num),
            np.isnan(den),
            zero | infinite,
            (den == 0) | np.isinf(num),
            np.isinf(den) | (num == 0),
            under,
            np.isnan(quotient),
        ],
        [
            num,
            den,
            of.dtype(np.nan),
            sign * of.dtype(np.inf),
            sign * of.dtype(0),
            sign * of.dtype(0),
            sign * of.dtype(np.inf),
        ],
        default=np.abs(quotient) * sign,
    )


def _of(kind: str, division: Division) -> dict[str, Build]:
    three = f"{kind} {kind} {kind}"
    scale, fixup = partial(_scale, division), partial(_fixup, division)
    return {
        f"v_div_scale_{kind}": vector(kind, three, scale, carry=True, rounds=False),
        f"v_div_fmas_{kind}": vector(kind, f"{three} mask", partial(_fmas, division)),
        f"v_div_fixup_{kind}": vector(kind, three, fixup, rounds=False),
    }


DIVISION: dict[str, Build] = {**_of("f32", SINGLE), **_of("f64", DOUBLE)}
