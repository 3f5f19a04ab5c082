"""Races by the order of events: what no barrier orders is found, in whatever order waves ran."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance.devices.assembly import parse_program
from conformance.devices.isa.code import make_code
from conformance.devices.isa.machine import Machine, Tally, Violation
from conformance.devices.isa.memory import Memory
from conformance.devices.isa.races import GlobalStores, Races
from conformance.devices.isa.state import Shape, State
from conformance.devices.spelling import parse_device
from tests.emulator.isa_cases import GFX942, GFX1201, buffer

WAVES, LDS_BYTES = 4, 1024
DATA = 16


def run(body: str, target: Any = GFX942, seed: int | None = None, *buffers: Any) -> State:
    """Two workgroups of two waves: s0 is the wave's number in its workgroup, s1 the workgroup's.

    v0 is the lane's number times 4, v1 the wave's number, v2 the lane's; s[4:5] is the buffer.
    """
    lanes = target.lanes
    text = f"k:\n{body}\n\ts_endpgm\n.Lfunc_end0:\n\t.amdhsa_kernel k\n\t.end_amdhsa_kernel\n"
    program = parse_program(text)
    m = State(Shape(WAVES, lanes, 16, 0, 2, LDS_BYTES, 0), Memory(buffers), None)
    m.workgroup[:] = np.arange(WAVES) // 2
    m.scalar[0], m.scalar[1] = np.arange(WAVES) % 2, np.arange(WAVES) // 2
    m.vector[0], m.vector[2] = np.arange(lanes) * 4, np.arange(lanes)
    m.vector[1] = np.arange(WAVES)[:, None]
    if buffers:
        m.scalar[4], m.scalar[5] = buffers[0].start & 0xFFFFFFFF, buffers[0].start >> 32
    m.races = Races(program, m, GlobalStores(), 0)
    order = None if seed is None else np.random.default_rng(seed)
    groups = [(0, 0, 0), (1, 0, 0)]
    Machine(make_code(program, target), m, groups, Tally()).run(order, 10_000)
    return m


def raced(body: str, target: Any = GFX942, *buffers: Any) -> list[str]:
    """What is found in lockstep, and with the waves one at a time in two orders."""
    found = []
    for seed in (None, 0, 3):
        try:
            run(body, target, seed, *buffers)
        except Violation as violation:
            found.append(str(violation))
        else:
            found.append("")
    return found


# Each wave writes 4 bytes a lane to a half of its own: at lane * 4 + 256 * wave.
OWN = "\tv_lshlrev_b32_e32 v3, 8, v1\n\tv_and_b32_e32 v3, 0x100, v3\n\tv_add_u32_e32 v3, v3, v0\n"
OTHER = "\tv_xor_b32_e32 v4, 0x100, v3\n"
WRITE, READ = "\tds_write_b32 v3, v2\n", "\tds_read_b32 v5, v4\n"
BARRIER = "\ts_waitcnt lgkmcnt(0)\n\ts_barrier\n"
SIGNAL, WAIT = "\ts_barrier_signal -1\n", "\ts_barrier_wait -1\n"
ALONE = "\ts_cmp_eq_u32 s0, 0\n\ts_cbranch_scc0 .Lskip{n}\n{body}.Lskip{n}:\n"


def of_first(body: str, number: int = 0) -> str:
    """Only the first wave of each workgroup does it."""
    return ALONE.format(n=number, body=body)


# name: (program, target)
ORDERED = {
    "halves of their own": (OWN + WRITE + "\tds_read_b32 v5, v3\n", GFX942),
    "a barrier between": (OWN + OTHER + WRITE + BARRIER + READ, GFX942),
    "written, read, written again": (
        OWN + OTHER + WRITE + BARRIER + READ + BARRIER + "\tds_write_b32 v3, v1\n", GFX942),
    "a barrier in two parts": (OWN + OTHER + WRITE + SIGNAL + WAIT + READ, GFX1201),
    "own accesses between the parts": (
        OWN + OTHER + WRITE + SIGNAL + "\tds_read_b32 v5, v3\n" + WAIT + READ, GFX1201),
    "the same value by both": ("\tds_write_b32 v0, v2\n", GFX942),
    "the same value, where one reads": (
        "\tds_write_b32 v0, v2\n" + BARRIER + "\tds_read_b32 v5, v0\n\tds_write_b32 v0, v2\n",
        GFX942),
    "atomics": ("\tds_add_u32 v0, v2\n\tds_add_rtn_u32 v5, v0, v2\n", GFX942),
    "atomics, then reads": ("\tds_add_u32 v0, v2\n" + BARRIER + "\tds_read_b32 v5, v0\n", GFX942),
    "bytes side by side": (
        OWN.replace("8, v1", "1, v1").replace("0x100", "0x2") + "\tds_write_b16 v3, v1\n", GFX942),
    "one wave alone": (of_first("\tds_write_b32 v0, v1\n\tds_read_b32 v5, v0\n"), GFX942),
    "a wave that has ended": (of_first(BARRIER + "\tds_write_b32 v0, v2\n"), GFX942),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERED)
def test_what_is_ordered_is_no_race(name: str) -> None:
    body, target = ORDERED[name]
    assert raced(body, target) == [""] * 3


# name: (program, target, words)
RACES = {
    "read without a barrier": (OWN + OTHER + WRITE + READ, GFX942, "written by wave"),
    "written while it is read": (
        OWN + OTHER + WRITE + BARRIER + READ + "\tds_write_b32 v3, v1\n", GFX942, "by wave"),
    "two values": ("\tds_write_b32 v0, v1\n", GFX942, "written by wave 0 in ds_write_b32 v0, v1"),
    "one byte of two": (
        OWN.replace("8, v1", "0, v1").replace("0x100", "0x1") + "\tds_write_b16 v3, v1\n",
        GFX942, "LDS byte"),
    "signalled too early": (OWN + OTHER + SIGNAL + WRITE + WAIT + READ, GFX1201, "is read by"),
    "read too early": (OWN + OTHER + WRITE + SIGNAL + READ + WAIT, GFX1201, "a race: LDS byte"),
    "an atomic and a read": ("\tds_add_u32 v0, v2\n\tds_read_b32 v5, v0\n", GFX942, "a race"),
    "an atomic and a write": (
        of_first("\tds_write_b32 v0, v2\n") + "\tds_add_u32 v0, v2\n", GFX942, "a race"),
    "wide and narrow": (
        OWN.replace("8, v1", "2, v1").replace("0x100", "0x4") + "\tds_write_b64 v3, v[1:2]\n",
        GFX942, "a race"),
    "two of a store": ("\tds_write2_b32 v0, v1, v2 offset1:1\n", GFX942, "a race"),
}  # fmt: skip


@pytest.mark.parametrize("name", RACES)
def test_what_is_not_ordered_is_found_in_every_order(name: str) -> None:
    body, target, words = RACES[name]
    for message in raced(body, target):
        assert "a race: LDS byte" in message, message
    assert any(words in message for message in raced(body, target))


def test_a_race_names_both_accesses_and_where_they_stand() -> None:
    text = SECOND.format("\t.loc 1 7 3 ; a.py:7:3\n\tds_write_b32 v0, v1\n")
    with pytest.raises(Violation) as raised:
        run(text)
    assert str(raised.value) == (
        "a race: LDS byte 0, written by wave 0 in ds_write_b32 v0, v1 (assembly line 5, a.py:7:3) "
        "with no barrier between, is written by workgroup (0, 0, 0), wave 1, lane 0: "
        "ds_write_b32 v0, v1 (assembly line 5, a.py:7:3)"
    )


# -- global memory --------------------------------------------------------------------------------
STORE, LOAD = "\tglobal_store_dword v0, {}, s[4:5]\n", "\tglobal_load_dword v5, v0, s[4:5]\n"
SECOND = "\ts_cmp_eq_u32 s1, 1\n\ts_cbranch_scc1 .Lend\n{}.Lend:\n"
GLOBAL = {
    "everyone the same": (STORE.format("v2"), ""),
    "two workgroups, two values": (of_first(STORE.format("v1")), "in another workgroup"),
    "two waves, two values": (SECOND.format(STORE.format("v1")), "of data, written by wave 0"),
    "read what another wave stores": (
        SECOND.format(of_first(STORE.format("v2")) + LOAD), "of data"),
    "behind a barrier": (
        SECOND.format(of_first(STORE.format("v2")) + "\ts_barrier\n" + LOAD), ""),
    "atomics": ("\tglobal_atomic_add v0, v2, s[4:5]\n" * 2, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", GLOBAL)
def test_global_memory(name: str) -> None:
    body, words = GLOBAL[name]
    for seed in (None, 0, 3):
        _, span = buffer("data", np.full(64, 0xFFFFFFFF, dtype=np.uint32))
        try:
            run(body, GFX942, seed, span)
            message = ""
        except Violation as violation:
            message = str(violation)
        if not words:
            assert message == ""
        elif "another workgroup" in words or seed is None:
            assert words in message, (seed, message)


def test_an_access_out_of_bounds_is_still_that() -> None:
    _, span = buffer("data", np.zeros(8, dtype=np.uint32))
    for text in (STORE.format("v2"), LOAD):
        with pytest.raises(Violation, match="past the end of data"):
            run(text, GFX942, None, span)
    with pytest.raises(Violation, match="outside the 1024 allocated"):
        run("\tv_mov_b32_e32 v0, 0x800\n\tds_write_b32 v0, v1\n")


def test_the_spelling_of_the_mode() -> None:
    name = parse_device("isa:gfx942,races,poison")
    assert (name.races, name.poison, name.serial) == (True, True, False)
    assert str(name) == "isa:gfx942,poison,races"
