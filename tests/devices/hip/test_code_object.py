"""Code objects: read from files, refused with a reason where they cannot be, and executed."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from conformance.devices.assembly import parse_program
from conformance.devices.hip.clang import find_clang
from conformance.devices.hip.code_object import CodeObject, CodeObjectError, read_code_object
from conformance.devices.hip.object_launch import launch_object
from conformance.devices.recorder import Recorder
from conformance.devices.spelling import parse_device

# Doubles each lane's word; the loop, the padded arguments and the size of 0 for them are those of
# hand-written code objects.
SOURCE = """
    .amdgcn_target "amdgcn-amd-amdhsa--{target}"
    .text
    .globl twice
    .p2align 8
    .type twice,@function
twice:
    s_load_dwordx2 s[4:5], s[0:1], 0x0
    s_load_dword s6, s[0:1], 0x10
    v_lshlrev_b32_e32 v1, 2, v0
    s_waitcnt lgkmcnt(0)
    global_load_dword v2, v1, s[4:5]
    s_waitcnt vmcnt(0)
again:
    v_add_u32_e32 v2, v2, v2
    s_sub_u32 s6, s6, 1
    s_cmp_lg_u32 s6, 0
    s_cbranch_scc1 again
    global_store_dword v1, v2, s[4:5]
    s_endpgm
    .rodata
    .p2align 6
    .amdhsa_kernel twice
        .amdhsa_next_free_vgpr 8
        .amdhsa_next_free_sgpr 16
        .amdhsa_accum_offset 8
        .amdhsa_user_sgpr_kernarg_segment_ptr 1
    .end_amdhsa_kernel
    .amdgpu_metadata
amdhsa.version: [1, 2]
amdhsa.target: amdgcn-amd-amdhsa--{target}
amdhsa.kernels:
  - .name: {named}
    .symbol: twice.kd
    .kernarg_segment_size: 32
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 8
    .max_flat_workgroup_size: 64
    .args:
      - {{.name: data, .offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}}
      - {{.name: pad, .offset: 8, .size: 8, .value_kind: by_value}}
      - {{.name: times, .offset: 16, .size: 4, .value_kind: by_value}}
      - {{.name: pad, .offset: 20, .size: 4, .value_kind: by_value}}
    .end_amdgpu_metadata
"""


class Driver:
    """What a launch asks of a device's driver."""

    rewrite = None
    compile_only = False

    def __init__(self, device: str) -> None:
        self.name = parse_device(device)
        self.recorder = Recorder(self.name)


def assembled(folder: Path, source: str, target: str = "gfx942") -> Path:
    """A code object from assembly text, its labels stripped as a release's may be."""
    clang = find_clang()
    made, text = folder / "kernel.co", folder / "kernel.s"
    text.write_text(source, encoding="utf-8")
    asked = ["-x", "assembler", "--target=amdgcn-amd-amdhsa", f"-mcpu={target}", "-nogpulib"]
    subprocess.run([clang.path, *asked, str(text), "-o", str(made)], check=True)
    return made


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objects")
    return assembled(folder, SOURCE.format(target="gfx942", named="twice"))


def doubled(code: CodeObject, times: int = 3) -> torch.Tensor:
    data = torch.arange(64, dtype=torch.int32)
    driver = Driver("isa:gfx942,poison")
    launch_object(driver, code, (1, 1, 1), (data, times))  # type: ignore[arg-type] # a stand-in
    return data


def test_a_code_object_says_what_it_is_and_runs(shipped: Path) -> None:
    code = read_code_object(shipped, "gfx942")
    assert code.sha256 == hashlib.sha256(shipped.read_bytes()).hexdigest()
    assert code.name == f"kernel.co (sha256 {code.sha256})"
    assert (code.symbol, code.target, code.workgroup) == ("twice", "gfx942", 64)
    assert [(a.name, a.offset, a.size) for a in code.arguments] == [
        ("data", 0, 8),
        ("times", 16, 4),
    ]
    assert parse_program(code.text).descriptor["kernarg_size"] == 32
    assert doubled(code).equal(torch.arange(64, dtype=torch.int32) * 8)
    kernel = code.as_kernel(parse_device("aot:gfx942"))
    assert (kernel.num_warps, kernel.wave_size, kernel.lds_bytes) == (1, 64, 0)
    had = kernel.resources
    assert (had.occupancy, had.vgprs, had.sgprs) == (8, 8, 16)
    assert len(kernel.types) == had.arguments


def test_where_a_branch_goes_is_read_from_its_bits(shipped: Path, tmp_path: Path) -> None:
    """One word further back, the waits run again and nothing else changes; one further on, the
    first addition is not repeated."""
    code = read_code_object(shipped)
    branch = bytes.fromhex("fcff85bf")  # s_cbranch_scc1, four words back from its end
    for distance, expected in ((b"\xfb", 8), (b"\xfd", 2)):
        data = shipped.read_bytes()
        assert data.count(branch) == 1
        other = tmp_path / f"{distance.hex()}.co"
        other.write_bytes(data.replace(branch, distance + branch[1:]))
        found = doubled(read_code_object(other))
        assert found.equal(torch.arange(64, dtype=torch.int32) * expected)
    assert "s_cbranch_scc1 .L" in code.text


def test_a_file_that_changed_is_read_anew(shipped: Path, tmp_path: Path) -> None:
    copy, data = tmp_path / "copy.co", shipped.read_bytes()
    copy.write_bytes(data)
    first = read_code_object(copy)
    assert read_code_object(copy) is first
    addition = bytes.fromhex("02050468")  # v_add_u32_e32 v2, v2, v2
    copy.write_bytes(data.replace(addition, bytes.fromhex("00000080")))  # s_add_u32 s0, s0, s0
    second = read_code_object(copy)
    assert second.sha256 != first.sha256
    assert doubled(second).equal(torch.arange(64, dtype=torch.int32))


def test_what_no_kernel_can_be_launched_with_is_refused(shipped: Path) -> None:
    code = read_code_object(shipped)
    driver = Driver("isa:gfx942")
    data = torch.zeros(64, dtype=torch.int32)
    with pytest.raises(CodeObjectError, match="takes 2 arguments: expected 1"):
        launch_object(driver, code, (1, 1, 1), (data,))  # type: ignore[arg-type] # a stand-in
    with pytest.raises(CodeObjectError, match="has 4 bytes for argument times at 16: expected 8"):
        launch_object(driver, code, (1, 1, 1), (data, data))  # type: ignore[arg-type] # likewise
    with pytest.raises(CodeObjectError, match="has argument 1 at 16: expected it at 8"):
        launch_object(driver, code, (1, 1, 1), (data, 1), 8)  # type: ignore[arg-type] # likewise
    other = Driver("isa:gfx950")
    with pytest.raises(CodeObjectError, match="is for gfx942: expected a code object for gfx950"):
        launch_object(other, code, (1, 1, 1), (data, 1))  # type: ignore[arg-type] # likewise


def test_memory_that_other_memory_leads_to(tmp_path: Path) -> None:
    """An address in a tensor may be followed only where the launch says so."""
    source = SOURCE.format(target="gfx942", named="twice").replace(
        "    global_load_dword v2",
        "    s_load_dwordx2 s[4:5], s[4:5], 0x0\n"
        "    s_waitcnt lgkmcnt(0)\n    global_load_dword v2",
    )
    code = read_code_object(assembled(tmp_path, source))
    data = torch.arange(64, dtype=torch.int32)
    table, driver = torch.tensor([data.data_ptr()]), Driver("isa:gfx942,poison")
    given = (driver, code, (1, 1, 1), (table, 1))
    launch_object(*given, reachable=(data,))  # type: ignore[arg-type] # a stand-in
    assert data.tolist() == [2 * n for n in range(64)]
    with pytest.raises(Exception, match=r"^4 bytes that reach .* (after|before|past) "):
        launch_object(*given)  # type: ignore[arg-type] # likewise


@pytest.mark.parametrize("kept", [0, 3, 63, 70, 0.3, 0.7, -1])
def test_a_file_that_is_cut_off_is_refused(shipped: Path, tmp_path: Path, kept: float) -> None:
    data = shipped.read_bytes()
    cut = tmp_path / "cut.co"
    cut.write_bytes(data[: int(kept * len(data)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(CodeObjectError, match=r"cut\.co is (no ELF file|damaged)"):
        read_code_object(cut)


def test_other_files_are_refused(shipped: Path, tmp_path: Path) -> None:
    with pytest.raises(CodeObjectError, match="cannot be read: No such file"):
        read_code_object(tmp_path / "none.co")
    text = tmp_path / "text.co"
    text.write_text("version https://git-lfs.github.com/spec/v1\n", encoding="utf-8")
    with pytest.raises(CodeObjectError, match="is no ELF file"):
        read_code_object(text)
    program = shutil.which("true")
    assert program is not None
    with pytest.raises(CodeObjectError, match=r"for the machine EM_(X86_64|AARCH64)"):
        read_code_object(Path(program))
    with pytest.raises(CodeObjectError, match="is for gfx942: expected a code object for gfx950"):
        read_code_object(shipped, "gfx950")
    with pytest.raises(CodeObjectError, match="holds the kernels twice: expected thrice"):
        read_code_object(shipped, symbol="thrice")
    bare = re.sub(r"\.amdgpu_metadata.*\.end_amdgpu_metadata", "", SOURCE, flags=re.S)
    with pytest.raises(CodeObjectError, match="has no metadata of kernels"):
        read_code_object(assembled(tmp_path, bare.format(target="gfx942")))
    (tmp_path / "renamed").mkdir()
    renamed = assembled(tmp_path / "renamed", SOURCE.format(target="gfx942", named="once"))
    with pytest.raises(CodeObjectError, match="has no readable descriptor of once"):
        read_code_object(renamed)


def test_bits_that_mean_nothing_stop_whoever_reaches_them(shipped: Path, tmp_path: Path) -> None:
    data = shipped.read_bytes()
    addition = bytes.fromhex("02050468")  # v_add_u32_e32 v2, v2, v2
    assert data.count(addition) == 1
    other = tmp_path / "other.co"
    other.write_bytes(data.replace(addition, bytes.fromhex("ffffffff")))
    with pytest.raises(Exception, match="undecodable_ffffffff"):
        doubled(read_code_object(other))
