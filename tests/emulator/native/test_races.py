"""Races found by native code: what the interpreter finds, in its words, and nothing else."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pytest

from conformance.devices.isa import Violation, execute
from conformance.devices.isa.code import Code
from conformance.devices.isa.native import kernel as native_kernel
from conformance.devices.isa.native import objects
from conformance.devices.isa.native.kernel import VARIABLE
from conformance.devices.isa.target import IsaTarget
from conformance.devices.kernel import Argument, Kernel, Launch, Span
from conformance.devices.resources import resources_of
from conformance.devices.spelling import parse_device
from tests.emulator.isa_cases import GFX942, GFX1201
from tests.emulator.test_races import GLOBAL, ORDERED, RACES

LDS, GROUPS, WAVES = 1024, 2, 2
_NUMBERS = count()

# s0 the wave in its workgroup, s1 the workgroup, s[4:5] the buffer; v0 four times the lane, v1 the
# wave of the launch, v2 the lane.
_GFX9 = """\ts_load_dwordx2 s[4:5], s[0:1], 0x0
\ts_mov_b32 s1, s2
\tv_lshrrev_b32_e32 v1, 6, v0
\tv_readfirstlane_b32 s0, v1
\tv_and_b32_e32 v2, 63, v0
\tv_lshlrev_b32_e32 v0, 2, v2
\tv_lshl_add_u32 v1, s1, 1, v1
"""
_GFX12 = """\ts_load_b64 s[4:5], s[0:1], 0x0
\ts_mov_b32 s1, ttmp9
\tv_lshrrev_b32_e32 v1, 5, v0
\tv_readfirstlane_b32 s0, v1
\tv_and_b32_e32 v2, 31, v0
\tv_lshlrev_b32_e32 v0, 2, v2
\tv_lshl_add_u32 v1, s1, 1, v1
"""


def outcome(
    body: str,
    target: IsaTarget,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    modes: str = "",
    waves: int = WAVES,
) -> tuple[str, Any, str]:
    """What a launch ended with, what it left, and why it was interpreted."""
    monkeypatch.setenv(VARIABLE, how)
    lanes, device = target.lanes, parse_device(f"isa:{target.name},races{modes}")
    start = _GFX9 if target.is_gfx9 else _GFX12
    text = (
        f"k:\n{start}{body}\ts_endpgm\n.Lfunc_end0:\n\t.amdhsa_kernel k\n"
        f"\t.amdhsa_group_segment_fixed_size {LDS}\n\t.amdhsa_kernarg_size 8\n"
        "\t.amdhsa_user_sgpr_count 2\n\t.amdhsa_user_sgpr_kernarg_segment_ptr 1\n"
        "\t.amdhsa_system_sgpr_workgroup_id_x 1\n\t.end_amdhsa_kernel\n"
        f"; number {next(_NUMBERS)}\n"
    )
    kernel = Kernel("k", text, LDS, waves, lanes, resources_of(text, LDS, waves, device.facts))
    data = np.full(256, 0xFFFFFFFF, dtype=np.uint32)
    span = Span("data", int(data.ctypes.data), data.nbytes)
    pointer = Argument("data", span.start.to_bytes(8, "little"), (span,), 0)
    try:
        execute(Launch(kernel, (GROUPS, 1, 1), kernel.workgroup, (pointer,)), device)
        said = ""
    except Violation as violation:
        said = str(violation)
    made = native_kernel._KERNELS.get((text, target.name, True))
    return said, data, "" if made is None else made.failure


def both(body: str, target: IsaTarget, monkeypatch: pytest.MonkeyPatch, **more: Any) -> list[str]:
    """What was found, in three orders of the waves; native code and the interpreter agree."""
    found = []
    for modes in ("", ",serial", ",serial,seed=3"):
        said, left, _ = outcome(body, target, "never", monkeypatch, modes, **more)
        again, native, _ = outcome(body, target, "always", monkeypatch, modes, **more)
        assert again == said
        assert said or (native == left).all()
        found.append(said)
    return found


# What native code leaves to the interpreter although it is no race.
LEFT = {"own accesses between the parts"}


@pytest.mark.parametrize("name", ORDERED)
def test_what_is_ordered_runs_natively(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body, target = ORDERED[name]
    assert both(body, target, monkeypatch) == [""] * 3
    said, _, why = outcome(body, target, "always", monkeypatch)
    assert (said, bool(why)) == ("", name in LEFT), why


@pytest.mark.parametrize("name", RACES)
def test_what_is_not_ordered_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body, target, words = RACES[name]
    found = both(body, target, monkeypatch)
    assert all("a race: LDS byte" in said for said in found)
    assert any(words in said for said in found)


@pytest.mark.parametrize("name", GLOBAL)
def test_global_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body, words = GLOBAL[name]
    found = both(body, GFX942, monkeypatch)
    assert any(words in said for said in found)
    assert words or found == [""] * 3


STORE = "\tglobal_store_{} v3, {}, s[4:5]\n"
OWN_PLACE = "\tv_lshlrev_b32_e32 v3, {}, v1\n"
BARRIER = "\ts_barrier\n"
# name: (body, whether they race: it may depend on the order where a value comes back)
STORES = {
    "bytes side by side": (OWN_PLACE.format(0) + STORE.format("byte", "v1"), {False}),
    "halves that meet": (OWN_PLACE.format(0) + STORE.format("short", "v1"), {True}),
    "words side by side": (OWN_PLACE.format(4) + STORE.format("dwordx4", "v[0:3]"), {False}),
    "words that meet": (OWN_PLACE.format(3) + STORE.format("dwordx4", "v[0:3]"), {True}),
    "behind a barrier": (
        "\tv_mov_b32_e32 v3, s1\n\tv_lshlrev_b32_e32 v3, 4, v3\n"
        + STORE.format("dword", "v1") + BARRIER + STORE.format("dword", "v2"), {True}),
    "the same twice": (
        "\tv_mov_b32_e32 v3, 0\n\tv_mov_b32_e32 v5, 7\n" + 2 * STORE.format("dword", "v5"),
        {False}),
    "there and back": (
        "\tv_mov_b32_e32 v3, 0\n\tv_mov_b32_e32 v5, 7\n\tv_mov_b32_e32 v6, -1\n"
        "\ts_cmp_eq_u32 s1, 0\n\ts_cbranch_scc0 .Lother\n"
        + STORE.format("dword", "v5") + STORE.format("dword", "v6")
        + "\ts_endpgm\n.Lother:\n" + STORE.format("dword", "v6"), {False, True}),
}  # fmt: skip


@pytest.mark.parametrize("name", STORES)
def test_stores_of_every_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body, meets = STORES[name]
    assert all(bool(said) in meets for said in both(body, GFX942, monkeypatch))


@pytest.mark.parametrize("waves", [1, 2, 16])
@pytest.mark.parametrize("rounds", [3, 130])
def test_rounds_are_told_from_one_another(
    waves: int, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record of a byte from an earlier round is none, however many there were between."""
    # The wave that a round belongs to alone writes; the others read in the next one.
    body = f"""\ts_mov_b32 s6, {rounds}
\tv_mov_b32_e32 v4, s0
.Lagain:
\ts_and_b32 s7, s6, {waves - 1}
\ts_cmp_eq_u32 s7, s0
\ts_cbranch_scc0 .Lreads
\tv_mov_b32_e32 v5, s6
\tds_write_b32 v0, v5
.Lreads:
\ts_barrier
\tds_read_b32 v6, v0
\ts_barrier
\ts_sub_u32 s6, s6, 1
\ts_cmp_lg_u32 s6, 0
\ts_cbranch_scc1 .Lagain
"""
    assert both(body, GFX942, monkeypatch, waves=waves) == [""] * 3
    assert outcome(body, GFX942, "always", monkeypatch, waves=waves)[2] == ""
    first, second, rest = body.partition("\ts_barrier\n")
    for wrong in (first + rest, first + second + rest.replace("\ts_barrier\n", "")):
        found = both(wrong, GFX942, monkeypatch, waves=waves)
        assert all(bool(said) == (waves > 1) for said in found)


@pytest.mark.parametrize("size", [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize("overlap", [0, 1])
def test_every_size_to_the_byte(size: int, overlap: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane of each of two waves: side by side they write apart, a byte nearer they meet."""
    last = 4 + max(size // 4, 1) - 1
    data = "v4" if last == 4 else f"v[4:{last}]"
    body = "\ts_mov_b64 exec, 1\n\ts_add_i32 s7, s0, 1\n\ts_mul_i32 s7, s7, 0x1010101\n"
    body += "".join(f"\tv_mov_b32_e32 v{register}, s7\n" for register in range(4, 8))
    body += f"\tv_mov_b32_e32 v3, s0\n\tv_mul_u32_u24_e32 v3, {size - overlap}, v3\n"
    body += f"\tds_write_b{8 * size} v3, {data}\n"
    found = both(body, GFX942, monkeypatch)
    assert all(bool(said) == bool(overlap) for said in found)
    if not overlap:
        assert outcome(body, GFX942, "always", monkeypatch)[2] == ""


def test_native_code_of_both_kinds_is_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    body, target = ORDERED["a barrier in two parts"]
    assert target is GFX1201
    outcome(body, target, "always", monkeypatch)
    kinds = {races for _, _, races in native_kernel._KERNELS}
    assert True in kinds


def test_a_launch_of_many_waves_is_compiled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's record costs more than compiling, from some fifty waves on."""
    monkeypatch.setattr(objects, "read", lambda _name: None)
    made: list[bool] = []
    old = native_kernel.compile_code

    def compiled(code: Code, races: bool) -> objects.Compiled:
        made.append(races)
        return old(code, races)

    monkeypatch.setattr(native_kernel, "compile_code", compiled)
    body, target = ORDERED["a barrier between"]
    assert outcome(body, target, "auto", monkeypatch)[0] == "" and made == []
    assert outcome(body, target, "auto", monkeypatch, waves=16)[0] == "" and made == []
    monkeypatch.setattr(f"{__name__}.GROUPS", 4)
    assert outcome(body, target, "auto", monkeypatch, waves=16)[0] == "" and made == [True]
