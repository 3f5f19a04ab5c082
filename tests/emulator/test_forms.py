"""Every vector instruction in the forms that its operands may take.

A form says what becomes of a source's bits before the instruction sees them: a sign, half a
register, another lane's, a scalar's or a constant's. So it must leave what the plain instruction
leaves where registers hold those bits already, in every bit; test_vector holds the plain one to a
model.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from conformance.devices.assembly import parse_instruction
from conformance.devices.isa.instructions.table import build_step
from conformance.devices.isa.state import EXEC
from conformance.devices.isa.target import UnknownError
from tests.emulator.isa_cases import GFX1100
from tests.emulator.isa_model import VECTOR
from tests.emulator.isa_model.bits import decode, edges, encode, read, width
from tests.emulator.test_vector import OLD, RESULT_MASK, TARGETS, Asked, prepared

Rows = list[tuple[int, ...]]
SCALAR = 40  # a scalar register that a form names
HALVES = ("f16", "bf16", "u16", "i16", "b16")
# Integer instructions that saturate where "clamp" says so.
SATURATING = re.compile(
    r"v_(add|sub|subrev)(_nc)?_[iu](16|32)|v_mad_[iu](16|32_[iu](16|24))$"
    r"|v_dot[248]c?_[iu]32|v_(add|addc|sub|subb|subrev|subbrev)_co_(ci_)?u32"
)


def usual(name: str) -> Asked:
    row = VECTOR[name]
    return Asked(name, row, TARGETS[row.target], waves=1)


def left(asked: Asked, text: str, given: Rows, **how: Any) -> list[Any]:
    """All that an instruction leaves in its result's registers, and in its mask's."""
    m = prepared(asked, given)
    for register, bits in how.get("scalars", {}).items():
        m.scalar[register], m.scalar[register + 1] = bits & 0xFFFFFFFF, bits >> 32
    m.scc[:] = how.get("scc", False)
    if how.get("all_lanes"):
        m.scalar[EXEC : EXEC + 2] = 0xFFFFFFFF
        m.select(np.arange(1))
    with np.errstate(all="ignore"):
        build_step(parse_instruction(text), asked.target)(m)
    first = asked.target.agprs_at if "a{0n}" in asked.row.form else 0
    registers = m.vector[first : first + 2, 0].tolist()
    return [*registers, m.scalar[RESULT_MASK : RESULT_MASK + 2, 0].tolist()]


def changed(given: Rows, place: int, change: Callable[[int], int]) -> Rows:
    return [(*row[:place], change(row[place]), *row[place + 1 :]) for row in given]


def only(pattern: str, names: Sequence[str] = tuple(VECTOR)) -> list[str]:
    return [name for name in names if re.search(pattern, VECTOR[name].sources + " ")]


# -- signs ----------------------------------------------------------------------------------------
SIGNED = {"f16": 15, "bf16": 15, "f32": 31, "f64": 63}
SIGNS: tuple[tuple[str, Callable[[int, int], int]], ...] = (
    ("-{}", lambda bits, top: bits ^ top),
    ("|{}|", lambda bits, top: bits & ~top),
    ("-|{}|", lambda bits, top: bits | top),
)


@pytest.mark.parametrize("name", [n for n in only(r"\b(f16|bf16|f32|f64) ") if not VECTOR[n].only])
def test_signs(name: str) -> None:
    asked = usual(name)
    for turn in range(3):
        shown, given = asked.operands, asked.lanes
        for place, kind in enumerate(asked.sources):
            if kind in SIGNED:
                form, change = SIGNS[(turn + place) % 3]
                shown[place + 1] = form.format(shown[place + 1])
                top = 1 << SIGNED[kind]
                given = changed(given, place, lambda bits, c=change, t=top: c(bits, t))  # type: ignore[misc] # defaults bind
        if "{1}" in asked.row.form and "op_sel" in asked.row.form:
            continue  # signs of packed operands are modifiers of their own
        text = asked.text_with(shown)
        assert left(asked, text, asked.lanes) == left(asked, asked.text, given), text


# -- scalars and constants ------------------------------------------------------------------------
INTEGERS = (1, 64)
NEGATIVE = (-16,)  # as floats these are NaNs, whose payloads nobody promises
FRACTIONS = (0.5, -4.0)


def constants(kind: str) -> Iterator[tuple[str, int]]:
    """Constants as they are written, and their bits as an operand of a type."""
    bits = width(kind)
    for number in INTEGERS if kind in SIGNED else (*INTEGERS, *NEGATIVE):
        yield str(number), number & (1 << bits) - 1
    if kind in SIGNED:
        yield from ((str(value), encode(value, kind)) for value in FRACTIONS)
    if bits == 32:
        yield from ((hex(word), word) for word in (0xDEADBEEF,))


@pytest.mark.parametrize("name", [n for n in VECTOR if not VECTOR[n].only])
def test_a_scalar_or_a_constant(name: str) -> None:
    asked = usual(name)
    given = asked.lanes
    for place, kind in enumerate(asked.sources):
        if kind == "mask" or f"a{{{place + 1}n}}" in asked.row.form:
            continue
        size = "" if width(kind) <= 32 else f"[{SCALAR}:{SCALAR + 1}]"
        cases = [(f"s{size or SCALAR}", bits) for bits in edges(kind)[3:5]]
        if width(kind) <= 32 and not kind.startswith("2x") and kind != "scale":
            cases.append(("src_scc", 1))
        if not kind.startswith("2x") and kind not in ("scale", "u24", "i24"):
            cases += constants(kind)
        for shown, bits in cases:
            operands = asked.operands
            operands[place + 1] = shown
            text = asked.text_with(operands)
            got = left(asked, text, given, scalars={SCALAR: bits}, scc=True)
            wanted = left(asked, asked.text, changed(given, place, lambda _, b=bits: b))  # type: ignore[misc] # likewise
            assert got == wanted, (text, hex(bits))


# -- half a register ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", [n for n in only(r"\b(f16|bf16|u16|i16|b16) ") if not VECTOR[n].form]
)
@pytest.mark.parametrize("target", ["gfx9", "gfx11"])
def test_the_upper_half_of_a_source(name: str, target: str) -> None:
    """op_sel on gfx9, ``v1.h`` on RDNA3: each source by itself, then all."""
    asked = usual(name)
    if target == "gfx11":
        asked = Asked(name, asked.row, GFX1100, waves=1)
    rows = asked.lanes
    places = [place for place, kind in enumerate(asked.sources) if kind in HALVES]
    for chosen in ([place] for place in places) if len(places) == 1 else ([*places], places[1:]):
        # What is below must play no part; what is above must be what the plain one reads below.
        above = rows
        for place in chosen:
            above = changed(above, place, lambda bits: (bits & 0xFFFF) << 16 | 0x1234)
        operands = asked.operands
        if target == "gfx11":
            for place in chosen:
                operands[place + 1] += ".h"
            text = asked.text_with(operands)
        else:
            picks = ",".join(str(int(p in chosen)) for p in range(len(asked.sources)))
            text = f"{asked.text} op_sel:[{picks},0]"
        assert left(asked, text, above) == left(asked, asked.text, rows), text


@pytest.mark.parametrize(
    "name", [n for n in VECTOR if VECTOR[n].result in HALVES and not VECTOR[n].form]
)
@pytest.mark.parametrize("target", ["gfx9", "gfx11"])
def test_the_upper_half_of_a_result(name: str, target: str) -> None:
    """The lower one stays as it was."""
    asked = usual(name)
    if asked.row.accumulates:
        return  # its half of the destination is a source, too
    if target == "gfx11":
        asked = Asked(name, asked.row, GFX1100, waves=1)
        operands = asked.operands
        text = asked.text_with([operands[0] + ".h", *operands[1:]])
    else:
        text = f"{asked.text} op_sel:[{'0,' * len(asked.sources)}1]"
    low, _, _ = left(asked, asked.text, asked.lanes, all_lanes=True)
    high, _, _ = left(asked, text, asked.lanes, all_lanes=True)
    assert high == [(word & 0xFFFF) << 16 | OLD & 0xFFFF for word in low], text


# -- other lanes, parts of registers --------------------------------------------------------------
def permuted(rows: Rows, place: int, move: Callable[[int], int]) -> Rows:
    """Each lane has another lane's source."""
    return [
        (*row[:place], rows[move(lane)][place], *row[place + 1 :]) for lane, row in enumerate(rows)
    ]


def plain_sources(name: str, most: int) -> bool:
    """Whether an instruction's sources are few, and registers of 32 bits."""
    row = VECTOR[name]
    kinds = row.sources.split()
    return (
        not row.form
        and not row.only
        and "scalef32" not in name  # which no encoding with lanes or parts has
        and " mask" not in f"{row.result} {row.sources}"
        and len(kinds) <= most
        and all(width(kind) <= 32 for kind in (*kinds, row.result) if kind != "mask")
    )


@pytest.mark.parametrize("name", [n for n in VECTOR if plain_sources(n, 3)])
def test_another_lane_s_first_source(name: str) -> None:
    asked = usual(name)
    rows = asked.lanes
    wanted = left(
        asked, asked.text, permuted(rows, 0, lambda lane: lane // 16 * 16 + (lane - 3) % 16),
        all_lanes=True,
    )  # fmt: skip
    text = asked.text_with(asked.operands, "_dpp") + " row_ror:3 row_mask:0xf bank_mask:0xf"
    assert left(asked, text, rows, all_lanes=True) == wanted, text


@pytest.mark.parametrize("form", [form for form, _ in SIGNS])
@pytest.mark.parametrize(
    "name", [n for n in VECTOR if plain_sources(n, 3) and VECTOR[n].sources.split()[0] in SIGNED]
)
def test_the_sign_of_another_lane_s_first_source(name: str, form: str) -> None:
    asked = usual(name)
    top, change = 1 << SIGNED[asked.sources[0]], dict(SIGNS)[form]
    moved = permuted(asked.lanes, 0, lambda lane: lane // 16 * 16 + (lane - 3) % 16)
    moved = changed(moved, 0, lambda bits: change(bits, top))
    result, first, *others = asked.operands
    text = asked.text_with([result, form.format(first), *others], "_dpp")
    text += " row_ror:3 row_mask:0xf bank_mask:0xf"
    plain = left(asked, asked.text, moved, all_lanes=True)
    assert left(asked, text, asked.lanes, all_lanes=True) == plain, text


@pytest.mark.parametrize(
    "name",
    [n for n in VECTOR if plain_sources(n, 3) and VECTOR[n].sources.split()[0] in HALVES],
)
def test_the_upper_half_of_another_lane_s_first_source(name: str) -> None:
    """``v1.h``, and op_sel where a register's halves have no names."""
    asked = Asked(name, VECTOR[name], GFX1100, waves=1)
    rows = asked.lanes
    above = changed(rows, 0, lambda bits: (bits & 0xFFFF) << 16 | 0x1234)
    moved = permuted(rows, 0, lambda lane: lane // 16 * 16 + (lane - 3) % 16)
    wanted = left(asked, asked.text, moved, all_lanes=True)
    move = " row_ror:3 row_mask:0xf bank_mask:0xf"
    result, first, *others = asked.operands
    picks = f" op_sel:[1{',0' * len(others)},0]"
    for operands, more in (([result, f"{first}.h", *others], ""), (asked.operands, picks)):
        text = asked.text_with(operands, "_e64_dpp") + move + more
        assert left(asked, text, above, all_lanes=True) == wanted, text


@pytest.mark.parametrize("name", [n for n in VECTOR if plain_sources(n, 2)])
def test_parts_of_sources(name: str) -> None:
    """SDWA: a byte of the first, the upper half of the second."""
    asked = usual(name)
    rows = changed(asked.lanes, 0, lambda bits: bits >> 16 & 0xFF)
    text = asked.text_with(asked.operands, "_sdwa") + " src0_sel:BYTE_2"
    if len(asked.sources) > 1:
        rows = changed(rows, 1, lambda bits: bits >> 16)
        text += " src1_sel:WORD_1"
    assert left(asked, text, asked.lanes) == left(asked, asked.text, rows), text


# -- results --------------------------------------------------------------------------------------
FLOATS = ("f32", "f16", "bf16", "f64")


def scaled(bits: int, kind: str, factor: float, clamps: bool) -> int | None:
    """A result's bits after an output modifier; None where what it was before it was rounded
    decides: near a type's ends, and at zero."""
    value = decode(bits, kind)
    if clamps and math.isinf(value):
        return encode(1.0 if value > 0 else 0.0, kind)
    if not 2.0**-10 < abs(value) < 2.0**10:
        return None
    value *= factor
    return encode(min(max(value, 0.0), 1.0) if clamps else value, kind)


OUTPUTS = [("mul:2", 2.0), ("mul:4", 4.0), ("div:2", 0.5), ("clamp", 1.0), ("clamp mul:2", 2.0)]


@pytest.mark.parametrize(
    "name", [n for n in VECTOR if VECTOR[n].result in FLOATS and not VECTOR[n].form]
)
def test_output_modifiers(name: str) -> None:
    asked = usual(name)
    kind = asked.row.result
    mask, moved = (1 << width(kind)) - 1, 0
    low, high, _ = left(asked, asked.text, asked.lanes, all_lanes=True)
    for modifier, factor in OUTPUTS:
        text = f"{asked.text} {modifier}"
        ones, twos, _ = left(asked, text, asked.lanes, all_lanes=True)
        for lane, (one, two) in enumerate(zip(ones, twos, strict=True)):
            wanted = scaled((low[lane] | high[lane] << 32) & mask, kind, factor, "clamp" in text)
            got = (one | two << 32) & mask
            if wanted is None or (not wanted & mask >> 1 and not got & mask >> 1):
                continue  # a zero's sign is the modifier's affair
            assert hex(got) == hex(wanted), (text, asked.lanes[lane])
            moved += 1
    assert moved > 10 or name.startswith("v_frexp"), "no result that shows a modifier"


@pytest.mark.parametrize(
    "name",
    [n for n in VECTOR if re.fullmatch(r"[iu]\d\d( mask)?", VECTOR[n].result)
     and not SATURATING.match(n) and not VECTOR[n].form],
)  # fmt: skip
def test_no_other_integer_clamps(name: str) -> None:
    with pytest.raises(UnknownError, match="clamp on an integer"):
        left(usual(name), f"{usual(name).text} clamp", usual(name).lanes)


@pytest.mark.parametrize("name", [n for n in VECTOR if SATURATING.match(n)])
def test_integers_that_clamp(name: str) -> None:
    """A result that does not fit is the nearest that does."""
    asked = usual(name)
    kind = asked.results[0]
    bits = width(kind)
    least = -(1 << bits - 1) if kind[0] == "i" else 0
    most = least + (1 << bits) - 1
    # Each source at either end of its type, in every combination, and others.
    ends = [(1 << width(kind) - 1, (1 << width(kind) - 1) - 1) for kind in asked.kinds]
    rows = [*itertools.product(*ends), *asked.lanes][: len(asked.lanes)]
    m = left(asked, f"{asked.text} clamp", rows, all_lanes=True)
    plain, clamped = 0, 0
    for got, given in zip(m[0], rows, strict=True):
        exact = asked.row.function(*map(read, asked.kinds, given))
        exact = exact[0] if isinstance(exact, tuple) else exact
        wanted = max(least, min(most, exact))
        assert got & (1 << bits) - 1 == wanted & (1 << bits) - 1, (given, exact)
        plain, clamped = plain + (wanted == exact), clamped + (wanted != exact)
    assert plain and clamped, "it shows nothing"


def test_forms_reach_most_of_the_table() -> None:
    assert len(only(r"\b(f16|f32|f64) ")) > 100
    assert len([n for n in VECTOR if plain_sources(n, 3)]) > 250
    every = itertools.chain.from_iterable(VECTOR[name].sources.split() for name in VECTOR)
    assert {*SIGNED, *HALVES} <= {*every}
