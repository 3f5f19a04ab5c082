"""Which part of a source and which half of a result: every combination of the selectors that
mixed, packed and 8-bit instructions have.

Sources: the VOP3P and SDWA chapters of AMD's MI300 (CDNA3), CDNA4 and RDNA4 manuals.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from conformance.devices.isa.instructions import eight_bit
from conformance.devices.isa.instructions.table import TABLE
from conformance.devices.isa.state import State
from conformance.devices.isa.target import IsaTarget, UnknownError
from tests.emulator.isa_cases import GFX942, GFX950, GFX1201, GFX1250, f32, run
from tests.emulator.isa_model.bits import decode, encode, fma, inputs, read, scaled
from tests.emulator.isa_model.packed import from_fp8, to_fp8

OLD = 0x5A5AA5A5
BITS2, BITS3 = (list(itertools.product((0, 1), repeat=n)) for n in (2, 3))


def listed(name: str, bits: tuple[int, ...]) -> str:
    return f"{name}:[{','.join(map(str, bits))}]"


def word(m: State, register: int) -> int:
    return int(m.vector[register, 0, 7])


# -- packed operands ------------------------------------------------------------------------------
def half_of(word: int, high: int, negative: int) -> float:
    return decode(word >> 16 * high & 0xFFFF, "f16") * (-1 if negative else 1)


@pytest.mark.parametrize(("low", "high"), [*itertools.product(BITS2, BITS2)])
def test_halves_and_their_signs(low: tuple[int, int], high: tuple[int, int]) -> None:
    """op_sel and op_sel_hi choose, neg_lo and neg_hi negate: each of both sources by itself."""
    one, two = 0x45003C00, 0x4880C200  # 5 and 1; 9 and -3
    for minus_low, minus_high in itertools.product(BITS2, BITS2):
        text = "v_pk_add_f16 v0, v1, v2 " + " ".join([
            listed("op_sel", low), listed("op_sel_hi", high), listed("neg_lo", minus_low),
            listed("neg_hi", minus_high)])  # fmt: skip
        got = int(run(text, v={1: one, 2: two}).vector[0, 0, 9])
        sums = [
            half_of(one, pick[0], sign[0]) + half_of(two, pick[1], sign[1])
            for pick, sign in ((low, minus_low), (high, minus_high))
        ]
        assert [decode(got & 0xFFFF, "f16"), decode(got >> 16, "f16")] == sums, text


@pytest.mark.parametrize(("low", "high"), [*itertools.product(BITS2, BITS2)])
def test_words_of_a_scalar_pair_and_their_signs(
    low: tuple[int, int], high: tuple[int, int]
) -> None:
    one, two = (1.0, 5.0), (-3.0, 9.0)
    v, s = {2: f32(one[0]), 3: f32(one[1])}, {4: f32(two[0]), 5: f32(two[1])}
    for minus_low, minus_high in itertools.product(BITS2, BITS2):
        text = "v_pk_mul_f32 v[0:1], v[2:3], s[4:5] " + " ".join([
            listed("op_sel", low), listed("op_sel_hi", high), listed("neg_lo", minus_low),
            listed("neg_hi", minus_high)])  # fmt: skip
        m = run(text, v=v, s=s)
        for word, (pick, sign) in enumerate(((low, minus_low), (high, minus_high))):
            value = one[pick[0]] * two[pick[1]] * (-1) ** sum(sign)
            assert decode(int(m.vector[word, 0, 3]), "f32") == value, text


# (instruction, v1, v0 afterwards): a constant has the bits of its operand's type.
CONSTANTS = [
    ("v_pk_add_u16 v0, v1, 2.0", 0x00030005, 0x40030005),
    ("v_pk_add_u16 v0, v1, 2.0 op_sel_hi:[1,0]", 0x00030005, 0x00030005),
    ("v_pk_add_u16 v0, v1, 7", 0x00030005, 0x0003000C),
    ("v_pk_add_u16 v0, v1, 7 op_sel_hi:[1,0]", 0x00030005, 0x000A000C),
    ("v_pk_add_u16 v0, v1, -1", 0x00030005, 0x00020004),
    ("v_pk_add_f16 v0, v1, 1.0", 0x3C003C00, 0x3C004000),
    ("v_pk_add_f16 v0, v1, 1.0 op_sel_hi:[1,0]", 0x3C003C00, 0x40004000),
    ("v_add_f16_e32 v0, 0.5, v1", 0x3C00, 0x3E00),
    ("v_add_f32_e32 v0, 0.5, v1", 0x3F800000, 0x3FC00000),
    ("v_and_b32_e32 v0, 1.0, v1", 0xFFFFFFFF, 0x3F800000),
    ("v_pk_add_u16 v0, v1, 7 op_sel_hi:[1,0] clamp", 0xFFFE0005, 0xFFFF000C),
    ("v_pk_sub_u16 v0, v1, 7 op_sel_hi:[1,0] clamp", 0xFFFE0005, 0xFFF70000),
    ("v_pk_add_i16 v0, v1, 7 op_sel_hi:[1,0] clamp", 0x7FFE0005, 0x7FFF000C),
    ("v_pk_sub_i16 v0, v1, 7 op_sel_hi:[1,0] clamp", 0x8003FFFF, 0x8000FFF8),
]  # fmt: skip


@pytest.mark.parametrize(("text", "one", "expected"), CONSTANTS)
def test_constants_by_the_type_of_their_operand(text: str, one: int, expected: int) -> None:
    assert hex(int(run(text, v={1: one}).vector[0, 0, 0])) == hex(expected)


# (instruction, its pair of registers afterwards)
WIDE_CONSTANTS = [
    ("v_mov_b64_e32 v[0:1], 1.0", 0x3FF0000000000000),
    ("v_mov_b64_e32 v[0:1], -1", 0xFFFFFFFFFFFFFFFF),
    ("v_add_f64 v[0:1], 1.0, 0.5", 0x3FF8000000000000),
    ("v_add_f64 v[0:1], 0x40490000, 0", 0x4049000000000000),
    ("v_add_f64 v[0:1], 1, 0", 0x0000000000000001),
]


@pytest.mark.parametrize(("text", "expected"), WIDE_CONSTANTS)
def test_constants_of_64_bits(text: str, expected: int) -> None:
    m = run(text)
    assert hex(int(m.vector[0, 0, 0]) | int(m.vector[1, 0, 0]) << 32) == hex(expected)
    m = run("s_mov_b64 s[0:1], 0.5")
    assert [int(word) for word in m.scalar[:2, 0]] == [0, 0x3FE00000]
    m = run("s_mov_b64 s[0:1], 0xffffffff")
    assert [int(word) for word in m.scalar[:2, 0]] == [0xFFFFFFFF, 0]


# -- words ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("sources", ["v[2:3], v[4:5]", "s[2:3], v[4:5]", "v[2:3], s[4:5]"])
def test_a_move_of_a_pair(sources: str) -> None:
    """Each word is either of a source of its own; without op_sel it is the low one."""
    held = {2: 0x11, 3: 0x22, 4: 0x33, 5: 0x44}
    for picks in (None, *BITS2):
        one, two = picks or (0, 0)
        text = f"v_pk_mov_b32 v[0:1], {sources}" + (f" {listed('op_sel', picks)}" if picks else "")
        m = run(text, v=held, s=held)
        assert (word(m, 0), word(m, 1)) == (held[2 + one], held[4 + two]), text


def test_a_move_of_a_pair_to_its_own_source() -> None:
    """Both words are read before either is written."""
    m = run("v_pk_mov_b32 v[2:3], v[2:3], v[2:3] op_sel:[1,0]", v={2: 1, 3: 2})
    assert (word(m, 2), word(m, 3)) == (2, 1)


@pytest.mark.parametrize("low", BITS3)
@pytest.mark.parametrize("high", BITS3)
def test_words_of_three_pairs(low: tuple[int, ...], high: tuple[int, ...]) -> None:
    pairs = ((2.0, 3.0), (5.0, 7.0), (11.0, 13.0))
    v = {2 + i: f32(x) for i, x in enumerate(itertools.chain.from_iterable(pairs))}
    for signs in ((0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 1, 1)):
        text = "v_pk_fma_f32 v[0:1], v[2:3], v[4:5], v[6:7] " + " ".join([
            listed("op_sel", low), listed("op_sel_hi", high), listed("neg_lo", signs),
            listed("neg_hi", signs[::-1])])  # fmt: skip
        m = run(text, v=v)
        for place, (picks, minus) in enumerate(((low, signs), (high, signs[::-1]))):
            a, b, c = (p[n] * (-1) ** s for p, n, s in zip(pairs, picks, minus, strict=True))
            assert decode(word(m, place), "f32") == a * b + c, text


def test_a_constant_is_both_words() -> None:
    m = run("v_pk_add_f32 v[0:1], v[2:3], 2.0", v={2: f32(1.0), 3: f32(5.0)})
    assert (word(m, 0), word(m, 1)) == (f32(3.0), f32(7.0))


# -- halves that are integers ----------------------------------------------------------------------
CLAMPED: dict[str, Callable[..., int]] = {
    "v_pk_add_u16": lambda a, b: a + b,
    "v_pk_sub_u16": lambda a, b: a - b,
    "v_pk_mul_lo_u16": lambda a, b: a * b,
    "v_pk_mad_u16": lambda a, b, c: a * b + c,
    "v_pk_add_i16": lambda a, b: a + b,
    "v_pk_sub_i16": lambda a, b: a - b,
}
RUNNING = 0xDEADBEEFCAFEF00D


@pytest.mark.parametrize("name", CLAMPED)
def test_halves_that_clamp(name: str) -> None:
    """What does not fit is the nearest that does; in lanes that are off nothing changes."""
    kind, function = name[-3:], CLAMPED[name]
    least, most = (-(1 << 15), (1 << 15) - 1) if kind == "i16" else (0, (1 << 16) - 1)
    count = function.__code__.co_argcount
    rows = inputs([f"2x{kind}"] * count, 64, name)
    held = {1 + place: [row[place] for row in rows] for place in range(count)}
    sources = ", ".join(f"v{register}" for register in held)
    m = run(f"{name} v0, {sources} clamp", v={0: OLD, **held}, exec_mask=RUNNING)
    for lane, row in enumerate(rows):
        wanted = OLD
        if RUNNING >> lane & 1:
            halves = [function(*(read(kind, w >> 16 * n) for w in row)) for n in (0, 1)]
            low, high = (max(least, min(most, half)) & 0xFFFF for half in halves)
            wanted = low | high << 16
        assert int(m.vector[0, 0, lane]) == wanted, (lane, row)


# -- mixed precision ------------------------------------------------------------------------------
SIGNS: dict[str, Callable[[float], float]] = {
    "{}": lambda x: x, "-{}": lambda x: -x, "|{}|": abs, "-|{}|": lambda x: -abs(x)
}  # fmt: skip
PARTS = ("whole", "low", "high")
MIXED = {"v_fma_mix_f32": "f32", "v_fma_mixlo_f16": "low", "v_fma_mixhi_f16": "high"}
# As a float32, and as two halves: none of them what another one is.
HELD = {1: 0xC2483D10, 2: 0xBE2041A0, 3: 0x44C0C4E0}


@pytest.mark.parametrize("name", MIXED)
def test_parts_of_mixed_sources(name: str) -> None:
    """Each source is a float32 or either half, with a sign changed or not."""
    for number, parts in enumerate(itertools.product(PARTS, repeat=3)):
        forms = [[*SIGNS][(number * (place + 1) + place) % 4] for place in range(3)]
        values = [
            SIGNS[form](
                decode(held, "f32") if part == "whole"
                else decode(held >> 16 * (part == "high") & 0xFFFF, "f16")
            )
            for form, part, held in zip(forms, parts, HELD.values(), strict=True)
        ]  # fmt: skip
        halves = tuple(int(part != "whole") for part in parts)
        above = tuple(int(part == "high") for part in parts)
        sources = ", ".join(form.format(f"v{n}") for form, n in zip(forms, HELD, strict=True))
        text = f"{name} v0, {sources} {listed('op_sel', above)} {listed('op_sel_hi', halves)}"
        got = word(run(text, v={0: OLD, **HELD}), 0)
        exact = fma(*values)
        if MIXED[name] == "f32":
            assert hex(got) == hex(encode(exact, "f32")), text
        else:
            half = encode(decode(encode(exact, "f32"), "f32"), "f16")
            high = MIXED[name] == "high"
            wanted = half << 16 | OLD & 0xFFFF if high else OLD & 0xFFFF0000 | half
            assert hex(got) == hex(wanted), text


# -- 8-bit floats ---------------------------------------------------------------------------------
CODES = 0xC1B53E27  # four codes: numbers of both encodings, none of them alike


def byte_forms(target: IsaTarget) -> Iterator[tuple[str, int]]:
    """How a byte of the source is chosen, and which it is."""
    yield "v1", 0
    if target is GFX942:
        yield from ((f"v1 src0_sel:BYTE_{n}", n) for n in range(4))
    elif target is GFX1201:
        yield from ((f"v1 byte_sel:{n}", n) for n in range(4))
        yield from ((f"v1 {listed('op_sel', (one, two))}", one + 2 * two) for one, two in BITS2)


def pair_forms(target: IsaTarget) -> Iterator[tuple[str, int]]:
    """How two bytes are chosen, and which half they are."""
    yield "v1", 0
    if target is GFX942:
        yield from ((f"v1 src0_sel:WORD_{n}", n) for n in range(2))
    elif target is GFX1201:
        yield from ((f"v1 {listed('op_sel', (n, 0))}", n) for n in range(2))
    else:
        yield from ((f"v1.{half}", n) for n, half in enumerate("lh"))


FLAVOURS = {GFX942: "fnuz", GFX1201: "ocp", GFX1250: "ocp"}


@pytest.mark.parametrize("target", FLAVOURS, ids=lambda target: str(target.name))
@pytest.mark.parametrize("kind", ["fp8", "bf8"])
def test_codes_of_a_word(kind: str, target: IsaTarget) -> None:
    values = [from_fp8(CODES >> 8 * n & 0xFF, kind, FLAVOURS[target]) for n in range(4)]
    assert len({*values}) == 4
    for form, n in byte_forms(target):
        m = run(f"v_cvt_f32_{kind} v0, {form}", target, v={1: CODES})
        assert decode(word(m, 0), "f32") == values[n], form
    for form, n in pair_forms(target):
        m = run(f"v_cvt_pk_f32_{kind} v[2:3], {form}", target, v={1: CODES})
        assert [decode(word(m, 2 + i), "f32") for i in (0, 1)] == values[2 * n : 2 * n + 2], form


@pytest.mark.parametrize("kind", ["fp8", "bf8"])
def test_codes_of_a_word_with_a_scale(kind: str) -> None:
    """Of the scale only the exponent counts: 8 here."""
    scale, values = f32(13.5), [from_fp8(CODES >> 8 * n & 0xFF, kind, "ocp") for n in range(4)]
    for one, two in BITS2:
        text = f"v_cvt_scalef32_f32_{kind} v0, v1, v2 {listed('op_sel', (one, two))}"
        m = run(text, GFX950, v={1: CODES, 2: scale})
        assert decode(word(m, 0), "f32") == values[one + 2 * two] * 8, text
    for result, n in itertools.product(("f32", "f16", "bf16"), (None, 0, 1)):
        into = "v[4:5]" if result == "f32" else "v4"
        pick = "" if n is None else f" {listed('op_sel', (n, 0, 0))}"
        text = f"v_cvt_scalef32_pk_{result}_{kind} {into}, v1, v2{pick}"
        m = run(text, GFX950, v={1: CODES, 2: scale})
        size = 32 if result == "f32" else 16
        bits = word(m, 4) | (word(m, 5) << 32 if result == "f32" else 0)
        got = [decode(bits >> size * i & (1 << size) - 1, result) for i in (0, 1)]
        assert got == [value * 8 for value in values[2 * (n or 0) :][:2]], text


@pytest.mark.parametrize("kind", ["fp8", "bf8"])
@pytest.mark.parametrize("target", [*FLAVOURS, GFX950], ids=lambda target: str(target.name))
def test_codes_into_half_a_register(kind: str, target: IsaTarget) -> None:
    """The other half stays."""
    one, two = 1.75, -0.3
    halves = [("v0", "", 0), ("v0", " op_sel:[0,0,0]", 0), ("v0", " op_sel:[0,0,1]", 1)]
    if target is GFX1250:
        halves = [("v0.l", "", 0), ("v0.h", "", 1)]
    flavour = FLAVOURS.get(target, "ocp")
    code = to_fp8(one, kind, flavour) | to_fp8(two, kind, flavour) << 8
    for into, pick, high in halves:
        text = f"v_cvt_pk_{kind}_f32 {into}, v1, v2{pick}"
        m = run(text, target, v={0: OLD, 1: f32(one), 2: f32(two)})
        assert hex(word(m, 0)) == hex(with_half(code, high)), text


def with_half(code: int, high: int) -> int:
    return code << 16 | OLD & 0xFFFF if high else OLD & 0xFFFF0000 | code


@pytest.mark.parametrize("kind", ["fp8", "bf8"])
@pytest.mark.parametrize("source", ["f32", "f16", "bf16"])
def test_scaled_codes_into_half_a_register(kind: str, source: str) -> None:
    """What is divided by the scale's power of two; the destination's bit follows the sources'."""
    one, two = 56.0, -9.75
    if source == "f32":
        operands, held = "v1, v2, v3", {1: f32(one), 2: f32(two), 3: f32(9.0)}
    else:
        operands, held = "v1, v3", {1: encode(one, source) | encode(two, source) << 16, 3: f32(9.0)}
    codes = [to_fp8(decode(encode(scaled(x, -3), "f32"), "f32"), kind, "ocp") for x in (one, two)]
    sources = len(operands.split())
    for pick, high in (("", 0), (listed("op_sel", (*[0] * sources, 0)), 0),
                       (listed("op_sel", (*[0] * sources, 1)), 1)):  # fmt: skip
        text = f"v_cvt_scalef32_pk_{kind}_{source} v0, {operands} {pick}"
        m = run(text, GFX950, v={0: OLD, **held})
        assert hex(word(m, 0)) == hex(with_half(codes[0] | codes[1] << 8, high)), text


# -- any function of three bits -------------------------------------------------------------------
@pytest.mark.parametrize("name", ["v_bitop3_b32", "v_bitop3_b16"])
def test_every_table_of_three_bits(name: str) -> None:
    """Bit n of the table is the result where the sources' bits spell n: here each n somewhere."""
    one, two, three = 0xF0F0, 0xCCCC, 0xAAAA
    for table in (*(1 << row for row in range(8)), 0, 0xFF, 0x96, 0xE8, 0x1B):
        m = run(f"{name} v0, v1, v2, v3 bitop3:{table:#x}", GFX950, v={1: one, 2: two, 3: three})
        assert word(m, 0) & 0xFFFF == table * 0x101, hex(table)


def test_a_selector_that_is_not_heeded_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eight_bit, "_selected", lambda _ins: 0)
    with pytest.raises(UnknownError, match="modifier src0_sel:BYTE_0 of v_cvt_f32_fp8"):
        test_codes_of_a_word("fp8", GFX942)
    monkeypatch.setitem(TABLE, "v_fma_mixlo_f16", TABLE["v_fma_mixhi_f16"])
    with pytest.raises(AssertionError):
        test_parts_of_mixed_sources("v_fma_mixlo_f16")
