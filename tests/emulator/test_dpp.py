"""Lane permutations, and instructions that move values between lanes and scalars."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conformance.devices.isa.target import IsaTarget
from tests.emulator.isa_cases import GFX942, GFX950, GFX1100, GFX1201, run

LANES = list(range(64))
# (instruction, what v1 holds lane by lane, lanes 0, 1, 15, 16, 31, 47, 63 of v0 (-1: not written))
PERMUTATIONS = [
    ("v_mov_b32_dpp v0, v1 row_shr:1 row_mask:0xf bank_mask:0xf bound_ctrl:1",
     [0, 0, 14, 0, 30, 46, 62]),
    ("v_mov_b32_dpp v0, v1 row_shr:1 row_mask:0xf bank_mask:0xf",
     [99, 0, 14, 99, 30, 46, 62]),
    ("v_mov_b32_dpp v0, v1 row_shl:1 row_mask:0xf bank_mask:0xf bound_ctrl:1",
     [1, 2, 0, 17, 0, 0, 0]),
    ("v_mov_b32_dpp v0, v1 row_ror:1 row_mask:0xf bank_mask:0xf", [15, 0, 14, 31, 30, 46, 62]),
    ("v_mov_b32_dpp v0, v1 row_bcast:15 row_mask:0xa bank_mask:0xf",
     [99, 99, 99, 15, 15, 99, 47]),
    ("v_mov_b32_dpp v0, v1 row_bcast:31 row_mask:0xc bank_mask:0xf",
     [99, 99, 99, 99, 99, 31, 31]),
    ("v_mov_b32_dpp v0, v1 quad_perm:[3,2,1,0] row_mask:0xf bank_mask:0xf",
     [3, 2, 12, 19, 28, 44, 60]),
    ("v_mov_b32_dpp v0, v1 row_mirror row_mask:0xf bank_mask:0xf", [15, 14, 0, 31, 16, 32, 48]),
    ("v_mov_b32_dpp v0, v1 row_half_mirror row_mask:0xf bank_mask:0xf",
     [7, 6, 8, 23, 24, 40, 56]),
    ("v_mov_b32_dpp v0, v1 quad_perm:[0,1,2,3] row_mask:0xf bank_mask:0x1",
     [0, 1, 99, 16, 99, 99, 99]),
    ("ds_swizzle_b32 v0, v1 offset:swizzle(SWAP,16)", [16, 17, 31, 0, 15, 63, 47]),
    ("ds_swizzle_b32 v0, v1 offset:swizzle(BROADCAST,32,3)", [3, 3, 3, 3, 3, 35, 35]),
    ("ds_swizzle_b32 v0, v1 offset:swizzle(BITMASK_PERM,\"0000i\")", [1, 0, 0, 1, 0, 32, 32]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), PERMUTATIONS)
def test_permutation(text: str, expected: list[int]) -> None:
    m = run(text, v={0: 99, 1: LANES})
    assert m.vector[0, 0, [0, 1, 15, 16, 31, 47, 63]].tolist() == expected


def test_a_permutation_from_a_lane_that_does_not_run() -> None:
    text = "v_mov_b32_dpp v0, v1 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf"
    m = run(text, v={0: 99, 1: LANES}, exec_mask=0b0001)
    assert int(m.vector[0, 0, 0]) == 99
    m = run(f"{text} bound_ctrl:1", v={0: 99, 1: LANES}, exec_mask=0b0001)
    assert int(m.vector[0, 0, 0]) == 0


def test_lanes_and_scalars() -> None:
    m = run("v_readfirstlane_b32 s0, v1", v={1: LANES}, exec_mask=0b1000)
    assert int(m.scalar[0, 0]) == 3
    m = run("v_readfirstlane_b32 s0, v1", v={1: LANES}, exec_mask=0)
    assert int(m.scalar[0, 0]) == 0
    m = run("v_readlane_b32 s0, v1, 63", v={1: LANES}, exec_mask=1)
    assert int(m.scalar[0, 0]) == 63
    m = run("v_writelane_b32 v0, s1, 2", s={1: 5}, exec_mask=1)
    assert m.vector[0, 0, :4].tolist() == [0, 0, 5, 0]
    m = run("ds_bpermute_b32 v0, v2, v1", v={1: LANES, 2: [4 * (63 - i) for i in LANES]})
    assert m.vector[0, 0, [0, 63]].tolist() == [63, 0]
    m = run("v_mbcnt_lo_u32_b32 v0, -1, 0", v={})
    assert m.vector[0, 0, [0, 31, 63]].tolist() == [0, 31, 32]
    m = run("v_permlanex16_b32 v0, v1, s0, 0xfedcba98 op_sel:[1,0]", GFX1100,
            v={1: LANES[:32]}, s={0: 0x76543210})  # fmt: skip
    assert m.vector[0, 0, [0, 15, 16, 31]].tolist() == [16, 31, 0, 15]
    m = run("v_permlane32_swap_b32_e32 v0, v1", GFX950, v={0: LANES, 1: [100 + i for i in LANES]})
    assert m.vector[0, 0, [0, 32]].tolist() == [0, 100]
    assert m.vector[1, 0, [0, 32]].tolist() == [32, 132]


# -- every entry of the table against lists in plain Python ---------------------------------------
GIVEN = [(lane * 2654435761 + 12345) & 0xFFFFFFFF for lane in range(64)]
OTHER = [(lane * 40503 + 99991) & 0xFFFFFFFF for lane in range(64)]
OLD = 0x5A5AA5A5
RUNNING = [0xDEADBEEFCAFEF00D, (1 << 64) - 1, 1 << 17]
SELECTS = (0x1F0E3D2C, 0x45678901)  # four bits a lane of a row
PLACES = [(lane * 29 + 7) % 64 * 4 for lane in range(64)]
Lists = dict[int, list[int]]


def from_rows(row_of: Callable[[int], int]) -> Callable[[list[int], int], list[int]]:
    """Lane l of a row reads the lane of a row that the scalars name; off lanes read as they are."""

    def move(data: list[int], running: int) -> list[int]:
        del running
        chosen = [SELECTS[lane % 16 // 8] >> 4 * (lane % 8) & 15 for lane in range(len(data))]
        return [data[row_of(lane // 16) * 16 + at] for lane, at in enumerate(chosen)]

    return move


def swapped(size: int) -> Callable[[Lists], Lists]:
    """Odd groups of v0 with even ones of v1."""

    def move(had: Lists) -> Lists:
        one, two = list(had[0]), list(had[1])
        for lane in range(len(one)):
            if lane // size % 2:
                one[lane], two[lane - size] = had[1][lane - size], had[0][lane]
        return {0: one, 1: two}

    return move


def below(first: int) -> list[int]:
    """How many bits of the mask in s20 stand for lanes below each, plus the lane's v1."""
    mask = 0xF0F1A5C3
    return [(mask & (1 << max(0, min(32, lane - first))) - 1).bit_count() + GIVEN[lane]
            & 0xFFFFFFFF for lane in range(64)]  # fmt: skip


def on(running: int, lane: int) -> bool:
    return bool(running >> lane & 1)


def backward(running: int) -> list[int]:
    return [GIVEN[PLACES[lane] // 4] if on(running, PLACES[lane] // 4) else 0
            for lane in range(64)]  # fmt: skip


def forward(running: int) -> list[int]:
    found = [0] * 64
    for lane in range(64):
        if on(running, lane):
            found[PLACES[lane] // 4] = GIVEN[lane]
    return found


def swizzled(running: int) -> list[int]:
    """Bit mode: and 0x1E, or 1, xor 4, within 32 lanes."""
    source = [lane & 32 | ((lane & 31 & 0x1E | 1) ^ 4) for lane in range(64)]
    return [GIVEN[at] if on(running, at) else 0 for at in source]


# name: (text, target, v0 afterwards in the lanes that run)
MOVES: dict[str, tuple[str, IsaTarget, Callable[[int], list[int]]]] = {
    "ds_bpermute_b32": ("v0, v2, v1", GFX942, backward),
    "ds_permute_b32": ("v0, v2, v1", GFX942, forward),
    "ds_swizzle_b32": ("v0, v1 offset:0x103e", GFX942, swizzled),
    "v_mbcnt_lo_u32_b32": ("v0, s20, v1", GFX942, lambda _: below(0)),
    "v_mbcnt_hi_u32_b32": ("v0, s20, v1", GFX942, lambda _: below(32)),
    "v_permlane16_b32": ("v0, v1, s21, s22 op_sel:[1,0]", GFX1100,
                         lambda r: from_rows(lambda row: row)(GIVEN[:32], r)),
    "v_permlanex16_b32": ("v0, v1, s21, s22 op_sel:[1,0]", GFX1100,
                          lambda r: from_rows(lambda row: row ^ 1)(GIVEN[:32], r)),
    "v_permlane16_var_b32": ("v0, v1, v2 op_sel:[1,0]", GFX1201, lambda _: [
        GIVEN[lane // 16 * 16 + PLACES[lane] % 16] for lane in range(32)]),
    "v_permlanex16_var_b32": ("v0, v1, v2 op_sel:[1,0]", GFX1201, lambda _: [
        GIVEN[(lane // 16 ^ 1) * 16 + PLACES[lane] % 16] for lane in range(32)]),
    "v_permlane64_b32": ("v0, v1", GFX942, lambda _: GIVEN[32:] + GIVEN[:32]),
}  # fmt: skip


@pytest.mark.parametrize("running", RUNNING, ids=hex)
@pytest.mark.parametrize("name", MOVES)
def test_moves_between_lanes(name: str, running: int) -> None:
    text, target, wanted = MOVES[name]
    lanes, running = target.lanes, running & ((1 << target.lanes) - 1)
    m = run(
        f"{name} {text}",
        target,
        v={0: OLD, 1: GIVEN[:lanes], 2: PLACES[:lanes]},
        s={20: 0xF0F1A5C3, 21: SELECTS[0], 22: SELECTS[1]},
        exec_mask=running,
    )
    made = wanted(running)
    assert m.vector[0, 0].tolist() == [
        made[lane] if on(running, lane) else OLD for lane in range(lanes)
    ]


@pytest.mark.parametrize("name", ["v_permlane16", "v_permlanex16"])
@pytest.mark.parametrize("var", [False, True])
def test_a_row_that_reads_lanes_that_do_not_run(name: str, var: bool) -> None:
    """Lane l reads lane 15 - l of a row; op_sel: whether one that is off gives what it holds, or 0.

    Else the lane that would have read it is left as it was.
    """
    target = GFX1201 if var else GFX1100
    operands = "v2" if var else "s21, s22"
    chosen = [15 - lane % 16 for lane in range(32)]
    for form, off in (("", OLD), (" op_sel:[0,1]", 0), (" op_sel:[1,0]", None)):
        m = run(f"{name}{'_var' if var else ''}_b32 v0, v1, {operands}{form}", target,
                v={0: OLD, 1: GIVEN[:32], 2: chosen}, s={21: 0x89ABCDEF, 22: 0x01234567},
                exec_mask=0xFF0F00FF)  # fmt: skip
        for lane in range(32):
            source = (lane // 16 ^ (name == "v_permlanex16")) * 16 + chosen[lane]
            read = GIVEN[source] if off is None or on(0xFF0F00FF, source) else off
            assert int(m.vector[0, 0, lane]) == (read if on(0xFF0F00FF, lane) else OLD)


def test_a_wave_of_one_half_has_none_to_exchange() -> None:
    m = run("v_permlane64_b32_e32 v0, v1", GFX1100, v={0: OLD, 1: GIVEN[:32]})
    assert m.vector[0, 0].tolist() == [OLD] * 32


# name: (target, both registers afterwards where every lane runs)
SWAPS: dict[str, tuple[IsaTarget, Callable[[Lists], Lists]]] = {
    "v_swap_b32": (GFX942, lambda had: {0: had[1], 1: had[0]}),
    "v_permlane16_swap_b32": (GFX950, swapped(16)),
    "v_permlane32_swap_b32": (GFX950, swapped(32)),
}


@pytest.mark.parametrize("running", RUNNING, ids=hex)
@pytest.mark.parametrize("name", SWAPS)
def test_swaps(name: str, running: int) -> None:
    target, wanted = SWAPS[name]
    m = run(f"{name} v0, v1", target, v={0: GIVEN, 1: OTHER}, exec_mask=running)
    made = wanted({0: GIVEN, 1: OTHER})
    for register, before in ((0, GIVEN), (1, OTHER)):
        assert m.vector[register, 0].tolist() == [
            made[register][lane] if on(running, lane) else before[lane] for lane in range(64)
        ]


@pytest.mark.parametrize("running", [*RUNNING, 0], ids=hex)
def test_reads_of_a_lane(running: int) -> None:
    first = (running & -running).bit_length() - 1 if running else 0
    m = run("v_readfirstlane_b32 s0, v1", v={1: GIVEN}, exec_mask=running)
    assert int(m.scalar[0, 0]) == GIVEN[first]
    for lane in (0, 31, 32, 63, 64, 127):
        m = run("v_readlane_b32 s0, v1, s20", v={1: GIVEN}, s={20: lane}, exec_mask=running)
        assert int(m.scalar[0, 0]) == GIVEN[lane % 64]
        m = run("v_writelane_b32 v1, s0, s20", v={1: GIVEN}, s={0: 7, 20: lane}, exec_mask=running)
        assert m.vector[1, 0].tolist() == [7 if at == lane % 64 else GIVEN[at] for at in range(64)]


TESTED = {*MOVES, *SWAPS, "v_readfirstlane_b32", "v_readlane_b32", "v_writelane_b32"}
