"""Vector arithmetic on integers and bits, and moves: one value per lane.

Sources: the VOP1, VOP2, VOP3 chapters of AMD's MI300 (CDNA3), CDNA4, RDNA3 and RDNA4 instruction
set manuals. A name that RDNA gave to an old instruction stands beside the old name.
"""

from __future__ import annotations

import numpy as np

from ..state import Lanes
from .alu import Build, Function, named, vector

U32, U64, I32, I64, F64 = np.uint32, np.uint64, np.int32, np.int64, np.float64
_ALL = 0xFFFFFFFF


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
    return (data >> (shift & U32(31)).astype(U64)).astype(U32)


def _reverse_bits(a: Lanes) -> Lanes:
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF)):
        a = ((a >> U32(shift)) & U32(mask)) | ((a & U32(mask)) << U32(shift))
    return (a >> U32(16)) | (a << U32(16))


def _leading_zeros(a: Lanes) -> Lanes:
    _, power = np.frexp(a.astype(F64))
    return np.where(a == 0, U32(0xFFFFFFFF), U32(32) - power.astype(U32))


def _sign_bits(a: Lanes) -> Lanes:
    """How many of the highest bits are alike; of 0 and of -1 none is told."""
    return _leading_zeros(np.where(a >> U32(31) == 1, ~a, a))


def _median(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


def _trailing_zeros(a: Lanes) -> Lanes:
    low = a & (~a + U32(1))
    return np.where(a == 0, U32(0xFFFFFFFF), np.bitwise_count(low - U32(1)))


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
    return total.astype(U32), total > 0xFFFFFFFF


def _subb_co(a: Lanes, b: Lanes, borrow: Lanes) -> tuple[Lanes, Lanes]:
    total = a.astype(I64) - b - borrow
    return total.astype(U32), total < 0


def _mad_u64(a: Lanes, b: Lanes, c: Lanes) -> tuple[Lanes, Lanes]:
    total = a.astype(U64) * b + c
    return total, total < c


def _mad_i64(a: Lanes, b: Lanes, c: Lanes) -> tuple[Lanes, Lanes]:
    """The carry is bit 64 of the sum in 65 bits: its sign."""
    product = a.astype(I64) * b
    total = product + c
    return total, np.where((product < 0) == (c < 0), c < 0, total < 0)


INTEGERS: dict[str, Build] = {
    "v_mov_b32": vector("b32", "b32", lambda a: a),
    "v_mov_b16": vector("b16", "b16", lambda a: a),
    "v_mov_b64": vector("b64", "b64", lambda a: a),
    "v_accvgpr_read_b32": vector("b32", "b32", lambda a: a),
    "v_accvgpr_write_b32": vector("b32", "b32", lambda a: a),
    "v_accvgpr_mov_b32": vector("b32", "b32", lambda a: a),
    **named("v_cndmask_b32", vector("b32", "b32 b32 mask", lambda a, b, c: np.where(c, b, a))),
    **named("v_cndmask_b16", vector("b16", "b16 b16 mask", lambda a, b, c: np.where(c, b, a))),
    **named("v_add_u32 v_add_nc_u32", vector("u32", "u32 u32", lambda a, b: a + b, saturates=True)),
    **named("v_sub_u32 v_sub_nc_u32", vector("u32", "u32 u32", lambda a, b: a - b, saturates=True)),
    **named(
        "v_subrev_u32 v_subrev_nc_u32", vector("u32", "u32 u32", lambda a, b: b - a, saturates=True)
    ),
    **named("v_add_i32 v_add_nc_i32", vector("i32", "i32 i32", lambda a, b: a + b, saturates=True)),
    **named("v_sub_i32 v_sub_nc_i32", vector("i32", "i32 i32", lambda a, b: a - b, saturates=True)),
    **named("v_add_u16 v_add_nc_u16", vector("u16", "u16 u16", lambda a, b: a + b, saturates=True)),
    **named("v_sub_u16 v_sub_nc_u16", vector("u16", "u16 u16", lambda a, b: a - b, saturates=True)),
    "v_mul_lo_u16": vector("u16", "u16 u16", lambda a, b: a * b),
    "v_add_co_u32": vector("u32", "u32 u32", _add_co, carry=True, limit=_ALL),
    "v_sub_co_u32": vector("u32", "u32 u32", lambda a, b: (a - b, b > a), carry=True, limit=0),
    "v_subrev_co_u32": vector("u32", "u32 u32", lambda a, b: (b - a, a > b), carry=True, limit=0),
    **named(
        "v_addc_co_u32 v_add_co_ci_u32",
        vector("u32", "u32 u32 mask", _addc_co, carry=True, limit=_ALL),
    ),
    **named(
        "v_subb_co_u32 v_sub_co_ci_u32",
        vector("u32", "u32 u32 mask", _subb_co, carry=True, limit=0),
    ),
    **named(
        "v_subbrev_co_u32 v_subrev_co_ci_u32",
        vector("u32", "u32 u32 mask", lambda a, b, c: _subb_co(b, a, c), carry=True, limit=0),
    ),
    "v_mul_lo_u32": vector("u32", "u32 u32", lambda a, b: a * b),
    "v_mul_lo_i32": vector("u32", "u32 u32", lambda a, b: a * b),
    "v_mul_hi_u32": vector("u32", "u32 u32", _mul_hi),
    "v_mul_hi_i32": vector("i32", "i32 i32", _mul_hi_signed),
    "v_mul_u32_u24": vector("u32", "u24 u24", lambda a, b: a * b),
    "v_mul_i32_i24": vector("i32", "i24 i24", lambda a, b: a * b),
    "v_mul_hi_u32_u24": vector("u32", "u24 u24", _mul_hi),
    "v_mul_hi_i32_i24": vector("i32", "i24 i24", _mul_hi_signed),
    "v_mad_u32_u24": vector("u32", "u24 u24 u32", lambda a, b, c: a * b + c, saturates=True),
    "v_mad_i32_i24": vector("i32", "i24 i24 i32", lambda a, b, c: a * b + c, saturates=True),
    **named("v_mad_u64_u32 v_mad_co_u64_u32", vector("u64", "u32 u32 u64", _mad_u64, carry=True)),
    **named("v_mad_i64_i32 v_mad_co_i64_i32", vector("i64", "i32 i32 i64", _mad_i64, carry=True)),
    "v_mad_u16": vector(
        "u16", "u16 u16 u16", lambda a, b, c: a * b + c, preserve=True, saturates=True
    ),
    "v_mad_i16": vector(
        "i16", "i16 i16 i16", lambda a, b, c: a * b + c, preserve=True, saturates=True
    ),
    "v_mad_u32_u16": vector("u32", "u16 u16 u32", lambda a, b, c: a * b + c, saturates=True),
    "v_mad_i32_i16": vector("i32", "i16 i16 i32", lambda a, b, c: a * b + c, saturates=True),
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
    "v_mad_u32": vector("u32", "u32 u32 u32", lambda a, b, c: a * b + c),
    "v_mad_nc_u64_u32": vector("u64", "u32 u32 u64", lambda a, b, c: a.astype(U64) * b + c),
    "v_mad_nc_i64_i32": vector("i64", "i32 i32 i64", lambda a, b, c: a.astype(I64) * b + c),
    "v_mul_u64": vector("u64", "u64 u64", lambda a, b: a * b),
    "v_add_nc_u64": vector("u64", "u64 u64", lambda a, b: a + b),
    "v_sub_nc_u64": vector("u64", "u64 u64", lambda a, b: a - b),
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
    **named("v_ffbh_i32 v_cls_i32", vector("u32", "u32", _sign_bits)),
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
        f"v_{name}3_{kind}": vector(
            kind,
            f"{kind} {kind} {kind}",
            lambda a, b, c, f=function: f(f(a, b), c),
            preserve=True,
        )
        for kind in ("i16", "u16")
        for name, function in {"min": np.minimum, "max": np.maximum}.items()
    },
    **{
        f"v_med3_{kind}": vector(kind, f"{kind} {kind} {kind}", _median, preserve=True)
        for kind in ("i32", "u32", "i16", "u16")
    },
}
