"""Scalar instructions: one value a wave. The condition code is the last source, "scc"."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

from tests.emulator.isa_model.bits import Row, decode, divide, encode, fma, named, signed
from tests.emulator.isa_model.floats import (
    FLOAT_ORDER,
    ORDER,
    exp2,
    floor,
    flushed,
    greater,
    lesser,
    log2,
    root,
    strict,
    to_int,
    whole,
)
from tests.emulator.isa_model.integers import WORD, leading_zeros, reverse, trailing_zeros

RDNA = "gfx1100"


@dataclass(frozen=True)
class ScalarRow(Row):
    """``scc``: what becomes of the condition code: "" stays, "nonzero" tells whether the result is,
    "both": ``function`` gives it too, "only": it is the result. ``reads``: it is the last source.
    """

    scc: str = ""
    reads: bool = False


def row(result: str, sources: str, function: Callable[..., Any], scc: str = "",
        **more: Any) -> ScalarRow:  # fmt: skip
    return ScalarRow(result, sources, function, scc=scc, **more)


def u32(function: Callable[..., Any], scc: str = "", **more: Any) -> ScalarRow:
    return row("u32", "u32 u32", function, scc, **more)


def f32(function: Callable[..., Any], count: int = 2, **more: Any) -> ScalarRow:
    return row("f32", " ".join(["f32"] * count), function, target=RDNA, **more)


def overflowing(function: Callable[[int, int], int]) -> Callable[[int, int], tuple[int, bool]]:
    return lambda a, b: (function(a, b), function(a, b) != signed(function(a, b), 32))


def bits_field(a: int, b: int) -> int:
    """Offset in bits 0-4 of the second source, width in bits 16-22."""
    return a >> (b & 31) & (1 << (b >> 16 & 127)) - 1


def bits_field_signed(bits: int) -> Callable[[int, int], int]:
    def field(a: int, b: int) -> int:
        size = b >> 16 & 127
        if size == 0:
            return 0
        shifted = signed(a, bits) >> (b & bits - 1)
        return signed(shifted, size) if size < bits else shifted

    return field


def bitwise() -> dict[str, ScalarRow]:
    both: dict[str, Callable[[int, int], int]] = {
        "and": lambda a, b: a & b,
        "or": lambda a, b: a | b,
        "xor": lambda a, b: a ^ b,
        "andn2": lambda a, b: a & ~b,
        "and_not1": lambda a, b: a & ~b,
        "orn2": lambda a, b: a | ~b,
        "or_not1": lambda a, b: a | ~b,
        "nand": lambda a, b: ~(a & b),
        "nor": lambda a, b: ~(a | b),
        "xnor": lambda a, b: ~(a ^ b),
    }
    table = {
        f"s_{name}_b{n}": row(f"u{n}", f"u{n} u{n}", function, "nonzero")
        for name, function in both.items()
        for n in (32, 64)
    }
    for n in (32, 64):
        table[f"s_not_b{n}"] = row(f"u{n}", f"u{n}", lambda a: ~a, "nonzero")
        shifted = f"u{n} u32"
        table[f"s_lshl_b{n}"] = row(
            f"u{n}", shifted, lambda a, s, n=n: a << s % n & (1 << n) - 1, "nonzero"
        )
        table[f"s_lshr_b{n}"] = row(f"u{n}", shifted, lambda a, s, n=n: a >> s % n, "nonzero")
        table[f"s_ashr_i{n}"] = row(f"i{n}", f"i{n} u32", lambda a, s, n=n: a >> s % n, "nonzero")
        table[f"s_bcnt1_i32_b{n}"] = row("u32", f"u{n}", lambda a: a.bit_count(), "nonzero")
        table[f"s_brev_b{n}"] = row(f"u{n}", f"u{n}", reverse(n))
        for name in ("ff1", "ctz"):
            table[f"s_{name}_i32_b{n}"] = row("u32", f"u{n}", trailing_zeros)
        table[f"s_clz_i32_u{n}"] = row("u32", f"u{n}", lambda a, n=n: leading_zeros(a, n))
    return table


def comparisons() -> dict[str, ScalarRow]:
    order = {**ORDER, "lg": lambda a, b: a != b}
    table = {
        f"s_cmp_{name}_{kind}": row("", f"{kind} {kind}", function, "only")
        for (name, function), kind in product(order.items(), ("i32", "u32", "u64"))
    }
    for (name, function), kind in product(order.items(), "iu"):
        constant = -0x7FFF if kind == "i" else 0x8001
        table[f"s_cmpk_{name}_{kind}32"] = row(
            "", f"{kind}32", lambda a, f=function, c=constant: f(a, c), "only",
            form="{1}, 0x8001",
        )  # fmt: skip
    for name, function in FLOAT_ORDER.items():
        table[f"s_cmp_{name}_f32"] = row("", "f32 f32", function, "only", target=RDNA)
    return table


def quads(a: int, bits: int) -> list[bool]:
    return [bool(a >> at & 15) for at in range(0, bits, 4)]


def quad_rows() -> dict[str, ScalarRow]:
    table = {}
    for bits in (32, 64):
        table[f"s_quadmask_b{bits}"] = row(
            f"u{bits}",
            f"u{bits}",
            lambda a, n=bits: sum(on << at for at, on in enumerate(quads(a, n))),
            "nonzero",
        )
        table[f"s_wqm_b{bits}"] = row(
            f"u{bits}",
            f"u{bits}",
            lambda a, n=bits: sum(15 * on << 4 * at for at, on in enumerate(quads(a, n))),
            "nonzero",
        )
    return table


def packing() -> dict[str, ScalarRow]:
    def pack(one: int, two: int) -> Callable[[int, int], int]:
        return lambda a, b: (a >> 16 * one & 0xFFFF) | (b >> 16 * two & 0xFFFF) << 16

    return {
        f"s_pack_{'lh'[one]}{'lh'[two]}_b32_b16": u32(pack(one, two))
        for one, two in product((0, 1), (0, 1))
    }


def with_carry(a: int, b: int, scc: int) -> tuple[int, bool]:
    return a + b + scc, a + b + scc > WORD


def with_borrow(a: int, b: int, scc: int) -> tuple[int, bool]:
    return a - b - scc, a - b - scc < 0


SCALAR: dict[str, ScalarRow] = {
    "s_mov_b32": row("u32", "u32", lambda a: a),
    "s_mov_b64": row("u64", "u64", lambda a: a),
    "s_movk_i32": row("i32", "", lambda: -2, form="{0}, 0xfffe"),
    "s_cmov_b32": row("u32", "u32", lambda a, old, scc: a if scc else old, accumulates=True,
                      reads=True),
    "s_cselect_b32": u32(lambda a, b, scc: a if scc else b, reads=True),
    "s_cselect_b64": row("u64", "u64 u64", lambda a, b, scc: a if scc else b, reads=True),
    **named("s_add_u32 s_add_co_u32", u32(lambda a, b: (a + b, a + b > WORD), "both")),
    **named("s_addc_u32 s_add_co_ci_u32", u32(with_carry, "both", reads=True)),
    **named("s_sub_u32 s_sub_co_u32", u32(lambda a, b: (a - b, a < b), "both")),
    **named("s_subb_u32 s_sub_co_ci_u32", u32(with_borrow, "both", reads=True)),
    **named("s_add_i32 s_add_co_i32",
            row("i32", "i32 i32", overflowing(lambda a, b: a + b), "both")),
    **named("s_sub_i32 s_sub_co_i32",
            row("i32", "i32 i32", overflowing(lambda a, b: a - b), "both")),
    **named("s_addk_i32 s_addk_co_i32",
            row("i32", "", lambda d: overflowing(lambda a, b: a + b)(d, -3), "both",
                accumulates=True, form="{0}, 0xfffd")),
    "s_mulk_i32": row("i32", "", lambda d: d * -3, accumulates=True, form="{0}, 0xfffd"),
    "s_mul_i32": row("i32", "i32 i32", lambda a, b: a * b),
    "s_mul_hi_u32": u32(lambda a, b: a * b >> 32),
    "s_mul_hi_i32": row("i32", "i32 i32", lambda a, b: a * b >> 32),
    **named("s_add_u64 s_add_nc_u64", row("u64", "u64 u64", lambda a, b: a + b)),
    **named("s_sub_u64 s_sub_nc_u64", row("u64", "u64 u64", lambda a, b: a - b)),
    "s_mul_u64": row("u64", "u64 u64", lambda a, b: a * b),
    **{f"s_min_{k}": row(k, f"{k} {k}", lambda a, b: (min(a, b), a < b), "both")
       for k in ("i32", "u32")},
    **{f"s_max_{k}": row(k, f"{k} {k}", lambda a, b: (max(a, b), a >= b), "both")
       for k in ("i32", "u32")},
    "s_abs_i32": row("i32", "i32", abs, "nonzero"),
    **bitwise(),
    **{f"s_lshl{n}_add_u32": u32(lambda a, b, n=n: ((a << n) + b, (a << n) + b > WORD), "both")
       for n in (1, 2, 3, 4)},
    "s_bfe_u32": u32(bits_field, "nonzero"),
    "s_bfe_i32": row("i32", "u32 u32", bits_field_signed(32), "nonzero"),
    "s_bfe_u64": row("u64", "u64 u32",
                     lambda a, b: a >> (b & 63) & (1 << (b >> 16 & 127)) - 1, "nonzero"),
    "s_bfe_i64": row("i64", "u64 u32", bits_field_signed(64), "nonzero"),
    "s_bfm_b32": u32(lambda a, b: ((1 << (a & 31)) - 1) << (b & 31)),
    **packing(),
    **quad_rows(),
    "s_bitcmp0_b32": row("", "u32 u32", lambda a, n: not a >> (n & 31) & 1, "only"),
    "s_bitcmp1_b32": row("", "u32 u32", lambda a, n: bool(a >> (n & 31) & 1), "only"),
    "s_bitset0_b32": row("u32", "u32", lambda n, d: d & ~(1 << (n & 31)), accumulates=True),
    "s_bitset1_b32": row("u32", "u32", lambda n, d: d | 1 << (n & 31), accumulates=True),
    "s_flbit_i32_b32": row("u32", "u32", leading_zeros),
    "s_sext_i32_i16": row("i32", "u32", lambda a: signed(a, 16)),
    "s_sext_i32_i8": row("i32", "u32", lambda a: signed(a, 8)),
    **comparisons(),
    "s_add_f32": f32(lambda a, b: a + b),
    "s_sub_f32": f32(lambda a, b: a - b),
    "s_mul_f32": f32(lambda a, b: a * b),
    **named("s_max_f32 s_max_num_f32", f32(greater)),
    **named("s_min_f32 s_min_num_f32", f32(lesser)),
    "s_maximum_f32": f32(strict(greater)),
    "s_minimum_f32": f32(strict(lesser)),
    "s_fmac_f32": f32(fma, accumulates=True),
    "s_fmamk_f32": f32(lambda a, b: fma(a, 2.5, b), form="{0}, {1}, 0x40200000, {2}"),
    "s_fmaak_f32": f32(lambda a, b: fma(a, b, 2.5), form="{0}, {1}, {2}, 0x40200000"),
    "s_floor_f32": f32(floor, 1),
    "s_ceil_f32": f32(whole(math.ceil), 1),
    "s_trunc_f32": f32(whole(math.trunc), 1),
    "s_rndne_f32": f32(whole(round), 1),
    "s_cvt_f16_f32": row("2xf16", "f32", lambda a: encode(a, "f16"), target=RDNA),
    "s_cvt_f32_f16": row("f32", "u32", lambda a: decode(a & 0xFFFF, "f16"), target=RDNA),
    "s_cvt_hi_f32_f16": row("f32", "u32", lambda a: decode(a >> 16, "f16"), target=RDNA),
    "s_cvt_pk_rtz_f16_f32": row(
        "2xf16", "f32 f32", lambda a, b: encode(a, "f16", towards_zero=True)
        | encode(b, "f16", towards_zero=True) << 16, target=RDNA),
    "s_cvt_i32_f32": row("i32", "f32", to_int("i32"), target=RDNA),
    "s_cvt_u32_f32": row("u32", "f32", to_int("u32"), target=RDNA),
    "s_cvt_f32_i32": row("f32", "i32", lambda a: a, target=RDNA),
    "s_cvt_f32_u32": row("f32", "u32", lambda a: a, target=RDNA),
    **{f"v_s_{name}_f16": row("f16", "f16", function, target=RDNA, ulp=1)
       for name, function in (
           ("exp", exp2), ("log", log2), ("rcp", lambda a: divide(1.0, a)), ("sqrt", root),
           ("rsq", lambda a: divide(1.0, root(a)) if a else divide(1.0, a)))},
    "v_s_exp_f32": f32(flushed(exp2), 1, ulp=1),
    "v_s_log_f32": f32(flushed(log2), 1, ulp=1),
    "v_s_rcp_f32": f32(flushed(lambda a: divide(1.0, a)), 1, ulp=1),
    "v_s_sqrt_f32": f32(flushed(root), 1, ulp=1),
    "v_s_rsq_f32": f32(flushed(lambda a: divide(1.0, root(a)) if a else divide(1.0, a)), 1, ulp=1),
}  # fmt: skip

# EXEC afterwards, of the source and EXEC before, which goes to the destination.
SAVE_EXEC: dict[str, Callable[[int, int], int]] = {
    "and": lambda s, e: s & e,
    "or": lambda s, e: s | e,
    "xor": lambda s, e: s ^ e,
    "andn2": lambda s, e: s & ~e,
    "and_not1": lambda s, e: s & ~e,
    "and_not0": lambda s, e: ~s & e,
    "andn1": lambda s, e: ~s & e,
    "nand": lambda s, e: ~(s & e),
}
