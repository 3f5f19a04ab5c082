"""Results that depend on memory that nothing wrote, natively and interpreted."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch

from conformance.devices.empty_tensors import EmptyTensors, mark
from conformance.devices.isa import Violation, execute
from conformance.devices.isa.memory import raw_buffer
from conformance.devices.isa.native.kernel import VARIABLE
from conformance.devices.isa.unwritten import PATTERN, PERIOD, fill, has_unwritten, reads_of
from conformance.devices.kernel import Kernel, Launch, pointer
from conformance.devices.resources import resources_of
from conformance.devices.spelling import parse_device
from conformance.worker.guarded_memory import Guarded
from conformance.worker.kernel_device import KernelDevice

LANES, PARTS = 64, 5
HOW = ["never", "always"]


def text_of(body: str) -> str:
    """s[0:1] are the arguments, s[4:5] the parts, s[6:7] the output; v1 is 4 times the lane."""
    return (
        "k:\n\ts_load_dwordx4 s[4:7], s[0:1], 0x0\n\tv_lshlrev_b32_e32 v1, 2, v0\n"
        f"{body}\ts_endpgm\n.Lfunc_end0:\n\t.amdhsa_kernel k\n\t.amdhsa_kernarg_size 16\n"
        "\t.amdhsa_user_sgpr_count 2\n\t.amdhsa_user_sgpr_kernarg_segment_ptr 1\n"
        "\t.amdhsa_next_free_vgpr 8\n\t.end_amdhsa_kernel\n"
        "amdhsa.kernels:\n  - .args:\n"
        "      - .address_space: global\n        .offset: 0\n        .size: 8\n"
        "        .value_kind: global_buffer\n"
        "      - .address_space: global\n        .offset: 8\n        .size: 8\n"
        "        .value_kind: global_buffer\n"
    )


def reduced(parts: int, load: str = "global_load_dword v3, v1, s[4:5]") -> str:
    """Adds up rows of 64 floats, and stores the sum."""
    body = "\tv_mov_b32_e32 v4, 0\n"
    for _ in range(parts):
        body += f"\t.loc 1 9 3 ; reduce.py:9:3\n\t{load}\n"
        body += "\tv_add_f32_e32 v4, v4, v3\n\tv_add_u32_e32 v1, 0x100, v1\n"
    return body + "\tv_lshlrev_b32_e32 v1, 2, v0\n\tglobal_store_dword v1, v4, s[6:7]\n"


def launch(body: str, parts: Any, out: Any, device: str = "isa:gfx942") -> None:
    name, text = parse_device(device), text_of(body)
    kernel = Kernel("k", text, 0, 1, LANES, resources_of(text, 0, 1, name.facts))
    given = (pointer("parts", parts), pointer("out", out))
    placed = tuple(type(one)(one.name, one.data, one.spans, 8 * n) for n, one in enumerate(given))
    execute(Launch(kernel, (1, 1, 1), kernel.workgroup, placed), name)


def tensors(written: int) -> tuple[Any, Any]:
    with EmptyTensors():
        parts, out = torch.empty(PARTS, LANES), torch.empty(LANES)
    parts[:written] = 1.5
    return parts, out


@pytest.fixture(params=HOW)
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(VARIABLE, request.param)
    return str(request.param)


@pytest.mark.usefixtures("how")
def test_a_reduce_that_reads_what_was_written_is_none() -> None:
    for written in range(1, PARTS + 1):
        parts, out = tensors(written)
        launch(reduced(written), parts, out)
        assert out.tolist() == [1.5 * written] * LANES


@pytest.mark.usefixtures("how")
@pytest.mark.parametrize("written", range(PARTS))
def test_a_reduce_that_reads_one_part_more_is_found(written: int) -> None:
    parts, out = tensors(written)
    with pytest.raises(Violation) as raised:
        launch(reduced(written + 1), parts, out)
    assert str(raised.value) == (
        f"results depend on memory that nothing wrote: byte {256 * written} of parts by "
        f"global_load_dword v3, v1, s[4:5] (assembly line {6 + 4 * written}, reduce.py:9:3)"
    )


@pytest.mark.usefixtures("how")
@pytest.mark.parametrize("periods", [1, 2, 3])
def test_a_copy_to_a_place_with_the_same_pattern_is_found(periods: int) -> None:
    """What is stored then is what stood there before, bit for bit."""
    with EmptyTensors():
        memory = torch.empty(PARTS * LANES + (periods + 1) * PERIOD // 4)
    parts, out = memory[: PARTS * LANES], memory[periods * PERIOD // 4 :][:LANES]
    body = "\tglobal_load_dword v3, v1, s[4:5]\n\tglobal_store_dword v1, v3, s[6:7]\n"
    with pytest.raises(Violation, match="byte 0 of parts by global_load_dword"):
        launch(body, parts, out)


# A load of one row too much, in every way that a kernel loads.
LOADS = {
    "bytes": "global_load_ubyte v3, v1, s[4:5] offset:1",
    "halves": "global_load_ushort v3, v1, s[4:5]",
    "upper halves": "global_load_short_d16_hi v3, v1, s[4:5] offset:2",
    "not aligned": "global_load_dword v3, v1, s[4:5] offset:-2",
    "a buffer": "buffer_load_dword v3, v1, s[8:11], 0 offen",
    "a scalar": "s_load_dword s12, s[4:5], 0x100",
    "scalars": "s_load_dwordx4 s[12:15], s[4:5], 0xf8",
    "an atomic": "global_atomic_add v3, v1, v0, s[4:5] sc0",
}
DESCRIPTOR = (
    "\ts_mov_b32 s8, s4\n\ts_and_b32 s9, s5, 0xffff\n\ts_mov_b32 s10, 0x500\n\ts_mov_b32 s11, 0\n"
)


@pytest.mark.usefixtures("how")
@pytest.mark.parametrize("name", LOADS)
def test_every_way_to_read_is_seen(name: str) -> None:
    """One row is written: reading it again is none, reading the next is."""
    last = {"a scalar": "s12", "scalars": "s15"}.get(name)
    moved = f"\tv_mov_b32_e32 v3, {last}\n" if last else ""
    body = DESCRIPTOR + f"\t{LOADS[name]}\n{moved}\tv_lshlrev_b32_e32 v1, 2, v0\n"
    body += "\tglobal_store_dword v1, v3, s[6:7]\n"
    parts, out = tensors(1)
    second = body if moved else "\tv_add_u32_e32 v1, 0x100, v1\n" + body
    with pytest.raises(Violation, match="results depend on memory that nothing wrote: byte 25"):
        launch(second, parts, out)
    parts, out = tensors(2)
    if "not aligned" in name:
        parts[:] = 0
    launch(second, parts, out)


@pytest.mark.usefixtures("how")
@pytest.mark.parametrize("masked", ["v_cndmask_b32_e64 v4, v4, 2.0, vcc", "v_mov_b32_e32 v4, 2.0"])
def test_what_is_read_and_left_out_is_none(masked: str) -> None:
    """As compilers do that load a whole tile: and memory stays as it is."""
    parts, out = tensors(1)
    body = reduced(2).replace("\tv_lshl", f"\ts_mov_b64 vcc, -1\n\t{masked}\n\tv_lshl")
    launch(body, parts, out)
    assert out.tolist() == [2.0] * LANES
    assert has_unwritten(raw_buffer("parts", parts.data_ptr(), 4 * PARTS * LANES))
    # A NaN loses against a number; other garbage need not.
    body = reduced(2).replace("\tv_lshl", "\tv_max_f32_e32 v4, 2.0, v4\n\tv_lshl")
    parts, out = tensors(1)
    with pytest.raises(Violation, match="results depend"):
        launch(body, parts, out)


@pytest.mark.usefixtures("how")
def test_what_the_launch_itself_writes_has_been_written() -> None:
    parts, out = tensors(0)
    body = "\tv_mov_b32_e32 v2, 1.0\n\tglobal_store_dword v1, v2, s[4:5]\n" + reduced(1)
    launch(body, parts, out)
    assert out.tolist() == [1.0] * LANES
    parts, out = tensors(0)
    half = body.replace("store_dword v1, v2, s[4:5]", "store_dword v1, v2, s[4:5] offset:128")
    with pytest.raises(Violation, match="byte 0 of parts"):
        launch(half, parts, out)


@pytest.mark.usefixtures("how")
def test_another_violation_says_what_was_read_before() -> None:
    """An address out of memory that nothing wrote leads anywhere."""
    parts, out = tensors(0)
    body = "\tglobal_load_dword v3, v1, s[4:5]\n\tglobal_load_dword v4, v3, s[6:7]\n"
    with pytest.raises(
        Violation, match=r"bytes (past|before) .*; before, it read memory that nothing"
    ):
        launch(body, parts, out)


def test_memory_that_a_host_filled_is_written() -> None:
    """The whole of a tensor, by whatever means; and what is not made empty."""
    with EmptyTensors():
        made = [
            torch.empty(100),
            torch.empty(3, 700, dtype=torch.uint8),
            torch.empty_like(torch.ones(9)),
        ]
        other = [torch.zeros(100), torch.full((64,), float("nan")), torch.arange(50)]
    made[0].copy_(torch.ones(100))
    made[1].numpy()[:] = 7
    for one in (*made[:2], *other):
        size = one.numel() * one.element_size()
        assert not has_unwritten(raw_buffer("one", one.data_ptr(), size))
    assert reads_of([raw_buffer("one", made[2].data_ptr(), 36)]) is not None


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty(5, 7, dtype=torch.float16),
        lambda: torch.empty_like(torch.ones(40, dtype=torch.bfloat16)),
        lambda: torch.ones(3).new_empty((40, 2)),
        lambda: torch.empty_strided((4, 8), (16, 1)),
        lambda: torch.ones(3).new_empty_strided((4, 8), (16, 1)),
        lambda: torch.empty_permuted((4, 8, 3), (2, 0, 1)),
    ],
)
def test_every_empty_tensor_is_nan(make: Any) -> None:
    with EmptyTensors():
        assert bool(make().isnan().all())


@pytest.mark.parametrize("start", [0, 3, 8, PERIOD - 12, PERIOD])
@pytest.mark.parametrize("size", [8, 15, 100, PERIOD, 3 * PERIOD + 20])
def test_the_pattern_goes_by_the_address(start: int, size: int) -> None:
    memory = torch.zeros(6 * PERIOD, dtype=torch.uint8)
    at = memory.data_ptr() + -memory.data_ptr() % PERIOD + start
    fill(at, size)
    data = raw_buffer("memory", at, size).data
    wanted = PATTERN.view(np.uint8)[(start + np.arange(size)) % PERIOD]
    assert (data == wanted).all()
    before, after = raw_buffer("", at - 1, 1).data[0], raw_buffer("", at + size, 1).data[0]
    assert (before, after) == (0, 0)
    aligned = (start + size) // 8 * 8 - -(-start // 8) * 8
    assert has_unwritten(raw_buffer("memory", at, size)) == (aligned >= 8)
    # Copied elsewhere it is no pattern: whoever copies has written.
    moved = np.empty(size + 8, dtype=np.uint8)[4 - at % 8 :]
    moved[:size] = data
    if size == 100:
        assert not has_unwritten(raw_buffer("moved", moved.ctypes.data, size))


def test_a_tensor_can_be_marked_later() -> None:
    tensor = torch.ones(10)
    mark(tensor)
    assert bool(tensor.isnan().all())
    mark(torch.empty(0))


def test_a_worker_runs_its_problems_so() -> None:
    """On an emulated device alone: the outputs of a problem are memory that nothing wrote."""
    with KernelDevice("isa:gfx942")._empties():
        buffer = torch.empty(4, 2, 8, dtype=torch.bfloat16)
        Guarded(buffer, 4, 2, 8, "nan")
        assert has_unwritten(raw_buffer("out", buffer.data_ptr(), 128))
        Guarded(buffer, 4, 2, 8, "huge")
        assert not has_unwritten(raw_buffer("out", buffer.data_ptr(), 128))
    assert isinstance(KernelDevice("aot:gfx942")._empties(), nullcontext)
