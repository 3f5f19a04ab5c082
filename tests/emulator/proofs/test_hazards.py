"""The static check of hazards, by family: as many wait states as are needed, and one fewer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from conformance.devices.assembly import parse_program
from conformance.devices.isa.code import make_code
from conformance.devices.isa.proofs.hazards import _Analysis, check
from conformance.devices.isa.target import IsaTarget
from conformance.devices.targets import target_facts
from tests.emulator.isa_cases import GFX942, GFX1100

TARGETS = {
    name: IsaTarget(target_facts(name), target_facts(name).wave_size)
    for name in ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1201")
}
CDNA = ("gfx90a", "gfx942", "gfx950")
NEWER = ("gfx942", "gfx950")
RDNA = ("gfx1100", "gfx1151", "gfx1201")


def found(body: str, target: IsaTarget) -> list[str]:
    text = f"k:\n{body}\n\ts_endpgm\n.Lfunc_end0:\n\t.amdhsa_kernel k\n\t.end_amdhsa_kernel\n"
    return [str(one) for one in check(make_code(parse_program(text), target))]


def apart(first: str, later: str, states: int, filler: str = "") -> str:
    """Two instructions with wait states between them."""
    between = [filler] * states if filler else [f"s_nop {n - 1}" for n in _parts(states)]
    return "".join(f"\t{line}\n" for line in (first, *between, later))


def _parts(states: int) -> list[int]:
    return [8] * (states // 8) + ([states % 8] if states % 8 else [])


# (targets, first, later, wait states needed between them)
ROWS = [
    (CDNA, "v_readfirstlane_b32 s4, v1", "global_load_dword v2, v0, s[4:5]", 5),
    (CDNA, "v_cmp_eq_u32_e64 s[6:7], v1, v2", "buffer_load_dword v3, v0, s[4:7], 0 offen", 5),
    (CDNA, "v_readlane_b32 s8, v1, 0", "buffer_store_dword v3, v0, s[4:7], s8 offen", 5),
    (CDNA, "v_cmp_eq_u32_e32 vcc, v1, v2", "global_load_dword v3, v0, vcc", 5),
    (CDNA, "v_readfirstlane_b32 s4, v1", "v_readlane_b32 s5, v2, s4", 4),
    (CDNA, "v_readfirstlane_b32 s4, v1", "v_writelane_b32 v2, 1, s4", 4),
    (CDNA, "v_div_scale_f32 v1, vcc, v2, v3, v2", "v_div_fmas_f32 v4, v5, v6, v7", 4),
    (CDNA, "v_cmpx_eq_u32_e32 vcc, v1, v2",
     "v_mov_b32_dpp v3, v4 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf", 5),
    (CDNA, "v_add_u32_e32 v4, v1, v2",
     "v_mov_b32_dpp v3, v4 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf", 2),
    (CDNA, "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 4), 0", "s_getreg_b32 s0, hwreg(HW_REG_MODE)",
     2),
    (CDNA, "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 4), 0",
     "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 4, 4), 3", 2),
    (CDNA, "s_mov_b32 m0, s1", "buffer_load_dword v0, s[4:7], 0 offen lds", 1),
    (CDNA, "s_mov_b32 m0, s1", "global_load_lds_dword v[0:1], off", 1),
    (("gfx90a",), "global_store_dwordx4 v0, v[4:7], s[4:5]", "v_mov_b32_e32 v6, 0", 1),
    (NEWER, "global_store_dwordx4 v0, v[4:7], s[4:5]", "v_mov_b32_e32 v6, 0", 2),
    (NEWER, "buffer_store_dwordx3 v[4:6], v0, s[4:7], 0 offen", "v_mov_b32_e32 v4, 0", 2),
    (NEWER, "v_exp_f32_e32 v1, v2", "v_add_f32_e32 v3, v1, v1", 1),
    (NEWER, "v_rcp_f16_e32 v1, v2", "v_add_f16_e32 v3, v1, v1", 1),
    (NEWER, "v_add_f16_sdwa v1, v2, v3 dst_sel:WORD_1 dst_unused:UNUSED_PRESERVE src0_sel:DWORD "
     "src1_sel:DWORD", "v_mov_b32_e32 v4, v1", 1),
    (NEWER, "v_cvt_pk_fp8_f32 v1, v2, v3 op_sel:[0,0,1]", "v_mov_b32_e32 v4, v1", 1),
    (NEWER, "v_cmp_eq_u32_e32 vcc, v1, v2", "v_cndmask_b32_e32 v3, v4, v5, vcc", 2),
    (NEWER, "v_readfirstlane_b32 s4, v1", "v_add_u32_e32 v3, s4, v5", 2),
    (NEWER, "v_add_u32_e32 v1, v2, v3", "v_readlane_b32 s4, v1, 0", 1),
    (NEWER, "v_cmpx_eq_u32_e32 vcc, v1, v2", "v_readfirstlane_b32 s4, v3", 4),
    (("gfx950",), "v_add_u32_e32 v1, v2, v3", "v_permlane32_swap_b32_e32 v1, v4", 2),
    (("gfx950",), "v_cmpx_eq_u32_e32 vcc, v1, v2", "v_permlane16_swap_b32_e32 v3, v4", 4),
    (CDNA, "v_mov_b32_e32 v2, 0", "v_mfma_f32_32x32x8_f16 v[16:31], v[2:3], v[4:5], 0", 2),
    (CDNA, "v_mov_b32_e32 v17, 0", "v_mfma_f32_32x32x8_f16 v[16:31], v[2:3], v[4:5], v[16:31]", 2),
    (CDNA, "v_cmpx_eq_u32_e32 vcc, v1, v2",
     "v_mfma_f32_32x32x8_f16 v[16:31], v[2:3], v[4:5], 0", 4),
    (CDNA, "v_dot2_f32_f16 v1, v2, v3, v1", "v_add_f32_e32 v4, v1, v1", 3),
    (CDNA, "v_dot2_f32_f16 v1, v2, v3, v1", "v_dot2_f32_f16 v4, v1, v3, v4", 3),
]  # fmt: skip


def _cases(rows: list[tuple[tuple[str, ...], str, str, int]]) -> list[tuple[str, str, str, int]]:
    return [(name, one, two, states) for names, one, two, states in rows for name in names]


@pytest.mark.parametrize(("name", "first", "later", "states"), _cases(ROWS))
def test_so_many_states_and_not_one_fewer(name: str, first: str, later: str, states: int) -> None:
    target = TARGETS[name]
    assert found(apart(first, later, states), target) == []
    assert found(apart(first, later, states, "s_mov_b32 s20, 0"), target) == []
    (message,) = found(apart(first, later, states - 1), target)
    assert f"needs {states} " in message
    assert message.count("assembly line") == 2


@dataclass(frozen=True)
class Product:
    """Wait states behind a matrix product, as many as LLVM 22 inserts.

    ``free``: before anything else reads or overwrites its result; ``whole``: before a product that
    goes on with all of it; ``part``: before one that goes on with some of it (of float16);
    ``accumulator``: before a vector instruction overwrites what it accumulates to.
    """

    free: int
    whole: int
    part: int
    accumulator: int


# By passes; of those that LLVM calls XDL, and of float32's.
SHORT = {2: Product(5, 0, 2, 1), 8: Product(11, 0, 8, 7), 16: Product(19, 0, 16, 15)}
OF_942 = {2: Product(5, 2, 3, 1), 4: Product(7, 0, 5, 3), 8: Product(11, 0, 9, 7),
          16: Product(19, 0, 17, 15)}  # fmt: skip
OF_950 = {2: Product(5, 2, 4, 1), 4: Product(8, 0, 6, 3), 8: Product(12, 0, 10, 7),
          16: Product(20, 0, 18, 15)}  # fmt: skip
SINGLE = {8: Product(10, 0, 0, 0), 16: Product(18, 0, 0, 0)}
# (instruction, passes on gfx90a, gfx942, gfx950; 0 where a target has no such product)
PRODUCTS = [
    ("v_mfma_f32_4x4x4_16b_f16 v[16:19], v[2:3], v[4:5], {}", 2, 2, 2),
    ("v_mfma_f32_16x16x16_f16 v[16:19], v[2:3], v[4:5], {}", 8, 4, 4),
    ("v_mfma_f32_16x16x16f16 v[16:19], v[2:3], v[4:5], {}", 8, 4, 4),
    ("v_mfma_f32_32x32x8_f16 v[16:31], v[2:3], v[4:5], {}", 16, 8, 8),
    ("v_mfma_f32_32x32x8_bf16_1k v[16:31], v[2:3], v[4:5], {}", 16, 8, 8),
    ("v_mfma_f32_32x32x8bf16_1k v[16:31], v[2:3], v[4:5], {}", 16, 8, 8),
    ("v_mfma_f32_32x32x4_2b_f16 v[16:47], v[2:3], v[4:5], {}", 16, 16, 16),
    ("v_mfma_f32_16x16x32_fp8_fp8 v[16:19], v[2:3], v[4:5], {}", 0, 4, 4),
    ("v_mfma_f32_32x32x16_fp8_fp8 v[16:31], v[2:3], v[4:5], {}", 0, 8, 8),
    ("v_mfma_i32_32x32x16_i8 v[16:31], v[2:3], v[4:5], {}", 0, 8, 8),
    ("v_mfma_f32_16x16x32_f16 v[16:19], v[2:5], v[6:9], {}", 0, 0, 4),
    ("v_mfma_f32_32x32x16_bf16 v[16:31], v[2:5], v[6:9], {}", 0, 0, 8),
    ("v_mfma_f32_16x16x128_f8f6f4 v[16:19], v[0:7], v[8:15], {}", 0, 0, 8),
    ("v_mfma_f32_32x32x64_f8f6f4 v[16:31], v[0:5], v[8:13], {} cbsz:2 blgp:3", 0, 0, 8),
    ("v_mfma_f32_16x16x4_f32 v[16:19], v2, v4, {}", 8, 8, 8),
    ("v_mfma_f32_32x32x2_f32 v[16:31], v2, v4, {}", 16, 16, 16),
]


def _products() -> list[tuple[str, str, Product]]:
    found = []
    for text, *of_targets in PRODUCTS:
        for target, passes, table in zip(CDNA, of_targets, (SHORT, OF_942, OF_950), strict=True):
            single = text.split()[0].endswith("_f32") and target != "gfx90a"
            if passes:
                found.append((target, text, (SINGLE if single else table)[passes]))
    return found


def exactly(first: str, later: str, states: int, target: IsaTarget) -> None:
    assert found(apart(first, later, states), target) == [], later
    if states:
        assert len(found(apart(first, later, states - 1), target)) == 1, later


@pytest.mark.parametrize(("name", "text", "states"), _products())
def test_a_matrix_product(name: str, text: str, states: Product) -> None:
    target, first = TARGETS[name], text.format(0)
    for later in ("v_mov_b32_e32 v60, v17", "ds_write_b32 v60, v17", "v_mov_b32_e32 v17, 0",
                  "global_load_dword v17, v60, s[4:5]",
                  "v_mfma_f32_32x32x8_f16 v[64:79], v[16:17], v[60:61], 0"):  # fmt: skip
        exactly(first, later, states.free, target)
    result = text.split()[1].rstrip(",")
    exactly(first, text.format(result), states.whole, target)
    part = "v_mfma_f32_16x16x16_f16 v[60:63], v[56:57], v[58:59], v[18:21]"
    exactly(first, part, states.part, target)
    last = 80 + int(result[2:-1].partition(":")[2]) - 16
    first, later = text.format(f"v[80:{last}]"), "v_mov_b32_e32 v81, 0"
    exactly(first, later, states.accumulator, target)
    assert found(apart(text.format(0), "v_mov_b32_e32 v60, v48", 0), target) == []


VECTOR, SCALAR = "v_add_u32_e32 v60, v61, v62", "s_add_u32 s20, s21, s22"


@pytest.mark.parametrize("name", RDNA)
def test_matrix_products_of_rdna(name: str) -> None:
    """One vector instruction must come between, and nothing else counts."""
    first = "v_wmma_f32_16x16x16_f16 v[0:7], v[16:23], v[24:31], v[0:7]"
    for later in ("v_wmma_f32_16x16x16_f16 v[8:15], v[0:7], v[24:31], v[8:15]",
                  "v_wmma_f32_16x16x16_f16 v[8:15], v[24:31], v[2:9], v[8:15]"):  # fmt: skip
        target = TARGETS[name]
        assert found(apart(first, later, 1, VECTOR), target) == []
        assert found(apart(first, later, 1, "v_nop"), target) == []
        for filler in (SCALAR, "s_nop 7"):
            assert len(found(apart(first, later, 3, filler), target)) == 1
    goes_on = "v_wmma_f32_16x16x16_f16 v[0:7], v[16:23], v[24:31], v[0:7]"
    assert found(apart(first, goes_on, 0), target) == []


def test_transcendental_results_of_rdna3() -> None:
    """Six vector instructions, two transcendental ones, a memory access or a wait."""
    first, later = "v_exp_f32_e32 v1, v2", "v_add_f32_e32 v3, v1, v1"
    exp = "v_exp_f32_e32 v9, v8"
    for between, enough in (
        ([VECTOR] * 6, True), ([VECTOR] * 17, True), ([VECTOR] * 5, False), ([SCALAR] * 9, False),
        ([exp] * 2, True),
        ([exp], False), ([exp, *[VECTOR] * 4], False), ([exp, *[VECTOR] * 5], True),
        (["ds_read_b32 v40, v41"], True), (["s_waitcnt_depctr 0xfff"], True),
        (["s_waitcnt_depctr depctr_va_vdst(0)"], True), (["s_waitcnt_depctr 0xffff"], False),
        (["s_waitcnt_depctr depctr_sa_sdst(0)"], False),
    ):  # fmt: skip
        body = "".join(f"\t{line}\n" for line in (first, *between, later))
        assert (found(body, GFX1100) == []) == enough, between
        assert found(body, TARGETS["gfx1151"]) == []


@pytest.mark.parametrize("name", RDNA)
def test_direct_loads_from_lds(name: str) -> None:
    """They wait for so many vector instructions as they say; after a transcendental one for all."""
    target = TARGETS[name]
    for first in ("v_mov_b32_e32 v1, v2", "v_mov_b32_e32 v3, v1"):
        for wait, between, enough in (
            (0, [], True), (1, [VECTOR], True), (1, [], False), (15, [VECTOR] * 15, True),
            (15, [VECTOR] * 14, False), (2, [VECTOR, "v_exp_f32_e32 v9, v8", VECTOR], False),
            (0, ["v_exp_f32_e32 v9, v8"], True), (15, ["ds_load_b32 v40, v41"], True),
        ):  # fmt: skip
            load = f"lds_direct_load v1 wait_vdst:{wait}"
            body = "".join(f"\t{line}\n" for line in (first, *between, load))
            assert (found(body, target) == []) == enough, (wait, between)
            assert found(body.replace(first, "v_exp_f32_e32 v1, v2"), target) == [] or wait
    assert found(apart("v_exp_f32_e32 v1, v2", f"{load[:-1]}5", 9, VECTOR), target) != []


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("branch", [".Lloop", ".Lmiddle"])
def test_the_analysis_of_a_loop_ends(
    name: str, branch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands before and in it: time does not grow for ever."""
    target, block, ran = TARGETS[name], _Analysis.block, [0]

    def counted(analysis: _Analysis, start: int, entering: Any) -> Any:
        ran[0] += 1
        assert ran[0] < 1000, "the analysis does not end"
        return block(analysis, start, entering)

    monkeypatch.setattr(_Analysis, "block", counted)
    rows = [(first, later) for names, first, later, _ in ROWS if name in names]
    rows += [("v_exp_f32_e32 v1, v2", VECTOR), (VECTOR, "v_exp_f32_e32 v9, v8")]
    for first, later in rows:
        for inside in (first, later, VECTOR, SCALAR, "v_exp_f32_e32 v9, v8", "s_nop 0"):
            ran[0] = 0
            found(
                f"\t{first}\n.Lloop:\n\t{inside}\n\t{VECTOR}\n.Lmiddle:\n"
                f"\ts_cbranch_scc1 {branch}\n\t{later}\n\ts_cbranch_scc0 .Lloop",
                target,
            )


@pytest.mark.parametrize("name", ["gfx1100", "gfx1151"])
def test_a_comparison_that_writes_exec_before_lanes_are_permuted(name: str) -> None:
    first, later = "v_cmpx_eq_u32_e32 v1, v2", "v_permlane16_b32 v3, v4, s0, s1"
    assert len(found(apart(first, later, 2, SCALAR), TARGETS[name])) == 1
    assert found(apart(first, later, 1, VECTOR), TARGETS[name]) == []


# What the vector unit of RDNA4 has read, something writes and something reads: (program, the wait
# that must stand in the middle, or none).
KEEPS = "v_mov_b32_e32 v0, s4"
KEPT = [
    ([KEEPS, "s_mov_b32 s4, 1", "", "v_mov_b32_e32 v1, s4"], "depctr_sa_sdst(0)"),
    ([KEEPS, "s_mov_b32 s4, 1", "", "s_add_u32 s5, s4, 1"], "depctr_sa_sdst(0)"),
    (["v_mov_b32_e32 v0, s5", "s_mov_b32 s4, 1", "", "v_mov_b32_e32 v1, s4"], "depctr_sa_sdst(0)"),
    ([KEEPS, "v_readfirstlane_b32 s4, v2", "", "v_mov_b32_e32 v1, s4"], "depctr_va_sdst(0)"),
    ([KEEPS, "v_readfirstlane_b32 s4, v2", "", "s_add_u32 s5, s4, 1"], ""),
    (["v_cndmask_b32_e32 v0, v1, v2, vcc_lo", "v_cmp_eq_u32_e32 vcc_lo, v1, v2", "",
      "v_cndmask_b32_e32 v3, v1, v2, vcc_lo"], "depctr_va_vcc(0)"),
    (["v_cndmask_b32_e32 v0, v1, v2, vcc_lo", "s_mov_b32 vcc_lo, 1", "",
      "v_cndmask_b32_e32 v3, v1, v2, vcc_lo"], "depctr_sa_sdst(0)"),
    (["v_cndmask_b32_e32 v0, v1, v2, vcc_lo", "s_mov_b32 vcc_lo, 1", "",
      "s_cbranch_vccnz .Lend", ".Lend:"], "depctr_sa_sdst(0)"),
    ([KEEPS, "s_mov_b32 s4, 1", "s_load_b32 s8, s[0:1], 0x0", "v_mov_b32_e32 v1, s4"], ""),
    ([KEEPS, "s_mov_b32 s4, 1", "buffer_load_b32 v5, v6, s[8:11], null offen",
      "v_mov_b32_e32 v1, s4"], ""),
    (["s_mov_b32 s4, 1", "", "v_mov_b32_e32 v1, s4"], ""),
    ([KEEPS, "s_mov_b32 s6, 1", "", "v_mov_b32_e32 v1, s6"], ""),
    (["v_mov_b32_e32 v0, m0", "s_mov_b32 m0, 1", "", "v_mov_b32_e32 v1, m0"], ""),
    ([".La:", KEEPS, "", "s_mov_b32 s4, 1", "s_cbranch_scc1 .La"], "depctr_sa_sdst(0)"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "wait"), KEPT)
def test_what_the_vector_unit_keeps_of_scalars(lines: list[str], wait: str) -> None:
    target = TARGETS["gfx1201"]

    def with_wait(text: str) -> str:
        return "".join(
            f"{line}\n" if line.endswith(":") else f"\t{line or text}\n" for line in lines
        )

    messages = found(with_wait("s_nop 7"), target)
    assert [wait in message for message in messages] == [True] * bool(wait)
    if wait and lines[0] != ".La:":
        others = {"depctr_sa_sdst(0)", "depctr_va_sdst(0)", "depctr_va_vcc(0)"} - {wait}
        assert found(with_wait(f"s_wait_alu {wait}"), target) == []
        assert all(found(with_wait(f"s_wait_alu {other}"), target) for other in others)
    assert found(with_wait("s_nop 7"), GFX1100) == []


@pytest.mark.parametrize("name", RDNA)
def test_vector_registers_are_given_back_behind_a_nop(name: str) -> None:
    for message in ("s_sendmsg sendmsg(MSG_DEALLOC_VGPRS)", "s_sendmsg 3"):
        exactly("v_mov_b32_e32 v0, 0", message, 1, TARGETS[name])
    assert found(apart("v_mov_b32_e32 v0, 0", "s_sendmsg sendmsg(MSG_INTERRUPT)", 0), GFX1100) == []


FIRST, LATER = "\tv_readfirstlane_b32 s4, v1\n", "\tglobal_load_dword v2, v0, s[4:5]\n"


@pytest.mark.parametrize(("body", "wrong"), [
    # The shorter way counts.
    (f"{FIRST}\ts_cbranch_scc1 .La\n\ts_nop 4\n.La:\n{LATER}", True),
    (f"{FIRST}\ts_cbranch_scc1 .La\n\ts_nop 4\n.La:\n\ts_nop 3\n{LATER}", False),
    # Around a loop.
    (f".La:\n{LATER}\ts_waitcnt vmcnt(0)\n{FIRST}\ts_cbranch_scc1 .La\n", True),
    (f".La:\n\ts_nop 3\n{LATER}\ts_waitcnt vmcnt(0)\n{FIRST}\ts_cbranch_scc1 .La\n", False),
    # Another register; the same one, written anew.
    (FIRST.replace("s4", "s6") + LATER, False),
    (f"{FIRST}\ts_nop 3\n\tv_readfirstlane_b32 s4, v2\n{LATER}", True),
    # A scalar instruction wrote it.
    (f"\ts_mov_b32 s4, 0\n{LATER}", False),
])  # fmt: skip
def test_every_way_counts(body: str, wrong: bool) -> None:
    assert (found(body, GFX942) != []) == wrong


def test_a_finding_names_both_instructions_and_where_they_stand() -> None:
    body = f"\t.loc 1 7 3 ; a.py:7:3\n{FIRST}\t.loc 1 9 3 ; a.py:9:3\n{LATER}"
    (text,) = found(body, GFX942)
    assert text == (
        "a vector instruction's scalar result in a memory access (s4) is used too soon by "
        "global_load_dword v2, v0, s[4:5] (assembly line 5, a.py:9:3): it needs 5 wait states "
        "between it and v_readfirstlane_b32 s4, v1 (assembly line 3, a.py:7:3)"
    )
