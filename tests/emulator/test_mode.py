"""The MODE register: what it starts as, and what each of its bits does to results.

Expectations are written from the chapters on MODE and on VOP3's modifiers in AMD's instruction set
manuals, and agree with what AMD's emulator expects of the same bits:
https://github.com/ROCm/rocm-systems/tree/develop/emulation/rocjitsu/tests
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from conformance.devices.assembly import parse_instruction, parse_program
from conformance.devices.isa.code import make_code
from conformance.devices.isa.instructions.table import build_step
from conformance.devices.isa.machine import Machine, Tally
from conformance.devices.isa.memory import Memory
from conformance.devices.isa.mode import (
    DOWN,
    DX10_CLAMP,
    FP16_OVFL,
    IEEE,
    NEAREST,
    PLAIN,
    TOWARDS_ZERO,
    UP,
    initial_mode,
)
from conformance.devices.isa.state import Shape, State
from conformance.devices.isa.target import IsaTarget, UnknownError
from conformance.devices.targets import FAMILIES
from tests.emulator.isa_cases import GFX942, GFX950, GFX1100, GFX1201, NAN, f16, f32, run, state
from tests.emulator.isa_model.bits import Number, decode, edges, encode

FLUSH_IN, FLUSH_OUT, FLUSH = 0xE0, 0xD0, 0xC0  # of float32; 16 and 64 bits keep theirs
FLUSH_HALVES = 0x30
TINY, LESS_TINY = 0x00000001, 0x007FFFFF
HALF_TINY = 0x0001


def in_mode(mode: int, text: str, target: IsaTarget = GFX942, **registers: Any) -> State:
    m = state(target)
    m.mode = mode
    return run(text, target, on=m, **registers)


def result(mode: int, text: str, v: dict[int, int], target: IsaTarget = GFX942) -> int:
    return int(in_mode(mode, text, target, v=v).vector[0, 0, 5])


# (mode, instruction, v1, v2, v0 afterwards; v3 is 0)
CASES = [
    # Denormals of float32, read and written.
    (PLAIN, "v_mul_f32_e32 v0, v1, v2", TINY, f32(2.0), 2),
    (FLUSH_IN, "v_mul_f32_e32 v0, v1, v2", TINY, f32(2.0**24), 0),
    (FLUSH_OUT, "v_mul_f32_e32 v0, v1, v2", TINY, f32(2.0**24), f32(2.0**-125)),
    (FLUSH_OUT, "v_mul_f32_e32 v0, v1, v2", 0x80000001, f32(2.0), 0x80000000),
    (FLUSH_IN, "v_add_f32_e32 v0, v1, v2", f32(-(2.0**-126)), 0x00800001, TINY),
    (FLUSH_OUT, "v_add_f32_e32 v0, v1, v2", f32(-(2.0**-126)), 0x00800001, 0),
    (FLUSH, "v_add_f32_e32 v0, 1.0, v2", 0, TINY, f32(1.0)),
    (FLUSH, "v_max_f32_e32 v0, v1, v2", TINY, f32(-1.0), 0),
    (FLUSH, "v_fma_f32 v0, v1, v2, v3", LESS_TINY, f32(-1.0), 0),
    (FLUSH, "v_cvt_f16_f32_e32 v0, v1", TINY, 0, 0),
    (FLUSH, "v_mov_b32_e32 v0, v1", TINY, 0, TINY),
    (FLUSH, "v_and_b32_e32 v0, v1, v2", TINY, 7, TINY),
    (FLUSH, "v_add_u32_e32 v0, v1, v2", TINY, 7, 8),
    (FLUSH, "v_cvt_f32_f16_e32 v0, v1", HALF_TINY, 0, f32(2.0**-24)),
    (FLUSH, "v_pk_mul_f16 v0, v1, v2", HALF_TINY, f16(2.0), 2),
    (FLUSH, "v_pk_fma_f32 v[0:1], v[1:2], v[1:2], v[3:4]", TINY, TINY, 0),
    (FLUSH, "v_mul_f32_dpp v0, v1, v2 quad_perm:[0,1,2,3] row_mask:0xf bank_mask:0xf", TINY,
     f32(2.0**30), 0),
    (FLUSH, "v_sin_f32_e32 v0, v1", TINY, 0, 0),
    (PLAIN, "v_sin_f32_e32 v0, v1", TINY, 0, 6),
    # Denormals of halves.
    (FLUSH_HALVES, "v_cvt_f32_f16_e32 v0, v1", HALF_TINY, 0, 0),
    (FLUSH_HALVES, "v_add_f16_e32 v0, v1, v2", 0x0400, 0x8401, 0x8000),
    (0x70, "v_add_f16_e32 v0, v1, v2", 0x0400, 0x8401, 0x8000),
    (0xB0, "v_add_f16_e32 v0, v1, v2", 0x0400, 0x8401, 0x8001),
    (FLUSH_HALVES, "v_pk_mul_f16 v0, v1, v2", HALF_TINY << 16 | 0x8400, f16(0.5) << 16 | f16(0.5),
     0x00008000),
    (FLUSH_HALVES, "v_cvt_f16_f32_e32 v0, v1", f32(2.0**-24), 0, 0),
    (FLUSH_HALVES, "v_mul_f32_e32 v0, v1, v2", TINY, f32(2.0), 2),
    # A NaN and clamp.
    (PLAIN, "v_add_f32_e64 v0, v1, v2 clamp", NAN, f32(1.0), NAN),
    (PLAIN | DX10_CLAMP, "v_add_f32_e64 v0, v1, v2 clamp", NAN, f32(1.0), 0),
    (PLAIN | DX10_CLAMP, "v_add_f32_e64 v0, v1, v2 clamp", f32(0.5), f32(1.0), f32(1.0)),
    (PLAIN | DX10_CLAMP, "v_add_f32_e64 v0, v1, v2", NAN, f32(1.0), NAN),
    (PLAIN, "v_fma_mix_f32 v0, v1, v2, v3 clamp", NAN, f32(1.0), NAN),
    (PLAIN | DX10_CLAMP, "v_fma_mix_f32 v0, v1, v2, v3 clamp", NAN, f32(1.0), 0),
    (PLAIN | DX10_CLAMP, "v_pk_add_f16 v0, v1, v2 clamp", 0x7E00C000, 0, 0),
    (PLAIN, "v_pk_add_f16 v0, v1, v2 clamp", 0x7E00C000, 0, 0x7E000000),
    (PLAIN, "v_pk_mul_f16 v0, v1, v2 clamp", 0x3C004000, 0x3C004000, 0x3C003C00),
    (PLAIN, "v_pk_mul_f32 v[0:1], v[1:2], v[1:2] clamp", f32(3.0), f32(0.5), f32(1.0)),
    (PLAIN, "v_trunc_f32_e64 v0, |v1| clamp mul:2", f32(-0.5), 0, 0),
    (PLAIN, "v_add_f16_e64 v0, v1, v2 clamp", f16(-2.0), 0, 0),
    # Output modifiers, which the IEEE bit turns off.
    (PLAIN, "v_add_f32_e64 v0, v1, v2 mul:4", f32(3.0), f32(0.5), f32(14.0)),
    (PLAIN, "v_add_f32_e64 v0, v1, v2 div:2", f32(3.0), f32(0.5), f32(1.75)),
    (PLAIN, "v_add_f32_e64 v0, v1, v2 div:2", TINY, TINY, TINY),
    (FLUSH_OUT, "v_add_f32_e64 v0, v1, v2 div:2", 0x00800000, 0, 0),
    (PLAIN | IEEE, "v_add_f32_e64 v0, v1, v2 mul:4", f32(3.0), f32(0.5), f32(3.5)),
    (PLAIN | IEEE, "v_add_f32_e64 v0, v1, v2 clamp mul:4", f32(3.0), f32(-2.5), f32(0.5)),
    (PLAIN, "v_add_f32_e64 v0, v1, v2 clamp mul:4", f32(0.125), 0, f32(0.5)),
    # Halves that are too large.
    (PLAIN, "v_cvt_f16_f32_e32 v0, v1", f32(70000.0), 0, 0x7C00),
    (PLAIN | FP16_OVFL, "v_cvt_f16_f32_e32 v0, v1", f32(70000.0), 0, 0x7BFF),
    (PLAIN | FP16_OVFL, "v_cvt_f16_f32_e32 v0, v1", f32(-1e30), 0, 0xFBFF),
    (PLAIN | FP16_OVFL, "v_cvt_f16_f32_e32 v0, v1", f32(math.inf), 0, 0x7C00),
    (PLAIN | FP16_OVFL, "v_add_f16_e32 v0, v1, v2", 0x7BFF, 0x7BFF, 0x7BFF),
    (PLAIN | FP16_OVFL, "v_mul_f16_e32 v0, v1, v2", 0x7C00, 0xBC00, 0xFC00),
    (PLAIN | FP16_OVFL, "v_rcp_f16_e32 v0, v1", 0, 0, 0x7C00),
    (PLAIN | FP16_OVFL, "v_pk_mul_f16 v0, v1, v2", 0x7BFF7C00, f16(-2.0) << 16 | f16(2.0),
     0xFBFF7C00),
    (PLAIN | FP16_OVFL, "v_fma_mixlo_f16 v0, v1, v2, v3", f32(60000.0), f32(2.0), 0x7BFF),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "text", "one", "two", "expected"), CASES)
def test_what_a_mode_does(mode: int, text: str, one: int, two: int, expected: int) -> None:
    got = result(mode, text, {0: 0, 1: one, 2: two, 3: 0, 4: 0})
    if expected == NAN:
        assert math.isnan(decode(got, "f32"))
    else:
        assert hex(got) == hex(expected)


def test_packed_conversions_saturate_too() -> None:
    text, v = "v_cvt_pk_f16_f32 v0, v1, v2", {1: f32(70000.0), 2: f32(-70000.0)}
    assert result(PLAIN, text, v, GFX950) == 0xFC007C00
    assert result(PLAIN | FP16_OVFL, text, v, GFX950) == 0xFBFF7BFF
    m = in_mode(PLAIN | FP16_OVFL, "s_cvt_f16_f32 s0, s1", GFX1201, s={1: f32(70000.0)})
    assert int(m.scalar[0, 0]) == 0x7BFF


def test_scalar_floats_flush_too() -> None:
    text = "s_mul_f32 s0, s1, s2"
    for mode, expected in ((PLAIN, 2), (FLUSH_IN, 0), (FLUSH_OUT, 0)):
        m = in_mode(mode, text, GFX1201, s={1: TINY, 2: f32(2.0)})
        assert int(m.scalar[0, 0]) == expected


def test_comparisons_read_denormals_as_the_mode_says() -> None:
    for mode, holds in ((PLAIN, 1), (FLUSH_IN, 0)):
        m = in_mode(mode, "v_cmp_lt_f32_e32 vcc, 0, v1", v={1: TINY}, exec_mask=1)
        assert int(m.scalar[106, 0]) == holds
        m = in_mode(mode, "v_cmp_class_f32_e64 vcc, |v1|, v2", v={1: 0x80000001, 2: 0x80})
        assert int(m.scalar[106, 0]) == 0xFFFFFFFF, "a class is told of the bits as they are"


# -- rounding -------------------------------------------------------------------------------------
def directed(value: Number, kind: str, direction: int) -> int:
    """The bits of an exact value rounded in a direction, by the neighbours of the nearest."""
    if isinstance(value, float) and not math.isfinite(value):
        return encode(value, kind)
    zero = encode(value, kind, towards_zero=True)
    exact = not math.isinf(decode(zero, kind)) and Fraction(decode(zero, kind)) == Fraction(value)
    up = direction == UP and value > 0
    down = direction == DOWN and value < 0
    return zero if exact or not (up or down) else zero + 1


OPERATIONS: dict[str, tuple[str, str, Callable[[float, float], Fraction]]] = {
    "v_add_f32_e32 v0, v1, v2": ("f32", "f32", lambda a, b: Fraction(a) + Fraction(b)),
    "v_subrev_f32_e32 v0, v1, v2": ("f32", "f32", lambda a, b: Fraction(b) - Fraction(a)),
    "v_mul_f32_e32 v0, v1, v2": ("f32", "f32", lambda a, b: Fraction(a) * Fraction(b)),
    "v_fma_f32 v0, v1, v2, v1": (
        "f32", "f32", lambda a, b: Fraction(a) * Fraction(b) + Fraction(a)),
    "v_cvt_f16_f32_e32 v0, v1": ("f32", "f16", lambda a, _b: Fraction(a)),
    "v_add_f16_e32 v0, v1, v2": ("f16", "f16", lambda a, b: Fraction(a) + Fraction(b)),
    "v_mul_f16_e32 v0, v1, v2": ("f16", "f16", lambda a, b: Fraction(a) * Fraction(b)),
}  # fmt: skip


@pytest.mark.parametrize("direction", [UP, DOWN, TOWARDS_ZERO])
@pytest.mark.parametrize("text", OPERATIONS)
def test_rounding_in_a_direction(text: str, direction: int) -> None:
    source, kind, function = OPERATIONS[text]
    values = [b for b in edges(source) if math.isfinite(decode(b & 0xFFFF if source == "f16" else b,
                                                               source))]  # fmt: skip
    values += [bits ^ 1 << (15 if source == "f16" else 31) for bits in values]
    draw = random.Random(text)
    pairs = [(draw.choice(values), draw.choice(values)) for _ in range(64)]
    m = state()
    m.mode = PLAIN | direction | direction << 2
    m.select(np.array([0]))
    m.vector[1, 0] = [a for a, _ in pairs]
    m.vector[2, 0] = [b for _, b in pairs]
    with np.errstate(all="ignore"):
        build_step(parse_instruction(text), GFX942)(m)
    for lane, (a, b) in enumerate(pairs):
        one, two = (decode(x & 0xFFFF if source == "f16" else x, source) for x in (a, b))
        exact = function(one, two)
        if exact == 0:
            continue  # the sign of a zero is tested below
        got = int(m.vector[0, 0, lane]) & (0xFFFF if kind == "f16" else 0xFFFFFFFF)
        assert hex(got) == hex(directed(exact, kind, direction)), (one, two)


def test_the_sign_of_a_sum_that_cancels() -> None:
    v = {1: f32(1.5), 2: f32(-1.5)}
    for direction, sign in ((NEAREST, 0), (UP, 0), (DOWN, 0x80000000), (TOWARDS_ZERO, 0)):
        assert result(PLAIN | direction, "v_add_f32_e32 v0, v1, v2", v) == sign
        zero = {1: 0, 2: 0}
        assert result(PLAIN | direction, "v_add_f32_e32 v0, v1, v2", zero) == 0


@pytest.mark.parametrize(
    "text",
    ["v_pk_add_f16 v0, v1, v2", "v_pk_fma_f32 v[0:1], v[2:3], v[2:3], v[2:3]",
     "v_add_f64 v[0:1], v[2:3], v[2:3]", "v_fma_mixlo_f16 v0, v1, v2, v3"],
)  # fmt: skip
def test_a_rounding_mode_that_is_not_known_is_refused(text: str) -> None:
    result(PLAIN, text, {1: 0})
    with pytest.raises(UnknownError, match="rounding mode"):
        result(PLAIN | UP | UP << 2, text, {1: 0})


# -- where it comes from --------------------------------------------------------------------------
FIELDS = [
    ({}, PLAIN & ~0x30 | DX10_CLAMP | IEEE),
    ({"float_denorm_mode_32": 3}, PLAIN | DX10_CLAMP | IEEE),
    ({"float_denorm_mode_32": 3, "dx10_clamp": 0}, PLAIN | IEEE),
    ({"float_denorm_mode_32": 3, "ieee_mode": 0}, PLAIN | DX10_CLAMP),
    ({"float_denorm_mode_32": 1, "float_denorm_mode_16_64": 2, "ieee_mode": 0, "dx10_clamp": 0},
     0x90),
    ({"float_round_mode_32": 3, "float_round_mode_16_64": 1, "fp16_overflow": 1},
     0xC7 | FP16_OVFL | DX10_CLAMP | IEEE),
]  # fmt: skip


@pytest.mark.parametrize(("descriptor", "expected"), FIELDS)
def test_mode_starts_as_the_descriptor_says(descriptor: dict[str, int], expected: int) -> None:
    assert hex(initial_mode(descriptor, FAMILIES["CDNA3"])) == hex(expected)
    rdna4 = initial_mode(descriptor, FAMILIES["RDNA4"])
    assert rdna4 == expected & ~IEEE | DX10_CLAMP


def machine(body: str) -> Machine:
    """A workgroup of four waves; s0 holds the wave's number."""
    text = f"k:\n{body}\n\ts_endpgm\n.Lfunc_end0:\n\t.amdhsa_kernel k\n\t.end_amdhsa_kernel\n"
    made = State(Shape(4, 64, 8, 0, 1, 8, 0), Memory([]), None)
    made.scalar[0] = range(4)
    return Machine(make_code(parse_program(text), GFX942), made, [(0, 0, 0)], Tally())


MULTIPLY = "\tv_mov_b32_e32 v1, 1\n\tv_mul_f32_e32 v0, 2.0, v1\n"


def test_what_follows_a_change_goes_by_it() -> None:
    """In a loop that comes back with another mode, too."""
    started = machine(
        "\ts_mov_b32 s1, 0\n.Lagain:\n" + MULTIPLY + "\tv_mov_b32_e32 v2, v3\n"
        "\tv_mov_b32_e32 v3, v0\n\ts_setreg_imm32_b32 hwreg(HW_REG_MODE, 4, 2), 0\n"
        "\ts_add_u32 s1, s1, 1\n\ts_cmp_lg_u32 s1, 2\n\ts_cbranch_scc1 .Lagain"
    )
    started.run(None, 1000)
    assert started.state.vector[2:4, :, 0].tolist() == [[2] * 4, [0] * 4]


def test_a_target_s_mode_comes_before_the_waves_own() -> None:
    """As where native code is made for one mode."""
    held = {1: 1, 2: f32(2.0)}
    for mode, of_waves, wanted in ((0xC0, PLAIN, 0), (PLAIN, 0xC0, 2)):
        m = state(GFX942)
        m.mode = of_waves
        run("v_mul_f32_e32 v0, v1, v2", replace(GFX942, mode=mode), v=held, on=m)
        assert int(m.vector[0, 0, 0]) == wanted


@pytest.mark.parametrize("seed", [None, 1])
def test_waves_may_have_modes_of_their_own(seed: int | None) -> None:
    """Of two bits: wave 0 flushes both ways, 1 what it writes, 2 what it reads, 3 nothing."""
    started = machine(f"\ts_setreg_b32 hwreg(HW_REG_MODE, 4, 2), s0\n{MULTIPLY}")
    started.run(None if seed is None else np.random.default_rng(seed), 1000)
    assert started.state.vector[0, :, 0].tolist() == [0, 0, 0, 2]


@pytest.mark.parametrize("bit", [*range(10), 23])
def test_every_bit_that_changes_a_result_can_be_set(bit: int) -> None:
    """By itself, on and off again, and be read."""
    m = state(GFX942)
    for value in (1, 0, 1):
        run(f"s_setreg_imm32_b32 hwreg(HW_REG_MODE, {bit}, 1), {value}", on=m)
        run(f"s_getreg_b32 s0, hwreg(HW_REG_MODE, {bit}, 1)", on=m)
        assert int(m.scalar[0, 0]) == m.mode >> bit & 1 == value
        assert m.mode & ~(1 << bit) == PLAIN & ~(1 << bit)


def test_mode_bits_without_a_meaning_here_are_refused() -> None:
    for text, target in (
        ("s_setreg_imm32_b32 hwreg(HW_REG_MODE, 12, 1), 1", GFX942),
        ("s_setreg_imm32_b32 hwreg(HW_REG_WAVE_MODE, 8, 1), 1", GFX1201),
        ("s_getreg_b32 s0, hwreg(HW_REG_HW_ID)", GFX1100),
    ):
        with pytest.raises(UnknownError, match=r"MODE bits|s_getreg of"):
            build_step(parse_instruction(text), target)
