"""Matrix instructions against sums in plain Python: layouts, formats, operand order.

Values are small whole numbers times a power of two: every order of summation gives the same.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from conformance.devices.assembly import parse_instruction
from conformance.devices.isa.instructions.table import build_step, is_known
from conformance.devices.isa.target import IsaTarget, UnknownError
from tests.emulator.isa_cases import GFX942, GFX950, GFX1100, GFX1201, GFX1250, around, run, state
from tests.emulator.isa_model.bits import FORMATS, decode, encode
from tests.emulator.isa_model.packed import to_fp8

A, B, C, D = 0, 32, 64, 96


@dataclass(frozen=True)
class Matrix:
    """One instruction: N x N x ``depth``; the kinds of A's and B's elements, text behind C."""

    name: str
    target: IsaTarget
    size: int
    depth: int
    kinds: tuple[str, str]
    more: str = ""

    def __str__(self) -> str:
        return f"{self.name}-{self.target.name}{self.more.replace(' ', '-')}"

    @property
    def lanes(self) -> int:
        return self.target.lanes

    @property
    def results(self) -> int:
        return self.size * self.size // self.lanes

    @property
    def held(self) -> int:
        """Elements of A or B in a lane."""
        return self.depth if self.target is GFX1100 else self.depth * self.size // self.lanes

    def element(self, lane: int, place: int) -> tuple[int, int]:
        """Row of A (column of B) and k of a lane's element."""
        group = 0 if self.target is GFX1100 else lane // self.size
        if self.target is GFX1250 and self.held > 8:
            return lane % self.size, 16 * (place // 8) + 8 * group + place % 8
        return lane % self.size, self.held * group + place

    def result(self, lane: int, register: int) -> tuple[int, int]:
        """Row and column of D."""
        part, column = lane // self.size, lane % self.size
        if self.target is GFX1100:
            return 2 * register + part, column
        if self.target in (GFX1201, GFX1250):
            return 8 * part + register, column
        if self.size == 32:
            return 8 * (register // 4) + 4 * part + register % 4, column
        return 4 * part + register, column


def mfma() -> list[Matrix]:
    found = []
    for size, depth in ((32, 8), (16, 16)):
        found.append(Matrix(f"v_mfma_f32_{size}x{size}x{depth}_f16", GFX942, size, depth,
                            ("f16", "f16")))  # fmt: skip
        for name in ("bf16_1k", "bf16"):
            found.append(Matrix(f"v_mfma_f32_{size}x{size}x{depth}_{name}", GFX942, size, depth,
                                ("bf16", "bf16")))  # fmt: skip
    for size, depth in ((32, 2), (16, 4)):
        found.append(Matrix(f"v_mfma_f32_{size}x{size}x{depth}_f32", GFX942, size, depth,
                            ("f32", "f32")))  # fmt: skip
    for size, depth in ((32, 4), (16, 8)):
        found.append(Matrix(f"v_mfma_f32_{size}x{size}x{depth}_xf32", GFX942, size, depth,
                            ("f32", "f32")))  # fmt: skip
    for target, size, depth in (
        (t, s, d) for t in (GFX942, GFX950) for s, d in ((32, 16), (16, 32))
    ):
        for one in ("fp8", "bf8"):
            for two in ("fp8", "bf8"):
                found.append(Matrix(f"v_mfma_f32_{size}x{size}x{depth}_{one}_{two}", target, size,
                                    depth, (one, two)))  # fmt: skip
        if target is GFX950:
            for kind in ("f16", "bf16"):
                found.append(Matrix(f"v_mfma_f32_{size}x{size}x{depth}_{kind}", target, size, depth,
                                    (kind, kind)))  # fmt: skip
    for size, depth in ((32, 64), (16, 128)):
        for one, two, more in (("fp8", "fp8", ""), ("bf8", "fp8", " cbsz:1"),
                               ("fp8", "bf8", " blgp:1"),
                               ("bf8", "bf8", " cbsz:1 blgp:1")):  # fmt: skip
            found.append(Matrix(f"v_mfma_f32_{size}x{size}x{depth}_f8f6f4", GFX950, size, depth,
                                (one, two), more))  # fmt: skip
    return found


def wmma() -> list[Matrix]:
    found = [
        Matrix(f"v_wmma_f32_16x16x16_{kind}", target, 16, 16, (kind, kind))
        for target in (GFX1100, GFX1201)
        for kind in ("f16", "bf16")
    ]
    return (
        found
        + [
            Matrix(f"v_wmma_f32_16x16x{depth}_{one}_{two}", target, 16, depth, (one, two))
            for target, depth in ((GFX1201, 16), (GFX1250, 64), (GFX1250, 128))
            for one in ("fp8", "bf8")
            for two in ("fp8", "bf8")
        ]
        + [
            Matrix("v_wmma_f32_16x16x32_f16", GFX1250, 16, 32, ("f16", "f16")),
            Matrix("v_wmma_f32_16x16x32_bf16", GFX1250, 16, 32, ("bf16", "bf16")),
            Matrix("v_wmma_f32_16x16x4_f32", GFX1250, 16, 4, ("f32", "f32")),
        ]
    )


@cache
def bits_of(value: float, kind: str, target: IsaTarget) -> int:
    return encode(value, kind) if kind in FORMATS else to_fp8(value, kind, target.family.fp8)


# By what each type's small numbers are multiplied: their products are far outside the type.
WIDE = {"f32": 2.0**50, "bf16": 2.0**50, "f16": 2.0**12, "bf8": 2.0**10, "fp8": 2.0**5}


def scales_of(kinds: tuple[str, str]) -> tuple[float, float]:
    """What A's and B's numbers are multiplied by: of float32 A's lowest bits count, too."""
    return WIDE[kinds[0]] * (257 if kinds[0] == "f32" else 1), WIDE[kinds[1]]


@pytest.mark.parametrize("one", [*mfma(), *wmma()], ids=str)
def test_product(one: Matrix) -> None:
    """D = A x B + C in float32, whatever EXEC says."""
    draw, target = random.Random(str(one)), one.target
    a, b = ([[draw.randrange(-4, 5) for _ in range(one.depth)] for _ in range(one.size)]
            for _ in range(2))  # fmt: skip
    c = [[draw.randrange(-9, 10) for _ in range(one.size)] for _ in range(one.size)]
    m = state(target)
    of_a, of_b = scales_of(one.kinds)
    sizes = [{"f32": 4, "f16": 2, "bf16": 2}.get(kind, 1) for kind in one.kinds]
    for lane in range(one.lanes):
        given = zip((a, b), (of_a, of_b), one.kinds, (A, B), sizes, strict=True)
        for matrix, scale, kind, first, size in given:
            held = b""
            for place in range(one.held):
                row, k = one.element(lane, place)
                held += bits_of(matrix[row][k] * scale, kind, target).to_bytes(size, "little")
            for word in range(len(held) // 4):
                m.vector[first + word, 0, lane] = int.from_bytes(held[4 * word :][:4], "little")
        for register in range(one.results):
            row, column = one.result(lane, register)
            m.vector[C + register, 0, lane] = encode(c[row][column] * of_a * of_b, "f32")
    counts = [one.held * size // 4 for size in sizes]
    text = f"{one.name} v[{D}:{D + one.results - 1}], {span(A, counts[0])}, {span(B, counts[1])}, "
    before = around(m, D, one.results)
    run(f"{text}v[{C}:{C + one.results - 1}]{one.more}", target, on=m, exec_mask=0b101)
    assert np.array_equal(around(m, D, one.results), before), "other registers"
    for lane in range(one.lanes):
        for register in range(one.results):
            row, column = one.result(lane, register)
            want = sum(x * y for x, y in zip(a[row], b[column], strict=True)) + c[row][column]
            got = decode(int(m.vector[D + register, 0, lane]), "f32")
            assert got == want * of_a * of_b, (lane, register)


@dataclass(frozen=True)
class Blocks:
    """Sixteen products of 4 x ``depth`` by depth x 4, of which 2^``cbsz`` share A."""

    name: str
    depth: int
    kind: str
    cbsz: int = 0
    abid: int = 0

    def __str__(self) -> str:
        return f"{self.name}-cbsz{self.cbsz}-abid{self.abid}"


BLOCKS = [
    Blocks(name, depth, kind, cbsz, abid)
    for name, depth, kind in (
        ("v_mfma_f32_4x4x4_16b_f16", 4, "f16"),
        ("v_mfma_f32_4x4x4f16", 4, "f16"),
        ("v_mfma_f32_4x4x4_16b_bf16", 4, "bf16"),
        ("v_mfma_f32_4x4x4bf16_1k", 4, "bf16"),
        ("v_mfma_f32_4x4x1_16b_f32", 1, "f32"),
        ("v_mfma_f32_4x4x1f32", 1, "f32"),
    )
    for cbsz, abid in ((0, 0), (1, 1), (2, 3), (4, 0), (4, 15))
]


@pytest.mark.parametrize("one", BLOCKS, ids=str)
def test_products_of_four_lanes(one: Blocks) -> None:
    """Of each four lanes their own product, but A is that of block ``abid`` in its group."""
    draw = random.Random(str(one))
    size = {"f32": 4, "f16": 2, "bf16": 2}[one.kind]
    a, b = ([[draw.randrange(-4, 5) for _ in range(one.depth)] for _ in range(64)]
            for _ in range(2))  # fmt: skip
    c = [[draw.randrange(-9, 10) for _ in range(4)] for _ in range(64)]
    m = state(GFX942)
    for lane in range(64):
        for first, held in ((A, a[lane]), (B, b[lane])):
            data = b"".join(
                bits_of(value, one.kind, GFX942).to_bytes(size, "little") for value in held
            )
            for word in range(len(data) // 4):
                m.vector[first + word, 0, lane] = int.from_bytes(data[4 * word :][:4], "little")
        for row in range(4):
            m.vector[C + row, 0, lane] = encode(float(c[lane][row]), "f32")
    count = one.depth * size // 4
    more = f" cbsz:{one.cbsz} abid:{one.abid}" if one.cbsz else ""
    text = f"{one.name} v[{D}:{D + 3}], {span(A, count)}, {span(B, count)}, v[{C}:{C + 3}]{more}"
    run(text, GFX942, on=m, exec_mask=0b101)
    group = 2**one.cbsz
    for lane in range(64):
        block = lane // 4
        taken = block - block % group + one.abid if group > 1 else block
        for row in range(4):
            products = zip(a[4 * taken + row], b[lane], strict=True)
            want = sum(x * y for x, y in products) + c[lane][row]
            assert decode(int(m.vector[D + row, 0, lane]), "f32") == want, (lane, row)


def test_permuted_operands_of_four_lanes_are_refused() -> None:
    text = "v_mfma_f32_4x4x4_16b_f16 v[0:3], v[4:5], v[6:7], v[0:3] blgp:1"
    with pytest.raises(UnknownError, match="blgp"):
        build_step(parse_instruction(text), GFX942)


def span(first: int, count: int) -> str:
    return f"v[{first}:{first + count - 1}]" if count > 1 else f"v{first}"


def test_an_accumulator_may_be_a_constant() -> None:
    zeros = dict.fromkeys(range(4), 0)
    m = run("v_mfma_f32_32x32x8_f16 v[16:31], v[0:1], v[2:3], 1.0", v=zeros)
    assert (m.vector[16:32].view(np.float32) == 1).all()


def test_swapped_matrix_operands_give_another_result() -> None:
    """The transpose: a wrong operand order is seen."""
    draw = random.Random(3)
    given = {i: [draw.randrange(0x3C00) for _ in range(64)] for i in range(4)}
    right = run("v_mfma_f32_32x32x8_f16 v[16:31], v[0:1], v[2:3], 0", v=given).vector[16:32]
    wrong = run("v_mfma_f32_32x32x8_f16 v[16:31], v[2:3], v[0:1], 0", v=given).vector[16:32]
    assert not np.array_equal(right, wrong)


@pytest.mark.parametrize(
    "text", ["v_mfma_f32_16x16x16_f16 v[16:19], v[0:1], v[2:3], 0",
             "v_mfma_f32_4x4x4_16b_f16 v[16:19], v[0:1], v[2:3], 0"],
)  # fmt: skip
def test_lanes_that_are_off_take_part_unless_they_are_masked(text: str) -> None:
    """All of D is written either way; what the upper half of a wave brings counts, or is 0."""
    draw = random.Random(4)
    lower = 0x00000000_FFFFFFFF
    given = {i: [draw.randrange(0x3C00) for _ in range(64)] for i in range(4)}
    halved = {i: [*row[:32], *[0] * 32] for i, row in given.items()}
    made = {}
    for name, values, masked in (
        ("as it is", given, False), ("masked", given, True), ("zeros", halved, False),
    ):  # fmt: skip
        m = state()
        m.masked = masked
        made[name] = run(text, v=values, exec_mask=lower, on=m).vector[16:20].copy()
    whole = run(text, v=given).vector[16:20]
    assert np.array_equal(made["as it is"], whole)
    assert np.array_equal(made["masked"], made["zeros"])
    assert not np.array_equal(made["masked"], whole)


@pytest.mark.parametrize(
    "name", ["v_mfma_f64_16x16x4_f64", "v_swmmac_f32_16x16x32_f16", "v_smfmac_f32_16x16x32_f16",
             "v_wmma_f16_16x16x16_bf16", "v_wmma_i32_16x16x16_f16", "v_wmma_f32_32x32x16_f16",
             "v_mfma_f32_16x32x8_f16"],
)  # fmt: skip
def test_other_matrix_instructions_are_not_known(name: str) -> None:
    assert not is_known(name)


def test_a_layout_that_is_not_known_is_refused() -> None:
    with pytest.raises(UnknownError, match="elements a lane"):
        build_step(parse_instruction("v_mfma_f32_32x32x8_f16 v[16:31], v[0:3], v[4:7], 0"), GFX942)
