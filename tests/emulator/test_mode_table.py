"""Every instruction on floats in every mode: what is flushed, how results are rounded.

A mode's effect is put before and behind the model of the plain instruction. Source: the chapters on
MODE in AMD's instruction set manuals.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest

from conformance.devices.assembly import parse_instruction
from conformance.devices.isa.instructions.table import build_step
from conformance.devices.isa.mode import DOWN, FP16_OVFL, PLAIN, TOWARDS_ZERO, UP, decode_mode
from conformance.devices.isa.target import UnknownError
from tests.emulator.isa_model import SCALAR, VECTOR
from tests.emulator.isa_model.bits import agree, decode, encode, inputs, read, write
from tests.emulator.test_forms import usual
from tests.emulator.test_mode import directed
from tests.emulator.test_vector import Asked, prepared

FLOATS = ("f32", "f16")
# What a mode may flush: float32 as it is read, as it is written; halves likewise.
FLUSHES = (0xE0, 0xD0, 0xC0, 0xB0, 0x70, 0x30, 0x00)
SMALLEST = {"f32": 2.0**-126, "f16": 2.0**-14}
# Dot products of halves read denormals whatever the mode says, and so do conversions of pairs; a
# move is none of floats, whatever its row says.
OWN_WAYS = re.compile(
    r"v_dot2|v_cvt_(scalef32|pk_f32|f32_[fb][pf]8)|v_cvt_pk_[fb][pf]8|v_bitop3|v_pk_mov"
)


def of_floats(name: str) -> bool:
    row = VECTOR[name]
    kinds = f"{row.result} {row.sources}".replace("2x", "").replace("low:", "").replace("high:", "")
    return any(kind in FLOATS for kind in kinds.split()) and not OWN_WAYS.match(name)


WITH_FLOATS = re.compile(r"\b(2x|low:|high:)?b?f\d\d\b")


def zeroed(kind: str, bits: int) -> int:
    """Bits of a float with a denormal made zero; of a pair each."""
    if kind.startswith("2x"):
        size, kind = (32, kind[2:]) if "32" in kind else (16, kind[2:])
        ones = (1 << size) - 1
        return zeroed(kind, bits & ones) | zeroed(kind, bits >> size) << size
    value = decode(bits & ((1 << (32 if kind == "f32" else 16)) - 1), kind)
    return encode(math.copysign(0.0, value), kind) if abs(value) < SMALLEST[kind] else bits


def flushed(kind: str, bits: int, singles: bool, halves: bool) -> int:
    plain = kind.removeprefix("2x").removeprefix("low:").removeprefix("high:")
    if (plain == "f32" and singles) or (plain == "f16" and halves):
        return zeroed(kind.partition(":")[2] or kind, bits)
    return bits


def results(asked: Asked, mode: int) -> list[int]:
    """What the instruction leaves in its registers, a lane each, in waves of a mode."""
    m = prepared(asked, asked.lanes)
    m.scalar[126:128] = 0xFFFFFFFF
    m.select(np.arange(1))
    target = replace(asked.target, mode=mode)
    with np.errstate(all="ignore"):
        build_step(parse_instruction(asked.text), target)(m)
    if asked.results[0] == "mask":
        return [int(bit) for bit in m.mask(20)[0]]
    low, high = m.vector[0, 0].tolist(), m.vector[1, 0].tolist()
    return [one | two << 32 for one, two in zip(low, high, strict=True)]


def part(kind: str, bits: int) -> int:
    """The bits of a result's registers that are the result."""
    if kind.startswith("high:"):
        return bits >> 16 & 0xFFFF
    size = {"2xf32": 64, "f64": 64, "u64": 64, "i64": 64}.get(kind)
    size = size or (16 if kind in ("f16", "i16", "u16", "b16", "low:f16") else 32)
    return bits & ((1 << size) - 1)


@pytest.mark.parametrize("name", [name for name in VECTOR if of_floats(name)])
def test_denormals(name: str) -> None:
    asked = usual(name)
    kind = asked.results[0]
    plain = kind.partition(":")[2] or kind
    wanted_of = cache(lambda seen: asked.wanted(seen)[0])
    for bits in FLUSHES:
        mode = decode_mode(bits)
        got = results(asked, bits)
        for lane, given in enumerate(asked.lanes):
            seen = [
                flushed(kind, word, mode.flush_in32, mode.flush_in16)
                for kind, word in zip(asked.kinds, given, strict=True)
            ]
            wanted = flushed(kind, wanted_of(tuple(seen)), mode.flush_out32, mode.flush_out16)
            one = part(kind, got[lane])
            near = asked.row.ulp and abs(decode(wanted, plain)) <= 2 * SMALLEST.get(plain, 0)
            assert near or agree(plain, one, wanted, asked.row), (
                f"{asked.text} in mode {bits:#x}: {[hex(b) for b in given]}: {one:#x}, {wanted:#x}"
            )


# -- rounding -------------------------------------------------------------------------------------
# Those of which it is known how a mode rounds them; and those whose result no mode rounds.
ROUNDED = re.compile(
    r"v_(add|sub|subrev|mul|fma|fmac|fmamk|madmk|fmaak|madak)_f(32|16)$"
    r"|v_cvt_f32_[iu]32|v_cvt_f16_(f32|[iu]16)|v_cvt_f32_f64|v_cvt_pk_(bf16|f16)_f32"
)
REFUSED = re.compile(
    r"v_ldexp_f(64|32|16)|v_div_fmas_f(64|32)|v_(add|mul|fma|fmac)_f64"
    r"|v_pk_(add|mul|fma)_f(16|32)|v_fma_mix"
)
ROUNDS = [n for n in VECTOR if of_floats(n) and ("bf16" not in n or n == "v_cvt_f32_bf16")]
ROUNDS += [n for n in VECTOR if "f64" in VECTOR[n].result and n not in ROUNDS]
DIRECTIONS = {UP: "up", DOWN: "down", TOWARDS_ZERO: "towards zero"}


@pytest.mark.parametrize("direction", DIRECTIONS, ids=DIRECTIONS.get)
@pytest.mark.parametrize("name", ROUNDS)
def test_rounding(name: str, direction: int) -> None:
    asked, mode = usual(name), PLAIN | direction | direction << 2
    if REFUSED.match(name):
        with pytest.raises(UnknownError, match="rounding mode"):
            results(asked, mode)
        return
    got = results(asked, mode)
    kind, seen = asked.results[0], 0
    if not ROUNDED.match(name):
        # A half goes through float32, and is rounded in the end.
        steps = int(kind == "f16" and (asked.row.ulp > 0 or name == "v_fract_f16"))
        pairs = zip(got, results(asked, PLAIN), strict=True)
        assert all(abs(one - two) <= steps for one, two in pairs), "no mode rounds it"
        return
    if kind.startswith("2x"):
        return
    for lane, given in enumerate(asked.lanes):
        values = [read(k, bits) for k, bits in zip(asked.kinds, given, strict=True)]
        if not all(math.isfinite(value) for value in values):
            continue
        exact = asked.row.function(*map(Fraction, values))
        if exact == 0:
            continue  # test_mode tells the sign of a sum that cancels
        assert hex(part(kind, got[lane])) == hex(directed(exact, kind, direction)), given
        seen += 1
    assert seen > 10


@pytest.mark.parametrize(
    # An exponential goes through float32, where it may be infinite before it is a half.
    "name",
    [n for n in VECTOR if VECTOR[n].result in ("f16", "low:f16") and of_floats(n)
     and n != "v_exp_f16"],
)  # fmt: skip
def test_halves_that_are_too_large(name: str) -> None:
    """With FP16_OVFL a finite result ends at the largest number; an infinite one stays."""
    asked = usual(name)
    kind, ended = asked.results[0], 0
    before, after = results(asked, PLAIN), results(asked, PLAIN | FP16_OVFL)
    for lane, pair in enumerate(zip(before, after, strict=True)):
        one, two = (part(kind, bits) for bits in pair)
        value = asked.row.function(*map(read, asked.kinds, asked.lanes[lane]))
        # A mixed product is a float32 first.
        finite = abs(value) < 2.0**128 if kind == "low:f16" else value not in (math.inf, -math.inf)
        over = one & 0x7FFF == 0x7C00 and finite
        assert two == (one - 1 if over else one), asked.lanes[lane]
        ended += over
    assert ended or not name.startswith(("v_add", "v_mul", "v_fma_", "v_ldexp", "v_cvt_f16_f32"))


@pytest.mark.parametrize("name", [n for n in (*VECTOR, *SCALAR) if not WITH_FLOATS.search(
    f"{(VECTOR.get(n) or SCALAR[n]).result} {(VECTOR.get(n) or SCALAR[n]).sources}")])  # fmt: skip
def test_no_mode_changes_what_has_no_floats(name: str) -> None:
    mode = TOWARDS_ZERO | TOWARDS_ZERO << 2 | FP16_OVFL
    if name in VECTOR:
        asked = usual(name)
        assert results(asked, mode) == results(asked, PLAIN)
    else:
        assert scalar_results(name, mode) == scalar_results(name, PLAIN)


# -- scalars --------------------------------------------------------------------------------------
def scalar_results(name: str, mode: int) -> tuple[list[tuple[int, ...]], list[int]]:
    """What the instruction is given, and leaves, a wave each."""
    from tests.emulator.test_scalar import (  # noqa: PLC0415 - it imports what is asked here
        TARGETS,
        WAVES,
        kinds_of,
        text_of,
        waves,
    )

    row = SCALAR[name]
    target = replace(TARGETS[row.target], mode=mode)
    kinds = kinds_of(row)
    given = inputs(kinds, WAVES, row.sources)
    m = waves(target)
    for place in range(len(kinds)):
        at = 0 if place >= len(row.sources.split()) else 2 * place + 2
        m.scalar[at] = [bits[place] & 0xFFFFFFFF for bits in given]
    with np.errstate(all="ignore"):
        build_step(parse_instruction(text_of(name, row)), target)(m)
    return given, [int(word) for word in (m.scc if row.scc == "only" else m.scalar[0])]


HALVES = [n for n in SCALAR if SCALAR[n].result == "f16"]
SINGLES = [n for n in SCALAR if "f32" in f"{SCALAR[n].result} {SCALAR[n].sources}".split()]
SCALAR_ROUNDED = re.compile(r"s_(add|sub|mul|fmac|fmamk|fmaak)_f32|s_cvt_f32_[iu]32")


@pytest.mark.parametrize("name", HALVES)
def test_denormals_of_scalar_halves(name: str) -> None:
    row = SCALAR[name]
    for bits in (0xB0, 0x70, 0x30):
        mode = decode_mode(bits)
        given, got = scalar_results(name, bits)
        for (word,), one in zip(given, got, strict=True):
            made = row.function(read("f16", flushed("f16", word, False, mode.flush_in16)))
            wanted = flushed("f16", write("f16", made), False, mode.flush_out16)
            near = abs(decode(wanted, "f16")) <= 2 * SMALLEST["f16"]
            assert near or agree("f16", one & 0xFFFF, wanted, row), (hex(bits), hex(word), hex(one))
    assert len(HALVES) == 5


@pytest.mark.parametrize("name", SINGLES)
def test_denormals_of_scalars(name: str) -> None:
    row = SCALAR[name]
    kinds: list[Any] = [*row.sources.split(), *([row.result] if row.accumulates else [])]
    for bits in (0xE0, 0xD0, 0xC0):
        mode = decode_mode(bits)
        given, got = scalar_results(name, bits)
        for words, one in zip(given, got, strict=True):
            pairs = zip(kinds, words, strict=True)
            seen = [flushed(kind, word, mode.flush_in32, False) for kind, word in pairs]
            made = row.function(*map(read, kinds, seen))
            if row.scc == "only":
                assert one == int(made), (hex(bits), words)
                continue
            wanted = flushed(row.result, write(row.result, made), mode.flush_out32, False)
            assert agree(row.result, one, wanted, row), (hex(bits), words, hex(one), hex(wanted))


@pytest.mark.parametrize("name", SINGLES)
def test_rounding_of_scalars(name: str) -> None:
    """Sums and products are refused in modes that round otherwise; no mode rounds the rest."""
    if SCALAR_ROUNDED.match(name):
        with pytest.raises(UnknownError, match="rounding mode"):
            scalar_results(name, PLAIN | UP)
    elif name != "s_cvt_f16_f32":
        assert scalar_results(name, PLAIN | UP | UP << 2) == scalar_results(name, PLAIN)
