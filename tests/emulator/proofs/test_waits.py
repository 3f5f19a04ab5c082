"""The static check of waits, by counter and family; planted faults in each form are found."""

from __future__ import annotations

import re

import pytest

from conformance.devices.assembly import parse_program
from conformance.devices.isa.code import make_code
from conformance.devices.isa.proofs.waits import check
from conformance.devices.isa.target import IsaTarget
from tests.emulator.isa_cases import GFX942, GFX950, GFX1100, GFX1201, GFX1250


def found(body: str, target: IsaTarget) -> list[str]:
    text = f"k:\n{body}\n\ts_endpgm\n.Lfunc_end0:\n\t.amdhsa_kernel k\n\t.end_amdhsa_kernel\n"
    return [str(one) for one in check(make_code(parse_program(text), target))]


# name: (target, a kernel in which every wait is needed)
RIGHT = {
    "gfx9: loads, LDS, scalar": (GFX942, """
\ts_load_dwordx2 s[4:5], s[0:1], 0x0
\ts_waitcnt lgkmcnt(0)
\tglobal_load_dword v1, v0, s[4:5]
\tglobal_load_dword v2, v0, s[4:5] offset:4
\ts_waitcnt vmcnt(1)
\tv_add_u32_e32 v3, 1, v1
\ts_waitcnt vmcnt(0)
\tv_add_u32_e32 v4, v3, v2
\tds_write_b32 v0, v4
\ts_waitcnt lgkmcnt(0)
\ts_barrier
\tds_read_b32 v5, v0
\tds_read_b32 v6, v0 offset:64
\ts_waitcnt lgkmcnt(1)
\tv_mov_b32_e32 v7, v5
\ts_waitcnt lgkmcnt(0)
\tglobal_store_dword v0, v6, s[4:5]"""),
    "gfx9: loads straight into LDS, which have no register to wait for": (GFX942, """
\ts_mov_b32 m0, 0
\tbuffer_load_dword v1, v2, s[12:15], 0 offen
\tbuffer_load_dword v0, s[12:15], 0 offen lds
\tv_add_u32_e32 v0, 0x400, v0
\tbuffer_load_dword v0, s[12:15], 0 offen lds
\ts_waitcnt vmcnt(2)
\tv_add_u32_e32 v3, v0, v1"""),
    "gfx11: two counters of memory": (GFX1100, """
\ts_load_b64 s[4:5], s[0:1], 0x0
\ts_waitcnt lgkmcnt(0)
\tglobal_load_b32 v1, v0, s[4:5]
\tglobal_store_b32 v0, v2, s[4:5]
\ts_waitcnt vmcnt(0)
\tv_mov_b32_e32 v3, v1
\tds_store_b32 v0, v3
\ts_waitcnt lgkmcnt(0)
\ts_barrier"""),
    "gfx12: a counter each": (GFX1201, """
\ts_load_b64 s[4:5], s[0:1], 0x0
\ts_wait_kmcnt 0x0
\tglobal_load_b32 v1, v0, s[4:5]
\tds_load_b32 v2, v0
\ts_wait_loadcnt_dscnt 0x0
\tv_add_nc_u32_e32 v3, v1, v2
\tds_store_b32 v0, v3
\ts_wait_dscnt 0x0
\ts_barrier_signal -1
\ts_barrier_wait -1
\tds_load_b32 v4, v0
\ts_wait_dscnt 0x0
\tv_mov_b32_e32 v5, v4"""),
    "around a loop": (GFX942, """
\tglobal_load_dword v1, v0, s[4:5]
.Lloop:
\ts_waitcnt vmcnt(0)
\tv_add_u32_e32 v2, v2, v1
\tglobal_load_dword v1, v0, s[4:5]
\ts_cbranch_scc1 .Lloop
\ts_waitcnt vmcnt(0)
\tv_mov_b32_e32 v3, v1"""),
    "halves of one register": (GFX942, """
\tglobal_load_short_d16 v1, v0, s[4:5]
\tglobal_load_short_d16_hi v1, v0, s[4:5] offset:2
\ts_waitcnt vmcnt(0)
\tv_mov_b32_e32 v2, v1"""),
    "an atomic that gives back": (GFX942, """
\tglobal_atomic_add v1, v0, v2, s[4:5] sc0
\ts_waitcnt vmcnt(0)
\tv_mov_b32_e32 v3, v1"""),
    "a matrix product": (GFX942, """
\tds_read_b64 v[0:1], v8
\ts_waitcnt lgkmcnt(0)
\tv_mfma_f32_16x16x16_f16 v[4:7], v[0:1], v[2:3], v[4:7]"""),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_every_wait_is_needed_and_enough(name: str) -> None:
    """Nothing is found; without any one of the waits, or with one too weak, something is."""
    target, body = RIGHT[name]
    assert found(body, target) == []
    lines = body.splitlines()
    waits = [at for at, line in enumerate(lines) if "s_wait" in line]
    assert waits
    for at in waits:
        cut = [*lines[:at], "\ts_nop 0", *lines[at + 1 :]]
        assert found("\n".join(cut), target) != [], lines[at]
        weak = re.sub(r"(\(|0x)\d(\)?)$", r"\g<1>5\2", lines[at])
        if weak != lines[at] and "loadcnt_dscnt" not in weak:
            assert found("\n".join([*lines[:at], weak, *lines[at + 1 :]]), target) != [], weak


def test_a_finding_names_both_instructions_and_where_they_stand() -> None:
    body = "\t.loc 1 7 3 ; a.py:7:3\n\tglobal_load_dword v1, v0, s[4:5]\n\t.loc 1 9 3 ; a.py:9:3\n"
    (text,) = found(body + "\tv_mov_b32_e32 v2, v1", GFX942)
    assert text.startswith("v1 is read by v_mov_b32_e32 v2, v1 (assembly line 5, a.py:9:3)")
    assert "without a wait (vmcnt) for global_load_dword v1, v0, s[4:5]" in text
    assert text.endswith("(assembly line 3, a.py:7:3)")


@pytest.mark.parametrize(("body", "words"), [
    ("\tglobal_load_dword v1, v0, s[4:5]\n\tv_mov_b32_e32 v1, 0", "v1 is written"),
    ("\tglobal_load_dword v1, v0, s[4:5]\n\tds_read_b32 v1, v0", "v1 is written"),
    ("\ts_load_dword s6, s[0:1], 0\n\ts_load_dword s7, s[0:1], 4\n\ts_waitcnt lgkmcnt(1)\n"
     "\ts_add_u32 s8, s6, 1", "s6 is read"),
    ("\tds_read_b32 v1, v0\n\ts_load_dword s6, s[0:1], 0\n\ts_waitcnt lgkmcnt(1)\n"
     "\tv_mov_b32_e32 v2, v1", "v1 is read"),
    ("\tds_write_b32 v0, v1\n\ts_barrier", "LDS that other waves see is passed"),
    ("\tflat_load_dword v1, v[2:3]\n\ts_waitcnt vmcnt(0)\n\tglobal_load_dword v4, v0, s[4:5]\n"
     "\tv_mov_b32_e32 v5, v4", "v4 is read"),
    ("\tglobal_load_dword v1, v0, s[4:5]\n\ts_cbranch_scc1 .La\n\ts_waitcnt vmcnt(0)\n.La:\n"
     "\tv_mov_b32_e32 v2, v1", "v1 is read"),
    ("\ts_load_dwordx2 vcc, s[0:1], 0\n\tv_cndmask_b32_e32 v1, v2, v3, vcc", "s106 is read"),
])  # fmt: skip
def test_what_is_found(body: str, words: str) -> None:
    assert words in found(body, GFX942)[0]


def test_a_wait_by_number_counts() -> None:
    load = "\tglobal_load_dword v1, v0, s[4:5]\n"
    use = "\n\tv_mov_b32_e32 v2, v1"
    assert found(f"{load}\ts_waitcnt 0x0f70{use}", GFX942) == []
    assert found(f"{load}\ts_waitcnt 0x0f71{use}", GFX942) != []


# Reads of LDS and permutations that have no native form: their results are waited for like others.
RESULTS = [
    ("ds_read_b64_tr_b16 v[4:5], v2", GFX950, "s_waitcnt lgkmcnt(0)"),
    ("ds_read_b64_tr_b8 v[4:5], v2 offset:8", GFX950, "s_waitcnt lgkmcnt(0)"),
    ("ds_load_tr16_b128 v[2:5], v0 offset:16", GFX1250, "s_wait_dscnt 0x0"),
    ("ds_load_tr8_b64 v[4:5], v2", GFX1250, "s_wait_dscnt 0x0"),
    ("ds_permute_b32 v5, v2, v3", GFX942, "s_waitcnt lgkmcnt(0)"),
    ("ds_bpermute_b32 v5, v2, v3", GFX942, "s_waitcnt lgkmcnt(0)"),
    ("ds_swizzle_b32 v5, v2 offset:swizzle(SWAP,1)", GFX942, "s_waitcnt lgkmcnt(0)"),
    ("ds_add_rtn_u32 v5, v2, v3", GFX942, "s_waitcnt lgkmcnt(0)"),
]


@pytest.mark.parametrize(("text", "target", "wait"), RESULTS, ids=str)
def test_a_result_from_lds_is_waited_for(text: str, target: IsaTarget, wait: str) -> None:
    then = "\tv_mov_b32_e32 v6, v5"
    assert found(f"\t{text}\n\t{wait}\n{then}", target) == []
    assert len(found(f"\t{text}\n{then}", target)) == 1


@pytest.mark.parametrize("text", ["ds_add_u32 v2, v5", "ds_max_i32 v2, v5", "ds_write_b32 v2, v5"])
def test_what_gives_nothing_back_is_not_waited_for(text: str) -> None:
    assert found(f"\t{text}\n\tv_mov_b32_e32 v6, v5\n\tv_mov_b32_e32 v5, v6", GFX942) == []


def test_asynchronous_loads_are_waited_for_before_a_barrier() -> None:
    body = "\tglobal_load_async_to_lds_b32 v2, v[4:5], off\n{}\ts_barrier_signal -1"
    assert found(body.format("\ts_wait_asynccnt 0x0\n"), GFX1250) == []
    assert len(found(body.format(""), GFX1250)) == 1
    assert len(found(body.format("\ts_wait_loadcnt 0x0\n"), GFX1250)) == 1
