"""Control instructions, run by the machine; and that nothing in the table goes without a test."""

from __future__ import annotations

import numpy as np
import pytest

from conformance.devices.assembly import parse_program
from conformance.devices.isa.code import make_code
from conformance.devices.isa.instructions.table import CONTROL, TABLE, is_known
from conformance.devices.isa.machine import Machine, Tally, Violation
from conformance.devices.isa.memory import Memory
from conformance.devices.isa.state import M0, Shape, State
from conformance.devices.isa.target import UnknownInstructionError
from tests.emulator import test_dpp as test_isa_lanes
from tests.emulator import test_gfx1250 as test_isa_gfx1250
from tests.emulator import test_lds as test_isa_lds_table
from tests.emulator import test_memory as test_isa_memory_table
from tests.emulator import test_scalar as test_isa_scalar_table
from tests.emulator.isa_cases import GFX942, GFX1201, run
from tests.emulator.isa_model import VECTOR

WAVES = 4


def machine(body: str, target: str = "gfx942") -> Machine:
    """Two workgroups of two waves; s0 holds the wave's number, s1 nothing."""
    text = f"k:\n{body}\n.Lfunc_end0:\n\t.amdhsa_kernel k\n\t.end_amdhsa_kernel\n"
    chosen = GFX942 if target == "gfx942" else GFX1201
    made = State(Shape(WAVES, chosen.lanes, 8, 0, 2, 8, 0), Memory([]), None)
    made.scalar[0] = range(WAVES)
    made.workgroup[:] = [0, 0, 1, 1]
    return Machine(make_code(parse_program(text), chosen), made, [(0, 0, 0), (1, 0, 0)], Tally())


def ran(body: str, target: str = "gfx942") -> list[int]:
    """s1 of each wave at the end."""
    started = machine(body, target)
    started.run(None, 10_000)
    again = machine(body, target)
    again.run(np.random.default_rng(1), 10_000)
    one, two = (m.state.scalar[1].tolist() for m in (started, again))
    assert one == two, "waves one at a time come to the same"
    return [int(value) for value in one]


SKIP = "\ts_mov_b32 s1, 7\nend:\n\ts_endpgm"
# name: (instructions before s1 is set to 7, s1 of each wave): where a jump is taken, s1 stays 0.
JUMPS = {
    "s_branch": ("\ts_branch end", [0, 0, 0, 0]),
    "s_cbranch_scc0": ("\ts_cmp_eq_u32 s0, 2\n\ts_cbranch_scc0 end", [0, 0, 7, 0]),
    "s_cbranch_scc1": ("\ts_cmp_eq_u32 s0, 2\n\ts_cbranch_scc1 end", [7, 7, 0, 7]),
    "s_cbranch_vccz": ("\ts_lshl_b64 vcc, s[0:1], 40\n\ts_cbranch_vccz end", [0, 7, 7, 7]),
    "s_cbranch_vccnz": ("\ts_lshl_b64 vcc, s[0:1], 40\n\ts_cbranch_vccnz end", [7, 0, 0, 0]),
    "s_cbranch_execz": ("\ts_lshl_b64 exec, s[0:1], 40\n\ts_cbranch_execz end", [0, 7, 7, 7]),
    "s_cbranch_execnz": ("\ts_lshl_b64 exec, s[0:1], 40\n\ts_cbranch_execnz end", [7, 0, 0, 0]),
    "s_endpgm": ("\ts_cmp_eq_u32 s0, 1\n\ts_cbranch_scc0 .Lgo\n\ts_endpgm\n.Lgo:", [7, 0, 7, 7]),
    # The distance from the instruction after s_getpc to a label, as compilers write it.
    "s_getpc_b64": (
        "\ts_getpc_b64 s[4:5]\n.Lafter:\n\ts_add_u32 s4, s4, (end-.Lafter)&4294967295\n"
        "\ts_addc_u32 s5, s5, (end-.Lafter)>>32\n\ts_setpc_b64 s[4:5]", [0, 0, 0, 0],
    ),
}  # fmt: skip
JUMPS["s_setpc_b64"] = JUMPS["s_getpc_b64"]


@pytest.mark.parametrize("name", JUMPS)
def test_jumps(name: str) -> None:
    body, wanted = JUMPS[name]
    assert name in body
    body = body.replace("(end-", "(.Lend-").replace(" end", " .Lend")
    assert ran(f"{body}\n{SKIP.replace('end:', '.Lend:')}") == wanted


# Each wave leaves its number + 1 in LDS for the other of its workgroup to read after a barrier.
GIVE = "\ts_and_b32 s2, s0, 1\n\ts_lshl_b32 s2, s2, 2\n\tv_mov_b32_e32 v0, s2\n"
GIVE += "\ts_add_u32 s3, s0, 1\n\tv_mov_b32_e32 v1, s3\n\tds_write_b32 v0, v1\n"
TAKE = "\n\ts_xor_b32 s2, s2, 4\n\tv_mov_b32_e32 v0, s2\n\tds_read_b32 v1, v0\n"
TAKE += "\tv_readfirstlane_b32 s1, v1\n\ts_endpgm"
BARRIERS = {
    "s_barrier": ("\ts_barrier", "gfx942"),
    "s_barrier_signal": ("\ts_barrier_signal -1\n\ts_barrier_wait -1", "gfx1201"),
    "s_barrier_wait": ("\ts_barrier_signal -1\n\ts_nop 0\n\ts_barrier_wait -1", "gfx1201"),
}


@pytest.mark.parametrize("name", BARRIERS)
def test_barriers(name: str) -> None:
    """Without the instruction a wave that runs first finds nothing yet."""
    body, target = BARRIERS[name]
    assert ran(f"{GIVE}{body}{TAKE}", target) == [2, 1, 4, 3]
    missing = machine(GIVE + TAKE, target)
    missing.run(np.random.default_rng(1), 10_000)
    assert 0 in missing.state.scalar[1].tolist()


def test_a_wave_that_has_ended_is_not_waited_for() -> None:
    leaves = "\ts_cmp_eq_u32 s0, 3\n\ts_cbranch_scc1 .Lend\n\ts_barrier\n"
    assert ran(leaves + SKIP.replace("end:", ".Lend:")) == [7, 7, 7, 0]


def test_a_barrier_that_nobody_signals_is_named() -> None:
    with pytest.raises(Violation, match=r"workgroup \(0, 0, 0\) waits for ever: 4 waves are at"):
        machine("\ts_barrier_wait -1\n\ts_endpgm", "gfx1201").run(None, 10_000)


# Wave w reads v[4 + w], or writes it: an array in registers.
GIVEN = "".join(f"\tv_mov_b32_e32 v{4 + n}, {10 + n}\n" for n in range(4))
INDEXING = {
    "s_set_gpr_idx_on": (
        "\ts_set_gpr_idx_on s0, gpr_idx(SRC0)\n\tv_add_u32_e32 v1, v4, v4\n\ts_set_gpr_idx_off\n",
        [10 + w + 10 for w in range(4)],
    ),
    "s_set_gpr_idx_off": (
        "\ts_set_gpr_idx_on s0, gpr_idx(SRC0,SRC1)\n\ts_set_gpr_idx_off\n"
        "\tv_add_u32_e32 v1, v4, v5\n",
        [21, 21, 21, 21],
    ),
    "s_set_gpr_idx_idx": (
        "\ts_set_gpr_idx_on s0, gpr_idx(SRC1)\n\ts_set_gpr_idx_idx 2\n"
        "\tv_sub_u32_e32 v1, v5, v4\n\ts_set_gpr_idx_off\n",
        [0xFFFFFFFF] * 4,
    ),
}


@pytest.mark.parametrize("name", INDEXING)
def test_registers_by_an_index(name: str) -> None:
    body, wanted = INDEXING[name]
    assert ran(GIVEN + body + "\tv_readfirstlane_b32 s1, v1\n\ts_endpgm") == wanted


@pytest.mark.parametrize(("text", "after"), [
    ("s_set_gpr_idx_on s0, gpr_idx(SRC0,DST)", 0xABCD9F05),
    ("s_set_gpr_idx_on s0, gpr_idx(SRC1,SRC2)", 0xABCD6F05),
    ("s_set_gpr_idx_on s0, 0x8", 0xABCD8F05),
    ("s_set_gpr_idx_idx s0", 0xABCDEF05),
])  # fmt: skip
def test_what_indexing_leaves_in_m0(text: str, after: int) -> None:
    """The index in its lowest byte, and what is indexed from bit 12 on."""
    m = run(text, s={0: 0x305, M0: 0xABCDEF12})
    assert hex(int(m.scalar[M0, 0])) == hex(after)


def test_a_destination_by_an_index() -> None:
    body = "\ts_set_gpr_idx_on s0, 0x8\n\tv_mov_b32_e32 v4, 99\n\ts_set_gpr_idx_off\n"
    for register in range(4):
        read = f"\tv_readfirstlane_b32 s1, v{4 + register}\n\ts_endpgm"
        wanted = [99 if wave == register else 10 + register for wave in range(4)]
        assert ran(GIVEN + body + read) == wanted


@pytest.mark.parametrize(("body", "words"), [
    ("\ts_set_gpr_idx_on s0, gpr_idx(SRC0)\n.Lhere:\n\tv_mov_b32_e32 v1, v4\n", "a label between"),
    ("\ts_set_gpr_idx_on s0, gpr_idx(SRC0)\n\tv_cmp_eq_u32_e32 vcc, v1, v4\n", "by index"),
    ("\ts_set_gpr_idx_on 5, gpr_idx(SRC0)\n\tv_mov_b32_e32 v1, v4\n", "register v9 of 8"),
])  # fmt: skip
def test_what_is_not_known_of_an_index_is_refused(body: str, words: str) -> None:
    with pytest.raises(UnknownInstructionError, match=words):
        machine(GIVEN + body + "\ts_set_gpr_idx_off\n\ts_endpgm").run(None, 1000)


def test_a_trap_is_a_violation() -> None:
    with pytest.raises(Violation, match="the kernel gave up: s_trap 2"):
        machine("\ts_trap 2\n\ts_endpgm").run(None, 10_000)


def test_a_kernel_without_an_end_is_stopped() -> None:
    with pytest.raises(Violation, match="does the kernel loop"):
        machine(".Lhere:\n\ts_branch .Lhere\n\ts_endpgm").run(None, 1000)


CONTROLLED = {*JUMPS, *BARRIERS, "s_trap"}
MODELLED = {
    *VECTOR,
    *test_isa_scalar_table.TESTED,
    *test_isa_memory_table.TESTED,
    *test_isa_lds_table.TESTED,
    *test_isa_lanes.TESTED,
    *test_isa_gfx1250.TESTED,
    *INDEXING,
}


def untested(known: set[str]) -> set[str]:
    return known - MODELLED - CONTROLLED


def test_every_instruction_has_a_test_of_its_own() -> None:
    assert len(TABLE) > 1000
    assert untested({*TABLE, *CONTROL}) == set()
    assert MODELLED - {*TABLE} == set(), "tests of what the emulator does not know"
    assert CONTROLLED == CONTROL


def test_what_is_known() -> None:
    known = [*TABLE, *CONTROL, "v_add_f32_e64", "v_mfma_f32_16x16x16_f16", "s_get_pc_i64"]
    assert all(map(is_known, known))
    assert not any(map(is_known, ("v_frobnicate_b32", "s_rfe_b64", "v_mfma_f32_16x16x16_f64")))


def test_an_instruction_without_one_is_noticed() -> None:
    assert untested({*TABLE, "v_frobnicate_b32"}) == {"v_frobnicate_b32"}
