"""How a quotient's parts are scaled, at both sides of every limit that AMD's manuals give.

"RDNA3 Instruction Set Architecture", V_DIV_SCALE_F32 and _F64, whose pseudo code this follows with
fractions. Whether a quotient is a denormal is asked of it as a double, and zero counts as one.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from conformance.devices.isa.state import VCC
from tests.emulator.isa_cases import GFX942, run, state


@dataclass(frozen=True)
class Format:
    """A float's fields, and the manual's limits: a difference, an exponent, and a power of two."""

    name: str
    bits: int
    mantissa: int
    far: int
    least: int
    scale: int

    @property
    def top(self) -> int:
        """The exponent field of infinity."""
        return (1 << self.bits - 1 - self.mantissa) - 1

    def value(self, code: int) -> float:
        kind = "<f" if self.bits == 32 else "<d"
        return float(struct.unpack(kind, code.to_bytes(self.bits // 8, "little"))[0])

    def code(self, value: float) -> int:
        kind = "<f" if self.bits == 32 else "<d"
        return int.from_bytes(struct.pack(kind, value), "little")

    def exponent(self, code: int) -> int:
        return code >> self.mantissa & self.top

    def is_tiny(self, value: Fraction) -> bool:
        """Whether a value is less than the smallest normal number, and not zero."""
        rounded = Fraction(float(value)) if abs(value) < 1 else value
        return value != 0 and abs(rounded) < Fraction(2) ** (2 - (self.top + 1) // 2)

    def scaled(self, code: int, power: int) -> int:
        kind = np.float32 if self.bits == 32 else np.float64
        with np.errstate(all="ignore"):
            return self.code(float(np.ldexp(kind(self.value(code)), power)))


FORMATS = (Format("f32", 32, 23, 96, 23, 64), Format("f64", 64, 52, 768, 53, 128))


def wanted(  # noqa: PLR0911 - one a case of the manual
    form: Format, first: int, den: int, num: int
) -> tuple[int | None, bool]:
    """The result (None: NaN) and VCC."""
    below, above = (Fraction(form.value(code)) for code in (den, num))
    if below == 0 or above == 0:
        return None, True
    up, down = form.scaled(first, form.scale), form.scaled(first, -form.scale)
    if form.exponent(num) - form.exponent(den) >= form.far:
        return (up if first == den else first), True
    if form.exponent(den) == 0:
        return up, False
    inverse, ratio = form.is_tiny(1 / below), form.is_tiny(above / below)
    if inverse and ratio:
        return (up if first == den else first), True
    if inverse:
        return down, False
    if ratio:
        return (up if first == num else first), True
    return (up if form.exponent(num) <= form.least else first), False


def codes(form: Format) -> list[int]:
    """Numbers whose exponents stand at the limits, or next to them."""
    middle, top = form.top // 2, form.top
    exponents = {0, 1, 2, middle - 1, middle, middle + 1, top - 3, top - 2, top - 1}
    for end in (
        form.least,
        form.least + form.far,
        middle - form.far,
        top - 1 - form.far,
        1 + form.far,
    ):
        exponents |= {max(end + more, 0) for more in (-1, 0, 1)}
    rests = (0, 1, (1 << form.mantissa) - 1)
    return [e << form.mantissa | rest for e, rest in product(sorted(exponents), rests)]


def pairs(form: Format) -> list[tuple[int, int]]:
    """Denominators and numerators, some of them negative."""
    some = codes(form)
    found = list(product(some, some[::2]))
    negative = 1 << form.bits - 1
    return found + [(den | negative, num) for den, num in found[::7]]


@pytest.mark.parametrize("which", ["denominator", "numerator", "another"])
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_scaling(form: Format, which: str) -> None:
    words = form.bits // 32
    some = pairs(form)
    for start in range(0, len(some), 64):
        now = some[start : start + 64]
        firsts = [
            {"denominator": den, "numerator": num}.get(which, form.code(1.5)) for den, num in now
        ]
        m = state(GFX942)
        for register, given in ((2, firsts), (4, [d for d, _ in now]), (6, [n for _, n in now])):
            for word in range(words):
                row = [code >> 32 * word & 0xFFFFFFFF for code in given]
                m.vector[register + word, 0, : len(now)] = row
        span = [f"v[{first}:{first + 1}]" if words == 2 else f"v{first}" for first in (0, 2, 4, 6)]
        run(f"v_div_scale_{form.name} {span[0]}, vcc, {', '.join(span[1:])}", GFX942, on=m)
        mask = int(m.scalar[VCC, 0]) | int(m.scalar[VCC + 1, 0]) << 32
        for lane, (den, num) in enumerate(now):
            result, flag = wanted(form, firsts[lane], den, num)
            got = sum(int(m.vector[word, 0, lane]) << 32 * word for word in range(words))
            assert mask >> lane & 1 == flag, (hex(firsts[lane]), hex(den), hex(num))
            if result is None:
                assert math.isnan(form.value(got))
            else:
                assert got == result, (hex(firsts[lane]), hex(den), hex(num))
