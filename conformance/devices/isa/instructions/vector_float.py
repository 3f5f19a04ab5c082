"""Vector arithmetic on floats, conversions, and comparisons of every type: a value per lane.

Sources: the VOP1, VOP2, VOP3 chapters of AMD's MI300 (CDNA3), CDNA4, RDNA3 and RDNA4 instruction
set manuals. A name that RDNA gave to an old instruction stands beside the old name.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ..elementary import exp2, log2
from ..numbers import (
    FLOAT_COMPARISONS,
    INT_COMPARISONS,
    fma32,
    max_num,
    maximum,
    min_num,
    minimum,
    odd_sum,
    to_int,
    transcendental,
)
from ..state import Lanes
from .alu import Build, compare, named, vector

U32, I32, F32, F64 = np.uint32, np.int32, np.float32, np.float64


def _sum_exactly(down: bool, a: Lanes, b: Lanes) -> Lanes:
    return odd_sum(a.astype(F64), b.astype(F64), down=down)


def _difference_exactly(down: bool, a: Lanes, b: Lanes) -> Lanes:
    return odd_sum(a.astype(F64), -b.astype(F64), down=down)


def _reverse_difference_exactly(down: bool, a: Lanes, b: Lanes) -> Lanes:
    return _difference_exactly(down, b, a)


def _product_exactly(_down: bool, a: Lanes, b: Lanes) -> Lanes:
    return a.astype(F64) * b.astype(F64)


def _fma_exactly(down: bool, a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    return odd_sum(a.astype(F64) * b.astype(F64), c.astype(F64), down=down)


def _itself_exactly(_down: bool, a: Lanes) -> Lanes:
    return a.astype(F64)


def _ldexp(a: Lanes, power: Lanes) -> Lanes:
    return np.ldexp(a, np.clip(power, -400, 400))


def _turns(a: Lanes) -> Lanes:
    """The part of a turn that counts, in float64: -1/2 to 1/2. Far from 0 there is none left."""
    wide = a.astype(F64)
    return wide - np.rint(wide)


def sin_turns(a: Lanes) -> Lanes:
    """Exact at every quarter turn, as hardware is; denormals are kept, unless the mode flushes."""
    turn = _turns(a)
    folded = np.where(np.abs(turn) > 0.25, np.copysign(0.5, turn) - turn, turn)
    value = np.sin(folded * (2 * np.pi)).astype(F32)
    return np.where(value == 0, np.where(a == 0, a, F32(0)), value)


def cos_turns(a: Lanes) -> Lanes:
    return np.sin((0.25 - np.abs(_turns(a))) * (2 * np.pi)).astype(F32)


def med3(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    return np.where(
        np.isnan(a) | np.isnan(b) | np.isnan(c),
        min_num(min_num(a, b), c),
        max_num(min_num(a, b), min_num(max_num(a, b), c)),
    )


def _fma_halves(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """f16 fused multiply-add: exact in float64, rounded when it is written."""
    return a.astype(F64) * b + c


def is_of_class(a: Lanes, wanted: Lanes, *, power_bits: int, fraction_bits: int) -> Lanes:
    """Whether the kind of a float's bits is among the wanted ones; no mode flushes them."""
    largest = (1 << power_bits) - 1
    power = (a >> U32(fraction_bits)) & U32(largest)
    fraction = a & U32((1 << fraction_bits) - 1)
    negative = a >= U32(1 << (power_bits + fraction_bits))
    kind = np.select(
        [
            (power == largest) & (fraction != 0) & (fraction < 1 << (fraction_bits - 1)),
            (power == largest) & (fraction != 0),
            power == largest,
            (power == 0) & (fraction == 0),
            power == 0,
        ],
        [
            np.full(a.shape, 0),
            np.full(a.shape, 1),
            np.where(negative, 2, 9),
            np.where(negative, 5, 6),
            np.where(negative, 4, 7),
        ],
        default=np.where(negative, 3, 8),
    )
    return (wanted >> kind.astype(U32)) & U32(1) == 1


_single_class = partial(is_of_class, power_bits=8, fraction_bits=23)


def _comparisons() -> dict[str, Build]:
    table: dict[str, Build] = {}
    for prefix, to_exec in (("v_cmp", False), ("v_cmpx", True)):
        for kinds, functions in (
            (("f16", "f32", "f64"), FLOAT_COMPARISONS),
            (("i16", "u16", "i32", "u32", "i64", "u64"), INT_COMPARISONS),
        ):
            for kind in kinds:
                for name, function in functions.items():
                    build = compare(f"{kind} {kind}", function, to_exec=to_exec)
                    table[f"{prefix}_{name}_{kind}"] = build
        table[f"{prefix}_class_f32"] = compare("b32 u32", _single_class, to_exec=to_exec)
    return table


_to_i32 = to_int(-(2**31), 2**31 - 1, I32)

FLOAT: dict[str, Build] = {
    "v_add_f32": vector("f32", "f32 f32", lambda a, b: a + b, exact=_sum_exactly),
    "v_sub_f32": vector("f32", "f32 f32", lambda a, b: a - b, exact=_difference_exactly),
    "v_subrev_f32": vector(
        "f32",
        "f32 f32",
        lambda a, b: b - a,
        exact=_reverse_difference_exactly,
    ),
    "v_mul_f32": vector("f32", "f32 f32", lambda a, b: a * b, exact=_product_exactly),
    "v_fma_f32": vector("f32", "f32 f32 f32", fma32, exact=_fma_exactly),
    **named("v_fmac_f32", vector("f32", "f32 f32", fma32, accumulate=True, exact=_fma_exactly)),
    **named("v_fmamk_f32 v_madmk_f32", vector("f32", "f32 f32 f32", fma32, exact=_fma_exactly)),
    **named("v_fmaak_f32 v_madak_f32", vector("f32", "f32 f32 f32", fma32, exact=_fma_exactly)),
    **named("v_max_f32 v_max_num_f32", vector("f32", "f32 f32", max_num, rounds=False)),
    **named("v_min_f32 v_min_num_f32", vector("f32", "f32 f32", min_num, rounds=False)),
    "v_maximum_f32": vector("f32", "f32 f32", maximum, rounds=False),
    "v_minimum_f32": vector("f32", "f32 f32", minimum, rounds=False),
    **named(
        "v_max3_f32 v_max3_num_f32",
        vector("f32", "f32 f32 f32", lambda a, b, c: max_num(max_num(a, b), c), rounds=False),
    ),
    **named(
        "v_min3_f32 v_min3_num_f32",
        vector("f32", "f32 f32 f32", lambda a, b, c: min_num(min_num(a, b), c), rounds=False),
    ),
    "v_maximum3_f32": vector(
        "f32", "f32 f32 f32", lambda a, b, c: maximum(maximum(a, b), c), rounds=False
    ),
    "v_minimum3_f32": vector(
        "f32", "f32 f32 f32", lambda a, b, c: minimum(minimum(a, b), c), rounds=False
    ),
    **named("v_med3_f32 v_med3_num_f32", vector("f32", "f32 f32 f32", med3, rounds=False)),
    **named(
        "v_maxmin_f32 v_maxmin_num_f32",
        vector("f32", "f32 f32 f32", lambda a, b, c: min_num(max_num(a, b), c), rounds=False),
    ),
    **named(
        "v_minmax_f32 v_minmax_num_f32",
        vector("f32", "f32 f32 f32", lambda a, b, c: max_num(min_num(a, b), c), rounds=False),
    ),
    "v_exp_f32": vector("f32", "f32", transcendental(exp2), rounds=False),
    "v_log_f32": vector("f32", "f32", transcendental(log2), rounds=False),
    "v_rcp_f32": vector("f32", "f32", transcendental(lambda a: F32(1) / a), rounds=False),
    "v_rcp_iflag_f32": vector("f32", "f32", transcendental(lambda a: F32(1) / a), rounds=False),
    "v_rsq_f32": vector(
        "f32", "f32", transcendental(lambda a: 1.0 / np.sqrt(a.astype(F64))), rounds=False
    ),
    "v_sqrt_f32": vector("f32", "f32", transcendental(np.sqrt), rounds=False),
    "v_sin_f32": vector("f32", "f32", sin_turns, rounds=False),
    "v_cos_f32": vector("f32", "f32", cos_turns, rounds=False),
    "v_floor_f32": vector("f32", "f32", np.floor, rounds=False),
    "v_ceil_f32": vector("f32", "f32", np.ceil, rounds=False),
    "v_trunc_f32": vector("f32", "f32", np.trunc, rounds=False),
    "v_rndne_f32": vector("f32", "f32", np.rint, rounds=False),
    "v_fract_f32": vector("f32", "f32", lambda a: a - np.floor(a), rounds=False),
    "v_ldexp_f32": vector("f32", "f32 i32", _ldexp),
    "v_frexp_mant_f32": vector("f32", "f32", lambda a: np.frexp(a)[0], rounds=False),
    "v_frexp_exp_i32_f32": vector("i32", "f32", lambda a: np.frexp(a)[1].astype(I32)),
    "v_add_f64": vector("f64", "f64 f64", lambda a, b: a + b),
    "v_add_f16": vector("f16", "f16 f16", lambda a, b: a + b, exact=_sum_exactly),
    "v_sub_f16": vector("f16", "f16 f16", lambda a, b: a - b, exact=_difference_exactly),
    "v_subrev_f16": vector(
        "f16",
        "f16 f16",
        lambda a, b: b - a,
        exact=_reverse_difference_exactly,
    ),
    "v_mul_f16": vector("f16", "f16 f16", lambda a, b: a * b, exact=_product_exactly),
    **named("v_max_f16 v_max_num_f16", vector("f16", "f16 f16", max_num, rounds=False)),
    **named("v_min_f16 v_min_num_f16", vector("f16", "f16 f16", min_num, rounds=False)),
    "v_fma_f16": vector("f16", "f16 f16 f16", _fma_halves, preserve=True, exact=_fma_exactly),
    "v_fmac_f16": vector("f16", "f16 f16", _fma_halves, accumulate=True, exact=_fma_exactly),
    "v_fmamk_f16": vector("f16", "f16 f16 f16", _fma_halves, exact=_fma_exactly),
    "v_fmaak_f16": vector("f16", "f16 f16 f16", _fma_halves, exact=_fma_exactly),
    "v_rcp_f16": vector("f16", "f16", lambda a: F32(1) / a, rounds=False),
    "v_exp_f16": vector("f16", "f16", exp2, rounds=False),
    "v_sqrt_f16": vector("f16", "f16", np.sqrt, rounds=False),
}

CONVERT: dict[str, Build] = {
    "v_cvt_f32_i32": vector("f32", "i32", lambda a: a.astype(F32), exact=_itself_exactly),
    "v_cvt_f32_u32": vector("f32", "u32", lambda a: a.astype(F32), exact=_itself_exactly),
    "v_cvt_i32_f32": vector("i32", "f32", _to_i32),
    "v_cvt_u32_f32": vector("u32", "f32", to_int(0, 2**32 - 1, U32)),
    **named(
        "v_cvt_rpi_i32_f32 v_cvt_nearest_i32_f32",
        vector("i32", "f32", lambda a: _to_i32(np.floor(a + F32(0.5)))),
    ),
    **named(
        "v_cvt_flr_i32_f32 v_cvt_floor_i32_f32",
        vector("i32", "f32", lambda a: _to_i32(np.floor(a))),
    ),
    "v_cvt_f32_f16": vector("f32", "f16", lambda a: a, rounds=False),
    "v_cvt_f16_f32": vector("f16", "f32", lambda a: a, exact=_itself_exactly),
    "v_cvt_f32_bf16": vector("f32", "bf16", lambda a: a, rounds=False),
    "v_cvt_f32_f64": vector("f32", "f64", lambda a: a, exact=_itself_exactly),
    "v_cvt_f64_f32": vector("f64", "f32", lambda a: a.astype(F64), rounds=False),
    "v_cvt_f64_i32": vector("f64", "i32", lambda a: a.astype(F64), rounds=False),
    "v_cvt_f64_u32": vector("f64", "u32", lambda a: a.astype(F64), rounds=False),
    "v_cvt_f16_u16": vector("f16", "u16", lambda a: a.astype(F32), exact=_itself_exactly),
    "v_cvt_f16_i16": vector("f16", "i16", lambda a: a.astype(F32), exact=_itself_exactly),
    "v_cvt_u16_f16": vector("u16", "f16", to_int(0, 65535, U32)),
    "v_cvt_i16_f16": vector("i16", "f16", to_int(-32768, 32767, I32)),
    "v_cvt_i32_i16": vector("i32", "i16", lambda a: a),
    "v_cvt_u32_u16": vector("u32", "u16", lambda a: a),
    **{
        f"v_cvt_f32_ubyte{byte}": vector(
            "f32",
            "u32",
            lambda a, n=8 * byte: ((a >> U32(n)) & U32(255)).astype(F32),
            rounds=False,
        )
        for byte in range(4)
    },
}

FLOATS: dict[str, Build] = {**FLOAT, **CONVERT, **_comparisons()}
