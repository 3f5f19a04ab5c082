"""aiter's decodes in assembly: chosen by the table that ships, launched, and refused with a reason.

The aiter here is a few files: a table, and a code object made of this suite's own C code.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from conformance.devices.hip.clang import find_clang
from conformance.worker.aiter.code_objects import CodeObjects
from conformance.worker.aiter.latent_assembly import AskedLatentAssembly, stage_for
from conformance.worker.aiter.paged_assembly import PagedAssembly, kernel_for
from conformance.worker.errors import Refused, WorkerError
from conformance.worker.interfaces import Batch, Geometry, Layer, Paged, Scales, Scores
from conformance.worker.suite_devices import device_part

SOURCE = Path(__file__).with_name("naive_attention.c")
TABLE = """qType,kvType,Gqa,Mtp,Msk,Hp,blkSz,knl_name,knl_file
fp16,fp16,16,0,0,0,16,many_heads,many.co
fp16,fp16,8,0,0,0,16,naive_attention,naive.co
fp16,fp16,8,1,1,0,16,several_queries,several.co
bf16,fp8,10,12,1,0,1024,two_queries,two.co
"""
LENGTHS = (1, 17, 33)


def geometry(**fields: Any) -> Geometry:
    usual: dict[str, Any] = {
        **{"num_heads": 10, "num_kv_heads": 2, "head_size": 128, "v_head_size": 128},
        **{"dtype": torch.float16, "cache_dtype": torch.float16, "block_size": 16},
    }
    return Geometry(**{**usual, **fields})


def scores(**fields: Any) -> Scores:
    usual: dict[str, Any] = {
        **{"scale": 128**-0.5, "causal": True, "window": (-1, -1), "soft_cap": 0.0},
        **{"alibi_slopes": None, "alibi_sqrt": False, "sinks": None, "mm_prefix": None},
    }
    return Scores(**{**usual, **fields})


class Driver:
    """What a launch asks of a device's driver."""

    rewrite = None
    compile_only = False

    def __init__(self, target: str = "gfx942") -> None:
        self.name = device_part("spelling").parse_device(f"isa:{target},poison")
        self.recorder = device_part("recorder").Recorder(self.name)


def _named(argument: re.Match[str]) -> str:
    """An argument by value, by the name that padding has."""
    offset = int(argument.group(1))
    return f"- .name: pad\n        .offset: {offset}" if offset % 16 else argument.group(0)


@pytest.fixture(scope="module")
def code_object(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The kernel, its padding named as aiter's is."""
    folder, clang = tmp_path_factory.mktemp("naive"), find_clang()
    target = ["--target=amdgcn-amd-amdhsa", "-mcpu=gfx942", "-nogpulib"]
    text, made = folder / "naive.s", folder / "naive.co"
    compiled = [clang.path, "-x", "c", "-S", *target, "-O2", "-mcode-object-version=5"]
    subprocess.run([*compiled, str(SOURCE), "-o", str(text)], check=True)
    text.write_text(re.sub(r"- \.offset: +(\d+)", _named, text.read_text("utf-8")), "utf-8")
    assembled = [clang.path, "-x", "assembler", *target]
    subprocess.run([*assembled, str(text), "-o", str(made)], check=True)
    return made.read_bytes()


@pytest.fixture
def hsa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code_object: bytes) -> Path:
    """The code objects of an aiter that can be found and not imported."""
    folder = tmp_path / "aiter_meta" / "hsa" / "gfx942" / "pa"
    for made in (folder, tmp_path / "aiter" / "ops" / "triton"):
        made.mkdir(parents=True)
    (tmp_path / "aiter" / "__init__.py").write_text("raise ImportError\n", encoding="utf-8")
    (folder / "pa_asm.csv").write_text(TABLE, encoding="utf-8")
    (folder / "naive.co").write_bytes(code_object)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "aiter", raising=False)
    return folder


def objects(target: str = "gfx942") -> CodeObjects:
    return CodeObjects(Driver(target))  # type: ignore[arg-type] # a stand-in


def decoded(layer: Layer, lengths: tuple[int, ...] = LENGTHS) -> tuple[torch.Tensor, Any, Any]:
    """What a decode computes, what is right, and what ran."""
    made, shape = torch.Generator().manual_seed(1), layer.geometry
    backend = PagedAssembly(objects())
    cache = backend.allocate(16, shape, torch.device("cpu"))
    cache.fill_(torch.nan)
    order, at = torch.randperm(16, generator=made).to(torch.int32), 0
    table = torch.zeros((len(lengths), 3), dtype=torch.int32)
    query = torch.randn((len(lengths), shape.num_heads, 128), generator=made).half()
    right = []
    for number, length in enumerate(lengths):
        blocks = -(-length // 16)
        table[number, :blocks] = order[at : at + blocks]
        at += blocks
        key, value = torch.randn((2, length, shape.num_kv_heads, 128), generator=made).half()
        place = torch.arange(length)
        slots = table[number].long()[place // 16] * 16 + place % 16
        slots[0] = -1 if length == 2 else slots[0]
        assert backend.write(key, value, cache, slots, layer) == ("harness torch_write",)
        k, v = (x.repeat_interleave(shape.num_heads // shape.num_kv_heads, 1) for x in (key, value))
        logits = torch.einsum("hd,khd->hk", query[number].double(), k.double()) * 128**-0.5
        right.append(torch.einsum("hk,khd->hd", logits.softmax(-1), v.double()))
    starts = torch.arange(len(lengths) + 1, dtype=torch.int32)
    lens = torch.tensor(lengths, dtype=torch.int32)
    out = torch.full((len(lengths) + 1, shape.num_heads, 128), 7.0).half()
    batch = Batch(starts, lens, table, 1, max(lengths), max(lengths) - 1)
    ran = backend.attend(Paged(query, None, None, cache, batch, out, None), layer)
    assert out[-1].eq(7).all()
    return out[:-1], torch.stack(right), ran


def test_the_tables_code_object_computes(hsa: Path) -> None:
    out, right, ran = decoded(Layer(geometry(), scores(), Scales()))
    assert (out.double() - right).abs().max() < 2e-3
    (name,) = ran
    assert re.fullmatch(r"pa/naive\.co \(sha256 [0-9a-f]{64}\)", name)
    del hsa


def test_a_scale_that_is_read_from_elsewhere_shows(hsa: Path, code_object: bytes) -> None:
    """The kernel that reads the number of KV heads for the softmax scale is another kernel."""
    where = re.compile(rb"[\x00-\xff]{3}\xc0\x80\x00\x00\x00", re.S)  # s_load of 0x80
    found = list(where.finditer(code_object))
    assert found
    data = bytearray(code_object)
    for match in found:
        data[match.end() - 4] = 0xA0
    (hsa / "naive.co").write_bytes(bytes(data))
    out, right, _ = decoded(Layer(geometry(), scores(), Scales()))
    assert not (out.double() - right).abs().max() < 0.1


@pytest.mark.parametrize(
    ("shape", "queries", "expected"),
    [
        ({"num_heads": 16}, 1, ("naive.co", "naive_attention")),
        ({"num_heads": 18}, 1, ("many.co", "many_heads")),
        ({"num_heads": 32}, 1, ("many.co", "many_heads")),
        ({"num_heads": 2}, 3, ("several.co", "several_queries")),
        (
            {
                **{"num_heads": 20, "block_size": 1024, "dtype": torch.bfloat16},
                "cache_dtype": torch.float8_e4m3fnuz,
            },
            2,
            ("two.co", "two_queries"),
        ),
    ],
)
def test_what_aiter_would_choose(
    hsa: Path, shape: dict[str, Any], queries: int, expected: tuple[str, str]
) -> None:
    assert kernel_for(hsa / "pa_asm.csv", geometry(**shape), queries) == expected


@pytest.mark.parametrize(
    "shape",
    [
        {"num_heads": 34},
        {"block_size": 32},
        {"dtype": torch.bfloat16},
        {"dtype": torch.float32},
        {"cache_dtype": torch.float8_e4m3fnuz},
    ],
)
def test_what_aiter_has_no_kernel_for_is_refused(hsa: Path, shape: dict[str, Any]) -> None:
    with pytest.raises(Refused, match=r"pa_asm\.csv of this aiter has no kernel for"):
        kernel_for(hsa / "pa_asm.csv", geometry(**shape), 1)


def test_tables_that_cannot_be_read_are_refused(hsa: Path) -> None:
    with pytest.raises(Refused, match=r"has no readable pa/pa_asm\.csv: No such"):
        kernel_for(hsa / "none.csv", geometry(), 1)
    (hsa / "pa_asm.csv").write_text(TABLE.replace("Gqa,", "ratio,"), encoding="utf-8")
    with pytest.raises(Refused, match="has no columns Gqa"):
        kernel_for(hsa / "pa_asm.csv", geometry(), 1)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"window": (15, 0)}, "no argument for a window"),
        ({"soft_cap": 4.0, "sinks": torch.zeros(10)}, "no argument for sinks, a soft cap"),
        ({"alibi_slopes": torch.zeros(10)}, "no argument for ALiBi"),
        ({"scale": 0.1}, "no argument for a scale of its own"),
    ],
)
def test_what_the_kernel_has_no_argument_for(
    hsa: Path, fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Refused, match=reason):
        decoded(Layer(geometry(), scores(**fields), Scales()), (3,))
    del hsa


def test_other_heads_are_refused_although_the_table_says_nothing(hsa: Path) -> None:
    shape = geometry(head_size=64, v_head_size=64)
    backend = PagedAssembly(objects())
    starts, lens = (torch.tensor(n, dtype=torch.int32) for n in ([0, 1], [1]))
    batch = Batch(starts, lens, torch.zeros((1, 1), dtype=torch.int32), 1, 1, 0)
    given = Paged(torch.zeros(1, 10, 64), None, None, torch.zeros(1), batch, torch.zeros(1), None)
    with pytest.raises(Refused, match="heads of 128 elements"):
        backend.attend(given, Layer(shape, scores(scale=64**-0.5), Scales()))
    del hsa


def test_code_objects_that_are_not_there(hsa: Path) -> None:
    with pytest.raises(Refused, match="ships no code objects for gfx1100: it has gfx942"):
        objects("gfx1100")
    with pytest.raises(Refused, match="on isa devices only"):
        CodeObjects(None)
    data = (hsa / "naive.co").read_bytes()
    (hsa / "naive.co").write_bytes(data[:-100])
    with pytest.raises(WorkerError, match=r"naive\.co is damaged or cut off"):
        decoded(Layer(geometry(), scores(), Scales()))
    (hsa / "naive.co").unlink()
    with pytest.raises(WorkerError, match=r"naive\.co cannot be read: No such file"):
        decoded(Layer(geometry(), scores(), Scales()))


LATENT = """
void mla_prefill_asm_fwd(torch::Tensor& Q) { static AiterAsmKernel one("other", "/mla/other.co"); }

void mla_decode_stage1_asm_fwd(torch::Tensor& Q, std::optional<torch::Tensor> scale = {}) {
    TORCH_CHECK(Q.is_contiguous(), __func__, ":only support Q.is_contiguous() for now");
    if (persistent) { args.ptr_STP = work.data_ptr(); } else args.ptr_STP = splits.data_ptr();
    int sub_Q; // if (max_seqlen_q == 9) {
    if(Q.dtype() == at::ScalarType::BFloat16 && KV.dtype() == at::ScalarType::BFloat16)
    {
        if(gqa_ratio == 128)
        {
            sub_Q = 128;
            static AiterAsmKernel impl("many", "/mla/many.co");
            impl_ptr = &impl;
        }
        else if(gqa_ratio == 16 && !persistent)
        {
            if(max_seqlen_q == 1)
            {
                sub_Q = 16;
                static AiterAsmKernel impl("one", "/mla/one.co");
            }
            else if(max_seqlen_q <= 4) {
                sub_Q = 64;
                static AiterAsmKernel impl(
                    "few",
                    "/mla/few.co");
            }
            else { TORCH_CHECK(false, __func__, ":only support qo_len <= 4"); }
        }
    }
    else if(Q.dtype() == at::ScalarType::Half || strange(KV)) {
        static AiterAsmKernel impl("half", "/mla/half.co");
    }
    TORCH_CHECK(impl_ptr != nullptr, __func__, ": no kernel for these dtypes");
}
"""


@pytest.mark.parametrize(
    ("heads", "queries", "expected"),
    [
        (16, 1, ("mla/one.co", "one", 16)),
        (16, 2, ("mla/few.co", "few", 64)),
        (16, 4, ("mla/few.co", "few", 64)),
        (128, 9, ("mla/many.co", "many", 128)),
    ],
)
def test_the_first_stage_of_a_latent_decode(
    heads: int, queries: int, expected: tuple[str, str, int]
) -> None:
    """Which file is read from the installed host code."""
    chosen = stage_for(LATENT, (torch.bfloat16, torch.bfloat16), heads, queries)
    assert (chosen.file, chosen.symbol, chosen.rows) == expected


@pytest.mark.parametrize(("heads", "queries"), [(16, 5), (32, 1), (64, 4)])
def test_a_latent_decode_that_aiter_has_no_kernel_for(heads: int, queries: int) -> None:
    with pytest.raises(Refused, match="mla_decode_stage1_asm_fwd ends with an error"):
        stage_for(LATENT, (torch.bfloat16, torch.bfloat16), heads, queries)


def test_host_code_that_cannot_be_followed_is_refused() -> None:
    with pytest.raises(Refused, match=r"a condition asks for what is not known: strange\(KV\)"):
        stage_for(LATENT, (torch.float8_e4m3fn, torch.float8_e4m3fn), 16, 1)
    with pytest.raises(Refused, match="has no function mla_decode_stage1_asm_fwd"):
        stage_for(LATENT.replace("stage1", "stage2"), (torch.bfloat16, torch.bfloat16), 16, 1)
    with pytest.raises(Refused, match="a bracket is not closed"):
        stage_for(LATENT[:900], (torch.bfloat16, torch.bfloat16), 16, 1)
    assert stage_for(LATENT, (torch.float16, torch.float16), 16, 1).symbol == "half"


# What aiter's Python does before it asks for the first stage, in a few lines.
PYTHON = """
import torch
import aiter
from aiter import dtypes
from aiter.jit.utils.chip_info import get_cu_num

def mla_decode_fwd(q, kv, o, qo_indptr, kv_indptr, kv_indices, last, max_seqlen_q, scale=None,
                   **planned):
    assert q.dtype == kv.dtype and (q.dtype != dtypes.fp8 or set("qk") == {
        name[0] for name in planned if name.endswith("_scale")
    })
    assert q.shape[1] in (16, 128) or kv.dtype == dtypes.fp8, f"nhead={q.shape[1]} not supported"
    made = torch.empty((1, 1, q.shape[1], 512), device="cuda")
    aiter.mla_decode_stage1_asm_fwd(
        q, kv, qo_indptr, kv_indptr, kv_indices, last, None, planned.get("work_meta_data"),
        planned.get("work_indptr"), planned.get("work_info_set"), max_seqlen_q, scale, made,
        torch.empty((1, 1, q.shape[1], 1)), o, None, None)
    groups = planned["reduce_indptr"]
    aiter.mla_reduce_v1(made, made, groups, groups, groups, o, None)
"""


@pytest.mark.parametrize(
    ("kind", "heads", "tokens", "expected"),
    [
        (torch.bfloat16, 4, 1, "mla/naive.co"),
        (torch.bfloat16, 16, 4, "mla/naive.co"),
        (torch.bfloat16, 16, 5, "16 heads and 5 query tokens: mla_decode_stage1_asm_fwd ends"),
        (torch.bfloat16, 32, 1, "nhead=32 not supported"),
        (torch.float16, 16, 1, "queries in Half, a cache in Half"),
        (torch.float8_e4m3fnuz, 16, 1, "mla/naive.co"),
        (
            torch.float8_e4m3fnuz,
            16,
            2,
            "16 heads and 2 query tokens: mla_decode_stage1_asm_fwd ends",
        ),
    ],
)
def test_what_vllm_may_ask_has_a_kernel(
    hsa: Path,
    code_object: bytes,
    monkeypatch: pytest.MonkeyPatch,
    kind: torch.dtype,
    heads: int,
    tokens: int,
    expected: str,
) -> None:
    """aiter's own Python is asked, with planned work; nothing runs.

    Queries of an fp8 cache are handed over in fp8 too, and with both scales, as vLLM does it.
    """
    root = hsa.parents[3]
    (hsa.parent / "mla").mkdir()
    (hsa.parent / "mla" / "naive.co").write_bytes(code_object)
    (root / "aiter" / "mla.py").write_text(PYTHON, encoding="utf-8")
    source = root / "aiter_meta" / "csrc" / "py_itfs_cu" / "asm_mla.cu"
    source.parent.mkdir(parents=True)
    source.write_text(PLANNED, encoding="utf-8")
    package = ModuleType("aiter")  # as what prepares the worker leaves it
    package.__path__ = [str(root / "aiter")]
    monkeypatch.setitem(sys.modules, "aiter", package)
    for name in ("aiter.jit", "aiter.jit.utils", "aiter.jit.utils.chip_info", "aiter.mla"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.delitem(sys.modules, "aiter.mla")
    given = objects()
    monkeypatch.setattr(given.driver, "compile_only", True)
    backend = AskedLatentAssembly(given)
    dtype = torch.bfloat16 if kind.itemsize == 1 else kind
    shape = geometry(num_heads=heads, num_kv_heads=1, head_size=576, v_head_size=512, dtype=dtype)
    shape = replace(shape, cache_dtype=kind)
    cache = backend.allocate(2, shape, torch.device("cpu"))
    starts = torch.tensor([0, tokens], dtype=torch.int32)
    lens = torch.tensor([tokens + 3], dtype=torch.int32)
    batch = Batch(starts, lens, torch.zeros((1, 1), dtype=torch.int32), tokens, tokens + 3, 3)
    query, out = (torch.zeros((tokens, heads, n), dtype=dtype) for n in (576, 512))
    layer = Layer(shape, scores(scale=576**-0.5), Scales())
    try:
        (ran, _) = backend.attend(Paged(query, None, None, cache, batch, out, None), layer)
    except (AssertionError, RuntimeError) as error:
        ran = str(error)
    assert expected in ran
    assert len(given.driver.recorder.collect()["kernels"]) == int(".co" in expected)
    with pytest.raises(Refused, match="is checked on aot devices"):
        monkeypatch.setattr(given.driver, "compile_only", False)
        backend.attend(Paged(query, None, None, cache, batch, out, None), layer)


PLANNED = """
void mla_decode_stage1_asm_fwd(torch::Tensor& Q)
{
    if(Q.dtype() == at::ScalarType::BFloat16 && persistent && max_seqlen_q <= 4) {
        sub_Q = 128;
        static AiterAsmKernel impl("naive_attention", "/mla/naive.co");
    }
    else if(Q.dtype() == at::ScalarType::Float8_e4m3fnuz && persistent && max_seqlen_q == 1) {
        sub_Q = 128;
        static AiterAsmKernel impl("naive_attention", "/mla/naive.co");
    }
}
"""
