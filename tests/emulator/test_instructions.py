"""Single instructions at the values where they are easy to get wrong.

Expectations are written from AMD's instruction set manuals, in bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance.devices.assembly import parse_instruction
from conformance.devices.isa.instructions.table import build_step
from conformance.devices.isa.mode import FP16_OVFL
from conformance.devices.isa.numbers import FP8, fma32
from conformance.devices.isa.state import EXEC, VCC
from conformance.devices.isa.target import UnknownError
from tests.emulator.isa_cases import (
    GFX942,
    GFX950,
    GFX1100,
    GFX1201,
    INF,
    LARGEST_DENORMAL,
    NAN,
    NINF,
    NZERO,
    TINY,
    f16,
    f32,
    run,
    state,
)

ONE, TWO, HALF = f32(1.0), f32(2.0), f32(0.5)
ALL = 0xFFFFFFFF


# (instruction, v1, v2, v3, v0 afterwards)
VECTOR = [
    ("v_add_f32_e32 v0, v1, v2", NZERO, NZERO, 0, NZERO),
    ("v_add_f32_e32 v0, v1, v2", NZERO, 0, 0, 0),
    ("v_add_f32_e32 v0, v1, v2", TINY, TINY, 0, 2),
    ("v_add_f32_e32 v0, v1, v2", INF, ONE, 0, INF),
    ("v_add_f32_e64 v0, -v1, |v2|", ONE, f32(-3.0), 0, TWO),
    ("v_add_f32_e64 v0, v1, v2 clamp", TWO, TWO, 0, ONE),
    ("v_mul_f32_e64 v0, v1, v2 mul:2", TWO, TWO, 0, f32(8.0)),
    ("v_sub_f32_e32 v0, v1, v2", ONE, TWO, 0, f32(-1.0)),
    ("v_subrev_f32_e32 v0, v1, v2", ONE, TWO, 0, ONE),
    ("v_mul_f32_e32 v0, v1, v2", LARGEST_DENORMAL, ONE, 0, LARGEST_DENORMAL),
    ("v_max_f32_e32 v0, v1, v2", NAN, ONE, 0, ONE),
    ("v_max_f32_e32 v0, v1, v2", NZERO, 0, 0, 0),
    ("v_min_f32_e32 v0, v1, v2", 0, NZERO, 0, NZERO),
    ("v_min_f32_e32 v0, v1, v2", ONE, NAN, 0, ONE),
    ("v_max3_f32 v0, v1, v2, v3", ONE, NAN, TWO, TWO),
    ("v_med3_f32 v0, v1, v2, v3", ONE, TWO, HALF, ONE),
    ("v_exp_f32_e32 v0, v1", NINF, 0, 0, 0),
    ("v_exp_f32_e32 v0, v1", f32(-127.0), 0, 0, 0),
    ("v_exp_f32_e32 v0, v1", f32(-126.0), 0, 0, 0x00800000),
    ("v_exp_f32_e32 v0, v1", INF, 0, 0, INF),
    ("v_log_f32_e32 v0, v1", 0, 0, 0, NINF),
    ("v_log_f32_e32 v0, v1", LARGEST_DENORMAL, 0, 0, NINF),
    ("v_rcp_f32_e32 v0, v1", NZERO, 0, 0, NINF),
    ("v_rcp_f32_e32 v0, v1", f32(2.0**127), 0, 0, 0),
    ("v_rcp_f32_e32 v0, v1", TWO, 0, 0, HALF),
    ("v_sqrt_f32_e32 v0, v1", f32(4.0), 0, 0, TWO),
    ("v_rndne_f32_e32 v0, v1", f32(2.5), 0, 0, TWO),
    ("v_fract_f32_e32 v0, v1", f32(-0.25), 0, 0, f32(0.75)),
    ("v_ldexp_f32 v0, v1, v2", ONE, -149 & ALL, 0, TINY),
    ("v_ldexp_f32 v0, v1, v2", ONE, 1000, 0, INF),
    ("v_frexp_exp_i32_f32_e32 v0, v1", f32(8.0), 0, 0, 4),
    ("v_fma_f32 v0, v1, v2, v3", f32(1 + 2**-12), f32(1 - 2**-12), f32(-1.0), f32(-(2.0**-24))),
    ("v_cvt_i32_f32_e32 v0, v1", NAN, 0, 0, 0),
    ("v_cvt_i32_f32_e32 v0, v1", f32(3e9), 0, 0, 0x7FFFFFFF),
    ("v_cvt_i32_f32_e32 v0, v1", f32(-1.9), 0, 0, ALL),
    ("v_cvt_u32_f32_e32 v0, v1", f32(-1.0), 0, 0, 0),
    ("v_cvt_u32_f32_e32 v0, v1", INF, 0, 0, ALL),
    ("v_cvt_f16_f32_e32 v0, v1", f32(65520.0), 0, 0, 0x7C00),
    ("v_cvt_f16_f32_e32 v0, v1", f32(2.0**-25), 0, 0, 0),
    ("v_cvt_f16_f32_e32 v0, v1", f32(3 * 2.0**-26), 0, 0, 1),
    ("v_cvt_f32_f16_e32 v0, v1", 0xFFFF0001, 0, 0, f32(2.0**-24)),
    ("v_cvt_f32_ubyte3_e32 v0, v1", 0xFF000000, 0, 0, f32(255.0)),
    ("v_lshlrev_b32_e32 v0, v1, v2", 33, 1, 0, 2),
    ("v_lshrrev_b32_e32 v0, v1, v2", 32, NZERO, 0, NZERO),
    ("v_ashrrev_i32_e32 v0, v1, v2", 31, NZERO, 0, ALL),
    ("v_lshl_add_u32 v0, v1, v2, v3", 1, 32, 5, 6),
    ("v_bfe_u32 v0, v1, v2, v3", 0xABCD1234, 8, 0, 0),
    ("v_bfe_u32 v0, v1, v2, v3", 0xABCD1234, 8, 8, 0x12),
    ("v_bfe_i32 v0, v1, v2, v3", 0x0000F000, 12, 4, ALL),
    ("v_bfi_b32 v0, v1, v2, v3", 0xFFFF0000, 0x12345678, 0x9ABCDEF0, 0x1234DEF0),
    ("v_bfrev_b32_e32 v0, v1", 1, 0, 0, NZERO),
    ("v_ffbh_u32_e32 v0, v1", 0, 0, 0, ALL),
    ("v_ffbh_u32_e32 v0, v1", 1, 0, 0, 31),
    ("v_ffbl_b32_e32 v0, v1", NZERO, 0, 0, 31),
    ("v_mul_hi_u32 v0, v1, v2", ALL, ALL, 0, 0xFFFFFFFE),
    ("v_mul_u32_u24_e32 v0, v1, v2", 0xFF000002, 0xFF000003, 0, 6),
    ("v_mad_i32_i24 v0, v1, v2, v3", 0x00FFFFFF, 5, 7, 2),
    ("v_sub_u32_e64 v0, v1, v2 clamp", 3, 5, 0, 0),
    ("v_sub_u32_e64 v0, v1, v2", 3, 5, 0, 0xFFFFFFFE),
    ("v_add_u32_e64 v0, v1, v2 clamp", ALL, 5, 0, ALL),
    ("v_add_i32_e64 v0, v1, v2 clamp", 0x7FFFFFFF, 5, 0, 0x7FFFFFFF),
    ("v_sub_i32_e64 v0, v1, v2 clamp", NZERO, 5, 0, NZERO),
    ("v_add_u16_e64 v0, v1, v2 clamp", 0xFFFF, 2, 0, 0xFFFF),
    ("v_sub_u16_e64 v0, v1, v2 clamp", 1, 2, 0, 0),
    ("v_add3_u32 v0, v1, v2, v3", ALL, 1, 1, 1),
    ("v_xad_u32 v0, v1, v2, v3", 5, 3, 10, 16),
    ("v_perm_b32 v0, v1, v2, v3", 0x44332211, 0x88776655, 0x0C070500, 0x00442255),
    ("v_perm_b32 v0, v1, v2, v3", 0x80000000, 0x00008000, 0x0B080D0C, 0xFFFFFF00),
    ("v_alignbit_b32 v0, v1, v2, v3", 1, 0, 1, NZERO),
    ("v_pack_b32_f16 v0, v1, v2", 0xAAAA1111, 0xBBBB2222, 0, 0x22221111),
    ("v_pack_b32_f16 v0, -v1, v2", f16(1.0), f16(2.0), 0, f16(2.0) << 16 | f16(-1.0)),
    ("v_pack_b32_f16 v0, v1, -v2", 0, 0, 0, 0x80000000),
    ("v_pack_b32_f16 v0, |v1|, -|v2|", f16(-1.0), f16(-2.0), 0, f16(-2.0) << 16 | f16(1.0)),
    ("v_pk_add_f16 v0, v1, v2", f16(1.0) << 16 | f16(2.0), f16(3.0) << 16 | f16(4.0), 0,
     f16(4.0) << 16 | f16(6.0)),
    ("v_pk_mul_f16 v0, v1, v2 op_sel_hi:[0,1]", f16(9.0) << 16 | f16(2.0),
     f16(3.0) << 16 | f16(4.0), 0, f16(6.0) << 16 | f16(8.0)),
    ("v_fma_mix_f32 v0, v1, v2, v3 op_sel_hi:[1,0,0]", f16(3.0), TWO, ONE, f32(7.0)),
    ("v_fma_mixhi_f16 v0, v1, v2, v3", ONE, TWO, ONE, f16(3.0) << 16),
    ("v_med3_i32 v0, v1, v2, v3", -5 & ALL, 3, 1, 1),
    ("v_max_i32_e32 v0, v1, v2", ALL, 0, 0, 0),
    ("v_max_u32_e32 v0, v1, v2", ALL, 0, 0, ALL),
    ("v_div_fixup_f32 v0, v1, v2, v3", ONE, 0, 0, NAN),
    ("v_div_fixup_f32 v0, v1, v2, v3", ONE, 0, f32(-1.0), NINF),
    ("v_div_fixup_f32 v0, v1, v2, v3", TWO, INF, f32(-1.0), NZERO),
    # A numerator whose exponent is 150 less than the denominator's, and 151.
    ("v_div_fixup_f32 v0, v1, v2, v3", TWO, 200 << 23, 50 << 23, TWO),
    ("v_div_fixup_f32 v0, v1, v2, v3", TWO, 201 << 23, 50 << 23, 0),
    ("v_mov_b32_dpp v0, v1 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf", 7, 0, 0, 7),
    ("v_and_b32_sdwa v0, v1, v2 dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:WORD_1 src1_sel:DWORD",
     0x0003FFFF, 0x1, 0, 1),
    ("v_dot2_f32_f16 v0, v1, v2, v3", f16(2.0) << 16 | f16(3.0), f16(5.0) << 16 | f16(7.0), ONE,
     f32(32.0)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "one", "two", "three", "expected"), VECTOR)
def test_vector(text: str, one: int, two: int, three: int, expected: int) -> None:
    m = run(text, v={0: 0, 1: one, 2: two, 3: three})
    got = int(m.vector[0, 0, 5])
    if expected == NAN:
        assert np.isnan(np.uint32(got).view(np.float32))
    else:
        assert hex(got) == hex(expected)


# (instruction, s1, s2, scc before, s0 afterwards, scc afterwards)
SCALAR = [
    ("s_add_u32 s0, s1, s2", ALL, 1, False, 0, True),
    ("s_addc_u32 s0, s1, s2", ALL, 0, True, 0, True),
    ("s_sub_u32 s0, s1, s2", 0, 1, False, ALL, True),
    ("s_subb_u32 s0, s1, s2", 1, 1, True, ALL, True),
    ("s_add_i32 s0, s1, s2", 0x7FFFFFFF, 1, False, NZERO, True),
    ("s_add_i32 s0, s1, s2", ALL, 1, False, 0, False),
    ("s_sub_i32 s0, s1, s2", NZERO, 1, False, 0x7FFFFFFF, True),
    ("s_min_i32 s0, s1, s2", ALL, 0, False, ALL, True),
    ("s_max_i32 s0, s1, s2", 3, 3, False, 3, True),
    ("s_lshl_b32 s0, s1, s2", 1, 33, False, 2, True),
    ("s_lshr_b32 s0, s1, s2", 1, 1, True, 0, False),
    ("s_ashr_i32 s0, s1, s2", NZERO, 31, False, ALL, True),
    ("s_bfe_u32 s0, s1, 0x50019", 3 << 25, 0, False, 3, True),
    ("s_bfe_i32 s0, s1, 0x10006", 1 << 6, 0, False, ALL, True),
    ("s_and_b32 s0, s1, s2", 1, 2, True, 0, False),
    ("s_andn2_b32 s0, s1, s2", 7, 2, False, 5, True),
    ("s_cselect_b32 s0, s1, s2", 5, 6, True, 5, True),
    ("s_cselect_b32 s0, s1, s2", 5, 6, False, 6, False),
    ("s_movk_i32 s0, 0x8000", 0, 0, True, 0xFFFF8000, True),
    ("s_mul_hi_u32 s0, s1, s2", ALL, ALL, False, 0xFFFFFFFE, False),
    ("s_abs_i32 s0, s1", ALL, 0, False, 1, True),
    ("s_lshl4_add_u32 s0, s1, s2", 0x10000000, 5, False, 5, True),
    ("s_bcnt1_i32_b32 s0, s1", 0xF0F0, 0, False, 8, True),
    ("s_ff1_i32_b32 s0, s1", 0, 0, True, ALL, True),
    ("s_flbit_i32_b32 s0, s1", 1, 0, True, 31, True),
    ("s_cmp_lt_i32 s1, s2", ALL, 0, False, 9, True),
    ("s_cmp_lt_u32 s1, s2", ALL, 0, True, 9, False),
    ("s_cmpk_gt_i32 s1, 0x7f", 0x80, 0, False, 9, True),
    ("s_bitcmp0_b32 s1, 7", 0x80, 0, True, 9, False),
    ("s_add_f32 s0, s1, s2", ONE, ONE, False, TWO, False),
    ("s_cmp_neq_f32 s1, s2", NAN, NAN, False, 9, True),
]


@pytest.mark.parametrize(("text", "one", "two", "scc", "expected", "scc_after"), SCALAR)
def test_scalar(text: str, one: int, two: int, scc: bool, expected: int, scc_after: bool) -> None:
    m = run(text, s={0: 9, 1: one, 2: two}, scc=scc)
    assert (hex(int(m.scalar[0, 0])), bool(m.scc[0])) == (hex(expected), scc_after)


# (comparison, v1, v2, whether it holds)
COMPARISONS = [
    ("v_cmp_eq_f32_e32 vcc, v1, v2", NAN, NAN, False),
    ("v_cmp_neq_f32_e32 vcc, v1, v2", NAN, NAN, True),
    ("v_cmp_lg_f32_e32 vcc, v1, v2", NAN, ONE, False),
    ("v_cmp_nlt_f32_e32 vcc, v1, v2", NAN, ONE, True),
    ("v_cmp_o_f32_e32 vcc, v1, v2", NAN, ONE, False),
    ("v_cmp_u_f32_e32 vcc, v1, v2", ONE, NAN, True),
    ("v_cmp_eq_f32_e32 vcc, v1, v2", 0, NZERO, True),
    ("v_cmp_lt_i32_e32 vcc, v1, v2", ALL, 0, True),
    ("v_cmp_lt_u32_e32 vcc, v1, v2", ALL, 0, False),
    ("v_cmp_gt_u16_e32 vcc, v1, v2", 0xFFFF0001, 0x00000002, False),
    ("v_cmp_lt_f32_e64 vcc, |v1|, v2", f32(-3.0), TWO, False),
    ("v_cmp_class_f32_e32 vcc, v1, v2", NZERO, 0x20, True),
    ("v_cmp_class_f32_e32 vcc, v1, v2", TINY, 0x80, True),
    ("v_cmp_class_f32_e32 vcc, v1, v2", INF, 0x4, False),
]


@pytest.mark.parametrize(("text", "one", "two", "holds"), COMPARISONS)
def test_comparison(text: str, one: int, two: int, holds: bool) -> None:
    m = run(text, v={1: one, 2: two}, exec_mask=0xF0)
    assert int(m.scalar[VCC, 0]) == (0xF0 if holds else 0), "lanes that do not run give 0"
    assert int(m.scalar[VCC + 1, 0]) == 0


def test_lanes_off_are_not_written() -> None:
    m = run("v_mov_b32_e32 v0, 7", v={0: 5}, exec_mask=0b1010)
    assert m.vector[0, 0, :4].tolist() == [5, 7, 5, 7]


def test_a_pair_reads_before_it_writes() -> None:
    text = "v_dual_mov_b32 v0, v1 :: v_dual_mov_b32 v1, v0"
    m = run(text, GFX1100, v={0: 1, 1: 2})
    assert (int(m.vector[0, 0, 0]), int(m.vector[1, 0, 0])) == (2, 1)


def test_halves_of_registers() -> None:
    m = run("v_mov_b16_e32 v0.h, v1.l", GFX1100, v={0: 0x11112222, 1: 0x33334444})
    assert int(m.vector[0, 0, 0]) == 0x44442222
    m = run("v_add_f16_e32 v0, v1, v2", v={0: 0xFFFFFFFF, 1: f16(1.0), 2: f16(1.0)})
    assert int(m.vector[0, 0, 0]) == f16(2.0), "gfx9 clears the other half"
    m = run("v_add_nc_u16 v0.l, 1, v1.h", GFX1201, v={0: 0xABCD0000, 1: 0xFFFF0000})
    assert int(m.vector[0, 0, 0]) == 0xABCD0000


def test_carries() -> None:
    m = run("v_add_co_u32_e32 v0, vcc, v1, v2", v={1: ALL, 2: 1})
    assert (int(m.vector[0, 0, 0]), int(m.scalar[VCC, 0])) == (0, ALL)
    m = run("v_addc_co_u32_e32 v0, vcc, v1, v2, vcc", v={1: ALL, 2: 0}, s={VCC: 1, VCC + 1: 0})
    assert m.vector[0, 0, :2].tolist() == [0, ALL]
    assert int(m.scalar[VCC, 0]) == 1
    m = run("v_mad_u64_u32 v[4:5], s[0:1], v1, v2, v[2:3]", v={1: ALL, 2: ALL, 3: ALL})
    assert (int(m.vector[4, 0, 0]), int(m.vector[5, 0, 0])) == (0, 0xFFFFFFFE)
    assert int(m.scalar[0, 0]) == ALL


def test_exec_of_scalar_instructions() -> None:
    m = run("s_and_saveexec_b64 s[2:3], vcc", s={VCC: 0b0110, VCC + 1: 0}, exec_mask=0b0011)
    assert (int(m.scalar[EXEC, 0]), int(m.scalar[2, 0]), bool(m.scc[0])) == (0b0010, 0b0011, True)
    run("v_mov_b32_e32 v0, 1", on=m)
    assert m.vector[0, 0, :3].tolist() == [0, 1, 0]


@pytest.mark.parametrize("target", [GFX942, GFX950], ids=lambda t: str(t.name))
def test_fp8_is_the_targets_own(target: Any) -> None:
    """The same byte is 1.0 in one encoding and 0.5 in the other."""
    m = run("v_cvt_pk_f32_fp8_e32 v[2:3], v1", target, v={1: 0x3840})
    low = float(m.vector[2, 0, 0].view(np.float32))
    assert low == (1.0 if target is GFX942 else 2.0)
    m = run("v_cvt_pk_fp8_f32 v0, v1, v2 op_sel:[0,0,1]", target, v={0: 0xAAAA, 1: ONE, 2: NZERO})
    assert hex(int(m.vector[0, 0, 0])) == ("0x40aaaa" if target is GFX942 else "0x8038aaaa")


def test_fp8_saturates_only_when_asked() -> None:
    m = state(GFX950)
    m.mode = FP16_OVFL
    run("v_cvt_pk_fp8_f32 v0, v1, v2", GFX950, v={1: f32(1e6), 2: f32(-1e6)}, on=m)
    assert int(m.vector[0, 0, 0]) == 0xFE7E
    m = run("v_cvt_pk_fp8_f32 v0, v1, v2", GFX950, v={1: f32(1e6), 2: NAN})
    assert int(m.vector[0, 0, 0]) & 0x7F7F == 0x7F7F


@pytest.mark.parametrize("codec", FP8.values(), ids=lambda c: f"{c.flavour}{c.mantissa}")
def test_every_fp8_code_survives(codec: Any) -> None:
    codes = np.arange(256, dtype=np.uint32)
    values = codec.decode(codes)
    again = codec.decode(codec.encode(values, saturate=False))
    assert np.array_equal(values, again, equal_nan=True)
    finite = np.sort(values[np.isfinite(values)])
    middle = (finite[:-1].astype(np.float64) + finite[1:]) / 2
    nearest = codec.decode(codec.encode(middle.astype(np.float32), saturate=True))
    step = np.diff(finite.astype(np.float64)) / 2
    assert (np.abs(nearest - middle) <= step).all()


def test_fused_multiply_add_rounds_once() -> None:
    generator = np.random.default_rng(5)
    bits = generator.integers(0, 1 << 32, size=(3, 20_000), dtype=np.uint32)
    bits[:, :10_000] = bits[:, :10_000] & 0x807FFFFF | 0x3F000000
    a, b, c = bits.view(np.float32)
    with np.errstate(all="ignore"):
        got = fma32(a, b, c)
        # numpy's longdouble has 64 bits: more than the product, enough to tell the roundings apart.
        exact = a.astype(np.longdouble) * b + c
        near = np.isfinite(got) & np.isfinite(exact.astype(np.float64))
        gap = np.abs(got.astype(np.longdouble) - exact)[near]
        half = np.abs(np.spacing(got[near])).astype(np.longdouble) / 2
    assert (gap <= half).all()


@pytest.mark.parametrize("text", [
    "v_no_such_thing v0, v1",
    "v_add_f32_e32 v0, v1",
    "v_mul_lo_u32 v0, v1, v2 clamp",
    "buffer_load_dword v0, v1, s[0:3], 0 idxen",
    "v_mfma_f32_32x32x8_f16 v[0:15], v[0:1], v[2:3], 0 cbsz:1",
    "s_setreg_imm32_b32 hwreg(HW_REG_TRAPSTS, 0, 4), 1",
    "s_mov_b32 s0, src_private_base",
])  # fmt: skip
def test_what_is_unknown_is_refused(text: str) -> None:
    with pytest.raises(UnknownError):
        build_step(parse_instruction(text), GFX942)


def test_what_cannot_be_split_cannot_be_one_of_a_pair() -> None:
    with pytest.raises(UnknownError, match="v_dual_mov_b32 and v_dual_swap_b32 as a pair"):
        run("v_dual_mov_b32 v0, v1 :: v_dual_swap_b32 v2, v3", GFX1100)


@pytest.mark.parametrize(("numerator", "wanted"), [(971, 0x40000000), (970, 0)])
def test_a_quotient_of_doubles_that_is_too_small(numerator: int, wanted: int) -> None:
    """An exponent that is 1075 less than the denominator's is the last one that is not zero."""
    high = {3: 0x40000000, 5: 2046 << 20, 7: numerator << 20}
    m = run("v_div_fixup_f64 v[0:1], v[2:3], v[4:5], v[6:7]", v={2: 0, 4: 0, 6: 0, **high})
    assert (int(m.vector[1, 0, 0]), int(m.vector[0, 0, 0])) == (wanted, 0)
