"""A code object that AMD ships, executed as it is and with instructions changed in its file.

Nothing of aiter is stored here: the release is fetched into the cache on first use, and a scratch
copy of the file is changed. Each change has to show in what it computes, or in a static check.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from conformance.devices.hip.code_object import read_code_object
from conformance.devices.hip.object_launch import launch_object
from conformance.devices.isa.machine import Violation
from conformance.devices.isa.proofs.waits import wait_findings
from conformance.devices.recorder import Recorder
from conformance.devices.spelling import parse_device
from conformance.matrix.requests import Platform
from conformance.problems.problem import Problem
from conformance.problems.tensors import materialise
from conformance.subjects.base import Options
from conformance.subjects.spellings import parse_subject
from conformance.subjects.workers import WorkerSubject
from conformance.suites.parity.case import ParityCase
from conformance.suites.parity.judging import arithmetic_of, with_queries_in_fp8
from tests.support.some import one_in

RELEASE = "0.1.7.post2.dev18"
FILE = "aiter_meta/hsa/gfx942/pa/pa_bf16_noquant_gqa8_1tg_4w.co"
RACING = "mla_a8w8_qh16_qseqlen1_gqaratio16_ps.co"
TARGET, HEADS, SIZE, BLOCK, PIECE = "gfx942", 8, 128, 16, 8
# Long ones, for the loop over tiles to run more than once: 256 keys each.
LENGTHS = (1, 600, 1100)


@dataclass(frozen=True)
class Change:
    """Words of machine code, as manuals write them, and what stands in every such place instead."""

    good: str
    bad: str
    static: bool = False


# The kernel's loop is unrolled four times: a change is made in each.
CHANGES = {
    # s_load_dword s64, s[0:1], 0x80
    "the softmax scale is another argument": Change("C0021000 00000080", "C0021000 00000090"),
    # v_mul_f32 v42, v49, v42
    "the sum is not rescaled": Change("0A545531", "0A5454F2"),
    # v_mul_f32 v128, v49, v128
    "an accumulator is not rescaled": Change("0B010131", "0B0100F2"),
    # v_mul_u32_u24_dpp v39, v16, v51 row_newbcast:4
    "another block of the table": Change("104E66FA FF015410", "104E66FA FF015810"),
    # ds_read_b64 v[98:99], v12 offset:5376
    "weights of another wave": Change("D8EC1500 6200000C", "D8EC1480 6200000C"),
    # v_mfma_f32_16x16x16_bf16 v[96:99], a[2:3], v[82:83], v[96:99]
    "a product starts from 0": Change("D3E10060 0D82A502", "D3E10060 0A02A502"),
    # v_fma_f32 v96, v96, s64, -v50
    "a logit without its maximum": Change("D1CB0060 84C88160", "D1CB0060 02008160"),
    # v_add_f32 v43, v100, v43
    "a weight is missing in the sum": Change("02565764", "02565680"),
    # s_cmp_lt_i32 s70, s71
    "the loop over tiles ends early": Change("BF044746", "BF024746"),
    # v_exp_f32 v97, v97
    "a logarithm for an exponential": Change("7EC24161", "7EC24361"),
    # s_waitcnt vmcnt(16) lgkmcnt(0)
    "no wait for keys": Change("BF8C4070", "BF8CCF7F", static=True),
}


def machine_code(words: str) -> bytes:
    return b"".join(int(word, 16).to_bytes(4, "little") for word in words.split())


@lru_cache(maxsize=1)
def shipped() -> Path:
    subject = parse_subject(f"amd-aiter=={RELEASE}", Options("0.33"))
    assert isinstance(subject, WorkerSubject)
    return Path(subject.environment["PYTHONPATH"]) / FILE


class Driver:
    """What a launch asks of a device's driver."""

    rewrite = None
    compile_only = False

    def __init__(self, device: str = f"isa:{TARGET},poison") -> None:
        self.name = parse_device(device)
        self.recorder = Recorder(self.name)


def error(path: Path) -> float:
    """The largest error of a decode; infinite where it gives NaN or is stopped."""
    made = torch.Generator().manual_seed(3)
    query = torch.randn((len(LENGTHS), HEADS, SIZE), generator=made).bfloat16()
    counts = [-(-n // BLOCK) for n in LENGTHS]
    order = torch.randperm(sum(counts), generator=made).to(torch.int32)
    keys = torch.zeros((sum(counts), 1, SIZE // PIECE, BLOCK, PIECE)).bfloat16()
    values = torch.zeros((sum(counts), 1, BLOCK // PIECE, SIZE, PIECE)).bfloat16()
    table = torch.zeros((len(LENGTHS), max(counts) + 64), dtype=torch.int32)
    right, at = [], 0
    for number, (length, count) in enumerate(zip(LENGTHS, counts, strict=True)):
        table[number, :count] = order[at : at + count]
        at += count
        key, value = torch.randn((2, length, SIZE), generator=made).bfloat16()
        place = torch.arange(length)
        block, slot = table[number].long()[place // BLOCK], place % BLOCK
        keys[block, 0, :, slot] = key.unflatten(1, (-1, PIECE))
        values[block, 0, slot // PIECE, :, slot % PIECE] = value
        logits = query[number].double() @ key.double().T * SIZE**-0.5
        right.append(logits.softmax(-1) @ value.double())
    out = torch.full_like(query, math.nan)
    row = query.stride(0) * 2
    arguments = (
        *(out, query, keys, values, table, torch.tensor(LENGTHS, dtype=torch.int32), None, None),
        *(math.log2(math.e) * SIZE**-0.5, table.stride(0), 1, row, keys.stride(0) * 2),
        *(keys.stride(1) * 2, HEADS, None),
    )
    code = read_code_object(path, TARGET)
    driver = Driver()
    try:
        launch_object(driver, code, (1, len(LENGTHS), 1), arguments, 16)  # type: ignore[arg-type] # a stand-in
    except Exception:
        return math.inf
    found = float((out.double() - torch.stack(right)).abs().max())
    return math.inf if math.isnan(found) else found


@lru_cache(maxsize=1)
def usual() -> float:
    return error(shipped())


def test_kernels_over_fp8_caches_multiply_in_fp8() -> None:
    problem = Problem("paged", "ROCM_AITER_FA", "p", 1, (1,), (40,), 8, 1, 128, 128, "bfloat16",
                      kv_cache_dtype="fp8_e4m3fnuz")  # fmt: skip
    mi300 = Platform.make(TARGET)
    case = ParityCase(*("parity", "parity", f"amd-aiter=={RELEASE}", "PAR-002"), mi300, (), mi300,
                      problem=problem, backend=problem.backend, device="isa:gfx942")  # fmt: skip
    ran = "pa/pa_bf16_pertokenFp8_gqa8_2tg_4w.co (sha256 0)"
    assert arithmetic_of(case, [ran]).eight_bit == "fp8_e4m3fnuz"
    plain = arithmetic_of(case, ["pa/pa_bf16_noquant_gqa8_1tg_4w.co"])
    assert (plain.eight_bit, plain.cuts_off) == ("", False)
    assert arithmetic_of(case, ["pa/pa_fp16_noquant_gqa16_1tg_4w.co"]).cuts_off


def test_latent_decodes_over_fp8_caches_are_of_queries_in_fp8() -> None:
    problem = Problem("mla", "ROCM_AITER_MLA", "p", 1, (1,), (40,), 16, 1, 576, 512, "bfloat16",
                      kv_cache_dtype="fp8_e4m3fnuz")  # fmt: skip
    mi300 = Platform.make(TARGET)
    case = ParityCase(*("parity", "parity", f"amd-aiter=={RELEASE}", "PAR-007"), mi300, (), mi300,
                      problem=problem, backend=problem.backend, device="isa:gfx942")  # fmt: skip
    arithmetic = arithmetic_of(case, ["mla/mla_a8w8_qh16_qseqlen1_gqaratio16_ps.co (sha256 0)"])
    assert (arithmetic.eight_bit, arithmetic.eight_bit_weights) == ("", "fp8_e4m3fnuz")
    plain = arithmetic_of(case, ["mla/mla_a16w16_qh16_m16x4_n16x1_coex0_mask1_ps.co (sha256 0)"])
    assert plain.eight_bit_weights == ""
    tensors = materialise(problem)
    tensors = replace(tensors, query=torch.tensor([[[1.03, 1.07, -300.0, 2.0**-11]]]).bfloat16())
    rounded = with_queries_in_fp8(problem, tensors).query
    assert rounded.tolist() == [[[1.0, 1.125, -224.0, 0.0]]]
    assert with_queries_in_fp8(
        replace(problem, kv_cache_dtype="fp8_e4m3fn"), tensors
    ).query.tolist() == [[[1.0, 1.125, -288.0, 0.0]]]


def latent_error(device: str, *, abreast: bool) -> float:
    """The largest error of a latent decode of 64 keys in fp8, which one workgroup does."""
    made, fp8, heads, keys = torch.Generator().manual_seed(1), torch.float8_e4m3fnuz, 16, 64
    query = torch.randn((1, heads, 576), generator=made).to(fp8)
    cache = torch.randn((keys, 1, 1, 576), generator=made).to(fp8)
    pages = torch.randperm(keys, generator=made).to(torch.int32)
    out = torch.full((1, heads, 512), math.nan).bfloat16()
    partial, sums = (torch.full((1, 1, heads, n), math.nan) for n in (512, 1))
    starts = torch.tensor([0, 1], dtype=torch.int32)
    piece = torch.tensor([0, -1, 0, 1, 0, keys, 0, 0], dtype=torch.int32)
    meta = torch.tensor([starts.data_ptr(), piece.data_ptr()])
    ends, one = torch.tensor([0, keys], dtype=torch.int32), torch.ones(1, dtype=torch.int32)
    arguments = (
        *(partial, sums, query, cache, ends, pages, one, 192**-0.5, heads, 1, 576 * heads, 576, 0),
        *(starts, meta, out, torch.ones(1), torch.ones(1), 1),
    )
    code = read_code_object(shipped().parents[1] / "mla" / RACING, TARGET)
    driver = Driver(device)
    launch_object(driver, code, (1, 1, 1), arguments, 16, (starts, piece), abreast=abreast)  # type: ignore[arg-type] # a stand-in
    chosen = cache[pages.long(), 0, 0].double()
    logits = query[0].double() @ chosen.T * 192**-0.5
    return float((out[0].double() - logits.softmax(-1) @ chosen[:, :512]).abs().max())


@pytest.mark.vllm
@pytest.mark.slow
def test_a_latent_decode_in_fp8_is_right_while_its_waves_keep_pace() -> None:
    """Two of its waves store over weights that the others read, with no barrier between."""
    assert latent_error(f"isa:{TARGET}", abreast=True) < 0.05
    for seed in (0, 3):
        assert latent_error(f"isa:{TARGET},serial,seed={seed}", abreast=False) > 1
    with pytest.raises(Violation, match="a race: LDS byte"):
        latent_error(f"isa:{TARGET},races", abreast=True)


@pytest.mark.vllm
@pytest.mark.parametrize("name", one_in(3, CHANGES, CHANGES))
def test_a_changed_instruction_shows(name: str, tmp_path: Path) -> None:
    change, data = CHANGES[name], shipped().read_bytes()
    good, bad = machine_code(change.good), machine_code(change.bad)
    assert len(good) == len(bad)
    assert data.count(good) >= 1
    changed = tmp_path / "changed.co"
    changed.write_bytes(data.replace(good, bad))
    if change.static:
        findings = [
            len(wait_findings(read_code_object(path).text, TARGET, 64))
            for path in (shipped(), changed)
        ]
        assert findings[1] > findings[0]
        return
    assert usual() < 4e-3
    assert error(changed) > 4 * usual()
