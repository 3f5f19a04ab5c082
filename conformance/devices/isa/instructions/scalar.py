"""Scalar instructions: one value per wave.

Sources: the SOP1, SOP2, SOPC, SOPK chapters of AMD's MI300, RDNA3 and RDNA4 instruction manuals.
``b64`` operations on lane masks and their 32-bit forms of wave32 share a line.
"""

from __future__ import annotations

import numpy as np

from ...assembly import Instruction
from ..elementary import exp2, log2
from ..numbers import (
    FLOAT_COMPARISONS,
    flush16,
    fma32,
    from_half,
    half_encoder,
    half_towards_zero,
    max_num,
    maximum,
    min_num,
    minimum,
    to_int,
    transcendental,
)
from ..state import Lanes
from ..target import IsaTarget
from .alu import Build, Built, Function, named, scalar

U32, U64, I32 = np.uint32, np.uint64, np.int32


def _shift(bits: int, function: Function) -> Function:
    return lambda a, b: function(a, (b & U32(bits - 1)).astype(a.dtype))


def _add(a: Lanes, b: Lanes) -> tuple[Lanes, Lanes]:
    total = a + b
    return total, total < a


def _add_carry(a: Lanes, b: Lanes, scc: Lanes) -> tuple[Lanes, Lanes]:
    total = a.astype(U64) + b + scc
    return total.astype(U32), total > 0xFFFFFFFF


def _sub_borrow(a: Lanes, b: Lanes, scc: Lanes) -> tuple[Lanes, Lanes]:
    total = a.astype(np.int64) - b - scc
    return total.astype(U32), total < 0


def _signed(function: Function) -> Function:
    """A signed sum or difference, with signed overflow as SCC."""

    def both(a: Lanes, b: Lanes) -> tuple[Lanes, Lanes]:
        exact = function(a.astype(np.int64), b.astype(np.int64))
        wrapped = exact.astype(U32).view(I32)
        return wrapped, wrapped != exact

    return both


def _field(a: Lanes, b: Lanes) -> tuple[Lanes, Lanes]:
    bits, one = 8 * a.itemsize, a.dtype.type(1)
    offset, width = (b & U32(bits - 1)).astype(a.dtype), (b >> U32(16)) & U32(0x7F)
    mask = np.where(width >= bits, ~a.dtype.type(0), (one << width.astype(a.dtype)) - one)
    return offset, mask


def _bfe(a: Lanes, b: Lanes) -> Lanes:
    offset, mask = _field(a, b)
    return (a >> offset) & mask


def _bfe_signed(a: Lanes, b: Lanes) -> Lanes:
    bits = 8 * a.itemsize
    offset = (b & U32(bits - 1)).astype(np.int64)
    width = ((b >> U32(16)) & U32(0x7F)).astype(np.int64)
    up = 64 - np.clip(width, 1, bits)
    value = np.where(width == 0, 0, ((a.astype(np.int64) >> offset) << up) >> up)
    return value.astype(a.dtype)


def _bit_counts(a: Lanes) -> Lanes:
    return np.bitwise_count(a).astype(U32)


def _first_one(a: Lanes) -> Lanes:
    low = a & (~a + a.dtype.type(1))
    return np.where(a == 0, U32(0xFFFFFFFF), _bit_counts(low - a.dtype.type(1)))


def _any_of_quad(a: Lanes) -> Lanes:
    """In the lowest bit of each four bits whether any of them is set."""
    one = a.dtype.type(1)
    pairs = a | (a >> one)
    ones = a.dtype.type(int("1" * (2 * a.itemsize), 16))
    return (pairs | (pairs >> (one + one))) & ones


def _quad_mask(a: Lanes) -> Lanes:
    """A bit for each four bits of a lane mask, packed together."""
    any_set = _any_of_quad(a)
    out = any_set & a.dtype.type(1)
    for quad in range(1, 2 * a.itemsize):
        out = out | ((any_set >> a.dtype.type(3 * quad)) & a.dtype.type(1 << quad))
    return out


def _whole_quads(a: Lanes) -> Lanes:
    """Each four bits of a lane mask all set, if any of them is."""
    return _any_of_quad(a) * a.dtype.type(15)


def _leading_zeros(a: Lanes) -> Lanes:
    bits = 8 * a.itemsize
    power = np.zeros(a.shape, dtype=U32)
    rest = a.copy()
    for step in (32, 16, 8, 4, 2, 1):
        if step < bits:
            high = rest >> a.dtype.type(step)
            power = np.where(high != 0, power + U32(step), power)
            rest = np.where(high != 0, high, rest)
    return np.where(a == 0, U32(0xFFFFFFFF), U32(bits - 1) - power)


def _reversed(a: Lanes) -> Lanes:
    data = np.ascontiguousarray(a).view(np.uint8).reshape(a.size, a.itemsize)
    bits = np.unpackbits(data, axis=1, bitorder="little")[:, ::-1]
    return np.packbits(bits, axis=1, bitorder="little").view(a.dtype).reshape(a.shape)


def _lshl_add(by: int) -> Function:
    def both(a: Lanes, b: Lanes) -> tuple[Lanes, Lanes]:
        total = (a.astype(U64) << U64(by)) + b
        return total.astype(U32), total > 0xFFFFFFFF

    return both


def _mask_widths(name: str, sources: str, function: Function) -> dict[str, Build]:
    """The 32-bit and the 64-bit form of a bitwise operation that sets SCC."""
    return {
        f"{name}_b{bits}": scalar(f"u{bits}", sources.replace("#", f"u{bits}"), function, "nonzero")
        for bits in (32, 64)
    }


def _pack_towards_zero(a: Lanes, b: Lanes) -> Lanes:
    return half_towards_zero(a) | (half_towards_zero(b) << U32(16))


def _to_half_in_mode(ins: Instruction, target: IsaTarget) -> Built:
    return scalar("u32", "f32", half_encoder(target.float_mode))(ins, target)


def _of_half(function: Function) -> Build:
    """A function of a float16 in a scalar register, through float32; the upper half becomes 0."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        mode = target.float_mode
        encode = half_encoder(mode)
        decode = (lambda a: flush16(from_half(a))) if mode.flush_in16 else from_half
        return scalar("u32", "u16", lambda a: encode(function(decode(a))))(ins, target)

    return build


_COMPARISONS: dict[str, Function] = {
    "eq": lambda a, b: a == b,
    "lg": lambda a, b: a != b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
}

_FLOATS: dict[str, Function] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "max": max_num,
    "max_num": max_num,
    "min": min_num,
    "min_num": min_num,
    "maximum": maximum,
    "minimum": minimum,
}

_HALF_FLOATS: dict[str, Function] = {
    "exp": exp2,
    "log": log2,
    "rcp": lambda a: np.float32(1) / a,
    "sqrt": np.sqrt,
    "rsq": lambda a: np.float32(1) / np.sqrt(a),
}

SCALAR: dict[str, Build] = {
    "s_mov_b32": scalar("u32", "u32", lambda a: a.copy()),
    "s_mov_b64": scalar("u64", "u64", lambda a: a),
    "s_movk_i32": scalar("u32", "i16", lambda a: a.view(U32)),
    "s_cmov_b32": scalar("u32", "u32 dst scc", lambda a, d, c: np.where(c, a, d)),
    "s_cselect_b32": scalar("u32", "u32 u32 scc", lambda a, b, c: np.where(c, a, b)),
    "s_cselect_b64": scalar("u64", "u64 u64 scc", lambda a, b, c: np.where(c, a, b)),
    **named("s_add_u32 s_add_co_u32", scalar("u32", "u32 u32", _add, "second")),
    **named("s_addc_u32 s_add_co_ci_u32", scalar("u32", "u32 u32 scc", _add_carry, "second")),
    **named(
        "s_sub_u32 s_sub_co_u32", scalar("u32", "u32 u32", lambda a, b: (a - b, b > a), "second")
    ),
    **named("s_subb_u32 s_sub_co_ci_u32", scalar("u32", "u32 u32 scc", _sub_borrow, "second")),
    **named(
        "s_add_i32 s_add_co_i32", scalar("i32", "i32 i32", _signed(lambda a, b: a + b), "second")
    ),
    **named(
        "s_sub_i32 s_sub_co_i32", scalar("i32", "i32 i32", _signed(lambda a, b: a - b), "second")
    ),
    **named(
        "s_addk_i32 s_addk_co_i32", scalar("i32", "dst i16", _signed(lambda a, b: a + b), "second")
    ),
    "s_mulk_i32": scalar("i32", "dst i16", lambda a, b: a * b),
    "s_mul_i32": scalar("i32", "i32 i32", lambda a, b: a * b),
    "s_mul_hi_u32": scalar(
        "u32", "u32 u32", lambda a, b: ((a.astype(U64) * b) >> U64(32)).astype(U32)
    ),
    "s_mul_hi_i32": scalar(
        "i32", "i32 i32", lambda a, b: ((a.astype(np.int64) * b) >> np.int64(32)).astype(I32)
    ),
    **named("s_add_u64 s_add_nc_u64", scalar("u64", "u64 u64", lambda a, b: a + b)),
    **named("s_sub_u64 s_sub_nc_u64", scalar("u64", "u64 u64", lambda a, b: a - b)),
    "s_mul_u64": scalar("u64", "u64 u64", lambda a, b: a * b),
    "s_min_i32": scalar("i32", "i32 i32", lambda a, b: (np.minimum(a, b), a < b), "second"),
    "s_max_i32": scalar("i32", "i32 i32", lambda a, b: (np.maximum(a, b), a >= b), "second"),
    "s_min_u32": scalar("u32", "u32 u32", lambda a, b: (np.minimum(a, b), a < b), "second"),
    "s_max_u32": scalar("u32", "u32 u32", lambda a, b: (np.maximum(a, b), a >= b), "second"),
    "s_abs_i32": scalar("i32", "i32", np.abs, "nonzero"),
    **_mask_widths("s_and", "# #", lambda a, b: a & b),
    **_mask_widths("s_or", "# #", lambda a, b: a | b),
    **_mask_widths("s_xor", "# #", lambda a, b: a ^ b),
    **_mask_widths("s_andn2", "# #", lambda a, b: a & ~b),
    **_mask_widths("s_and_not1", "# #", lambda a, b: a & ~b),
    **_mask_widths("s_orn2", "# #", lambda a, b: a | ~b),
    **_mask_widths("s_or_not1", "# #", lambda a, b: a | ~b),
    **_mask_widths("s_nand", "# #", lambda a, b: ~(a & b)),
    **_mask_widths("s_nor", "# #", lambda a, b: ~(a | b)),
    **_mask_widths("s_xnor", "# #", lambda a, b: ~(a ^ b)),
    **_mask_widths("s_not", "#", lambda a: ~a),
    **_mask_widths("s_quadmask", "#", _quad_mask),
    **_mask_widths("s_wqm", "#", _whole_quads),
    "s_lshl_b32": scalar("u32", "u32 u32", _shift(32, lambda a, n: a << n), "nonzero"),
    "s_lshl_b64": scalar("u64", "u64 u32", _shift(64, lambda a, n: a << n), "nonzero"),
    "s_lshr_b32": scalar("u32", "u32 u32", _shift(32, lambda a, n: a >> n), "nonzero"),
    "s_lshr_b64": scalar("u64", "u64 u32", _shift(64, lambda a, n: a >> n), "nonzero"),
    "s_ashr_i32": scalar("i32", "i32 u32", _shift(32, lambda a, n: a >> n), "nonzero"),
    "s_ashr_i64": scalar("i64", "i64 u32", _shift(64, lambda a, n: a >> n), "nonzero"),
    **{
        f"s_lshl{by}_add_u32": scalar("u32", "u32 u32", _lshl_add(by), "second")
        for by in (1, 2, 3, 4)
    },
    "s_bfe_u32": scalar("u32", "u32 u32", _bfe, "nonzero"),
    "s_bfe_i32": scalar("i32", "i32 u32", _bfe_signed, "nonzero"),
    "s_bfe_u64": scalar("u64", "u64 u32", _bfe, "nonzero"),
    "s_bfe_i64": scalar("i64", "i64 u32", _bfe_signed, "nonzero"),
    "s_bfm_b32": scalar(
        "u32", "u32 u32", lambda a, b: ((U32(1) << (a & U32(31))) - U32(1)) << (b & U32(31))
    ),
    "s_pack_ll_b32_b16": scalar("u32", "u32 u32", lambda a, b: (a & U32(0xFFFF)) | (b << U32(16))),
    "s_pack_lh_b32_b16": scalar(
        "u32", "u32 u32", lambda a, b: (a & U32(0xFFFF)) | (b & U32(0xFFFF0000))
    ),
    "s_pack_hh_b32_b16": scalar(
        "u32", "u32 u32", lambda a, b: (a >> U32(16)) | (b & U32(0xFFFF0000))
    ),
    "s_pack_hl_b32_b16": scalar("u32", "u32 u32", lambda a, b: (a >> U32(16)) | (b << U32(16))),
    "s_bitcmp0_b32": scalar("", "u32 u32", lambda a, b: (a >> (b & U32(31))) & U32(1) == 0, "only"),
    "s_bitcmp1_b32": scalar("", "u32 u32", lambda a, b: (a >> (b & U32(31))) & U32(1) == 1, "only"),
    "s_bitset0_b32": scalar("u32", "u32 dst", lambda a, d: d & ~(U32(1) << (a & U32(31)))),
    "s_bitset1_b32": scalar("u32", "u32 dst", lambda a, d: d | (U32(1) << (a & U32(31)))),
    "s_bcnt1_i32_b32": scalar("u32", "u32", _bit_counts, "nonzero"),
    "s_bcnt1_i32_b64": scalar("u32", "u64", _bit_counts, "nonzero"),
    "s_ff1_i32_b32": scalar("u32", "u32", _first_one),
    "s_ff1_i32_b64": scalar("u32", "u64", _first_one),
    "s_ctz_i32_b32": scalar("u32", "u32", _first_one),
    "s_ctz_i32_b64": scalar("u32", "u64", _first_one),
    "s_flbit_i32_b32": scalar("u32", "u32", _leading_zeros),
    "s_clz_i32_u32": scalar("u32", "u32", _leading_zeros),
    "s_clz_i32_u64": scalar("u32", "u64", _leading_zeros),
    "s_brev_b32": scalar("u32", "u32", _reversed),
    "s_brev_b64": scalar("u64", "u64", _reversed),
    "s_sext_i32_i16": scalar("i32", "i16", lambda a: a),
    "s_sext_i32_i8": scalar("i32", "i32", lambda a: (a << I32(24)) >> I32(24)),
    **{
        f"s_cmp_{name}_{kind}": scalar("", f"{kind} {kind}", function, "only")
        for name, function in _COMPARISONS.items()
        for kind in ("i32", "u32", "u64")
    },
    **{
        f"s_cmpk_{name}_{kind}": scalar(
            "", f"{kind} {'i16' if kind == 'i32' else 'u16'}", f, "only"
        )
        for name, f in _COMPARISONS.items()
        for kind in ("i32", "u32")
    },
    **{
        f"s_{name}_f32": scalar("f32", "f32 f32", f, rounds=name in ("add", "sub", "mul"))
        for name, f in _FLOATS.items()
    },
    "s_fmac_f32": scalar("f32", "f32 f32 dst", fma32),
    "s_fmamk_f32": scalar("f32", "f32 f32 f32", fma32),
    "s_fmaak_f32": scalar("f32", "f32 f32 f32", fma32),
    "s_floor_f32": scalar("f32", "f32", np.floor, rounds=False),
    "s_ceil_f32": scalar("f32", "f32", np.ceil, rounds=False),
    "s_trunc_f32": scalar("f32", "f32", np.trunc, rounds=False),
    "s_rndne_f32": scalar("f32", "f32", np.rint, rounds=False),
    **{
        f"s_cmp_{name}_f32": scalar("", "f32 f32", function, "only")
        for name, function in FLOAT_COMPARISONS.items()
    },
    "s_cvt_f16_f32": _to_half_in_mode,
    "s_cvt_f32_f16": scalar("f32", "u16", from_half, rounds=False),
    "s_cvt_hi_f32_f16": scalar("f32", "u32", lambda a: from_half(a >> U32(16)), rounds=False),
    "s_cvt_pk_rtz_f16_f32": scalar("u32", "f32 f32", _pack_towards_zero),
    "s_cvt_i32_f32": scalar("i32", "f32", to_int(-(2**31), 2**31 - 1, I32)),
    "s_cvt_u32_f32": scalar("u32", "f32", to_int(0, 2**32 - 1, U32)),
    "v_s_exp_f32": scalar("f32", "f32", transcendental(exp2), rounds=False),
    "v_s_log_f32": scalar("f32", "f32", transcendental(log2), rounds=False),
    "v_s_rcp_f32": scalar("f32", "f32", transcendental(lambda a: np.float32(1) / a), rounds=False),
    "v_s_sqrt_f32": scalar("f32", "f32", transcendental(np.sqrt), rounds=False),
    "v_s_rsq_f32": scalar(
        "f32",
        "f32",
        transcendental(lambda a: 1.0 / np.sqrt(a.astype(np.float64))),
        rounds=False,
    ),
    **{f"v_s_{name}_f16": _of_half(function) for name, function in _HALF_FLOATS.items()},
    "s_cvt_f32_i32": scalar("f32", "i32", lambda a: a.astype(np.float32)),
    "s_cvt_f32_u32": scalar("f32", "u32", lambda a: a.astype(np.float32)),
}
