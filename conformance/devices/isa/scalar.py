"""Scalar instructions: one value per wave.

Sources: the SOP1, SOP2, SOPC, SOPK chapters of AMD's MI300, RDNA3 and RDNA4 instruction manuals.
``b64`` operations on lane masks and their 32-bit forms of wave32 share a line.
"""

from __future__ import annotations

import numpy as np

from ..assembly import Instruction
from .alu import Build, Built, Function, effect, scalar
from .numbers import (
    FLOAT_COMPARISONS,
    fma32,
    from_half,
    half_towards_zero,
    max_num,
    maximum,
    min_num,
    minimum,
    to_half,
    to_int,
    transcendental,
)
from .operands import Target, UnknownError, constant_bits, scalar_reader, scalar_writer
from .state import EXEC, FP16_OVFL, Lanes, State

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
    return (total & 0xFFFFFFFF).astype(U32), total < 0


def _signed(function: Function) -> Function:
    """A signed sum or difference, with signed overflow as SCC."""

    def both(a: Lanes, b: Lanes) -> tuple[Lanes, Lanes]:
        exact = function(a.astype(np.int64), b.astype(np.int64))
        wrapped = (exact & 0xFFFFFFFF).astype(U32).view(I32)
        return wrapped, wrapped != exact

    return both


def _field(a: Lanes, b: Lanes) -> tuple[Lanes, Lanes]:
    offset, width = (b & U32(31)).astype(a.dtype), (b >> U32(16)) & U32(0x7F)
    one = a.dtype.type(1)
    mask = np.where(width >= 8 * a.itemsize, ~a.dtype.type(0), (one << width.astype(a.dtype)) - one)
    return offset, mask


def _bfe(a: Lanes, b: Lanes) -> Lanes:
    offset, mask = _field(a, b)
    return (a >> offset) & mask


def _bfe_signed(a: Lanes, b: Lanes) -> Lanes:
    offset, width = (b & U32(31)).astype(np.int64), ((b >> U32(16)) & U32(0x7F)).astype(np.int64)
    up = 64 - np.minimum(width, 32)
    value = np.where(width == 0, 0, ((a.astype(np.int64) >> offset) << up) >> up)
    return (value & 0xFFFFFFFF).astype(U32).view(I32)


def _bit_counts(a: Lanes) -> Lanes:
    return np.bitwise_count(a).astype(U32)


def _first_one(a: Lanes) -> Lanes:
    low = a & (~a + a.dtype.type(1))
    return np.where(a == 0, U32(0xFFFFFFFF), _bit_counts(low - a.dtype.type(1)))


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
        return (total & U64(0xFFFFFFFF)).astype(U32), total > 0xFFFFFFFF

    return both


def _named(names: str, build: Build) -> dict[str, Build]:
    """One instruction under the names that the generations gave it."""
    return dict.fromkeys(names.split(), build)


def _mask_widths(name: str, sources: str, function: Function) -> dict[str, Build]:
    """The 32-bit and the 64-bit form of a bitwise operation that sets SCC."""
    return {
        f"{name}_b{bits}": scalar(f"u{bits}", sources.replace("#", f"u{bits}"), function, "nonzero")
        for bits in (32, 64)
    }


def _save_exec(function: Function) -> Build:
    """D = EXEC; EXEC = function(S, old EXEC); SCC = EXEC != 0."""

    def build(ins: Instruction, _target: Target) -> Built:
        wide = ins.mnemonic.endswith("b64")
        kind = "u64" if wide else "u32"
        read = scalar_reader(ins.operands[1], kind)
        put = scalar_writer(ins.operands[0], kind)

        def step(m: State) -> None:
            old = m.s64(EXEC) if wide else m.s(EXEC).copy()
            value = function(read(m), old)
            put(m, old)
            m.set_s(EXEC, (value & value.dtype.type(0xFFFFFFFF)).astype(U32))
            if wide:
                m.set_s(EXEC + 1, (value >> U64(32)).astype(U32))
            m.scc[m.sel] = value != 0

        return effect(step)

    return build


def _setreg(ins: Instruction, _target: Target) -> Built:
    """Only MODE can be set, and of MODE only what changes a result: FP16_OVFL."""
    words = ins.operands[0].text.removeprefix("hwreg(").removesuffix(")").split(",")
    name, offset, width = words[0].strip(), int(words[1]), int(words[2])
    if name not in ("HW_REG_MODE", "HW_REG_WAVE_MODE", "1") or ins.operands[1].value is None:
        raise UnknownError(f"s_setreg of {name}")
    mask = ((1 << width) - 1) << offset
    value = (constant_bits(ins.operands[1], "u32") << offset) & mask
    if mask & ~(FP16_OVFL | 0x200 | 0x100):
        raise UnknownError(f"MODE bits {mask:#x}")

    def step(m: State) -> None:
        m.mode = (m.mode & ~mask) | value

    return effect(step)


def _load(words: int) -> Build:
    """Scalar loads: the address is a pair of registers plus an offset."""

    def build(ins: Instruction, _target: Target) -> Built:
        base = ins.operands[1].index
        offset = scalar_reader(ins.operands[2], "u32") if len(ins.operands) > 2 else None
        more = ins.number("offset")
        first = ins.operands[0].index

        def step(m: State) -> None:
            address = m.s64(base).view(np.int64) + more
            if offset is not None:
                address = address + offset(m).astype(np.int64)
            loaded = m.memory.load(address & ~np.int64(3), words)
            for word in range(words):
                m.set_s(first + word, loaded[word])

        return effect(step)

    return build


def _pack_towards_zero(a: Lanes, b: Lanes) -> Lanes:
    return half_towards_zero(a) | (half_towards_zero(b) << U32(16))


def _ignored(_ins: Instruction, _target: Target) -> Built:
    return effect(lambda _m: None)


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

# Instructions that order or time things, which an emulator that runs in order need not.
NO_EFFECT = [
    "s_nop",
    "s_waitcnt",
    "s_waitcnt_vscnt",
    "s_waitcnt_vmcnt",
    "s_waitcnt_expcnt",
    "s_waitcnt_lgkmcnt",
    "s_waitcnt_depctr",
    "s_delay_alu",
    "s_clause",
    "s_wait_loadcnt",
    "s_wait_storecnt",
    "s_wait_dscnt",
    "s_wait_kmcnt",
    "s_wait_loadcnt_dscnt",
    "s_wait_storecnt_dscnt",
    "s_wait_samplecnt",
    "s_wait_bvhcnt",
    "s_wait_expcnt",
    "s_wait_alu",
    "s_wait_event",
    "s_wait_idle",
    "s_wait_xcnt",
    "s_wait_asynccnt",
    "s_sleep",
    "s_setprio",
    "s_sethalt",
    "s_sendmsg",
    "s_icache_inv",
    "s_set_inst_prefetch_distance",
    "s_inst_prefetch",
    "s_code_end",
    "s_dcache_wb",
    "s_dcache_inv",
    "s_gl1_inv",
    "buffer_gl0_inv",
    "buffer_gl1_inv",
    "buffer_inv",
    "buffer_wbl2",
    "buffer_wbinvl1",
    "buffer_wbinvl1_vol",
    "global_inv",
    "global_wb",
    "global_wbinv",
    "s_prefetch_inst",
    "s_prefetch_inst_pc_rel",
    "s_prefetch_data",
    "s_denorm_mode",
    "s_round_mode",
    "sched_barrier",
    "s_ttracedata",
    "s_version",
    "v_nop",
]

SCALAR: dict[str, Build] = {
    "s_mov_b32": scalar("u32", "u32", lambda a: a.copy()),
    "s_mov_b64": scalar("u64", "u64", lambda a: a),
    "s_movk_i32": scalar("u32", "i16", lambda a: a.view(U32)),
    "s_cmov_b32": scalar("u32", "u32 dst", lambda a, d, c: np.where(c, a, d), "reads"),
    "s_cselect_b32": scalar("u32", "u32 u32", lambda a, b, c: np.where(c, a, b), "reads"),
    "s_cselect_b64": scalar("u64", "u64 u64", lambda a, b, c: np.where(c, a, b), "reads"),
    **_named("s_add_u32 s_add_co_u32", scalar("u32", "u32 u32", _add, "both")),
    **_named("s_addc_u32 s_add_co_ci_u32", scalar("u32", "u32 u32", _add_carry, "both,scc")),
    **_named(
        "s_sub_u32 s_sub_co_u32", scalar("u32", "u32 u32", lambda a, b: (a - b, b > a), "both")
    ),
    **_named("s_subb_u32 s_sub_co_ci_u32", scalar("u32", "u32 u32", _sub_borrow, "both,scc")),
    **_named(
        "s_add_i32 s_add_co_i32", scalar("i32", "i32 i32", _signed(lambda a, b: a + b), "both")
    ),
    **_named(
        "s_sub_i32 s_sub_co_i32", scalar("i32", "i32 i32", _signed(lambda a, b: a - b), "both")
    ),
    **_named(
        "s_addk_i32 s_addk_co_i32", scalar("i32", "dst i16", _signed(lambda a, b: a + b), "both")
    ),
    "s_mulk_i32": scalar("i32", "dst i16", lambda a, b: a * b),
    "s_mul_i32": scalar("i32", "i32 i32", lambda a, b: a * b),
    "s_mul_hi_u32": scalar(
        "u32", "u32 u32", lambda a, b: ((a.astype(U64) * b) >> U64(32)).astype(U32)
    ),
    "s_mul_hi_i32": scalar(
        "i32", "i32 i32", lambda a, b: ((a.astype(np.int64) * b) >> np.int64(32)).astype(I32)
    ),
    **_named("s_add_u64 s_add_nc_u64", scalar("u64", "u64 u64", lambda a, b: a + b)),
    **_named("s_sub_u64 s_sub_nc_u64", scalar("u64", "u64 u64", lambda a, b: a - b)),
    "s_mul_u64": scalar("u64", "u64 u64", lambda a, b: a * b),
    "s_min_i32": scalar("i32", "i32 i32", lambda a, b: (np.minimum(a, b), a < b), "both"),
    "s_max_i32": scalar("i32", "i32 i32", lambda a, b: (np.maximum(a, b), a >= b), "both"),
    "s_min_u32": scalar("u32", "u32 u32", lambda a, b: (np.minimum(a, b), a < b), "both"),
    "s_max_u32": scalar("u32", "u32 u32", lambda a, b: (np.maximum(a, b), a >= b), "both"),
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
    "s_lshl_b32": scalar("u32", "u32 u32", _shift(32, lambda a, n: a << n), "nonzero"),
    "s_lshl_b64": scalar("u64", "u64 u32", _shift(64, lambda a, n: a << n), "nonzero"),
    "s_lshr_b32": scalar("u32", "u32 u32", _shift(32, lambda a, n: a >> n), "nonzero"),
    "s_lshr_b64": scalar("u64", "u64 u32", _shift(64, lambda a, n: a >> n), "nonzero"),
    "s_ashr_i32": scalar("i32", "i32 u32", _shift(32, lambda a, n: a >> n), "nonzero"),
    "s_ashr_i64": scalar("i64", "i64 u32", _shift(64, lambda a, n: a >> n), "nonzero"),
    **{
        f"s_lshl{by}_add_u32": scalar("u32", "u32 u32", _lshl_add(by), "both")
        for by in (1, 2, 3, 4)
    },
    "s_bfe_u32": scalar("u32", "u32 u32", _bfe, "nonzero"),
    "s_bfe_i32": scalar("i32", "i32 u32", _bfe_signed, "nonzero"),
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
    **{f"s_{name}_f32": scalar("f32", "f32 f32", f) for name, f in _FLOATS.items()},
    "s_fmac_f32": scalar("f32", "f32 f32 dst", fma32),
    "s_fmamk_f32": scalar("f32", "f32 f32 f32", fma32),
    "s_fmaak_f32": scalar("f32", "f32 f32 f32", fma32),
    "s_floor_f32": scalar("f32", "f32", np.floor),
    "s_ceil_f32": scalar("f32", "f32", np.ceil),
    "s_trunc_f32": scalar("f32", "f32", np.trunc),
    "s_rndne_f32": scalar("f32", "f32", np.rint),
    **{
        f"s_cmp_{name}_f32": scalar("", "f32 f32", function, "only")
        for name, function in FLOAT_COMPARISONS.items()
    },
    "s_cvt_f16_f32": scalar("u32", "f32", to_half),
    "s_cvt_f32_f16": scalar("f32", "u16", from_half),
    "s_cvt_hi_f32_f16": scalar("f32", "u32", lambda a: from_half(a >> U32(16))),
    "s_cvt_pk_rtz_f16_f32": scalar("u32", "f32 f32", _pack_towards_zero),
    "s_cvt_i32_f32": scalar("i32", "f32", to_int(-(2**31), 2**31 - 1, I32)),
    "s_cvt_u32_f32": scalar("u32", "f32", to_int(0, 2**32 - 1, U32)),
    "v_s_exp_f32": scalar("f32", "f32", transcendental(np.exp2)),
    "v_s_log_f32": scalar("f32", "f32", transcendental(np.log2)),
    "v_s_rcp_f32": scalar("f32", "f32", transcendental(lambda a: np.float32(1) / a)),
    "v_s_sqrt_f32": scalar("f32", "f32", transcendental(np.sqrt)),
    "v_s_rsq_f32": scalar(
        "f32", "f32", transcendental(lambda a: 1.0 / np.sqrt(a.astype(np.float64)))
    ),
    "s_cvt_f32_i32": scalar("f32", "i32", lambda a: a.astype(np.float32)),
    "s_cvt_f32_u32": scalar("f32", "u32", lambda a: a.astype(np.float32)),
    **{
        f"s_{name}_saveexec_b{bits}": _save_exec(function)
        for bits in (32, 64)
        for name, function in {
            "and": lambda s, e: s & e,
            "or": lambda s, e: s | e,
            "xor": lambda s, e: s ^ e,
            "andn2": lambda s, e: s & ~e,
            "and_not1": lambda s, e: s & ~e,
            "and_not0": lambda s, e: ~s & e,
            "andn1": lambda s, e: ~s & e,
            "nand": lambda s, e: ~(s & e),
        }.items()
    },
    "s_setreg_imm32_b32": _setreg,
    "s_setreg_b32": _setreg,
    **{
        name: _load(words)
        for count, words in {"": 1, "x2": 2, "x3": 3, "x4": 4, "x8": 8, "x16": 16}.items()
        for name in (f"s_load_dword{count}", f"s_load_b{32 * words}")
    },
    **dict.fromkeys(NO_EFFECT, _ignored),
}
