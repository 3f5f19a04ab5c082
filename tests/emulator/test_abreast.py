"""Waves abreast: an instruction each in turn, whatever way they took, from barrier to barrier."""

from __future__ import annotations

import numpy as np
import pytest

from conformance.devices.assembly import parse_program
from conformance.devices.isa.code import make_code
from conformance.devices.isa.machine import Machine, Tally, Violation
from conformance.devices.isa.memory import Memory
from conformance.devices.isa.state import Shape, State
from tests.emulator.isa_cases import GFX942

# Wave 0 goes on, wave 1 jumps. Both read byte 0 of LDS into v3, wave 0 four instructions before
# wave 1, and store 7 there. Nothing but their pace orders the reads before the stores.
READ, WRITE = "\tds_read_b32 v3, v0\n", "\tds_write_b32 v0, v2\n"
LATER = "\tv_mov_b32_e32 v4, v2\n"


def kernel(first: int, second: int, *, barrier: bool = False) -> str:
    """Instructions between a wave's read and its store, of the wave that goes on and the other."""
    between = "\ts_barrier\n" if barrier else ""
    ways = (READ + between + LATER * count + WRITE for count in (first, second))
    one, other = ways
    return f"\ts_cmp_eq_u32 s0, 1\n\ts_cbranch_scc1 .Lother\n{one}\ts_endpgm\n.Lother:\n{other}"


def read(body: str, *, abreast: bool, limit: int = 1000) -> list[int]:
    """What each wave read: 5 if the other had not stored yet."""
    text = f"k:\n{body}\n\ts_endpgm\n.Lfunc_end0:\n\t.amdhsa_kernel k\n\t.end_amdhsa_kernel\n"
    m = State(Shape(2, 64, 16, 0, 1, 256, 0), Memory([]), None)
    m.scalar[0] = np.arange(2)
    m.vector[0], m.vector[2] = 0, 7
    m.lds.view(np.uint32)[:] = 5
    machine = Machine(
        make_code(parse_program(text), GFX942), m, [(0, 0, 0)], Tally(), abreast=abreast
    )
    machine.run(None, limit)
    return [int(lane) for lane in m.vector[3, :, 0]]


@pytest.mark.parametrize(
    ("first", "second", "expected"), [(4, 4, [5, 5]), (0, 0, [5, 5]), (4, 0, [5, 5])]
)
def test_waves_on_different_ways_keep_pace(first: int, second: int, expected: list[int]) -> None:
    assert read(kernel(first, second), abreast=True) == expected


def test_otherwise_one_of_them_runs_ahead() -> None:
    assert read(kernel(4, 4), abreast=False) == [5, 7]


@pytest.mark.parametrize("abreast", [True, False])
def test_a_barrier_orders_them_in_any_case(abreast: bool) -> None:
    assert read(kernel(1, 9, barrier=True), abreast=abreast) == [5, 5]


def test_pace_is_counted_from_barrier_to_barrier() -> None:
    """The wave that had more to do before a barrier is not behind after it."""
    body = (
        f"\ts_cmp_eq_u32 s0, 1\n\ts_cbranch_scc1 .Lother\n{LATER * 9}\ts_barrier\n"
        f"{READ}{LATER * 4}{WRITE}\ts_endpgm\n.Lother:\n\ts_barrier\n{READ}{LATER * 4}{WRITE}"
    )
    assert read(body, abreast=True) == [5, 5]


def test_a_loop_without_end_is_stopped() -> None:
    with pytest.raises(Violation, match="no end after 1000"):
        read(".Lagain:\n\ts_nop 0\n\ts_branch .Lagain", abreast=True)
