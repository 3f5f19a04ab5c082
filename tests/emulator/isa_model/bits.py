"""Bits and values: types of operands, exact rounding, values at which mistakes show."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any, TypeVar

# Exponent and mantissa bits: https://en.wikipedia.org/wiki/IEEE_754, bfloat16 as float32's top.
FORMATS = {"f16": (5, 10), "bf16": (8, 7), "f32": (8, 23), "f64": (11, 52)}
NAN, INF = math.nan, math.inf
Number = Any  # an int, a float or a Fraction


@dataclass(frozen=True)
class Row:
    """One instruction: ``function`` of the sources' values gives the result's, or several.

    ``result`` and ``sources`` are types, separated by spaces: as the emulator's, "mask" one bit of
    a lane mask, "2xf16" a pair as bits, "low:f16" a half of a register whose other half stays.
    ``ulp``: how many steps off the emulator may be, where hardware documents no exact result.
    ``zero_sign``: whether the sign of a zero counts. ``keeps``: on gfx9 a 16-bit result leaves the
    register's other half. ``form``: the text after the mnemonic, where it is not the usual one.
    ``accumulates``: the destination is the last source. ``only``: the bits that it is defined for.
    """

    result: str
    sources: str
    function: Callable[..., Any]
    ulp: int = 0
    zero_sign: bool = True
    keeps: bool = False
    form: str = ""
    target: str = "gfx942"
    accumulates: bool = False
    only: Callable[..., bool] | None = None


R = TypeVar("R", bound=Row)


def named(names: str, row: R) -> dict[str, R]:
    """One instruction under the names that the generations gave it."""
    return dict.fromkeys(names.split(), row)


# -- formats --------------------------------------------------------------------------------------
def decode(bits: int, kind: str) -> float:
    """The value of a float's bits, exactly."""
    exponent, mantissa = FORMATS[kind]
    sign = -1.0 if bits >> (exponent + mantissa) & 1 else 1.0
    power, fraction = bits >> mantissa & ((1 << exponent) - 1), bits & ((1 << mantissa) - 1)
    bias = (1 << exponent - 1) - 1
    if power == (1 << exponent) - 1:
        return NAN if fraction else sign * INF
    if power == 0:
        return sign * math.ldexp(fraction, 1 - bias - mantissa)
    return sign * math.ldexp(fraction + (1 << mantissa), power - bias - mantissa)


def encode(value: Number, kind: str, *, towards_zero: bool = False) -> int:
    """The bits of a value rounded once, to the nearest (ties to even) or towards zero."""
    exponent, mantissa = FORMATS[kind]
    top, bias = (1 << exponent) - 1, (1 << exponent - 1) - 1
    if isinstance(value, float) and math.isnan(value):
        return top << mantissa | 1 << mantissa - 1
    negative = math.copysign(1.0, value) < 0 if isinstance(value, float) else value < 0
    sign = int(negative) << exponent + mantissa
    if isinstance(value, float) and math.isinf(value):
        return sign | top << mantissa
    size = abs(Fraction(value))
    if size == 0:
        return sign
    power = max(_power(size), 1 - bias)
    steps = size / Fraction(2) ** (power - mantissa)
    whole = int(steps)
    if not towards_zero:
        rest = steps - whole
        whole += rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole & 1)
    # A carry out of the mantissa raises the exponent; a denormal's exponent field is 0.
    bits = whole + ((power + bias - 1) << mantissa)
    if bits >= top << mantissa:
        return sign | ((top << mantissa) - 1 if towards_zero else top << mantissa)
    return sign | bits


def _power(size: Fraction) -> int:
    """The exponent of the leading bit."""
    guess = size.numerator.bit_length() - size.denominator.bit_length()
    return guess if size >= Fraction(2) ** guess else guess - 1


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


def width(kind: str) -> int:
    """Bits of a type: "u24" are 24 of a register, "mask" is one, "2xf16" two halves."""
    if kind in ("mask", "scale"):
        return 1 if kind == "mask" else 32
    if kind.startswith("2x"):
        return 2 * width(kind[2:])
    return int("".join(c for c in kind.partition(":")[2] or kind if c.isdigit()))


def read(kind: str, bits: int) -> Number:
    """The value of a register's bits as a type; pairs and scales stay bits."""
    bits &= (1 << width(kind)) - 1
    if kind in FORMATS:
        return decode(bits, kind)
    if kind == "mask":
        return bool(bits)
    return signed(bits, width(kind)) if kind[0] == "i" else bits


def write(kind: str, value: Number) -> int:
    """The bits of a value as a type; integers wrap around."""
    kind = kind.partition(":")[2] or kind
    if kind in FORMATS:
        return encode(value, kind)
    return int(value) & ((1 << width(kind)) - 1)


def agree(kind: str, got: int, wanted: int, row: Row) -> bool:
    """Whether bits are the wanted ones, as far as ``row`` says that they are determined."""
    if kind.startswith("2x"):
        size, of_each = width(kind) // 2, kind[2:]
        ones = (1 << size) - 1
        pairs = ((got & ones, wanted & ones), (got >> size, wanted >> size))
        return all(agree(of_each, a, b, row) for a, b in pairs)
    if kind not in FORMATS:
        return got == wanted
    one, two = decode(got, kind), decode(wanted, kind)
    if math.isnan(two):
        return math.isnan(one)
    if got == wanted or (one == two and not row.zero_sign):
        return True
    return row.ulp > 0 and one != two and abs(_place(got, kind) - _place(wanted, kind)) <= row.ulp


def _place(bits: int, kind: str) -> int:
    """Numbers in order, as integers in order."""
    top = 1 << width(kind) - 1
    return -(bits & top - 1) if bits & top else bits


# -- arithmetic -----------------------------------------------------------------------------------
def fma(a: float, b: float, c: float) -> Number:
    """a*b+c, exactly."""
    if not all(map(math.isfinite, (a, b, c))):
        return a * b + c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    return exact if exact else a * b + c


def divide(a: float, b: float) -> Number:
    if math.isnan(a) or math.isnan(b) or (a == 0 and b == 0) or (math.isinf(a) and math.isinf(b)):
        return NAN
    sign = math.copysign(1.0, a) * math.copysign(1.0, b)
    if b == 0 or math.isinf(a):
        return sign * INF
    if a == 0 or math.isinf(b):
        return sign * 0.0
    return Fraction(a) / Fraction(b)


def scaled(value: Number, power: int) -> Number:
    """value * 2**power, exactly."""
    if isinstance(value, float) and (value == 0 or not math.isfinite(value)):
        return value
    return Fraction(value) * Fraction(2) ** power


# -- values ---------------------------------------------------------------------------------------
_COMMON = {
    "f16": [0, 0x8000, 1, 0x8001, 0x03FF, 0x0400, 0x3C00, 0xBC00, 0x3800, 0x4100, 0x7BFF, 0xFBFF,
            0x7C00, 0xFC00, 0x7E00, 0x3555, 0x4248, 0x7C01, 0x3E00],
    "bf16": [0, 0x8000, 1, 0x007F, 0x0080, 0x3F80, 0xBF80, 0x4049, 0x7F7F, 0x7F80, 0xFF80, 0x7FC0,
             0x3EAA, 0xC120],
    "f32": [0, 0x80000000, 1, 0x80000001, 0x007FFFFF, 0x00800000, 0x3F800000, 0xBF800000,
            0x3F000000, 0x40490FDB, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000,
            0x7F800001, 0xC0200000, 0x3FC00000, 0x477FF000, 0x4F800000, 0xCF000000, 0x3F7FFFFF,
            0x3F800001, 0xBE99999A, 0x00800001, 0x7F000000, 0x33000000, 0xBF000001,
            0x7E800000, 0xFE800001],
    "f64": [0, 1 << 63, 1, 0x000FFFFFFFFFFFFF, 0x3FF0000000000000, 0xBFF0000000000001,
            0x7FF0000000000000, 0xFFF0000000000000, 0x7FF8000000000000, 0x7FEFFFFFFFFFFFFF,
            0x3FF0000010000000, 0x380FFFFFFFFFFFFF, 0x47EFFFFFF0000000, 0x3FF0000030000000,
            0x3FF8000000000000, 0xC004000000000000, 0x41E0000000100000, 0x3FE5555555555555,
            0x41F0000000500000, 0xC1E0000000500000, 0x7FD0000000000000, 0xFFD0000000000001],
    "16": [0, 1, 2, 15, 16, 17, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0xFF, 0x1234],
    "32": [0, 1, 2, 5, 31, 32, 33, 0xFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000,
           0x80000001, 0xFFFFFFFF, 0xFFFFFFFE, 0x12345678, 0xDEADBEEF, 0x00FFFFFF, 0x0C070500,
           0x0B0A0908, 0xF0E0D0C0],
    "64": [0, 1, 63, 64, 0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
           0x123456789ABCDEF0, 0xDEADBEEFCAFEF00D, (1 << 64) - (1 << 32)],
    "1": [0, 1],
}  # fmt: skip


def edges(kind: str) -> list[int]:
    """Bits at which a type's operations are easy to get wrong; above a half, garbage."""
    if kind == "scale":
        return [0x3F800000, 0x40000000, 0x3E812345, 0x42C80000, 0x3B000000, 0x47000000]
    if kind.startswith("2x"):
        of_each = edges(kind[2:])
        size = width(kind[2:])
        one = [bits & (1 << size) - 1 for bits in of_each]
        return [a | b << size for a, b in zip(one * 3, one[1:] * 3 + one, strict=False)]
    if kind in FORMATS or kind == "mask":
        found = _COMMON["1" if kind == "mask" else kind]
    else:
        found = _COMMON[{24: "32"}.get(width(kind), str(width(kind)))]
    return [bits | 0xABCD0000 for bits in found] if width(kind) == 16 else found


def inputs(kinds: Sequence[str], count: int, seed: str) -> list[tuple[int, ...]]:
    """So many combinations of edges: all, if they are fewer (then repeated), else drawn."""
    every = [edges(kind) for kind in kinds]
    total = math.prod(map(len, every))
    draw = random.Random(seed)
    if total <= 4 * count:
        found = list(product(*every))
        draw.shuffle(found)
        return [found[i % total] for i in range(count)]
    return [tuple(draw.choice(values) for values in every) for _ in range(count)]


def related(kinds: Sequence[str], count: int, seed: str) -> list[tuple[int, ...]]:
    """Sources that have to do with one another, where results cancel, tie or just carry.

    The second is the first, or that negated, or its neighbour; the third is their product or sum,
    negated or not, or either of them.
    """
    draw = random.Random(seed + " related")
    return [_row(kinds, draw) for _ in range(count)]


def _row(kinds: Sequence[str], draw: random.Random) -> tuple[int, ...]:
    row = [draw.choice(edges(kinds[0]))] if kinds else []
    for kind in kinds[1:]:
        if kind[0] not in "iufb" or ":" in kind:
            row.append(draw.choice(edges(kind)))
            continue
        values = [read(k, bits) for k, bits in zip(kinds, row, strict=False)]
        numbers = [v for v in values if isinstance(v, (int, float)) and math.isfinite(v)]
        if len(numbers) < len(values):
            row.append(draw.choice([row[-1], draw.choice(edges(kind))]))
            continue
        row.append(_near(kind, draw.choice(_relations(numbers)), draw))
    return tuple(row)


def _relations(values: list[Number]) -> list[Number]:
    """The numbers that decide what becomes of one or two others."""
    exact = [Fraction(value) for value in values]
    found = [exact[-1], -exact[-1], exact[0]]
    if len(exact) > 1:
        found += [exact[0] * exact[1], -exact[0] * exact[1], exact[0] + exact[1],
                  -exact[0] - exact[1]]  # fmt: skip
    return found


def _near(kind: str, value: Fraction, draw: random.Random) -> int:
    """The bits of a number as a type, or of one of its neighbours."""
    step = draw.choice((0, 0, 0, 1, -1))
    if kind in FORMATS:
        return max(encode(value, kind) + step, 0)
    return write(kind, int(value) + step)
