"""Matrix instructions of several blocks, of integers, of 4 and 6 bits, against plain Python.

Values are small whole numbers, or those times a power of two: every order of summation gives the
same.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from conformance.devices.assembly import parse_instruction
from conformance.devices.isa.instructions.table import build_step
from conformance.devices.isa.target import IsaTarget, UnknownError
from tests.emulator.isa_cases import GFX90A, GFX942, GFX950, GFX1100, GFX1201, around, run, state
from tests.emulator.isa_model.bits import decode, encode, signed
from tests.emulator.isa_model.packed import to_fp8
from tests.emulator.test_matrix import scales_of

A, B, C, D = 0, 16, 32, 64
BITS = {"f32": 32, "xf32": 32, "f16": 16, "bf16": 16, "i8": 8, "fp8": 8, "bf8": 8, "fp6": 6,
        "bf6": 6, "fp4": 4, "iu8": 8, "iu4": 4}  # fmt: skip
# Exponent and mantissa bits: the Open Compute Project's microscaling formats.
# https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf
NARROW = {"fp4": (2, 1), "fp6": (2, 3), "bf6": (3, 2)}


@cache
def code_of(value: float, kind: str) -> int:
    """The code of a value that a format has exactly."""
    if kind in ("f32", "xf32"):
        return encode(float(value), "f32")
    if kind in ("f16", "bf16"):
        return encode(float(value), kind)
    if kind in ("fp8", "bf8"):
        return to_fp8(float(value), kind, "ocp")
    if kind in NARROW:
        return next(c for c in range(1 << BITS[kind]) if narrow(c, kind) == value)
    return int(value) & ((1 << BITS[kind]) - 1)


def narrow(code: int, kind: str) -> float:
    exponent, mantissa = NARROW[kind]
    power, fraction = code >> mantissa & (1 << exponent) - 1, code & (1 << mantissa) - 1
    sign = -1 if code >> exponent + mantissa else 1
    step: float = 2.0 ** (max(power, 1) - ((1 << exponent - 1) - 1) - mantissa)
    return sign * step * (fraction + ((1 << mantissa) if power else 0))


def store(m: Any, first: int, lane: int, values: list[float], kind: str) -> int:
    """Writes a lane's elements, the first in the lowest bits; how many registers they take."""
    whole = sum(code_of(v, kind) << BITS[kind] * n for n, v in enumerate(values))
    count = -(-BITS[kind] * len(values) // 32)
    for word in range(count):
        m.vector[first + word, 0, lane] = whole >> 32 * word & 0xFFFFFFFF
    return count


def span(first: int, count: int) -> str:
    return f"v[{first}:{first + count - 1}]" if count > 1 else f"v{first}"


# -- MFMA ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Blocks:
    """N x N x ``depth``, ``blocks`` times; ``more``: text behind C."""

    name: str
    target: IsaTarget
    size: int
    depth: int
    kind: str
    blocks: int
    more: str = ""

    def __str__(self) -> str:
        return f"{self.name}-{self.target.name}{self.more.replace(' ', '-')}"

    def source(self, lane: int, place: int) -> tuple[int, int, int]:
        """Block, row and k of a lane's element."""
        group, row = divmod(lane, self.size)
        held = self.depth * self.size * self.blocks // 64
        if self.blocks == 1:
            return 0, row, group * held + place
        return group, row, place

    def result(self, lane: int, register: int) -> tuple[int, int, int]:
        """Block, row and column of a lane's register of D."""
        if self.size == 4:
            return lane // 4, register, lane % 4
        block, place = divmod(register, self.size * self.size // 64)
        if self.size == 32:
            return block, 8 * (place // 4) + 4 * (lane // 32) + place % 4, lane % 32
        return block, 4 * (lane // 16) + place, lane % 16


def blocks() -> list[Blocks]:
    found = [
        Blocks("v_mfma_f32_4x4x4_16b_f16", GFX942, 4, 4, "f16", 16),
        Blocks("v_mfma_f32_4x4x4_16b_bf16", GFX942, 4, 4, "bf16", 16),
        Blocks("v_mfma_f32_4x4x4f16", GFX90A, 4, 4, "f16", 16),
        Blocks("v_mfma_f32_4x4x1_16b_f32", GFX942, 4, 1, "f32", 16),
        Blocks("v_mfma_f32_16x16x4_4b_f16", GFX942, 16, 4, "f16", 4),
        Blocks("v_mfma_f32_16x16x1_4b_f32", GFX942, 16, 1, "f32", 4),
        Blocks("v_mfma_f32_32x32x4_2b_f16", GFX942, 32, 4, "f16", 2),
        Blocks("v_mfma_f32_32x32x4f16", GFX90A, 32, 4, "f16", 2),
        Blocks("v_mfma_f32_32x32x4bf16_1k", GFX90A, 32, 4, "bf16", 2),
        Blocks("v_mfma_f32_32x32x1_2b_f32", GFX942, 32, 1, "f32", 2),
        Blocks("v_mfma_i32_16x16x32_i8", GFX942, 16, 32, "i8", 1),
        Blocks("v_mfma_i32_32x32x16_i8", GFX942, 32, 16, "i8", 1),
        Blocks("v_mfma_i32_16x16x16i8", GFX90A, 16, 16, "i8", 1),
        Blocks("v_mfma_i32_16x16x64_i8", GFX950, 16, 64, "i8", 1),
        Blocks("v_mfma_i32_16x16x4_4b_i8", GFX942, 16, 4, "i8", 4),
        Blocks("v_mfma_i32_4x4x4_16b_i8", GFX942, 4, 4, "i8", 16),
    ]
    for share, block in ((1, 1), (2, 3), (3, 0), (4, 13)):
        more = f" cbsz:{share} abid:{block}"
        found.append(Blocks("v_mfma_f32_4x4x4_16b_f16", GFX942, 4, 4, "f16", 16, more))
    found.append(Blocks("v_mfma_f32_16x16x4_4b_f16", GFX942, 16, 4, "f16", 4, " cbsz:2 abid:1"))
    return found


@pytest.mark.parametrize("one", blocks(), ids=str)
def test_blocks(one: Blocks) -> None:
    """Each block's D = A x B + C in float32 or int32, whatever EXEC says."""
    draw, m = random.Random(str(one)), state(one.target)
    whole = one.kind == "i8"
    of_a, of_b = (1, 1) if whole else scales_of((one.kind, one.kind))
    most = 127 if whole else 4
    count = one.size * one.size * one.blocks // 64

    def matrices(rows: int, columns: int) -> list[list[list[int]]]:
        return [[[draw.randint(-most, most) for _ in range(columns)] for _ in range(rows)]
                for _ in range(one.blocks)]  # fmt: skip

    a, b = matrices(one.size, one.depth), matrices(one.size, one.depth)
    c = matrices(one.size, one.size)
    held, counts = one.depth * one.size * one.blocks // 64, [0, 0]
    for lane in range(64):
        for which, (matrix, first, scale) in enumerate(((a, A, of_a), (b, B, of_b))):
            places = [one.source(lane, place) for place in range(held)]
            values: list[float] = [matrix[block][row][k] * scale for block, row, k in places]
            counts[which] = store(m, first, lane, values, one.kind)
        for register in range(count):
            block, row, column = one.result(lane, register)
            value = c[block][row][column]
            bits = value & 0xFFFFFFFF if whole else encode(value * of_a * of_b, "f32")
            m.vector[C + register, 0, lane] = bits
    text = f"{one.name} {span(D, count)}, {span(A, counts[0])}, {span(B, counts[1])}, "
    before = around(m, D, count)
    run(text + span(C, count) + one.more, one.target, on=m, exec_mask=0b101)
    assert np.array_equal(around(m, D, count), before), "other registers"
    words = dict(w.split(":") for w in one.more.split())
    share, taken = 1 << int(words.get("cbsz", 0)), int(words.get("abid", 0))
    for lane in range(64):
        for register in range(count):
            block, row, column = one.result(lane, register)
            rows = a[block // share * share + taken if share > 1 else block][row]
            want = sum(x * y for x, y in zip(rows, b[block][column], strict=True))
            wanted = (want + c[block][row][column]) * of_a * of_b
            got = int(m.vector[D + register, 0, lane])
            assert (signed(got, 32) if whole else decode(got, "f32")) == wanted, (lane, register)


def test_integer_sums_wrap_around() -> None:
    ones = {0: 0x01010101, 1: 0x01010101, 2: 0x01010101, 3: 0x01010101}
    text = "v_mfma_i32_16x16x32_i8 v[8:11], v[0:1], v[2:3], v[4:7]"
    m = run(text, v={**ones, **dict.fromkeys(range(4, 8), 0x7FFFFFF0)})
    assert {int(x) for x in m.vector[8:12, 0].ravel()} == {0x80000010}


@pytest.mark.parametrize(("text", "words"), [
    ("v_mfma_f32_4x4x4_16b_f16 v[8:11], v[0:1], v[2:3], v[4:7] cbsz:2 abid:4", "abid"),
    ("v_mfma_f32_4x4x4_16b_f16 v[8:11], v[0:1], v[2:3], v[4:7] blgp:1", "blgp"),
    ("v_mfma_f32_4x4x4_16b_f16 v[8:11], v[0:3], v[4:7], v[4:7]", "elements a lane"),
    ("v_mfma_f32_16x16x4_4b_f16 v[8:11], v[0:1], v[2:3], v[4:7]", "accumulators"),
])  # fmt: skip
def test_what_is_not_known_is_refused(text: str, words: str) -> None:
    with pytest.raises(UnknownError, match=words):
        build_step(parse_instruction(text), GFX942)


SIGNS = ("neg_lo:[1,0,0]", "neg_hi:[0,1,0]")
# Of each kind of product the modifiers that it may not have.
REFUSED = {
    "v_mfma_f32_16x16x16_f16 v[8:11], v[0:1], v[2:3], v[4:7]": (
        GFX942, (*SIGNS, "op_sel:[1,0,0]", "clamp", "cbsz:1", "abid:1", "blgp:1")),
    "v_mfma_f32_4x4x4_16b_f16 v[8:11], v[0:1], v[2:3], v[4:7]": (
        GFX942, (*SIGNS, "op_sel:[1,0,0]", "clamp", "blgp:1")),
    "v_mfma_scale_f32_16x16x128_f8f6f4 v[64:67], v[0:7], v[16:23], 0, v100, v101": (
        GFX950, (*SIGNS, "clamp", "cbsz:5", "blgp:7")),
    "v_wmma_i32_16x16x16_iu8 v[8:15], v[0:3], v[4:7], v[8:15]": (
        GFX1100, (SIGNS[1], "op_sel:[1,0,0]")),
    "v_wmma_f16_16x16x16_f16 v[24:31], v[0:7], v[8:15], v[24:31]": (GFX1100, (*SIGNS, "clamp")),
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_a_modifier_that_is_not_known_is_refused(text: str) -> None:
    target, modifiers = REFUSED[text]
    build_step(parse_instruction(text), target)
    for modifier in modifiers:
        with pytest.raises(UnknownError):
            build_step(parse_instruction(f"{text} {modifier}"), target)


@pytest.mark.parametrize(("text", "target", "zeros"), [
    ("v_mfma_scale_f32_16x16x128_f8f6f4 v[64:67], v[0:7], v[16:23], 0, v100, v101", GFX950,
     "op_sel:[0,0,0] op_sel_hi:[0,0,0]"),
    ("v_wmma_i32_16x16x16_iu8 v[64:71], v[0:3], v[16:19], v[64:71]", GFX1100, "neg_lo:[0,0,0]"),
    ("v_wmma_f16_16x16x16_f16 v[64:71], v[0:7], v[16:23], v[64:71]", GFX1100, "op_sel:[0,0,0]"),
])  # fmt: skip
def test_selectors_that_are_left_out_are_zeros(text: str, target: IsaTarget, zeros: str) -> None:
    left = []
    for form in (text, f"{text} {zeros}"):
        draw, m = random.Random(text), state(target)
        for register in (*range(8), *range(16, 24), *range(64, 72)):
            m.vector[register, 0] = [0x38003800 + 0x80 * draw.getrandbits(2)] * target.lanes
        m.vector[100:102, 0] = 0x7E7F8081
        left.append(run(form, target, on=m).vector[64:72, 0].tolist())
    assert left[0] == left[1]
    assert any(left[0][0])


# -- 4 and 6 bits, and scales ----------------------------------------------------------------------
FORMATS = ["fp8", "bf8", "fp6", "bf6", "fp4"]


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize(("one", "two"), [(a, b) for a in FORMATS for b in FORMATS
                                          if a == b or "fp6" in (a, b)])  # fmt: skip
@pytest.mark.parametrize("scaled", [False, True])
def test_formats_of_each_operand(size: int, one: str, two: str, scaled: bool) -> None:
    draw, m = random.Random(f"{size}{one}{two}"), state(GFX950)
    groups = 64 // size
    depth, count = 32 * groups, size * size // 64
    a, b = ([[draw.choice([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 3.0]) for _ in range(depth)]
             for _ in range(size)] for _ in range(2))  # fmt: skip
    scales = [[[draw.randint(125, 130) for _ in range(groups)] for _ in range(size)]
              for _ in range(2)]  # fmt: skip
    counts = [0, 0]
    for lane in range(64):
        group, row = divmod(lane, size)
        for which, (matrix, first, kind) in enumerate(((a, A, one), (b, B, two))):
            values = matrix[row][32 * group : 32 * group + 32]
            counts[which] = store(m, first, lane, values, kind)
            # The byte that is chosen is 1 of A's, 2 of B's; the others are wrong ones.
            code = scales[which][row][group] << 8 * (which + 1)
            m.vector[100 + which, 0, lane] = 0x11223344 & ~(0xFF << 8 * (which + 1)) | code
    mods = f" cbsz:{FORMATS.index(one)} blgp:{FORMATS.index(two)}"
    name = f"v_mfma_{'scale_' if scaled else ''}f32_{size}x{size}x{depth}_f8f6f4"
    text = f"{name} {span(D, count)}, {span(A, counts[0])}, {span(B, counts[1])}, 1.0"
    text += f", v100, v101 op_sel:[1,0,0] op_sel_hi:[0,1,0]{mods}" if scaled else mods
    before = around(m, D, count)
    run(text, GFX950, on=m)
    assert np.array_equal(around(m, D, count), before), "other registers"
    for lane in range(64):
        for register in range(count):
            row, column = lane // size * 4 + register, lane % size
            if size == 32:
                row = 8 * (register // 4) + 4 * (lane // 32) + register % 4
            want = 1.0
            for k in range(depth):
                factor = 1.0
                if scaled:
                    factor = 2.0 ** (scales[0][row][k // 32] + scales[1][column][k // 32] - 254)
                want += a[row][k] * b[column][k] * factor
            assert decode(int(m.vector[D + register, 0, lane]), "f32") == want, (lane, register)


def test_every_code_of_the_narrow_formats() -> None:
    """One row of A is all codes of a format, B the unit matrix's first column."""
    for kind, number in (("fp4", 4), ("fp6", 2), ("bf6", 3)):
        for code in range(1 << BITS[kind]):
            m = state(GFX950)
            store(m, A, 0, [narrow(code, kind)] + [0.0] * 31, kind)
            store(m, B, 0, [1.0] + [0.0] * 31, "fp8")
            a = span(A, BITS[kind])
            run(f"v_mfma_f32_16x16x128_f8f6f4 v[64:67], {a}, v[16:23], 0 cbsz:{number}",
                GFX950, on=m)  # fmt: skip
            assert decode(int(m.vector[64, 0, 0]), "f32") == narrow(code, kind)
    assert [narrow(code, "fp4") for code in range(8)] == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert narrow(0x1F, "fp6") == 7.5 and narrow(0x1F, "bf6") == 28.0


@pytest.mark.parametrize(("one", "two", "wanted"), [
    (127, 127, 128.0), (0, 254, 128.0), (126, 130, 512.0), (1, 127, 2.0**-119),
    (254, 120, 2.0**127), (254, 254, float("inf")), (255, 127, float("nan")),
    (127, 255, float("nan")),
])  # fmt: skip
def test_scales_at_the_ends_of_their_range(one: int, two: int, wanted: float) -> None:
    """128 products of 1, with the same two scales: powers of two from -127 on, and 255 a NaN."""
    text = "v_mfma_scale_f32_16x16x128_f8f6f4 v[64:67], v[0:3], v[16:19], 0, v100, v101"
    ones = dict.fromkeys([*range(4), *range(16, 20)], 0x22222222)  # eight times 1 in 4 bits
    m = run(f"{text} op_sel_hi:[0,0,0] cbsz:4 blgp:4", GFX950, v={**ones, 100: one, 101: two})
    got = decode(int(m.vector[64, 0, 7]), "f32")
    assert str(got) == str(wanted)


# -- WMMA ------------------------------------------------------------------------------------------
def wmma_layout(target: IsaTarget, depth: int) -> Any:
    """(held, element of a lane -> k, (lane, number) -> row of D)."""
    if target is GFX1100:
        return depth, lambda _lane, j: j, lambda lane, r: 2 * r + lane // 16
    half = depth // 2
    return half, lambda lane, j: half * (lane // 16) + j, lambda lane, r: 8 * (lane // 16) + r


@pytest.mark.parametrize(("target", "kind", "depth"), [
    (GFX1100, "iu8", 16), (GFX1201, "iu8", 16), (GFX1100, "iu4", 16), (GFX1201, "iu4", 16),
    (GFX1201, "iu4", 32),
])  # fmt: skip
@pytest.mark.parametrize("signs", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_integer_wmma(target: IsaTarget, kind: str, depth: int, signs: tuple[int, int]) -> None:
    held, k_of, row_of = wmma_layout(target, depth)
    draw, m, bits = random.Random(f"{kind}{depth}"), state(target), BITS[kind]
    a, b = ([[draw.randrange(1 << bits) for _ in range(depth)] for _ in range(16)]
            for _ in range(2))  # fmt: skip
    counts = [0, 0]
    for lane in range(32):
        for which, (matrix, first) in enumerate(((a, A), (b, B))):
            values: list[float] = [matrix[lane % 16][k_of(lane, j)] for j in range(held)]
            counts[which] = store(m, first, lane, values, kind)
        for register in range(8):
            m.vector[C + register, 0, lane] = (7 * register - lane) & 0xFFFFFFFF
    text = (f"v_wmma_i32_16x16x{depth}_{kind} {span(D, 8)}, {span(A, counts[0])}, "
            f"{span(B, counts[1])}, {span(C, 8)} neg_lo:[{signs[0]},{signs[1]},0]")  # fmt: skip
    run(text, target, on=m)
    for lane in range(32):
        for register in range(8):
            one, two = a[row_of(lane, register)], b[lane % 16]
            one = [signed(v, bits) for v in one] if signs[0] else one
            two = [signed(v, bits) for v in two] if signs[1] else two
            want = sum(x * y for x, y in zip(one, two, strict=True)) + 7 * register - lane
            assert signed(int(m.vector[D + register, 0, lane]), 32) == want, (lane, register)


def test_integer_wmma_saturates_when_it_is_asked_to() -> None:
    ones = dict.fromkeys(range(8), 0x01010101)
    text = "v_wmma_i32_16x16x16_iu8 v[16:23], v[0:3], v[4:7], v[8:15]"
    given = {**ones, **dict.fromkeys(range(8, 16), 0x7FFFFFF8)}
    assert int(run(text, GFX1100, v=given).vector[16, 0, 3]) == 0x80000008
    assert int(run(text + " clamp", GFX1100, v=given).vector[16, 0, 3]) == 0x7FFFFFFF
    least = {**ones, **dict.fromkeys(range(4), 0xFFFFFFFF), **dict.fromkeys(range(8, 16), 1 << 31)}
    for signs, low in ((" neg_lo:[1,0,0]", 1 << 31), (" neg_lo:[0,0,0]", 0x80000FF0)):
        assert int(run(f"{text}{signs} clamp", GFX1100, v=least).vector[16, 0, 3]) == low


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("target", [GFX1100, GFX1201])
def test_a_constant_to_add_to(kind: str, target: IsaTarget) -> None:
    """16 products of 1, and 2: in every element of a result of 16 bits."""
    one, count, result = encode(1.0, kind), 8 if target is GFX1100 else 4, encode(18.0, kind)
    given = dict.fromkeys(range(A, C), one << 16 | one)
    text = (f"v_wmma_{kind}_16x16x16_{kind} {span(D, count)}, {span(A, count)}, {span(B, count)}, "
            "2.0")  # fmt: skip
    words = run(text, target, v=given).vector[D : D + count, 0]
    assert set((words & 0xFFFF).reshape(-1).tolist()) == {result}
    if target is GFX1201:
        assert set((words >> 16).reshape(-1).tolist()) == {result}


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize(("target", "high"), [(GFX1100, 0), (GFX1100, 1), (GFX1201, 0)])
def test_wmma_with_results_of_16_bits(kind: str, target: IsaTarget, high: int) -> None:
    held, k_of, row_of = wmma_layout(target, 16)
    draw, m = random.Random(kind), state(target)
    a, b = ([[draw.randint(-3, 3) for _ in range(16)] for _ in range(16)] for _ in range(2))
    c = [[draw.randint(-9, 9) for _ in range(16)] for _ in range(16)]
    counts, packed = [0, 0], target is GFX1201
    registers = 4 if packed else 8
    for lane in range(32):
        for which, (matrix, first) in enumerate(((a, A), (b, B))):
            values: list[float] = [matrix[lane % 16][k_of(lane, j)] for j in range(held)]
            counts[which] = store(m, first, lane, values, kind)
        for number in range(8):
            bits = encode(float(c[row_of(lane, number)][lane % 16]), kind)
            if packed:
                place, shift = C + number // 2, 16 * (number % 2)
                m.vector[place, 0, lane] |= bits << shift
            else:
                m.vector[C + number, 0, lane] = bits << 16 * high | 0x1234 << 16 * (1 - high)
                m.vector[D + number, 0, lane] = 0x5678ABCD
    form = f" op_sel:[0,0,{high}]" if high else ""
    run(f"v_wmma_{kind}_16x16x16_{kind} {span(D, registers)}, {span(A, counts[0])}, "
        f"{span(B, counts[1])}, {span(C, registers)}{form}", target, on=m)  # fmt: skip
    for lane in range(32):
        for number in range(8):
            one, two = a[row_of(lane, number)], b[lane % 16]
            want = sum(x * y for x, y in zip(one, two, strict=True))
            want += c[row_of(lane, number)][lane % 16]
            place, shift = (number // 2, 16 * (number % 2)) if packed else (number, 16 * high)
            word = int(m.vector[D + place, 0, lane])
            exact = decode(encode(float(want), kind), kind)
            assert decode(word >> shift & 0xFFFF, kind) == exact, (lane, number)
            if not packed:
                other = word >> 16 * (1 - high) & 0xFFFF
                assert other == (0x5678ABCD >> 16 * (1 - high) & 0xFFFF), "the other half stays"
