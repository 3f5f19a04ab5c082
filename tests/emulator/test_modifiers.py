"""What modifies operands and results, every way that an instruction can bear it.

Each table is held to a model in plain Python, over all the values that a modifier has (or a draw of
them where there are thousands). Syntax: https://llvm.org/docs/AMDGPUModifierSyntax.html; meaning:
the chapters on VOP3, VOP3P, SDWA, DPP and MUBUF of AMD's instruction set manuals.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from conformance.devices.isa.state import VCC
from conformance.devices.isa.target import UnknownError
from tests.emulator.isa_cases import GFX942, GFX1100, GFX1201, buffer, run, state
from tests.emulator.isa_model.bits import decode, edges, encode
from tests.emulator.test_selectors import BITS2

LANES = list(range(64))
DRAW = random.Random("modifiers")
WORDS = [0, 0x80000000, 0x7FC00001, 0xFF800000, 0x3F800000, 0xC0490FDB, 0x12345678, 0x89ABCDEF]
OLD = 0x5A5AA5A5


def lanes_of(register: int, m: Any) -> list[int]:
    return [int(value) for value in m.vector[register, 0]]


# -- v_perm_b32: one selector for every lane, or one a lane ---------------------------------------
def permuted(a: int, b: int, selector: int) -> int:
    data = [*b.to_bytes(4, "little"), *a.to_bytes(4, "little")]
    out = []
    for choice in selector.to_bytes(4, "little"):
        if choice < 8:
            out.append(data[choice])
        elif choice < 12:
            out.append(0xFF if data[2 * (choice - 8) + 1] >> 7 else 0)
        else:
            out.append(0 if choice == 12 else 0xFF)
    return int.from_bytes(bytes(out), "little")


SELECTORS = [sum((first + step * byte) % 16 << 8 * byte for byte in range(4))
             for first in range(16) for step in (1, 5)] + [0x10FF800D, 0x0C0C0C0C]  # fmt: skip


@pytest.mark.parametrize("selector", SELECTORS, ids=hex)
def test_bytes_by_a_selector(selector: int) -> None:
    # The signs of four bytes, in every combination.
    a = [0x44332211 ^ (lane & 1) << 15 ^ (lane >> 1 & 1) << 31 for lane in LANES]
    b = [0x0877E655 ^ (lane >> 2 & 1) << 15 ^ (lane >> 3 & 1) << 31 for lane in LANES]
    wanted = [permuted(x, y, selector) for x, y in zip(a, b, strict=True)]
    for place in ("s3", "v3", hex(selector)):
        v = {1: a, 2: b, 3: [selector] * 64}
        m = run(f"v_perm_b32 v0, v1, v2, {place}", v=v, s={3: selector})
        assert lanes_of(0, m) == wanted, place


# -- lane permutations: every amount --------------------------------------------------------------
def row_of(lane: int) -> int:
    return lane // 16 * 16


MOVES: dict[str, tuple[range, Callable[[int, int], int]]] = {
    "row_shl": (range(1, 16), lambda lane, by: lane + by if lane % 16 + by < 16 else -1),
    "row_shr": (range(1, 16), lambda lane, by: lane - by if lane % 16 >= by else -1),
    "row_ror": (range(1, 16), lambda lane, by: row_of(lane) + (lane - by) % 16),
    "row_newbcast": (range(16), lambda lane, at: row_of(lane) + at),
    "row_share": (range(16), lambda lane, at: row_of(lane) + at),
    "row_xmask": (range(16), lambda lane, mask: lane ^ mask),
}


@pytest.mark.parametrize("name", MOVES)
def test_moves_within_a_row_by_every_amount(name: str) -> None:
    target = GFX942 if name in ("row_newbcast", "row_shl", "row_shr", "row_ror") else GFX1100
    values, place = MOVES[name]
    for by in values:
        for bound in ("", " bound_ctrl:1"):
            text = f"v_mov_b32_dpp v0, v1 {name}:{by} row_mask:0xf bank_mask:0xf{bound}"
            m = run(text, target, v={0: 99, 1: [1000 + lane for lane in range(target.lanes)]})
            outside = 0 if bound else 99
            sources = [place(lane, by) for lane in range(target.lanes)]
            assert lanes_of(0, m) == [1000 + at if at >= 0 else outside for at in sources], text


@pytest.mark.parametrize(("rows", "banks"), [(0xF, 0x6), (0x5, 0xF), (0x9, 0xC), (0x0, 0xF)])
def test_rows_and_banks_that_are_left_out(rows: int, banks: int) -> None:
    text = f"v_mov_b32_dpp v0, v1 row_ror:3 row_mask:{rows:#x} bank_mask:{banks:#x}"
    m = run(text, v={0: 99, 1: LANES})
    for lane in LANES:
        on = rows >> lane // 16 & 1 and banks >> lane % 16 // 4 & 1
        assert int(m.vector[0, 0, lane]) == (row_of(lane) + (lane - 3) % 16 if on else 99)


@pytest.mark.parametrize("offset", [0, 4, 8, 12, 100, 252, 256, 65532])
def test_an_offset_of_a_permutation_through_lds(offset: int) -> None:
    """It is added to each lane's address, which is taken modulo the wave."""
    places = [4 * ((lane * 13 + 5) % 64) for lane in LANES]
    goals = [(at + offset) // 4 % 64 for at in places]
    m = run(f"ds_bpermute_b32 v0, v2, v1 offset:{offset}", v={1: LANES, 2: places})
    assert lanes_of(0, m) == goals
    m = run(f"ds_permute_b32 v0, v2, v1 offset:{offset}", v={1: LANES, 2: places})
    wanted = [0] * 64
    for lane, goal in enumerate(goals):
        wanted[goal] = lane
    assert lanes_of(0, m) == wanted


SWIZZLES = [DRAW.getrandbits(15) for _ in range(30)] + [0x1F, 0x041F, 0x7C1F, 0x3E0, 0x03FF]


@pytest.mark.parametrize("number", SWIZZLES, ids=hex)
def test_and_or_and_xor_of_a_swizzle(number: int) -> None:
    keep, put, flip = number & 31, number >> 5 & 31, number >> 10 & 31
    m = run(f"ds_swizzle_b32 v0, v1 offset:{number:#x}", v={1: LANES})
    assert lanes_of(0, m) == [lane & 32 | (lane & 31 & keep | put) ^ flip for lane in LANES]
    letters = "".join(
        {(0, 0): "0", (0, 1): "1", (1, 0): "p", (1, 1): "i"}[
            (0, (put ^ flip) >> bit & 1) if put >> bit & 1 or not keep >> bit & 1
            else (1, flip >> bit & 1)
        ]
        for bit in (4, 3, 2, 1, 0)
    )  # fmt: skip
    text = f'ds_swizzle_b32 v0, v1 offset:swizzle(BITMASK_PERM,"{letters}")'
    assert lanes_of(0, run(text, v={1: LANES})) == lanes_of(0, m)


def test_every_quad_of_a_swizzle() -> None:
    for quad in itertools.product(range(4), repeat=4):
        number = 0x8000 | sum(at << 2 * place for place, at in enumerate(quad))
        m = run(f"ds_swizzle_b32 v0, v1 offset:{number:#x}", v={1: LANES})
        assert lanes_of(0, m) == [lane // 4 * 4 + quad[lane % 4] for lane in LANES]


SIZES = (2, 4, 8, 16, 32)
PLACES: dict[str, Callable[..., int]] = {
    "QUAD_PERM": lambda lane, *quad: lane // 4 * 4 + quad[lane % 4],
    "SWAP": lambda lane, size: lane ^ size,
    "REVERSE": lambda lane, size: lane // size * size + size - 1 - lane % size,
    "BROADCAST": lambda lane, size, at: lane // size * size + at,
}


@pytest.mark.parametrize("form", [
    "QUAD_PERM,3,1,0,2", *(f"SWAP,{size // 2}" for size in SIZES),
    *(f"REVERSE,{size}" for size in SIZES), *(f"BROADCAST,{n},{n - 1 - n // 4}" for n in SIZES),
])  # fmt: skip
def test_forms_of_a_swizzle(form: str) -> None:
    name, *numbers = form.split(",")
    m = run(f"ds_swizzle_b32 v0, v1 offset:swizzle({form})", v={1: LANES})
    assert lanes_of(0, m) == [PLACES[name](lane, *map(int, numbers)) for lane in LANES]


# -- signs of sources -----------------------------------------------------------------------------
SIGNS: dict[str, Callable[[int, int], int]] = {
    "{}": lambda bits, _: bits,
    "-{}": lambda bits, top: bits ^ top,
    "|{}|": lambda bits, top: bits & ~top,
    "-|{}|": lambda bits, top: bits | top,
}


@pytest.mark.parametrize("form", SIGNS)
def test_signs_of_a_source(form: str) -> None:
    """The sign bit, whatever the rest is: of a NaN and of an integer operation too."""
    words = WORDS * 8
    one = form.format("v1")
    m = run(f"v_cndmask_b32_e64 v0, {one}, v2, s[2:3]", v={1: words}, s={2: 0, 3: 0})
    assert lanes_of(0, m) == [SIGNS[form](w, 0x80000000) for w in words]
    m = run(f"v_add_f32_e64 v0, {one}, 0", v={1: words})
    for lane, word in enumerate(words):
        value = decode(SIGNS[form](word, 0x80000000), "f32")
        got = decode(int(m.vector[0, 0, lane]), "f32")
        assert got == value + 0.0 or (math.isnan(got) and math.isnan(value))
    halves = edges("f16")
    m = run(f"v_mul_f16_e64 v0, {one}, 1.0", v={1: (halves * 4)[:64]})
    for lane, word in enumerate((halves * 4)[:64]):
        value = decode(SIGNS[form](word & 0xFFFF, 0x8000), "f16")
        got = decode(int(m.vector[0, 0, lane]), "f16")
        assert (got, math.copysign(1, got)) == (value, math.copysign(1, value)) or math.isnan(value)
    pairs = [(0, 0x3FF80000), (1, 0xC0080000), (0, 0x7FF00000), (5, 0x80000000)] * 16
    text = f"v_add_f64 v[4:5], {form.format('v[1:2]')}, 0"
    m = run(text, v={1: [low for low, _ in pairs], 2: [high for _, high in pairs]})
    for lane, (low, high) in enumerate(pairs):
        value = decode(low | SIGNS[form](high, 0x80000000) << 32, "f64") + 0.0
        got = int(m.vector[4, 0, lane]) | int(m.vector[5, 0, lane]) << 32
        assert got == encode(value, "f64")


# -- SDWA -----------------------------------------------------------------------------------------
PARTS = {"BYTE_0": (0, 8), "BYTE_1": (8, 8), "BYTE_2": (16, 8), "BYTE_3": (24, 8),
         "WORD_0": (0, 16), "WORD_1": (16, 16), "DWORD": (0, 32)}  # fmt: skip


@pytest.mark.parametrize("part", [name for name in PARTS if name != "DWORD"])
@pytest.mark.parametrize("unused", ["UNUSED_PAD", "UNUSED_SEXT", "UNUSED_PRESERVE"])
def test_part_of_a_destination(part: str, unused: str) -> None:
    shift, size = PARTS[part]
    ones = (1 << size) - 1
    for value in (0x12345678, 0xFEDCBA98, 0x80, 0x8000, 0x7F):
        text = f"v_or_b32_sdwa v0, v1, v1 dst_sel:{part} dst_unused:{unused}"
        m = run(f"{text} src0_sel:DWORD src1_sel:DWORD", v={0: OLD, 1: value})
        low = value & ones
        if unused == "UNUSED_PRESERVE":
            wanted = OLD & ~(ones << shift) | low << shift
        elif unused == "UNUSED_SEXT" and low >> size - 1:
            # The sign fills what is above; what is below is zero.
            wanted = (low - (1 << size)) << shift & 0xFFFFFFFF
        else:
            wanted = low << shift
        assert hex(int(m.vector[0, 0, 0])) == hex(wanted)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("source", [0, 1])
@pytest.mark.parametrize("extends", [False, True])
def test_part_of_a_source(part: str, source: int, extends: bool) -> None:
    shift, size = PARTS[part]
    selects = ["DWORD", "DWORD"]
    selects[source] = part
    operands = ["v1", "v1"]
    operands[source] = "sext(v2)" if extends else "v2"
    text = (f"v_add_u32_sdwa v0, {', '.join(operands)} dst_sel:DWORD dst_unused:UNUSED_PAD "
            f"src0_sel:{selects[0]} src1_sel:{selects[1]}")  # fmt: skip
    for value in (0x12345678, 0xFEDCBA98):
        taken = value >> shift & (1 << size) - 1
        if extends and taken >> size - 1:
            taken -= 1 << size
        m = run(text, v={1: 5, 2: value})
        assert int(m.vector[0, 0, 0]) == (5 + taken) & 0xFFFFFFFF


# -- addresses ------------------------------------------------------------------------------------
ADDRESSES = [
    ("buffer_load_dword v0, v1, s[4:7], {soffset} offen offset:{offset}", GFX942),
    ("buffer_load_b32 v0, v1, s[4:7], {soffset} offen offset:{offset}", GFX1100),
    ("buffer_load_b32 v0, v1, s[4:7], {soffset} offen offset:{offset}", GFX1201),
]


@pytest.mark.parametrize(("form", "target"), ADDRESSES)
def test_the_scalar_offset_of_a_buffer(form: str, target: Any) -> None:
    """A register or a constant; the descriptor's limit counts it on gfx9 only."""
    data, span = buffer("data", np.arange(64, dtype=np.uint32))
    start, inside = int(data.ctypes.data), 4 * 20
    for soffset, value in (("s8", 4 * 9), ("16", 16), ("0", 0), ("null", 0)):
        if soffset == "null" and target is GFX942:
            continue
        m = state(target, span)
        run(form.format(soffset=soffset, offset=8), target, on=m, v={1: [4 * n for n in range(
            target.lanes)]}, s={4: start, 5: start >> 32, 6: inside, 7: 0, 8: 4 * 9})  # fmt: skip
        counted = value if target is GFX942 else 0
        wanted = [
            2 + n + value // 4 if counted + 8 + 4 * n + 4 <= inside else 0
            for n in range(target.lanes)
        ]
        assert lanes_of(0, m)[: target.lanes] == wanted, soffset


@pytest.mark.parametrize(("text", "at"), [
    ("s_load_dword s0, s[2:3], -0x8", 30),
    ("s_load_dword s0, s[2:3], 0x8", 34),
    ("s_load_dword s0, s[2:3], s4 offset:-0x4", 33),
    ("s_load_dwordx2 s[0:1], s[2:3], s4", 34),
])  # fmt: skip
def test_offsets_of_a_scalar_load_have_a_sign(text: str, at: int) -> None:
    data, span = buffer("data", np.arange(64, dtype=np.uint32))
    middle = int(data.ctypes.data) + 4 * 32
    m = run(text, on=state(GFX942, span), s={2: middle, 3: middle >> 32, 4: 8})
    assert int(m.scalar[0, 0]) == at


@pytest.mark.parametrize("half", ["l", "h"])
@pytest.mark.parametrize(("load", "store"), [
    ("global_load_d16_b16 v0.{}, v1, s[4:5]", "global_store_b16 v1, v2.{}, s[4:5]"),
    ("global_load_u16 v0.{}, v1, s[4:5]", "global_store_b16 v1, v2.{}, s[4:5]"),
    ("buffer_load_d16_b16 v0.{}, v1, s[4:7], null offen", "buffer_store_b16 v2.{}, v1, s[4:7], "
     "null offen"),
    ("ds_load_u16_d16 v0.{}, v1", "ds_store_b16 v1, v2.{}"),
    ("ds_load_u16 v0.{}, v1", "ds_store_b16 v1, v2.{}"),
    ("scratch_load_d16_b16 v0.{}, off offset:8", "scratch_store_b16 off, v2.{} offset:8"),
    ("scratch_load_u16 v0.{}, v1, off", "scratch_store_b16 v1, v2.{}, off"),
])  # fmt: skip
def test_half_a_register_in_memory(load: str, store: str, half: str) -> None:
    """The other half of what is loaded stays; one lane at byte 8 of each kind of memory."""
    data, span = buffer("data", np.zeros(16, dtype=np.uint32))
    m, start = state(GFX1100, span), int(data.ctypes.data)
    s = {4: start, 5: start >> 32, 6: 64, 7: 0}
    run(store.format(half), GFX1100, on=m, v={1: 8, 2: 0xBEEFCAFE}, s=s, exec_mask=1)
    kept = [int(data[2]), int(m.lds.view(np.uint32)[2]), int(m.scratch[2, 0, 0])]
    assert sorted(kept) == [0, 0, 0xBEEF if half == "h" else 0xCAFE]
    run(load.format(half), GFX1100, on=m, v={0: 0x12345678, 1: 8}, s=s, exec_mask=1)
    got = max(kept)
    assert int(m.vector[0, 0, 0]) == (got << 16 | 0x5678 if half == "h" else 0x12340000 | got)


@pytest.mark.parametrize(("text", "returns"), [
    ("global_atomic_add v0, v1, v2, s[4:5]", False),
    ("global_atomic_add v0, v1, v2, s[4:5] sc0", True),
    ("global_atomic_add_u32 v0, v1, v2, s[4:5] glc", True),
    ("global_atomic_add_u32 v0, v1, v2, s[4:5] th:TH_ATOMIC_RETURN", True),
    ("global_atomic_add_u32 v1, v2, s[4:5] th:TH_ATOMIC_NT", False),
    ("buffer_atomic_add v2, v1, s[4:7], 0 offen", False),
    ("buffer_atomic_add v2, v1, s[4:7], 0 offen sc0", True),
    ("buffer_atomic_add_u32 v2, v1, s[4:7], 0 offen glc", True),
])  # fmt: skip
def test_an_atomic_returns_only_when_it_is_asked_to(text: str, returns: bool) -> None:
    if not returns and text.startswith("global_atomic_add v0"):
        text = text.replace("v0, ", "")
    data, span = buffer("data", np.array([10, 20, 30, 40], dtype=np.uint32))
    start = int(data.ctypes.data)
    m = run(text, on=state(GFX942, span), v={0: OLD, 1: [0, 4, 8, 12] * 16, 2: 5}, exec_mask=0xF,
            s={4: start, 5: start >> 32, 6: 16, 7: 0})  # fmt: skip
    assert data.tolist() == [15, 25, 35, 45]
    into = 2 if text.startswith("buffer") else 0
    unchanged = 5 if into == 2 else OLD
    got = lanes_of(into, m)
    assert got[:5] == ([10, 20, 30, 40] if returns else [unchanged] * 4) + [unchanged]


@pytest.mark.parametrize(("name", "size"), [("v_dot4_i32_iu8", 8), ("v_dot8_i32_iu4", 4)])
@pytest.mark.parametrize("signs", [None, *BITS2])
def test_signs_of_the_parts_of_a_product(
    name: str, size: int, signs: tuple[int, int] | None
) -> None:
    """A source's parts are without a sign unless ``neg_lo`` says that they have one."""
    text = f"{name} v0, v1, v2, v3"
    text += "" if signs is None else f" neg_lo:[{signs[0]},{signs[1]},0]"
    ones, twos = (WORDS * 8)[:64], (WORDS[::-1] * 8)[:64]
    m = run(text, GFX1100, v={1: ones[:32], 2: twos[:32], 3: 5})
    one_signed, two_signed = signs or (0, 0)
    for lane in range(32):
        parts = [
            [part - (1 << size) if has and part >> size - 1 else part
             for part in (word >> at & (1 << size) - 1 for at in range(0, 32, size))]
            for word, has in ((ones[lane], one_signed), (twos[lane], two_signed))
        ]  # fmt: skip
        total = 5 + sum(a * b for a, b in zip(*parts, strict=True))
        assert int(m.vector[0, 0, lane]) == total & 0xFFFFFFFF


# (instruction, v1, v2, v3, v0 afterwards): a result outside its type is the nearest inside.
LIMITS = [
    ("v_add_co_u32_e64 v0, s[2:3], v1, v2 clamp", 0xFFFFFFF0, 0x20, 0, 0xFFFFFFFF),
    ("v_add_co_u32_e64 v0, s[2:3], v1, v2 clamp", 0xFFFFFFF0, 0x0F, 0, 0xFFFFFFFF),
    ("v_add_co_u32_e64 v0, s[2:3], v1, v2 clamp", 0x10, 0x20, 0, 0x30),
    ("v_sub_co_u32_e64 v0, s[2:3], v1, v2 clamp", 5, 6, 0, 0),
    ("v_sub_co_u32_e64 v0, s[2:3], v1, v2 clamp", 6, 5, 0, 1),
    ("v_subrev_co_u32_e64 v0, s[2:3], v1, v2 clamp", 6, 5, 0, 0),
    ("v_addc_co_u32_e64 v0, s[2:3], v1, v2, s[4:5] clamp", 0xFFFFFFFF, 0, 0, 0xFFFFFFFF),
    ("v_subb_co_u32_e64 v0, s[2:3], v1, v2, s[4:5] clamp", 7, 7, 0, 0),
    ("v_subbrev_co_u32_e64 v0, s[2:3], v1, v2, s[4:5] clamp", 7, 9, 0, 1),
    ("v_dot4_i32_i8 v0, v1, v2, v3 clamp", 0x7F7F7F7F, 0x7F7F7F7F, 0x7FFFFFF0, 0x7FFFFFFF),
    ("v_dot4_i32_i8 v0, v1, v2, v3 clamp", 0x80808080, 0x7F7F7F7F, 0x80000010, 0x80000000),
    ("v_dot4_i32_iu8 v0, v1, v2, v3 neg_lo:[1,1,0] clamp", 0x7F7F7F7F, 0x7F7F7F7F, 0x7FFFFFF0,
     0x7FFFFFFF),
    ("v_dot4_i32_iu8 v0, v1, v2, v3 neg_lo:[1,0,0] clamp", 0x80808080, 0x7F7F7F7F, 0x80000010,
     0x80000000),
    ("v_dot8_i32_iu4 v0, v1, v2, v3 neg_lo:[1,1,0] clamp", 0x77777777, 0x77777777, 0x7FFFFFF0,
     0x7FFFFFFF),
    ("v_dot8_i32_i4 v0, v1, v2, v3 clamp", 0x88888888, 0x77777777, 0x80000010, 0x80000000),
    ("v_dot8_u32_u4 v0, v1, v2, v3 clamp", 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFF00, 0xFFFFFFFF),
    ("v_dot2_i32_i16 v0, v1, v2, v3 clamp", 0x7FFF7FFF, 0x7FFF7FFF, 0x7FFFFFF0, 0x7FFFFFFF),
    ("v_dot2_u32_u16 v0, v1, v2, v3 clamp", 0xFFFFFFFF, 0xFFFFFFFF, 5, 0xFFFFFFFF),
    ("v_dot4_u32_u8 v0, v1, v2, v3 clamp", 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFF00, 0xFFFFFFFF),
    ("v_dot4_u32_u8 v0, v1, v2, v3", 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFF00, 0x0003F704),
]  # fmt: skip


@pytest.mark.parametrize(("text", "one", "two", "three", "expected"), LIMITS)
def test_integers_that_clamp(text: str, one: int, two: int, three: int, expected: int) -> None:
    m = run(text, v={1: one, 2: two, 3: three}, s={4: 0xFFFFFFFF, 5: 0xFFFFFFFF})
    assert hex(int(m.vector[0, 0, 40])) == hex(expected)


def test_a_comparison_of_permuted_lanes() -> None:
    """A lane that has nothing to read counts as one that does not run."""
    v = {1: [100 + lane for lane in range(32)], 2: [103] * 32}
    text = "v_cmp_ge_u32_e64_dpp s0, v1, v2 row_shr:1 row_mask:0xf bank_mask:0xf"
    below = sum(1 << lane for lane in range(4, 32) if lane % 16)
    assert int(run(text, GFX1100, v=v).scalar[0, 0]) == below
    every = run(text, GFX1100, v={**v, 2: [0] * 32})
    assert int(every.scalar[0, 0]) == sum(1 << lane for lane in range(32) if lane % 16)
    given = run(text + " bound_ctrl:1", GFX1100, v={**v, 2: [0] * 32})
    assert int(given.scalar[0, 0]) == 0xFFFFFFFF, "with bound_ctrl it reads 0"


@pytest.mark.parametrize("text", [
    "v_cndmask_b32_e32 v0, v1, v2", "v_cndmask_b32_e32 v0, v1, v2, vcc",
    "v_addc_co_u32_e32 v0, vcc, v1, v2", "v_addc_co_u32_e32 v0, vcc, v1, v2, vcc",
])  # fmt: skip
def test_a_mask_that_is_left_out_is_vcc(text: str) -> None:
    m = run(text, v={1: 5, 2: 7}, s={VCC: 0b10, VCC + 1: 0})
    wanted = [5, 7] if "cndmask" in text else [12, 13]
    assert m.vector[0, 0, :2].tolist() == wanted


def test_a_carry_of_permuted_lanes_is_refused() -> None:
    with pytest.raises(UnknownError, match="a carry with a lane permutation"):
        run("v_add_co_u32_dpp v0, vcc, v1, v2 row_shr:1 row_mask:0xf bank_mask:0xf")


@pytest.mark.parametrize(("mask", "wanted"), [("0", 5), ("-1", 7), ("1", 7)])
def test_a_mask_that_is_a_constant(mask: str, wanted: int) -> None:
    """Of every lane the same: whether the constant is 0 or not."""
    m = run(f"v_cndmask_b32_e64 v0, v1, v2, {mask}", v={1: 5, 2: 7})
    assert m.vector[0, 0].tolist() == [wanted] * 64
