"""Whole kernels in native code against the interpreter: memory, coverage, violations."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from conformance.devices.isa import Run, Violation, execute
from conformance.devices.isa.code import Code
from conformance.devices.isa.native import kernel as native_kernel
from conformance.devices.isa.native import objects
from conformance.devices.isa.native.block import Block
from conformance.devices.isa.native.compared import DifferenceError, different
from conformance.devices.isa.native.compiler import NativeError, compile_text
from conformance.devices.isa.native.kernel import VARIABLE
from conformance.devices.isa.target import UnknownInstructionError
from conformance.devices.kernel import Argument, Kernel, Launch, Span
from conformance.devices.resources import resources_of
from conformance.devices.spelling import parse_device

WAVES, GROUPS, LANES, WORDS = 4, 6, 64, 4096


@dataclass
class Outcome:
    """What a launch left: the output, or what it ended with."""

    data: Any
    run: Run | None
    error: str


def text_of(body: str, lds: int = 1024) -> str:
    """A kernel of one pointer: s[0:1] the arguments, s2 the workgroup, v0 the lane."""
    return (
        f"k:\n{body}\n\ts_endpgm\n.Lfunc_end0:\n\t.amdhsa_kernel k\n"
        f"\t.amdhsa_group_segment_fixed_size {lds}\n\t.amdhsa_kernarg_size 8\n"
        "\t.amdhsa_user_sgpr_count 2\n\t.amdhsa_user_sgpr_kernarg_segment_ptr 1\n"
        "\t.amdhsa_system_sgpr_workgroup_id_x 1\n\t.end_amdhsa_kernel\n"
    )


def launched(body: str, how: str, monkeypatch: pytest.MonkeyPatch, device: str = "") -> Outcome:
    monkeypatch.setenv(VARIABLE, how)
    name = parse_device(f"isa:gfx942{device}")
    text = text_of(body)
    kernel = Kernel("k", text, 1024, WAVES, LANES, resources_of(text, 1024, WAVES, name.facts))
    data = np.arange(WORDS, dtype=np.uint32)
    span = Span("out", int(data.ctypes.data), data.nbytes)
    pointer = Argument("out", span.start.to_bytes(8, "little"), (span,), 0)
    launch = Launch(kernel, (GROUPS, 1, 1), kernel.workgroup, (pointer,))
    try:
        return Outcome(data, execute(launch, name), "")
    except (Violation, UnknownInstructionError, DifferenceError, RuntimeError) as error:
        return Outcome(data, None, f"{type(error).__name__}: {error}")


START = """\ts_load_dwordx2 s[4:5], s[0:1], 0x0
\tv_lshl_add_u32 v1, s2, 8, v0
\tv_lshlrev_b32_e32 v1, 2, v1
"""
# Each lane adds what another wave of its workgroup left in LDS, some times over.
SHARING = (
    START
    + """\tv_lshlrev_b32_e32 v2, 2, v0
\tglobal_load_dword v3, v1, s[4:5]
\ts_mov_b32 s6, 5
.Lloop:
\tds_write_b32 v2, v3
\ts_barrier
\tv_xor_b32_e32 v4, 0x100, v2
\tds_read_b32 v5, v4
\ts_barrier
\tv_add_u32_e32 v3, v3, v5
\ts_add_i32 s6, s6, -1
\ts_cmp_lg_u32 s6, 0
\ts_cbranch_scc1 .Lloop
\tv_cmp_gt_u32_e32 vcc, 200, v0
\ts_and_saveexec_b64 s[8:9], vcc
\ts_cbranch_execz .Lend
\tglobal_store_dword v1, v3, s[4:5]
.Lend:
\ts_or_b64 exec, exec, s[8:9]
"""
)
# The same with an instruction in the loop that is interpreted.
MIXED = SHARING.replace("\tv_add_u32_e32 v3, v3, v5\n",
                        "\tv_add_u32_e32 v3, v3, v5\n\ts_brev_b32 s10, s6\n"
                        "\tv_xor_b32_e32 v3, s10, v3\n")  # fmt: skip
ATOMIC = START + "\tv_mov_b32_e32 v6, 0\n\tglobal_atomic_add_u32 v6, v0, s[4:5]\n".replace(
    "_u32", ""
)
READS_LDS_FIRST = (
    START
    + "\tv_lshlrev_b32_e32 v2, 2, v0\n\tds_read_b32 v3, v2\n"
    + ("\tglobal_store_dword v1, v3, s[4:5]")
)
# Stores that are not aligned and overlap: only the interpreter knows their order.
OVERLAPPING = START + "\tv_add_u32_e32 v1, 2, v0\n\tglobal_store_dword v1, v0, s[4:5]"
MODES = ["", ",serial", ",poison", ",serial,poison,seed=3"]


@pytest.mark.parametrize("device", MODES)
@pytest.mark.parametrize("body", [SHARING, MIXED, ATOMIC, READS_LDS_FIRST, OVERLAPPING],
                         ids=["sharing", "mixed", "atomic", "garbage", "overlapping"])  # fmt: skip
def test_the_same_result(body: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory, the count of instructions and those that ran; garbage and order are drawn alike."""
    one, two = (launched(body, how, monkeypatch, device) for how in ("never", "always"))
    assert one.error == two.error == ""
    assert one.data.tolist() == two.data.tolist()
    assert one.run is not None and two.run is not None
    assert one.run.wave_instructions == two.run.wave_instructions
    assert one.run.executed == two.run.executed


PRODUCT = (
    START
    + """\tv_mov_b32_e32 v2, 1.0
\tv_mov_b32_e32 v3, 2.0
\tv_mfma_f32_16x16x16_f16 v[4:7], v[2:3], v[2:3], 0
\ts_mov_b64 exec, -1
\tv_add_u32_e32 v4, v4, v0
\tglobal_store_dword v1, v4, s[4:5]"""
)


@pytest.mark.parametrize("how", ["never", "always"])
@pytest.mark.parametrize(
    ("mask", "off"),
    [("-1", False), ("0x7fffffff", True), ("0", True), ("0xffffffff00000000", True)],
)
def test_lanes_that_were_off_in_a_matrix_product_are_told(
    mask: str, off: bool, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the whole launch: a later product of all lanes takes nothing back."""
    body = PRODUCT.replace("\tv_mfma", f"\ts_mov_b64 exec, {mask}\n\tv_mfma")
    body += "\n\tv_mfma_f32_16x16x16_f16 v[4:7], v[2:3], v[2:3], 0"
    made = launched(body, how, monkeypatch)
    assert made.error == "" and made.run is not None
    assert made.run.lanes_off == off


def test_what_each_side_saw_of_lanes_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    body = PRODUCT.replace("\tv_mfma", "\ts_mov_b64 exec, 1\n\tv_mfma")
    assert launched(body, "both", monkeypatch).error == ""
    monkeypatch.setattr(Block, "note_lanes_off", lambda _self: None)
    monkeypatch.setattr(objects, "read", lambda _name: None)
    monkeypatch.setattr(objects, "write", lambda _name, _made: None)
    native_kernel._KERNELS.clear()
    error = launched(body, "both", monkeypatch).error
    native_kernel._KERNELS.clear()
    assert "the interpreter alone saw lanes that were off in a matrix product" in error


def test_the_native_path_is_what_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in native code alone changes the result: it is no second interpretation."""
    body = SHARING.replace("v_add_u32_e32 v3, v3, v5", "v_mul_lo_u32 v3, v3, v5")
    right = launched(body, "always", monkeypatch)
    native_kernel._KERNELS.clear()
    monkeypatch.setattr(objects, "read", lambda _name: None)
    monkeypatch.setattr(objects, "write", lambda _name, _made: None)
    old = compile_text
    monkeypatch.setattr(
        f"{native_kernel.__name__}.compile_text",
        lambda text: old(text.replace("mul <16 x i32>", "sub <16 x i32>")),
    )
    wrong = launched(body, "always", monkeypatch)
    native_kernel._KERNELS.clear()
    assert right.data.tolist() != wrong.data.tolist()


def test_both_ways_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """What differs is said; what does not is the same as ever."""
    monkeypatch.setattr(objects, "read", lambda _name: None)
    monkeypatch.setattr(objects, "write", lambda _name, _made: None)
    native_kernel._KERNELS.clear()
    body = SHARING.replace("v_add_u32_e32 v3, v3, v5", "v_mul_lo_u32 v3, v3, v5")
    same = launched(body, "both", monkeypatch)
    alone = launched(body, "never", monkeypatch)
    assert same.error == "" and same.data.tolist() == alone.data.tolist()
    native_kernel._KERNELS.clear()
    old = compile_text
    monkeypatch.setattr(
        f"{native_kernel.__name__}.compile_text",
        lambda text: old(text.replace("mul <16 x i32>", "sub <16 x i32>")),
    )
    wrong = launched(body, "both", monkeypatch)
    native_kernel._KERNELS.clear()
    assert wrong.error.startswith("DifferenceError: k: ") and "bytes of out" in wrong.error


def test_nan_payloads_are_no_difference() -> None:
    """Of float32, and of halves and brain floats whose neighbour is the same."""
    words = [(0x7FC00000, 0xFFC00001), (0x7E003C00, 0xFE003C00), (0x3F807FC1, 0x3F80FFC0)]
    columns = zip(*words, strict=True)
    one, two = (np.array(column, dtype=np.uint32).view(np.uint8) for column in columns)
    assert different(one, two).size == 0
    two = two.copy()
    two[4] ^= 1
    assert different(one, two).tolist() == [4, 7]
    assert different(one[:11], two[:11]).tolist() == [4, 7]


FAULTS = {
    "store past the end": START + "\tglobal_store_dword v1, v0, s[4:5] offset:4092\n"
                                  "\tv_mov_b32_e32 v1, 0x4000\n"
                                  "\tglobal_store_dword v1, v0, s[4:5]",
    "load before the start": START + "\tglobal_load_dwordx4 v[4:7], v1, s[4:5] offset:-64",
    "one lane": START + "\tv_cmp_eq_u32_e32 vcc, 77, v0\n\tv_mov_b32_e32 v2, 0x10000\n"
                        "\tv_cndmask_b32_e32 v1, v1, v2, vcc\n"
                        "\tglobal_load_dword v3, v1, s[4:5]",
    "scalar load": START + "\ts_load_dwordx8 s[8:15], s[4:5], 0x8000",
    "LDS": START + "\tv_lshlrev_b32_e32 v2, 3, v0\n\tds_write_b64 v2, v[0:1]",
    "LDS of one wave": START + "\tv_mov_b32_e32 v2, 0x3fd\n\tds_read_u16 v3, v2 offset:2",
    "a barrier that some never reach": START + "\tv_readfirstlane_b32 s6, v0\n"
        "\ts_cmp_eq_u32 s6, 64\n\ts_cbranch_scc1 .Lend\n\ts_barrier\n\ts_branch .Lend\n"
        "\ts_barrier\n.Lend:\n\ts_cmp_eq_u32 s6, 64\n\ts_cbranch_scc0 .Lover\n.Lwait:\n"
        "\ts_barrier\n\ts_barrier\n.Lover:",
    "a trap": START + "\ts_cmp_eq_u32 s2, 3\n\ts_cbranch_scc0 .Lend\n\ts_trap 2\n.Lend:",
    "an unknown instruction": START + "\tglobal_store_dword v1, v0, s[4:5]\n\tv_frobnicate v1, v0",
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("device", ["", ",serial"])
def test_the_same_violation(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same words, and memory is left as the interpreter leaves it."""
    one, two = (launched(FAULTS[name], how, monkeypatch, device) for how in ("never", "always"))
    assert one.error == two.error
    assert one.data.tolist() == two.data.tolist()
    if name != "a barrier that some never reach":
        assert one.error != ""


def test_a_kernel_without_an_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conformance.devices.isa.launch.LIMIT", 100_000)
    found = [launched("\n.Lhere:\n\ts_branch .Lhere", how, monkeypatch).error
             for how in ("never", "always")]  # fmt: skip
    assert found == ["Violation: no end after 100000 wave-instructions: does the kernel loop?"] * 2


def test_a_kernel_is_compiled_when_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a launch: the rest of it runs in native code, on the same registers."""
    native_kernel._KERNELS.clear()
    monkeypatch.setattr(objects, "read", lambda _name: None)
    made: list[str] = []
    old = native_kernel.compile_code

    def compiled(code: Code, races: bool) -> objects.Compiled:
        made.append(code.program.name)
        return old(code, races)

    monkeypatch.setattr(native_kernel, "compile_code", compiled)
    wanted = launched(SHARING, "never", monkeypatch)
    assert launched(SHARING, "auto", monkeypatch).data.tolist() == wanted.data.tolist()
    assert made == [], "a short launch is interpreted"
    monkeypatch.setattr(native_kernel, "_BREAK_EVEN", 20)
    native_kernel._KERNELS.clear()
    again = launched(SHARING, "auto", monkeypatch)
    assert made == ["k"]
    assert again.data.tolist() == wanted.data.tolist()
    assert again.run is not None and wanted.run is not None
    assert again.run.wave_instructions == wanted.run.wave_instructions
    assert again.run.executed == wanted.run.executed


def test_without_a_compiler_everything_is_interpreted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing() -> None:
        raise NativeError("llvmlite is not installed (no module)")

    wanted = launched(SHARING, "never", monkeypatch)
    native_kernel.unavailable.cache_clear()
    monkeypatch.setattr(native_kernel, "binding", missing)
    try:
        with caplog.at_level(logging.WARNING):
            found = launched(SHARING, "always", monkeypatch)
        assert found.data.tolist() == wanted.data.tolist()
        assert "20 to 40 times slower: llvmlite is not installed" in caplog.text
    finally:
        native_kernel.unavailable.cache_clear()


def test_a_module_that_llvm_refuses_is_a_message(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(objects, "read", lambda _name: None)
    old = compile_text
    monkeypatch.setattr(
        f"{native_kernel.__name__}.compile_text",
        lambda text: old(text.replace("ret void", "ret i3")),
    )
    native_kernel._KERNELS.clear()
    with caplog.at_level(logging.WARNING):
        found = launched(SHARING, "always", monkeypatch)
    native_kernel._KERNELS.clear()
    assert found.error == ""
    assert "k is interpreted: LLVM refuses the module" in caplog.text


def test_an_unknown_choice_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="expected auto, always, never or both"):
        launched(SHARING, "sometimes", monkeypatch)
