"""Vector instructions on pairs: two halves, two words, mixed precision, 8-bit floats.

Where an instruction chooses halves, ``form`` chooses some that are not the usual ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache, reduce
from typing import Any

from tests.emulator.isa_model.bits import (
    INF,
    NAN,
    Number,
    Row,
    decode,
    encode,
    fma,
    named,
    read,
    scaled,
    write,
)
from tests.emulator.isa_model.floats import greater, lesser, strict, to_int

# Largest code of a finite value, exponent bias, mantissa bits, by kind and flavour:
# https://onnx.ai/onnx/technical/float8.html
_FP8 = {
    ("fp8", "ocp"): (0x7E, 7, 3),
    ("bf8", "ocp"): (0x7B, 15, 2),
    ("fp8", "fnuz"): (0x7F, 8, 3),
    ("bf8", "fnuz"): (0x7F, 16, 2),
}


def from_fp8(code: int, kind: str, flavour: str) -> float:
    most, bias, mantissa = _FP8[kind, flavour]
    low, negative = code & 0x7F, code >> 7
    if flavour == "fnuz" and code == 0x80:
        return NAN
    sign = -1.0 if negative else 1.0
    if low > most:
        return sign * INF if (kind, low) == ("bf8", 0x7C) else NAN
    power, fraction = low >> mantissa, low & (1 << mantissa) - 1
    if power:
        fraction += 1 << mantissa
    return sign * math.ldexp(fraction, max(power, 1) - bias - mantissa)


@cache
def fp8_steps(kind: str, flavour: str) -> list[Fraction]:
    """All finite values from 0 on, and the next if there was one."""
    finite = [Fraction(from_fp8(c, kind, flavour)) for c in range(_FP8[kind, flavour][0] + 1)]
    return [*finite, 2 * finite[-1] - finite[-2]]


def to_fp8(value: Number, kind: str, flavour: str, saturates: bool = False) -> int:
    """The code of the nearest value; of two the even one; beyond the last, as if there was one."""
    most = _FP8[kind, flavour][0]
    fnuz = flavour == "fnuz"
    if isinstance(value, float) and math.isnan(value):
        return 0x80 if fnuz else 0x7F
    sign = 0x80 if math.copysign(1.0, value) < 0 else 0
    size = abs(value)
    steps = fp8_steps(kind, flavour)
    code = most + 1
    if not math.isinf(size):
        code = min(range(most + 2), key=lambda c: (abs(steps[c] - Fraction(size)), c & 1))
    if code > most:
        if saturates:
            return sign | most
        return 0x80 if fnuz else sign | (0x7C if kind == "bf8" else 0x7F)
    return code if fnuz and code == 0 else sign | code


# -- halves and words -----------------------------------------------------------------------------
def parts(kind: str, bits: int) -> tuple[Number, Number]:
    """The two halves of a word."""
    return read(kind, bits), read(kind, bits >> 16)


def halves(kind: str, count: int, function: Callable[..., Number]) -> Row:
    """Both halves at once; the first source's halves change places."""

    def both(*words: int) -> int:
        split = [parts(kind, word) for word in words]
        split[0] = split[0][::-1]
        low, high = (write(kind, function(*(p[i] for p in split))) for i in (0, 1))
        return low | high << 16

    ones = ",".join("1" * (count - 1))
    zeros = ",".join("0" * (count - 1))
    operands = ", ".join(f"{{{i}}}" for i in range(count + 1))
    form = f"{operands} op_sel:[1,{zeros}] op_sel_hi:[0,{ones}]"
    return Row(f"2x{kind}", " ".join([f"2x{kind}"] * count), both, form=form)


def words(count: int, function: Callable[..., Number]) -> Row:
    def both(*pairs: int) -> int:
        split = [(decode(p & 0xFFFFFFFF, "f32"), decode(p >> 32, "f32")) for p in pairs]
        low, high = (encode(function(*(p[i] for p in split)), "f32") for i in (0, 1))
        return low | high << 32

    return Row("2xf32", " ".join(["2xf32"] * count), both)


def mixed(a: int, b: float, c: int) -> Number:
    """a's high half * b + c's low half: what the form below says."""
    return fma(decode(a >> 16, "f16"), b, decode(c & 0xFFFF, "f16"))


def mix(result: str) -> Row:
    form = "{0}, {1}, {2}, {3} op_sel:[1,0,0] op_sel_hi:[1,0,1]"
    return Row(result, "2xf16 f32 2xf16", mixed, form=form)


def dot2(kind: str) -> Callable[[int, int, float], Number]:
    def function(a: int, b: int, c: float) -> Number:
        one, two = parts(kind, a), parts(kind, b)
        if not all(map(math.isfinite, (*one, *two, c))):
            return one[0] * two[0] + one[1] * two[1] + c
        exact = sum((Fraction(x) * Fraction(y) for x, y in zip(one, two, strict=True)), Fraction(c))
        return exact if exact else one[0] * two[0] + one[1] * two[1] + c

    return function


DOT2 = {kind: dot2(kind) for kind in ("f16", "bf16")}


def pack(kind: str, **how: bool) -> Row:
    return Row(f"2x{kind}", "f32 f32",
               lambda a, b: encode(a, kind, **how) | encode(b, kind, **how) << 16)  # fmt: skip


def normalised(limit: int, low: float) -> Row:
    def one(a: float) -> int:
        inside = 0.0 if math.isnan(a) else min(max(a, low), 1.0)
        single = decode(encode(Fraction(inside) * limit, "f32"), "f32")
        return round(single) & 0xFFFF

    return Row("b32", "f32 f32", lambda a, b: one(a) | one(b) << 16)


def normalised_half(limit: int, low: float) -> Row:
    def one(a: float) -> int:
        inside = 0.0 if math.isnan(a) else min(max(a, low), 1.0)
        return round(decode(encode(Fraction(inside) * limit, "f32"), "f32")) & 0xFFFF

    return Row("u16", "f16", one)


def pair_of_integers(kind: str) -> Row:
    convert = to_int(kind)
    return Row("b32", "f32 f32", lambda a, b: (convert(a) & 0xFFFF) | (convert(b) & 0xFFFF) << 16)


def byte_put(a: float, place: int, rest: int) -> int:
    """The byte of ``rest`` at a place is a float, to the nearest whole number that fits."""
    byte = 0 if math.isnan(a) else round(min(max(a, 0.0), 255.0))
    at = 8 * (place & 3)
    return rest & ~(0xFF << at) | byte << at


def bitop(table: int) -> Callable[[int, int, int], int]:
    def function(*sources: int) -> int:
        rows = (sum((s >> bit & 1) << 2 - i for i, s in enumerate(sources)) for bit in range(32))
        return sum((table >> row & 1) << bit for bit, row in enumerate(rows))

    return function


# -- 8-bit floats ---------------------------------------------------------------------------------
def fp8_rows(kind: str) -> dict[str, Row]:
    """gfx942's own encoding; the scaled ones are gfx950's, which has the other."""

    def byte(word: int, place: int, flavour: str = "fnuz") -> float:
        return from_fp8(word >> 8 * place & 0xFF, kind, flavour)

    def power(scale: int) -> int:
        """Of a scale only the exponent counts; all bits clear: zero."""
        return (scale >> 23 & 0xFF) - 127

    def two_codes(a: Number, b: Number, flavour: str, saturates: bool) -> int:
        return to_fp8(a, kind, flavour, saturates) | to_fp8(b, kind, flavour, saturates) << 8

    def unscaled(value: float, scale: int) -> Number:
        return encoded_f32(scaled(value, -power(scale)))

    def scaled_pair(result: str) -> Row:
        def function(a: int, s: int) -> int:
            low, high = (scaled(byte(a, i, "ocp"), power(s)) for i in (0, 1))
            size = 32 if result == "f32" else 16
            return encode(low, result) | encode(high, result) << size

        return Row(f"2x{result}", "b32 scale", function, target="gfx950")

    def scaled_pair_from(source: str) -> Row:
        def function(*sources: Any) -> int:
            *values, scale = sources
            pair = values if source == "f32" else parts(source, values[0])
            low, high = (unscaled(v, scale) for v in pair)
            return two_codes(low, high, "ocp", True)

        kinds = "f32 f32 scale" if source == "f32" else f"2x{source} scale"
        return Row("low:b16", kinds, function, target="gfx950")

    return {
        f"v_cvt_f32_{kind}": Row(
            "f32", "b32", lambda a: byte(a, 2), form="{0}, {1} src0_sel:BYTE_2"
        ),
        f"v_cvt_pk_f32_{kind}": Row(
            "2xf32", "b32",
            lambda a: encode(byte(a, 2), "f32") | encode(byte(a, 3), "f32") << 32,
            form="{0}, {1} src0_sel:WORD_1",
        ),
        f"v_cvt_pk_{kind}_f32": Row(
            "high:b16", "f32 f32", lambda a, b: two_codes(a, b, "fnuz", False),
            form="{0}, {1}, {2} op_sel:[0,0,1]",
        ),
        f"v_cvt_scalef32_f32_{kind}": Row(
            "f32", "b32 scale", lambda a, s: scaled(byte(a, 1, "ocp"), power(s)),
            form="{0}, {1}, {2} op_sel:[1,0]", target="gfx950",
        ),
        **{f"v_cvt_scalef32_pk_{r}_{kind}": scaled_pair(r) for r in ("f32", "f16", "bf16")},
        **{f"v_cvt_scalef32_pk_{kind}_{r}": scaled_pair_from(r) for r in ("f32", "f16", "bf16")},
    }  # fmt: skip


def encoded_f32(value: Number) -> float:
    """A value rounded to float32."""
    return decode(encode(value, "f32"), "f32")


PACKED: dict[str, Row] = {
    "v_pk_add_f16": halves("f16", 2, lambda a, b: a + b),
    "v_pk_mul_f16": halves("f16", 2, lambda a, b: a * b),
    "v_pk_fma_f16": halves("f16", 3, fma),
    "v_pk_add_bf16": halves("bf16", 2, lambda a, b: a + b),
    **named("v_pk_max_f16 v_pk_max_num_f16", halves("f16", 2, greater)),
    **named("v_pk_min_f16 v_pk_min_num_f16", halves("f16", 2, lesser)),
    "v_pk_add_u16": halves("u16", 2, lambda a, b: a + b),
    "v_pk_sub_u16": halves("u16", 2, lambda a, b: a - b),
    "v_pk_mul_lo_u16": halves("u16", 2, lambda a, b: a * b),
    "v_pk_mad_u16": halves("u16", 3, lambda a, b, c: a * b + c),
    "v_pk_add_i16": halves("i16", 2, lambda a, b: a + b),
    "v_pk_sub_i16": halves("i16", 2, lambda a, b: a - b),
    "v_pk_min_i16": halves("i16", 2, min),
    "v_pk_max_i16": halves("i16", 2, max),
    "v_pk_min_u16": halves("u16", 2, min),
    "v_pk_max_u16": halves("u16", 2, max),
    "v_pk_lshlrev_b16": halves("u16", 2, lambda n, a: a << (n & 15)),
    "v_pk_lshrrev_b16": halves("u16", 2, lambda n, a: a >> (n & 15)),
    "v_pk_ashrrev_i16": halves("i16", 2, lambda n, a: a >> (n & 15)),
    "v_pk_maximum_f16": halves("f16", 2, strict(greater)),
    "v_pk_minimum_f16": halves("f16", 2, strict(lesser)),
    "v_pk_maximum3_f16": halves("f16", 3, lambda *v: reduce(strict(greater), v)),
    "v_pk_minimum3_f16": halves("f16", 3, lambda *v: reduce(strict(lesser), v)),
    "v_dot2_f16_f16": Row("f16", "2xf16 2xf16 f16", DOT2["f16"], ulp=1, keeps=True),
    "v_dot2_bf16_bf16": Row("bf16", "2xbf16 2xbf16 bf16", DOT2["bf16"], ulp=1, keeps=True),
    "v_pk_add_f32": words(2, lambda a, b: a + b),
    "v_pk_mul_f32": words(2, lambda a, b: a * b),
    "v_pk_fma_f32": words(3, fma),
    "v_pk_mov_b32": Row("2xf32", "2xf32 2xf32", lambda a, b: a >> 32 | (b & 0xFFFFFFFF) << 32,
                        form="{0}, {1}, {2} op_sel:[1,0]"),
    "v_fma_mix_f32": mix("f32"),
    "v_fma_mixlo_f16": mix("low:f16"),
    "v_fma_mixhi_f16": mix("high:f16"),
    **{f"v_dot2_f32_{kind}": Row("f32", f"2x{kind} 2x{kind} f32", DOT2[kind], ulp=1)
       for kind in ("f16", "bf16")},
    **{f"v_dot2{name}_f32_{kind}": Row("f32", f"2x{kind} 2x{kind}", DOT2[kind], ulp=1,
                                       accumulates=True)
       for kind in ("f16", "bf16") for name in ("c", "acc")},
    "v_cvt_pk_f16_f32": pack("f16"),
    "v_cvt_pk_bf16_f32": pack("bf16"),
    **named("v_cvt_pkrtz_f16_f32 v_cvt_pk_rtz_f16_f32", pack("f16", towards_zero=True)),
    **named("v_cvt_pknorm_u16_f32 v_cvt_pk_norm_u16_f32", normalised(65535, 0.0)),
    **named("v_cvt_pknorm_i16_f32 v_cvt_pk_norm_i16_f32", normalised(32767, -1.0)),
    "v_cvt_norm_u16_f16": normalised_half(65535, 0.0),
    "v_cvt_norm_i16_f16": normalised_half(32767, -1.0),
    "v_cvt_pk_u16_f32": pair_of_integers("u16"),
    "v_cvt_pk_i16_f32": pair_of_integers("i16"),
    "v_cvt_pk_u8_f32": Row("u32", "f32 u32 u32", byte_put),
    "v_bitop3_b16": Row("b16", "b16 b16 b16", bitop(0xEC), form="{0}, {1}, {2}, {3} bitop3:0xec",
                        keeps=True),
    # Its third bit is 0: the table's other half, here ones, is not looked at.
    "v_bitop2_b32": Row("b32", "b32 b32", lambda a, b: bitop(0xBE)(a, b, 0),
                        form="{0}, {1}, {2} bitop3:0xbe", target="gfx1250"),
    "v_bitop3_b32": Row("b32", "b32 b32 b32", bitop(0xCA), form="{0}, {1}, {2}, {3} bitop3:0xca"),
    **fp8_rows("fp8"),
    **fp8_rows("bf8"),
}  # fmt: skip
