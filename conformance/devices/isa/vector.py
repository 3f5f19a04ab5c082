"""Vector arithmetic: one value per lane.

Sources: the VOP1, VOP2, VOP3 chapters of AMD's MI300 (CDNA3), CDNA4, RDNA3 and RDNA4 instruction
set manuals. A name that RDNA gave to an old instruction stands beside the old name.
"""

from __future__ import annotations

import numpy as np

from .alu import Build, Function, compare, vector
from .numbers import (
    FLOAT_COMPARISONS,
    INT_COMPARISONS,
    fma32,
    max_num,
    maximum,
    min_num,
    minimum,
    to_int,
    transcendental,
)
from .state import Lanes

U32, U64, I32, I64, F32, F64 = (
    np.uint32,
    np.uint64,
    np.int32,
    np.int64,
    np.float32,
    np.float64,
)


def _named(names: str, build: Build) -> dict[str, Build]:
    return dict.fromkeys(names.split(), build)


def _shift32(function: Function) -> Function:
    """A shift whose count comes first, as in every "rev" instruction; only five bits count."""
    return lambda n, a: function(a, (n & U32(31)).astype(a.dtype))


def _shift16(function: Function) -> Function:
    return lambda n, a: function(a, (n & U32(15)).astype(a.dtype))


def _shift64(function: Function) -> Function:
    return lambda n, a: function(a, (n & U32(63)).astype(a.dtype))


def _perm(a: Lanes, b: Lanes, selector: Lanes) -> Lanes:
    """Each byte of the result is chosen from the eight bytes of a (4-7) and b (0-3)."""
    a, b, selector = np.broadcast_arrays(a, b, selector)
    if selector.size and selector.strides == (0, 0):
        return _perm_constant(a, b, int(selector.flat[0]))
    data = (a.astype(U64) << U64(32)) | b
    out = np.zeros(a.shape, dtype=U32)
    for byte in range(4):
        choice = (selector >> U32(8 * byte)) & U32(0xFF)
        value = ((data >> ((choice & U32(7)).astype(U64) * U64(8))) & U64(0xFF)).astype(U32)
        sign_of = (choice & U32(3)) * U32(2) + U32(1)
        sign = (data >> (sign_of.astype(U64) * U64(8) + U64(7))) & U64(1)
        value = np.where((choice >= 8) & (choice < 12), sign.astype(U32) * U32(0xFF), value)
        value = np.where(choice == 12, U32(0), value)
        value = np.where(choice > 12, U32(0xFF), value)
        out |= value << U32(8 * byte)
    return out


def _perm_constant(a: Lanes, b: Lanes, selector: int) -> Lanes:
    """The same where every lane has one selector, which is how compilers pack halves."""
    out: Lanes = np.zeros(a.shape, dtype=U32)
    for byte in range(4):
        choice = selector >> (8 * byte) & 0xFF
        if choice < 8:
            source, shift = (a, 8 * (choice - 4)) if choice > 3 else (b, 8 * choice)
            out |= ((source >> U32(shift)) & U32(0xFF)) << U32(8 * byte)
        elif choice < 12:
            source, shift = (
                (a, 16 * (choice - 10) + 15) if choice > 9 else (b, 16 * (choice - 8) + 15)
            )
            out |= ((source >> U32(shift)) & U32(1)) * U32(0xFF << (8 * byte))
        elif choice > 12:
            out |= U32(0xFF << (8 * byte))
    return out


def _align_bit(a: Lanes, b: Lanes, shift: Lanes) -> Lanes:
    data = (a.astype(U64) << U64(32)) | b
    return ((data >> (shift & U32(31)).astype(U64)) & U64(0xFFFFFFFF)).astype(U32)


def _reverse_bits(a: Lanes) -> Lanes:
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF)):
        a = ((a >> U32(shift)) & U32(mask)) | ((a & U32(mask)) << U32(shift))
    return (a >> U32(16)) | (a << U32(16))


def _leading_zeros(a: Lanes) -> Lanes:
    _, power = np.frexp(a.astype(F64))
    return np.where(a == 0, U32(0xFFFFFFFF), U32(32) - power.astype(U32))


def _trailing_zeros(a: Lanes) -> Lanes:
    low = a & (~a + U32(1))
    return np.where(a == 0, U32(0xFFFFFFFF), np.bitwise_count(low - U32(1)).astype(U32))


def _bfe(a: Lanes, offset: Lanes, width: Lanes) -> Lanes:
    offset, width = offset & U32(31), width & U32(31)
    return (a >> offset) & ((U32(1) << width) - U32(1))


def _bfe_signed(a: Lanes, offset: Lanes, width: Lanes) -> Lanes:
    offset, width = (offset & U32(31)).astype(I64), (width & U32(31)).astype(I64)
    up = I64(64) - width
    value = ((a.astype(I64) >> offset) << (up & I64(63))) >> (up & I64(63))
    return np.where(width == 0, 0, value).astype(I32)


def _mul_hi(a: Lanes, b: Lanes) -> Lanes:
    return ((a.astype(U64) * b) >> U64(32)).astype(U32)


def _mul_hi_signed(a: Lanes, b: Lanes) -> Lanes:
    return ((a.astype(I64) * b) >> I64(32)).astype(I32)


def _add_co(a: Lanes, b: Lanes) -> tuple[Lanes, Lanes]:
    total = a + b
    return total, total < a


def _addc_co(a: Lanes, b: Lanes, carry: Lanes) -> tuple[Lanes, Lanes]:
    total = a.astype(U64) + b + carry
    return (total & U64(0xFFFFFFFF)).astype(U32), total > 0xFFFFFFFF


def _subb_co(a: Lanes, b: Lanes, borrow: Lanes) -> tuple[Lanes, Lanes]:
    total = a.astype(I64) - b - borrow
    return (total & 0xFFFFFFFF).astype(U32), total < 0


def _mad_u64(a: Lanes, b: Lanes, c: Lanes) -> tuple[Lanes, Lanes]:
    total = a.astype(U64) * b + c
    return total, total < c


def _mad_i64(a: Lanes, b: Lanes, c: Lanes) -> tuple[Lanes, Lanes]:
    total = a.astype(I64) * b + c
    return total, (c > 0) & (total < c)


def _exponent(value: Lanes) -> Lanes:
    return ((value.view(U32) >> U32(23)) & U32(0xFF)).astype(I32)


def _div_scale(s0: Lanes, den: Lanes, num: Lanes) -> tuple[Lanes, Lanes]:
    """Scales the numerator or denominator so that the quotient's steps stay normal."""
    s0, den, num = np.broadcast_arrays(s0, den, num)
    tiny = 2.0**-126
    with np.errstate(all="ignore"):
        inverse, ratio = 1.0 / den.astype(F64), num.astype(F64) / den.astype(F64)
    low_inverse = (np.abs(inverse) < tiny) & (inverse != 0)
    low_ratio = (np.abs(ratio) < tiny) & (ratio != 0)
    den_tiny = (np.abs(den) < tiny) & (den != 0)
    far = _exponent(num) - _exponent(den) >= 96
    is_den, is_num = s0.view(U32) == den.view(U32), s0.view(U32) == num.view(U32)
    up, down = np.ldexp(s0, 64), np.ldexp(s0, -64)
    conditions = [far, den_tiny, low_inverse & low_ratio, low_inverse, low_ratio]
    values = [
        np.where(is_den, up, s0),
        up,
        np.where(is_den, up, s0),
        down,
        np.where(is_num, up, s0),
    ]
    value = np.select([*conditions, _exponent(num) <= 23], [*values, up], s0)
    flag = np.select(conditions, [True, False, True, False, True], default=False)
    bad = (num == 0) | (den == 0)
    return np.where(bad, F32(np.nan), value).astype(F32), flag & ~bad


def _div_fmas(a: Lanes, b: Lanes, c: Lanes, scaled: Lanes) -> Lanes:
    value = fma32(a, b, c)
    if not scaled.any():
        return value
    power = np.where(_exponent(np.ascontiguousarray(c)) > 127, 64, -64)
    return np.where(scaled, np.ldexp(value, power), value).astype(F32)


def _div_fixup(quotient: Lanes, den: Lanes, num: Lanes) -> Lanes:
    """Puts right what the iteration cannot give: signs, zeros, infinities and NaNs."""
    quotient, den, num = np.broadcast_arrays(quotient, den, num)
    sign = np.where(np.signbit(den) != np.signbit(num), F32(-1), F32(1))
    zero, infinite = (num == 0) & (den == 0), np.isinf(num) & np.isinf(den)
    under = _exponent(np.ascontiguousarray(num)) - _exponent(np.ascontiguousarray(den)) < -150
    return np.select(
        [
            np.isnan(num),
            np.isnan(den),
            zero | infinite,
            (den == 0) | np.isinf(num),
            np.isinf(den) | (num == 0),
            under,
        ],
        [num, den, F32(np.nan), sign * F32(np.inf), sign * F32(0), sign * F32(0)],
        default=np.abs(quotient) * sign,
    ).astype(F32)


def _ldexp(a: Lanes, power: Lanes) -> Lanes:
    return np.ldexp(a, np.clip(power, -400, 400)).astype(F32)


def _sin_turns(a: Lanes) -> Lanes:
    return np.sin(a.astype(F64) * (2 * np.pi)).astype(F32)


def _cos_turns(a: Lanes) -> Lanes:
    return np.cos(a.astype(F64) * (2 * np.pi)).astype(F32)


def _med3(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    return np.where(
        np.isnan(a) | np.isnan(b) | np.isnan(c),
        min_num(min_num(a, b), c),
        np.fmax(np.fmin(a, b), np.fmin(np.fmax(a, b), c)),
    )


def _fma_halves(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """f16 fused multiply-add: exact in float64, rounded when it is written."""
    return a.astype(F64) * b + c


def _class(a: Lanes, wanted: Lanes) -> Lanes:
    """Whether the kind of a float32 is among the wanted ones."""
    bits = a.view(U32)
    power, fraction, negative = (bits >> U32(23)) & U32(0xFF), bits & U32(0x7FFFFF), np.signbit(a)
    kind = np.select(
        [
            (power == 255) & (fraction != 0) & (fraction < 0x400000),
            (power == 255) & (fraction != 0),
            power == 255,
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
        table[f"{prefix}_class_f32"] = compare("f32 u32", _class, to_exec=to_exec)
    return table


FLOAT: dict[str, Build] = {
    "v_add_f32": vector("f32", "f32 f32", lambda a, b: a + b),
    "v_sub_f32": vector("f32", "f32 f32", lambda a, b: a - b),
    "v_subrev_f32": vector("f32", "f32 f32", lambda a, b: b - a),
    "v_mul_f32": vector("f32", "f32 f32", lambda a, b: a * b),
    "v_fma_f32": vector("f32", "f32 f32 f32", fma32),
    **_named("v_fmac_f32", vector("f32", "f32 f32", fma32, accumulate=True)),
    **_named("v_fmamk_f32 v_madmk_f32", vector("f32", "f32 f32 f32", fma32)),
    **_named("v_fmaak_f32 v_madak_f32", vector("f32", "f32 f32 f32", fma32)),
    **_named("v_max_f32 v_max_num_f32", vector("f32", "f32 f32", max_num)),
    **_named("v_min_f32 v_min_num_f32", vector("f32", "f32 f32", min_num)),
    "v_maximum_f32": vector("f32", "f32 f32", maximum),
    "v_minimum_f32": vector("f32", "f32 f32", minimum),
    **_named(
        "v_max3_f32 v_max3_num_f32",
        vector("f32", "f32 f32 f32", lambda a, b, c: max_num(max_num(a, b), c)),
    ),
    **_named(
        "v_min3_f32 v_min3_num_f32",
        vector("f32", "f32 f32 f32", lambda a, b, c: min_num(min_num(a, b), c)),
    ),
    "v_maximum3_f32": vector("f32", "f32 f32 f32", lambda a, b, c: maximum(maximum(a, b), c)),
    "v_minimum3_f32": vector("f32", "f32 f32 f32", lambda a, b, c: minimum(minimum(a, b), c)),
    **_named("v_med3_f32 v_med3_num_f32", vector("f32", "f32 f32 f32", _med3)),
    **_named(
        "v_maxmin_f32 v_maxmin_num_f32",
        vector("f32", "f32 f32 f32", lambda a, b, c: min_num(max_num(a, b), c)),
    ),
    **_named(
        "v_minmax_f32 v_minmax_num_f32",
        vector("f32", "f32 f32 f32", lambda a, b, c: max_num(min_num(a, b), c)),
    ),
    "v_exp_f32": vector("f32", "f32", transcendental(np.exp2)),
    "v_log_f32": vector("f32", "f32", transcendental(np.log2)),
    "v_rcp_f32": vector("f32", "f32", transcendental(lambda a: F32(1) / a)),
    "v_rcp_iflag_f32": vector("f32", "f32", transcendental(lambda a: F32(1) / a)),
    "v_rsq_f32": vector("f32", "f32", transcendental(lambda a: 1.0 / np.sqrt(a.astype(F64)))),
    "v_sqrt_f32": vector("f32", "f32", transcendental(np.sqrt)),
    "v_sin_f32": vector("f32", "f32", transcendental(_sin_turns)),
    "v_cos_f32": vector("f32", "f32", transcendental(_cos_turns)),
    "v_floor_f32": vector("f32", "f32", np.floor),
    "v_ceil_f32": vector("f32", "f32", np.ceil),
    "v_trunc_f32": vector("f32", "f32", np.trunc),
    "v_rndne_f32": vector("f32", "f32", np.rint),
    "v_fract_f32": vector("f32", "f32", lambda a: a - np.floor(a)),
    "v_ldexp_f32": vector("f32", "f32 i32", _ldexp),
    "v_frexp_mant_f32": vector("f32", "f32", lambda a: np.frexp(a)[0]),
    "v_frexp_exp_i32_f32": vector("i32", "f32", lambda a: np.frexp(a)[1].astype(I32)),
    "v_div_scale_f32": vector("f32", "f32 f32 f32", _div_scale, carry=True),
    "v_div_fmas_f32": vector("f32", "f32 f32 f32 mask", _div_fmas),
    "v_div_fixup_f32": vector("f32", "f32 f32 f32", _div_fixup),
    "v_add_f64": vector("f64", "f64 f64", lambda a, b: a + b),
    "v_add_f16": vector("f16", "f16 f16", lambda a, b: a + b),
    "v_sub_f16": vector("f16", "f16 f16", lambda a, b: a - b),
    "v_subrev_f16": vector("f16", "f16 f16", lambda a, b: b - a),
    "v_mul_f16": vector("f16", "f16 f16", lambda a, b: a * b),
    **_named("v_max_f16 v_max_num_f16", vector("f16", "f16 f16", max_num)),
    **_named("v_min_f16 v_min_num_f16", vector("f16", "f16 f16", min_num)),
    "v_fma_f16": vector("f16", "f16 f16 f16", _fma_halves, preserve=True),
    "v_fmac_f16": vector("f16", "f16 f16", _fma_halves, accumulate=True),
    "v_rcp_f16": vector("f16", "f16", lambda a: F32(1) / a),
    "v_exp_f16": vector("f16", "f16", np.exp2),
    "v_sqrt_f16": vector("f16", "f16", np.sqrt),
}

CONVERT: dict[str, Build] = {
    "v_cvt_f32_i32": vector("f32", "i32", lambda a: a.astype(F32)),
    "v_cvt_f32_u32": vector("f32", "u32", lambda a: a.astype(F32)),
    "v_cvt_i32_f32": vector("i32", "f32", to_int(-(2**31), 2**31 - 1, I32)),
    "v_cvt_u32_f32": vector("u32", "f32", to_int(0, 2**32 - 1, U32)),
    "v_cvt_f32_f16": vector("f32", "f16", lambda a: a),
    "v_cvt_f16_f32": vector("f16", "f32", lambda a: a),
    "v_cvt_f32_bf16": vector("f32", "bf16", lambda a: a),
    "v_cvt_f32_f64": vector("f32", "f64", lambda a: a.astype(F32)),
    "v_cvt_f64_f32": vector("f64", "f32", lambda a: a.astype(F64)),
    "v_cvt_f64_i32": vector("f64", "i32", lambda a: a.astype(F64)),
    "v_cvt_f64_u32": vector("f64", "u32", lambda a: a.astype(F64)),
    "v_cvt_f16_u16": vector("f16", "u16", lambda a: a.astype(F32)),
    "v_cvt_f16_i16": vector("f16", "i16", lambda a: a.astype(F32)),
    "v_cvt_u16_f16": vector("u16", "f16", to_int(0, 65535, U32)),
    "v_cvt_i16_f16": vector("i16", "f16", to_int(-32768, 32767, I32)),
    "v_cvt_i32_i16": vector("i32", "i16", lambda a: a),
    "v_cvt_u32_u16": vector("u32", "u16", lambda a: a),
    **{
        f"v_cvt_f32_ubyte{byte}": vector(
            "f32", "u32", lambda a, n=8 * byte: ((a >> U32(n)) & U32(255)).astype(F32)
        )
        for byte in range(4)
    },
}

INTEGER: dict[str, Build] = {
    "v_mov_b32": vector("b32", "b32", lambda a: a),
    "v_mov_b16": vector("b16", "b16", lambda a: a),
    "v_mov_b64": vector("b64", "b64", lambda a: a),
    "v_accvgpr_read_b32": vector("b32", "b32", lambda a: a),
    "v_accvgpr_write_b32": vector("b32", "b32", lambda a: a),
    "v_accvgpr_mov_b32": vector("b32", "b32", lambda a: a),
    **_named("v_cndmask_b32", vector("b32", "b32 b32 mask", lambda a, b, c: np.where(c, b, a))),
    **_named("v_cndmask_b16", vector("b16", "b16 b16 mask", lambda a, b, c: np.where(c, b, a))),
    **_named(
        "v_add_u32 v_add_nc_u32", vector("u32", "u32 u32", lambda a, b: a + b, saturates=True)
    ),
    **_named(
        "v_sub_u32 v_sub_nc_u32", vector("u32", "u32 u32", lambda a, b: a - b, saturates=True)
    ),
    **_named(
        "v_subrev_u32 v_subrev_nc_u32", vector("u32", "u32 u32", lambda a, b: b - a, saturates=True)
    ),
    **_named(
        "v_add_i32 v_add_nc_i32", vector("i32", "i32 i32", lambda a, b: a + b, saturates=True)
    ),
    **_named(
        "v_sub_i32 v_sub_nc_i32", vector("i32", "i32 i32", lambda a, b: a - b, saturates=True)
    ),
    **_named(
        "v_add_u16 v_add_nc_u16", vector("u16", "u16 u16", lambda a, b: a + b, saturates=True)
    ),
    **_named(
        "v_sub_u16 v_sub_nc_u16", vector("u16", "u16 u16", lambda a, b: a - b, saturates=True)
    ),
    "v_mul_lo_u16": vector("u16", "u16 u16", lambda a, b: a * b),
    "v_add_co_u32": vector("u32", "u32 u32", _add_co, carry=True),
    "v_sub_co_u32": vector("u32", "u32 u32", lambda a, b: (a - b, b > a), carry=True),
    "v_subrev_co_u32": vector("u32", "u32 u32", lambda a, b: (b - a, a > b), carry=True),
    **_named("v_addc_co_u32 v_add_co_ci_u32", vector("u32", "u32 u32 mask", _addc_co, carry=True)),
    **_named("v_subb_co_u32 v_sub_co_ci_u32", vector("u32", "u32 u32 mask", _subb_co, carry=True)),
    "v_mul_lo_u32": vector("u32", "u32 u32", lambda a, b: a * b),
    "v_mul_lo_i32": vector("u32", "u32 u32", lambda a, b: a * b),
    "v_mul_hi_u32": vector("u32", "u32 u32", _mul_hi),
    "v_mul_hi_i32": vector("i32", "i32 i32", _mul_hi_signed),
    "v_mul_u32_u24": vector("u32", "u24 u24", lambda a, b: a * b),
    "v_mul_i32_i24": vector("i32", "i24 i24", lambda a, b: a * b),
    "v_mul_hi_u32_u24": vector("u32", "u24 u24", _mul_hi),
    "v_mad_u32_u24": vector("u32", "u24 u24 u32", lambda a, b, c: a * b + c),
    "v_mad_i32_i24": vector("i32", "i24 i24 i32", lambda a, b, c: a * b + c),
    **_named("v_mad_u64_u32 v_mad_co_u64_u32", vector("u64", "u32 u32 u64", _mad_u64, carry=True)),
    **_named("v_mad_i64_i32 v_mad_co_i64_i32", vector("i64", "i32 i32 i64", _mad_i64, carry=True)),
    "v_mad_u16": vector("u16", "u16 u16 u16", lambda a, b, c: a * b + c, preserve=True),
    "v_mad_u32_u16": vector("u32", "u16 u16 u32", lambda a, b, c: a * b + c),
    "v_mad_i32_i16": vector("i32", "i16 i16 i32", lambda a, b, c: a * b + c),
    "v_and_b32": vector("u32", "u32 u32", lambda a, b: a & b),
    "v_or_b32": vector("u32", "u32 u32", lambda a, b: a | b),
    "v_xor_b32": vector("u32", "u32 u32", lambda a, b: a ^ b),
    "v_xnor_b32": vector("u32", "u32 u32", lambda a, b: ~(a ^ b)),
    "v_not_b32": vector("u32", "u32", lambda a: ~a),
    "v_and_b16": vector("u16", "u16 u16", lambda a, b: a & b),
    "v_or_b16": vector("u16", "u16 u16", lambda a, b: a | b),
    "v_xor_b16": vector("u16", "u16 u16", lambda a, b: a ^ b),
    "v_not_b16": vector("u16", "u16", lambda a: ~a),
    "v_and_or_b32": vector("u32", "u32 u32 u32", lambda a, b, c: (a & b) | c),
    "v_or3_b32": vector("u32", "u32 u32 u32", lambda a, b, c: a | b | c),
    "v_xor3_b32": vector("u32", "u32 u32 u32", lambda a, b, c: a ^ b ^ c),
    "v_xad_u32": vector("u32", "u32 u32 u32", lambda a, b, c: (a ^ b) + c),
    "v_add3_u32": vector("u32", "u32 u32 u32", lambda a, b, c: a + b + c),
    "v_lshl_add_u32": vector("u32", "u32 u32 u32", lambda a, n, c: (a << (n & U32(31))) + c),
    "v_lshl_or_b32": vector("u32", "u32 u32 u32", lambda a, n, c: (a << (n & U32(31))) | c),
    "v_add_lshl_u32": vector("u32", "u32 u32 u32", lambda a, b, n: (a + b) << (n & U32(31))),
    "v_lshl_add_u64": vector(
        "u64", "u64 u32 u64", lambda a, n, c: (a << (n & U32(7)).astype(U64)) + c
    ),
    "v_lshlrev_b32": vector("u32", "u32 u32", _shift32(lambda a, n: a << n)),
    "v_lshrrev_b32": vector("u32", "u32 u32", _shift32(lambda a, n: a >> n)),
    "v_ashrrev_i32": vector("i32", "u32 i32", _shift32(lambda a, n: a >> n)),
    "v_lshlrev_b16": vector("u16", "u16 u16", _shift16(lambda a, n: a << n)),
    "v_lshrrev_b16": vector("u16", "u16 u16", _shift16(lambda a, n: a >> n)),
    "v_ashrrev_i16": vector("i16", "u16 i16", _shift16(lambda a, n: a >> n)),
    "v_lshlrev_b64": vector("u64", "u32 u64", _shift64(lambda a, n: a << n)),
    "v_lshrrev_b64": vector("u64", "u32 u64", _shift64(lambda a, n: a >> n)),
    "v_ashrrev_i64": vector("i64", "u32 i64", _shift64(lambda a, n: a >> n)),
    "v_bfe_u32": vector("u32", "u32 u32 u32", _bfe),
    "v_bfe_i32": vector("i32", "i32 u32 u32", _bfe_signed),
    "v_bfi_b32": vector("u32", "u32 u32 u32", lambda a, b, c: (a & b) | (~a & c)),
    "v_bfm_b32": vector(
        "u32", "u32 u32", lambda a, b: ((U32(1) << (a & U32(31))) - U32(1)) << (b & U32(31))
    ),
    "v_bfrev_b32": vector("u32", "u32", _reverse_bits),
    "v_bcnt_u32_b32": vector("u32", "u32 u32", lambda a, b: np.bitwise_count(a).astype(U32) + b),
    "v_ffbh_u32": vector("u32", "u32", _leading_zeros),
    "v_clz_i32_u32": vector("u32", "u32", _leading_zeros),
    "v_ffbl_b32": vector("u32", "u32", _trailing_zeros),
    "v_ctz_i32_b32": vector("u32", "u32", _trailing_zeros),
    "v_perm_b32": vector("u32", "u32 u32 u32", _perm),
    "v_alignbit_b32": vector("u32", "u32 u32 u32", _align_bit),
    "v_alignbyte_b32": vector(
        "u32", "u32 u32 u32", lambda a, b, n: _align_bit(a, b, (n & U32(3)) * U32(8))
    ),
    "v_pack_b32_f16": vector("u32", "u16 u16", lambda a, b: a | (b << U32(16))),
    **{
        f"v_{name}_{kind}": vector(kind, f"{kind} {kind}", function)
        for kind in ("i32", "u32", "i16", "u16")
        for name, function in {"min": np.minimum, "max": np.maximum}.items()
    },
    **{
        f"v_{name}3_{kind}": vector(
            kind, f"{kind} {kind} {kind}", lambda a, b, c, f=function: f(f(a, b), c)
        )
        for kind in ("i32", "u32")
        for name, function in {"min": np.minimum, "max": np.maximum}.items()
    },
    **{
        f"v_med3_{kind}": vector(
            kind,
            f"{kind} {kind} {kind}",
            lambda a, b, c: np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c)),
        )
        for kind in ("i32", "u32")
    },
    "v_sad_u32": vector(
        "u32", "u32 u32 u32", lambda a, b, c: np.maximum(a, b) - np.minimum(a, b) + c
    ),
}


VECTOR: dict[str, Build] = {**FLOAT, **CONVERT, **INTEGER, **_comparisons()}
