"""From a launch to the first instruction: argument bytes, lane numbers, part waves, LDS."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance.devices.isa import Violation, execute
from conformance.devices.isa.launch import load
from conformance.devices.kernel import Argument, Extent, Kernel, Launch, Span
from conformance.devices.recorder import Recorder
from conformance.devices.resources import resources_of
from conformance.devices.spelling import parse_device
from conformance.devices.triton.arguments import argument_of

# Loads a pointer and a number from the segment; every lane stores v0 plus the number at the
# place that a counter in memory gives it.
_LANES = """\
k:
	s_load_dwordx4 s[0:3], s[0:1], 0x0
	v_mov_b32_e32 v1, 4
	v_mov_b32_e32 v2, 0
	global_atomic_add v3, v2, v1, s[0:1] sc0
	v_add_u32_e32 v0, s2, v0
	global_store_dword v3, v0, s[0:1] offset:4
	s_endpgm
.Lfunc_end0:
	.amdhsa_kernel k
	.amdhsa_user_sgpr_kernarg_segment_ptr 1
	.amdhsa_user_sgpr_count 2
	.amdhsa_system_vgpr_workitem_id {asked}
	.amdhsa_kernarg_size 16
	.end_amdhsa_kernel
"""
_LDS = """\
k:
	v_mov_b32_e32 v1, 96
	ds_write_b32 v1, v0
	s_endpgm
.Lfunc_end0:
	.amdhsa_kernel k
	.end_amdhsa_kernel
"""
DEVICE = parse_device("isa:gfx942")


def kernel(text: str, lds: int = 0) -> Kernel:
    return Kernel("k", text, lds, 1, 64, resources_of(text, lds, 1, DEVICE.facts))


def lanes(workgroup: Extent, asked: int, grid: Extent = (1, 1, 1)) -> list[int]:
    """What v0 held in every lane that ran, less 100, sorted."""
    memory: Any = np.zeros(1025, dtype=np.uint32)
    span = Span("out", int(memory.ctypes.data), memory.nbytes)
    # A structure by value: the address, the number and four bytes of padding.
    data = span.start.to_bytes(8, "little") + (100).to_bytes(8, "little")
    launch = Launch(
        kernel(_LANES.format(asked=asked)),
        grid,
        workgroup,
        (Argument("everything", data, (span,), offset=0),),
    )
    execute(launch, DEVICE)
    count = int(memory[0]) // 4
    return sorted(int(value) - 100 for value in memory[1 : count + 1])


def test_a_workgroup_may_be_no_whole_number_of_waves() -> None:
    assert lanes((100, 1, 1), 0) == list(range(100))
    assert lanes((7, 1, 1), 0, grid=(2, 1, 1)) == sorted(2 * list(range(7)))


def test_lane_numbers_have_as_many_axes_as_the_descriptor_asks_for() -> None:
    def packed(axes: int) -> list[int]:
        return sorted(
            x | (y << 10 if axes > 0 else 0) | (z << 20 if axes > 1 else 0)
            for x in range(5)
            for y in range(7)
            for z in range(3)
        )

    for asked in (0, 1, 2):
        assert lanes((5, 7, 3), asked) == packed(asked)


def test_a_launch_adds_to_the_lds_of_its_kernel() -> None:
    device = parse_device("isa:gfx942")
    execute(Launch(kernel(_LDS, 60), (1, 1, 1), (64, 1, 1), dynamic_lds=40), device)
    with pytest.raises(Violation, match="4 bytes at LDS byte 96, 4 bytes outside the 96 allocated"):
        execute(Launch(kernel(_LDS, 60), (1, 1, 1), (64, 1, 1), dynamic_lds=36), device)


# Each wave reads the word that its number names, of the four that follow the segment's pointer.
_SCALAR = """\
k:
	v_readfirstlane_b32 s3, v0
	s_load_dwordx2 s[4:5], s[0:1], 0x0
	s_lshr_b32 s3, s3, 4
	.loc	1 7 9 ; kernel.py:7:9
	s_load_dword s6, s[4:5], s3
	s_endpgm
.Lfunc_end0:
	.amdhsa_kernel k
	.amdhsa_user_sgpr_kernarg_segment_ptr 1
	.amdhsa_user_sgpr_count 2
	.amdhsa_system_sgpr_workgroup_id_x 1
	.amdhsa_kernarg_size 8
	.end_amdhsa_kernel
"""


def test_a_scalar_load_out_of_bounds_is_a_violation_with_its_place() -> None:
    memory: Any = np.zeros(4, dtype=np.uint32)
    span = Span("table", int(memory.ctypes.data), memory.nbytes)
    argument = Argument("table", span.start.to_bytes(8, "little"), (span,), offset=0)
    recorder = Recorder(DEVICE)
    recorder.run(Launch(kernel(_SCALAR), (2, 1, 1), (256, 1, 1), (argument,)))
    words = (
        "4 bytes that reach 4 bytes past the end of table by workgroup (0, 0, 0), wave 4: "
        "s_load_dword s6, s[4:5], s3 (assembly line 6, kernel.py:7:9)"
    )
    with pytest.raises(Violation) as caught:
        recorder.run(Launch(kernel(_SCALAR), (2, 1, 1), (320, 1, 1), (argument,)))
    assert str(caught.value) == words
    assert recorder.collect()["violations"] == [{"kernel": "k", "message": words}]


@pytest.mark.parametrize(
    ("kind", "value", "data"),
    [
        ("i32", -2, b"\xfe\xff\xff\xff"),
        ("u8", 255, b"\xff"),
        ("i1", True, b"\x01"),
        ("i64", 1 << 40, (1 << 40).to_bytes(8, "little")),
        ("fp32", 1.0, b"\x00\x00\x80\x3f"),
        ("fp16", 1.0, b"\x00\x3c"),
        ("fp16", -70000.0, b"\x00\xfc"),
        ("fp32", 1e300, b"\x00\x00\x80\x7f"),
        ("bf16", 1.00390625, b"\x80\x3f"),
        ("*fp16", None, bytes(8)),
        ("*fp16", 4096, b"\x00\x10" + bytes(6)),
    ],
)
def test_triton_arguments_as_bytes(kind: str, value: Any, data: bytes) -> None:
    assert argument_of("x", kind, value).data == data


@pytest.mark.parametrize("kind", ["tensordesc<fp16[2,2]>", "fp8e4", "i7"])
def test_a_triton_type_that_is_not_emulated_says_so(kind: str) -> None:
    with pytest.raises(ValueError, match=r"argument x: .* not emulated"):
        argument_of("x", kind, 0)


def test_source_lines_of_instructions() -> None:
    """By the folder that the text says of a file; none where no line is told."""
    text = (
        'k:\n\ts_nop 0\n\t.file\t1 "/deep/er" "k.py"\n\t.loc\t1 12 3 ; k.py:12:3\n'
        "\ts_nop 1\n\t.loc\t2 0 0 ; k.py:0:0\n\ts_nop 2\n\t.loc\t3 7 0 ; other.py:7:0\n\ts_endpgm\n"
        ".Lfunc_end0:\n\t.amdhsa_kernel k\n\t.end_amdhsa_kernel\n"
    )
    lines = load(text, "gfx942", 64).lines
    assert lines == ("", "/deep/er/k.py:12", "", "other.py:7")
