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

from conformance.devices.assembly import parse_instruction
from conformance.devices.isa.instructions.table import build_step
from conformance.devices.isa.state import VCC
from tests.emulator.isa_cases import GFX942, state


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

    def is_tiny(self, one: float, other: float) -> bool:
        """Whether the quotient of numbers is less than the smallest normal number."""
        if math.isinf(one) or math.isinf(other):
            return False
        quotient = Fraction(one) / Fraction(other)
        rounded = Fraction(float(quotient)) if abs(quotient) < 1 else quotient
        return abs(rounded) < Fraction(2) ** (2 - (self.top + 1) // 2)

    def scaled(self, code: int, power: int) -> int:
        kind = np.float32 if self.bits == 32 else np.float64
        with np.errstate(all="ignore"):
            return self.code(float(np.ldexp(kind(self.value(code)), power)))


FORMATS = (Format("f32", 32, 23, 96, 23, 64), Format("f64", 64, 52, 768, 53, 128))


def wanted(  # noqa: PLR0911 - one a case of the manual
    form: Format, first: int, den: int, num: int
) -> tuple[int | None, bool]:
    """The result (None: NaN) and VCC."""
    if not (form.value(den) and form.value(num)):
        return None, True
    up, down = form.scaled(first, form.scale), form.scaled(first, -form.scale)
    if form.exponent(num) - form.exponent(den) >= form.far:
        return (up if first == den else first), True
    if form.exponent(den) == 0:
        return up, False
    inverse, ratio = (
        form.is_tiny(1.0, form.value(den)),
        form.is_tiny(form.value(num), form.value(den)),
    )
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
    infinity = top << form.mantissa
    return [e << form.mantissa | rest for e, rest in product(sorted(exponents), rests)] + [infinity]


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
    span = [f"v[{first}:{first + 1}]" if words == 2 else f"v{first}" for first in (0, 2, 4, 6)]
    ins = parse_instruction(f"v_div_scale_{form.name} {span[0]}, vcc, {', '.join(span[1:])}")
    step, m = build_step(ins, GFX942), state(GFX942)
    m.select(np.array([0]))
    # One pair at a time: where every lane is usual, nothing is scaled at all.
    for den, num in pairs(form):
        first = {"denominator": den, "numerator": num}.get(which, form.code(1.5))
        for register, code in ((2, first), (4, den), (6, num)):
            for word in range(words):
                m.vector[register + word] = code >> 32 * word & 0xFFFFFFFF
        with np.errstate(all="ignore"):
            step(m)
        result, flag = wanted(form, first, den, num)
        got = sum(int(m.vector[word, 0, 7]) << 32 * word for word in range(words))
        assert int(m.scalar[VCC, 0]) & 1 == flag, (hex(first), hex(den), hex(num))
        if result is None:
            assert math.isnan(form.value(got))
        else:
            assert got == result, (hex(first), hex(den), hex(num))
