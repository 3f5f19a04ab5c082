"""Vector instructions on floats, and conversions."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from itertools import product

from tests.emulator.isa_model.bits import (
    FORMATS,
    INF,
    NAN,
    Number,
    Row,
    decode,
    divide,
    encode,
    fma,
    named,
    read,
    scaled,
)

SMALLEST = 2.0**-126


def greater(a: float, b: float) -> float:
    """Of a number and a NaN the number; +0 is above -0."""
    if math.isnan(a) or math.isnan(b):
        return b if math.isnan(a) else a
    return max((a, b), key=lambda x: (x, math.copysign(1, x)))


def lesser(a: float, b: float) -> float:
    if math.isnan(a) or math.isnan(b):
        return b if math.isnan(a) else a
    return min((a, b), key=lambda x: (x, math.copysign(1, x)))


def strict(function: Callable[[float, float], float]) -> Callable[[float, float], float]:
    """The same, but a NaN wins."""
    return lambda a, b: NAN if math.isnan(a) or math.isnan(b) else function(a, b)


def middle(a: float, b: float, c: float) -> float:
    if any(map(math.isnan, (a, b, c))):
        return lesser(lesser(a, b), c)
    return sorted((a, b, c))[1]


def whole(function: Callable[[float], int]) -> Callable[[float], float]:
    """A rounding to whole numbers; signs of zeros stay."""
    return lambda a: math.copysign(function(a), a) if math.isfinite(a) else a


def floor(a: float) -> float:
    return float(math.floor(a)) if math.isfinite(a) and a else a


def flushed(function: Callable[[float], Number]) -> Callable[[float], Number]:
    """Denormals become zeros of their sign, coming and going."""

    def small(value: Number) -> Number:
        exact = decode(encode(value, "f32"), "f32")
        return math.copysign(0.0, exact) if abs(exact) < SMALLEST else value

    return lambda a: small(function(float(small(a))))


def exp2(a: float) -> float:
    if math.isnan(a):
        return a
    return INF if a > 1000 else 0.0 if a < -1000 else 2.0**a


def log2(a: float) -> float:
    if math.isnan(a) or a < 0:
        return NAN
    return -INF if a == 0 else a if a == INF else math.log2(a)


def root(a: float) -> float:
    return NAN if a < 0 else math.sqrt(a)


def turn(a: float, quarters: int) -> float:
    """sin(2 pi (a + quarters / 4)): exact at quarter turns, where only a = -0 gives -0."""
    if not math.isfinite(a):
        return NAN
    part = Fraction(a) % 1 + Fraction(quarters, 4)
    part -= math.floor(part)
    if part % Fraction(1, 4) == 0:
        exact = [0.0, 1.0, 0.0, -1.0][int(part * 4)]
        return a if a == 0 and quarters == 0 else exact
    # Near a multiple of half a turn only the distance from it has enough bits.
    half = round(2 * part)
    value = math.sin(2 * math.pi * float(part - Fraction(half, 2)))
    return -value if half % 2 else value


def plus_half(a: float) -> float:
    """a + 1/2, rounded to float32."""
    return decode(encode(a + 0.5, "f32"), "f32")


def frexp(a: float) -> tuple[float, int]:
    return math.frexp(a) if math.isfinite(a) else (a, 0)


def to_int(kind: str) -> Callable[[float], int]:
    """Truncates; saturates; a NaN is 0."""
    bits = int(kind[1:])
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if kind[0] == "i" else (0, (1 << bits) - 1)

    def convert(a: float) -> int:
        if math.isnan(a):
            return 0
        return high if a > high else low if a < low else int(a)

    return convert


# -- division -------------------------------------------------------------------------------------
def exponent(a: float, kind: str = "f32") -> int:
    """A float's exponent field."""
    return encode(a, kind) >> FORMATS[kind][1] & (1 << FORMATS[kind][0]) - 1


def denormal(value: Number, kind: str) -> bool:
    """Whether a quotient is below a type's normal numbers, as float64 has it; so near zero that it
    is rounded to it counts."""
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return value != 0 and abs(decode(encode(value, "f64"), "f64")) < SMALLEST_OF[kind]


# What the pseudo code of each width has for numbers.
DIVISIONS = {"f32": (96, 23, -150, 64, 127), "f64": (768, 53, -1075, 128, 1023)}
SMALLEST_OF = {"f32": SMALLEST, "f64": 2.0**-1022}


def div_scale(kind: str) -> Callable[[float, float, float], tuple[Number, bool]]:
    """The pseudo code of V_DIV_SCALE; ``value`` is one of the others."""
    far, least, _, scale, _ = DIVISIONS[kind]

    def function(  # noqa: PLR0911 - one a case of the pseudo code
        value: float, den: float, num: float
    ) -> tuple[Number, bool]:
        is_den, is_num = (encode(value, kind) == encode(other, kind) for other in (den, num))
        if num == 0 or den == 0:
            return NAN, True
        if exponent(num, kind) - exponent(den, kind) >= far:
            return scaled(value, scale) if is_den else value, True
        if denormal(den, kind):
            return scaled(value, scale), False
        if denormal(divide(1.0, den), kind):
            if denormal(divide(num, den), kind):
                return scaled(value, scale) if is_den else value, True
            return scaled(value, -scale), False
        if denormal(divide(num, den), kind):
            return scaled(value, scale) if is_num else value, True
        return (scaled(value, scale) if exponent(num, kind) <= least else value), False

    return function


def div_fmas(kind: str) -> Callable[[float, float, float, bool], Number]:
    _, _, _, by, middle = DIVISIONS[kind]

    def function(a: float, b: float, c: float, scale: bool) -> Number:
        value = decode(encode(fma(a, b, c), kind), kind)
        return scaled(value, by if exponent(c, kind) > middle else -by) if scale else value

    return function


def div_fixup(kind: str) -> Callable[[float, float, float], float]:
    under = DIVISIONS[kind][2]

    def function(quotient: float, den: float, num: float) -> float:
        sign = math.copysign(1.0, den) * math.copysign(1.0, num)
        if math.isnan(num) or math.isnan(den) or (num == 0 and den == 0):
            return NAN
        if math.isinf(num) and math.isinf(den):
            return NAN
        if den == 0 or math.isinf(num):
            return sign * INF
        if math.isinf(den) or num == 0 or exponent(num, kind) - exponent(den, kind) < under:
            return sign * 0.0
        return sign * INF if math.isnan(quotient) else sign * abs(quotient)

    return function


def divisions() -> dict[str, Row]:
    table = {}
    for kind in DIVISIONS:
        three_of = f"{kind} {kind} {kind}"
        table[f"v_div_scale_{kind}"] = Row(
            f"{kind} mask", three_of, div_scale(kind), only=first_is_another
        )
        table[f"v_div_fmas_{kind}"] = Row(kind, f"{three_of} mask", div_fmas(kind))
        table[f"v_div_fixup_{kind}"] = Row(kind, three_of, div_fixup(kind))
    return table


# -- comparisons ----------------------------------------------------------------------------------
ORDER: dict[str, Callable[..., bool]] = {
    "lt": lambda a, b: a < b,
    "eq": lambda a, b: a == b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}
FLOAT_ORDER: dict[str, Callable[..., bool]] = {
    **ORDER,
    "lg": lambda a, b: a < b or a > b,
    "o": lambda a, b: a == a and b == b,  # noqa: PLR0124 - what tells a NaN
    "u": lambda a, b: not (a == a and b == b),  # noqa: PLR0124 - likewise
    "nge": lambda a, b: not a >= b,
    "nlg": lambda a, b: not (a < b or a > b),
    "ngt": lambda a, b: not a > b,
    "nle": lambda a, b: not a <= b,
    "neq": lambda a, b: a != b,
    "nlt": lambda a, b: not a < b,
}


def is_class(bits: int, wanted: int, of: str = "f32", smallest: float = SMALLEST) -> bool:
    value = read(of, bits)
    negative = bits >> sum(FORMATS[of]) & 1 == 1
    if math.isnan(value):
        kind = bits >> FORMATS[of][1] - 1 & 1
    elif math.isinf(value):
        kind = 2 if negative else 9
    elif value == 0:
        kind = 5 if negative else 6
    elif abs(value) < smallest:
        kind = 4 if negative else 7
    else:
        kind = 3 if negative else 8
    return bool(wanted >> kind & 1)


def comparisons() -> dict[str, Row]:
    """``v_cmpx`` is asked on gfx9, where it writes both the mask and EXEC."""
    table = {}
    floats = [(k, n, f) for k, (n, f) in product(("f16", "f32", "f64"), FLOAT_ORDER.items())]
    whole_numbers = [f"{s}{n}" for s in "iu" for n in (16, 32, 64)]
    equal = {**ORDER, "ne": lambda a, b: a != b}
    integers = [(k, n, f) for k, (n, f) in product(whole_numbers, equal.items())]
    for kind, name, function in floats + integers:
        table[f"{name}_{kind}"] = Row("mask", f"{kind} {kind}", function)
    table["class_f32"] = Row("mask", "u32 u32", is_class)
    table["class_f64"] = Row("mask", "u64 u32", lambda a, w: is_class(a, w, "f64", 2.0**-1022))
    table["class_f16"] = Row("mask", "b16 u32", lambda a, w: is_class(a, w, "f16", 2.0**-14))
    return {f"v_{cmp}_{name}": row for name, row in table.items() for cmp in ("cmp", "cmpx")}


# -- the table ------------------------------------------------------------------------------------
def two(function: Callable[..., Number], kind: str = "f32", **more: bool) -> Row:
    return Row(kind, f"{kind} {kind}", function, **more)  # type: ignore[arg-type] # flags only


def three(function: Callable[..., Number], kind: str = "f32", **more: bool) -> Row:
    return Row(kind, f"{kind} {kind} {kind}", function, **more)  # type: ignore[arg-type] # likewise


def one(function: Callable[[float], Number], ulp: int = 0, kind: str = "f32") -> Row:
    return Row(kind, kind, function, ulp)


def doubles() -> dict[str, Row]:
    """float64: what float32 has, under the same names."""
    return {
        "v_mul_f64": two(exactly(lambda a, b: a * b), "f64"),
        "v_fma_f64": three(fma, "f64"),
        "v_fmac_f64": Row("f64", "f64 f64", fma, accumulates=True),
        **named("v_max_f64 v_max_num_f64", two(greater, "f64")),
        **named("v_min_f64 v_min_num_f64", two(lesser, "f64")),
        "v_ldexp_f64": Row("f64", "f64 i32", lambda a, n: scaled(a, max(-4000, min(4000, n)))),
        "v_floor_f64": one(floor, kind="f64"),
        "v_ceil_f64": one(whole(math.ceil), kind="f64"),
        "v_trunc_f64": one(whole(math.trunc), kind="f64"),
        "v_rndne_f64": one(whole(round), kind="f64"),
        "v_fract_f64": one(lambda a: a - floor(a) if math.isfinite(a) else NAN, kind="f64"),
        "v_frexp_mant_f64": one(lambda a: frexp(a)[0], kind="f64"),
        "v_frexp_exp_i32_f64": Row("i32", "f64", lambda a: frexp(a)[1]),
        "v_rcp_f64": one(lambda a: divide(1.0, a), kind="f64"),
        "v_sqrt_f64": one(root, kind="f64"),
        "v_rsq_f64": one(lambda a: divide(1.0, root(a)) if a else divide(1.0, a), 1, kind="f64"),
        "v_cvt_i32_f64": Row("i32", "f64", to_int("i32")),
        "v_cvt_u32_f64": Row("u32", "f64", to_int("u32")),
    }


def exactly(function: Callable[..., Number]) -> Callable[..., Number]:
    """The function on exact numbers, where all are finite and none is zero."""

    def exact(*values: float) -> Number:
        if all(math.isfinite(value) and value for value in values):
            return function(*map(Fraction, values))
        return function(*values)

    return exact


def first_is_another(value: int, den: int, num: int) -> bool:
    return value in (den, num)


FLOATS: dict[str, Row] = {
    "v_add_f32": two(lambda a, b: a + b),
    "v_sub_f32": two(lambda a, b: a - b),
    "v_subrev_f32": two(lambda a, b: b - a),
    "v_mul_f32": two(lambda a, b: a * b),
    "v_fma_f32": three(fma),
    "v_fmac_f32": Row("f32", "f32 f32", fma, accumulates=True),
    # The constant stands where it is in the sum: v0 = v2 * K + v4, v0 = v2 * v4 + K.
    **named("v_fmamk_f32 v_madmk_f32", Row("f32", "f32 f32", lambda a, b: fma(a, 2.5, b),
                                           form="{0}, {1}, 0x40200000, {2}")),
    **named("v_fmaak_f32 v_madak_f32", Row("f32", "f32 f32", lambda a, b: fma(a, b, 2.5),
                                           form="{0}, {1}, {2}, 0x40200000")),
    **named("v_max_f32 v_max_num_f32", two(greater)),
    **named("v_min_f32 v_min_num_f32", two(lesser)),
    "v_maximum_f32": two(strict(greater)),
    "v_minimum_f32": two(strict(lesser)),
    **named("v_max3_f32 v_max3_num_f32", three(lambda *v: reduce(greater, v))),
    **named("v_min3_f32 v_min3_num_f32", three(lambda *v: reduce(lesser, v))),
    "v_maximum3_f32": three(lambda *v: reduce(strict(greater), v)),
    "v_minimum3_f32": three(lambda *v: reduce(strict(lesser), v)),
    **named("v_med3_f32 v_med3_num_f32", three(middle, zero_sign=False)),
    **named("v_maxmin_f32 v_maxmin_num_f32", three(lambda a, b, c: lesser(greater(a, b), c))),
    **named("v_minmax_f32 v_minmax_num_f32", three(lambda a, b, c: greater(lesser(a, b), c))),
    "v_exp_f32": one(flushed(exp2), 1),
    "v_log_f32": one(flushed(log2), 1),
    **named("v_rcp_f32 v_rcp_iflag_f32", one(flushed(lambda a: divide(1.0, a)), 1)),
    "v_rsq_f32": one(flushed(lambda a: divide(1.0, root(a)) if a else divide(1.0, a)), 1),
    "v_sqrt_f32": one(flushed(root), 1),
    "v_sin_f32": one(lambda a: turn(a, 0), 1),
    "v_cos_f32": one(lambda a: turn(a, 1), 1),
    "v_floor_f32": one(floor),
    "v_ceil_f32": one(whole(math.ceil)),
    "v_trunc_f32": one(whole(math.trunc)),
    "v_rndne_f32": one(whole(round)),
    "v_fract_f32": one(lambda a: a - floor(a) if math.isfinite(a) else NAN),
    "v_ldexp_f32": Row("f32", "f32 i32", lambda a, n: scaled(a, max(-600, min(600, n)))),
    "v_frexp_mant_f32": one(lambda a: frexp(a)[0]),
    "v_frexp_exp_i32_f32": Row("i32", "f32", lambda a: frexp(a)[1]),
    **divisions(),
    **doubles(),
    "v_add_f64": two(lambda a, b: a + b, "f64"),
    "v_add_f16": two(lambda a, b: a + b, "f16"),
    "v_sub_f16": two(lambda a, b: a - b, "f16"),
    "v_subrev_f16": two(lambda a, b: b - a, "f16"),
    "v_mul_f16": two(lambda a, b: a * b, "f16"),
    **named("v_max_f16 v_max_num_f16", two(greater, "f16")),
    **named("v_min_f16 v_min_num_f16", two(lesser, "f16")),
    "v_fma_f16": three(fma, "f16", keeps=True),
    "v_fmac_f16": Row("f16", "f16 f16", fma, accumulates=True),
    "v_fmamk_f16": Row("f16", "f16 f16", lambda a, b: fma(a, 2.5, b),
                       form="{0}, {1}, 0x4100, {2}"),
    "v_fmaak_f16": Row("f16", "f16 f16", lambda a, b: fma(a, b, 2.5),
                       form="{0}, {1}, {2}, 0x4100"),
    **named("v_max3_f16 v_max3_num_f16", three(lambda *v: reduce(greater, v), "f16", keeps=True)),
    **named("v_min3_f16 v_min3_num_f16", three(lambda *v: reduce(lesser, v), "f16", keeps=True)),
    **named("v_maxmin_f16 v_maxmin_num_f16",
            three(lambda a, b, c: lesser(greater(a, b), c), "f16", keeps=True)),
    **named("v_minmax_f16 v_minmax_num_f16",
            three(lambda a, b, c: greater(lesser(a, b), c), "f16", keeps=True)),
    "v_maximum3_f16": three(lambda *v: reduce(strict(greater), v), "f16", keeps=True),
    "v_minimum3_f16": three(lambda *v: reduce(strict(lesser), v), "f16", keeps=True),
    **named("v_med3_f16 v_med3_num_f16",
            three(middle, "f16", keeps=True, zero_sign=False)),
    "v_maximum_f16": two(strict(greater), "f16", keeps=True),
    "v_minimum_f16": two(strict(lesser), "f16", keeps=True),
    "v_log_f16": one(log2, 1, "f16"),
    "v_rsq_f16": one(lambda a: divide(1.0, root(a)) if a else divide(1.0, a), 1, "f16"),
    "v_sin_f16": one(lambda a: turn(a, 0), 1, "f16"),
    "v_cos_f16": one(lambda a: turn(a, 1), 1, "f16"),
    "v_floor_f16": one(floor, kind="f16"),
    "v_ceil_f16": one(whole(math.ceil), kind="f16"),
    "v_trunc_f16": one(whole(math.trunc), kind="f16"),
    "v_rndne_f16": one(whole(round), kind="f16"),
    "v_fract_f16": one(lambda a: a - floor(a) if math.isfinite(a) else NAN, kind="f16"),
    "v_ldexp_f16": Row("f16", "f16 i16", scaled),
    "v_frexp_mant_f16": one(lambda a: frexp(a)[0], kind="f16"),
    "v_frexp_exp_i16_f16": Row("i16", "f16", lambda a: frexp(a)[1]),
    "v_rcp_f16": one(lambda a: divide(1.0, a), 1, "f16"),
    "v_exp_f16": one(exp2, 1, "f16"),
    "v_sqrt_f16": one(root, 1, "f16"),
    "v_cvt_f32_i32": Row("f32", "i32", lambda a: a),
    "v_cvt_f32_u32": Row("f32", "u32", lambda a: a),
    "v_cvt_i32_f32": Row("i32", "f32", to_int("i32")),
    "v_cvt_u32_f32": Row("u32", "f32", to_int("u32")),
    **named("v_cvt_rpi_i32_f32 v_cvt_nearest_i32_f32",
            Row("i32", "f32", lambda a: to_int("i32")(floor(plus_half(a))))),
    **named("v_cvt_flr_i32_f32 v_cvt_floor_i32_f32",
            Row("i32", "f32", lambda a: to_int("i32")(floor(a)))),
    "v_cvt_f32_f16": Row("f32", "f16", lambda a: a),
    "v_cvt_f16_f32": Row("f16", "f32", lambda a: a),
    "v_cvt_f32_bf16": Row("f32", "bf16", lambda a: a),
    "v_cvt_f32_f64": Row("f32", "f64", lambda a: a),
    "v_cvt_f64_f32": Row("f64", "f32", lambda a: a),
    "v_cvt_f64_i32": Row("f64", "i32", lambda a: a),
    "v_cvt_f64_u32": Row("f64", "u32", lambda a: a),
    "v_cvt_f16_u16": Row("f16", "u16", lambda a: a),
    "v_cvt_f16_i16": Row("f16", "i16", lambda a: a),
    "v_cvt_u16_f16": Row("u16", "f16", to_int("u16")),
    "v_cvt_i16_f16": Row("i16", "f16", to_int("i16")),
    "v_cvt_i32_i16": Row("i32", "i16", lambda a: a),
    "v_cvt_u32_u16": Row("u32", "u16", lambda a: a),
    **{f"v_cvt_f32_ubyte{n}": Row("f32", "u32", lambda a, n=n: a >> 8 * n & 255)
       for n in range(4)},
    **comparisons(),
}  # fmt: skip
