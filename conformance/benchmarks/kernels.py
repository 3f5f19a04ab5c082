"""Attention kernels side by side on this machine's GPU: the reference's, torch's and vLLM's.

All are measured in one run: the median of launches with a cleared L2 cache, and of replays of a
captured graph, which excludes the host's work. The limit is the same GPU's copy bandwidth.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from conformance.errors import InfrastructureError, UsageError
from rocm_reference.attention import Batch, Geometry, PagedBackend, Scales, Scores
from rocm_reference.backends.registry import backend

BACKENDS = (
    "ROCM_ATTN",
    "ROCM_AITER_FA",
    "ROCM_AITER_UNIFIED_ATTN",
    "TRITON_ATTN",
)
BLOCK_SIZE = 16
HEAD_SIZE = 128
VLLM_UNIFIED = Path("v1/attention/ops/triton_unified_attention.py")


@dataclass(frozen=True)
class Workload:
    """``sequences`` of ``context`` cached tokens and ``query`` new ones, in bfloat16."""

    name: str
    sequences: int
    query: int
    context: int
    heads: int
    kv_heads: int

    @property
    def flops(self) -> float:
        """Floating-point operations of the two products over visible pairs."""
        pairs = self.query * self.context + self.query * (self.query + 1) / 2
        return 4.0 * HEAD_SIZE * self.heads * self.sequences * pairs

    @property
    def cache_bytes(self) -> float:
        """Bytes of keys and values, read once."""
        return 4.0 * HEAD_SIZE * self.kv_heads * self.sequences * (self.query + self.context)


@dataclass(frozen=True)
class Timing:
    """Microseconds per call: launched, and replayed from a graph (None: not possible)."""

    workload: str
    kernel: str
    launched: float
    replayed: float | None
    teraflops: float
    gigabytes: float


def workloads() -> Iterator[Workload]:
    """Decode and prefill, with 32 and 64 query heads on 8 KV heads."""
    for heads in (32, 64):
        for sequences in (1, 8, 64):
            yield Workload(f"decode {sequences} x 8k, {heads}/8", sequences, 1, 8191, heads, 8)
        yield Workload(f"decode 1 x 131k, {heads}/8", 1, 1, 131071, heads, 8)
        for length in (4096, 16384):
            yield Workload(f"prefill {length // 1024}k, {heads}/8", 1, length, 0, heads, 8)


def measure(vllm: Path | None, say: Callable[[str], None]) -> Iterator[Timing]:
    """Measures every kernel on every workload; ``vllm`` is a release's package folder.

    Raises:
        InfrastructureError: there is no GPU.
        UsageError: the folder holds no vLLM.
    """
    if not torch.cuda.is_available():
        raise InfrastructureError("kernels are measured on a GPU, and torch sees none here")
    unified = None if vllm is None else load_unified(vllm)
    for workload in workloads():
        say(workload.name)
        for name, call in kernels(workload, unified):
            yield _timing(workload, name, call)


def copy_bandwidth() -> float:
    """Bytes per second that this GPU copies, counting bytes read and bytes written."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2e6 * source.numel() / _median(lambda: target.copy_(source))


@dataclass
class Setup:
    workload: Workload
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    batch: Batch
    geometry: Geometry
    scores: Scores
    slots: torch.Tensor
    context_key: torch.Tensor
    context_value: torch.Tensor
    num_blocks: int


def kernels(workload: Workload, unified: Any) -> Iterator[tuple[str, Callable[[], object]]]:
    """Names and calls of all kernels, on the same inputs."""
    setup = set_up(workload)
    for name in BACKENDS:
        yield name, reference_call(setup, name)
    if unified is not None:
        yield "vLLM unified_attention", _vllm(setup, unified)
    yield "torch SDPA", _sdpa(setup)
    yield "torch flex_attention", _flex(setup)


def set_up(w: Workload, device: str = "cuda") -> Setup:
    """Inputs and cache contents of a workload, in a device's memory."""
    torch.manual_seed(0)
    dtype, length = torch.bfloat16, w.query + w.context
    blocks = -(-length // BLOCK_SIZE)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=dtype, device=device)

    tokens = w.sequences * w.query
    table = torch.randperm(w.sequences * blocks, device=device).int().view(w.sequences, blocks)
    position = torch.arange(length, device=device)
    slots = table.long()[:, position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE
    return Setup(
        w,
        query=normal(tokens, w.heads, HEAD_SIZE),
        key=normal(tokens, w.kv_heads, HEAD_SIZE),
        value=normal(tokens, w.kv_heads, HEAD_SIZE),
        batch=Batch(
            torch.arange(w.sequences + 1, device=device).int() * w.query,
            torch.full((w.sequences,), length, device=device).int(),
            table,
            w.query,
            length,
            w.context,
        ),
        geometry=Geometry(w.heads, w.kv_heads, HEAD_SIZE, HEAD_SIZE, dtype, dtype, BLOCK_SIZE),
        scores=Scores(HEAD_SIZE**-0.5),
        slots=slots,
        context_key=normal(w.sequences, length, w.kv_heads, HEAD_SIZE),
        context_value=normal(w.sequences, length, w.kv_heads, HEAD_SIZE),
        num_blocks=w.sequences * blocks,
    )


def _filled(setup: Setup, kernel: PagedBackend) -> torch.Tensor:
    cache = kernel.allocate(setup.num_blocks, setup.geometry, setup.query.device)
    kernel.write(
        setup.context_key.flatten(0, 1),
        setup.context_value.flatten(0, 1),
        cache,
        setup.slots.flatten(),
        setup.geometry,
        Scales(),
    )
    return cache


def reference_call(setup: Setup, name: str) -> Callable[[], object]:
    """A call of one of the reference's backends; its cache is filled now."""
    kernel: Any = backend(name)
    cache, out = _filled(setup, kernel), torch.empty_like(setup.query)
    # The cache holds the new tokens' keys too; algorithms may also read them elsewhere.
    key, value = setup.context_key[:, -setup.workload.query :], setup.context_value
    key = key.flatten(0, 1)
    value = value[:, -setup.workload.query :].flatten(0, 1)
    return lambda: kernel.attend(
        setup.query,
        key,
        value,
        cache,
        setup.batch,
        setup.geometry,
        setup.scores,
        Scales(),
        out,
    )


def _vllm(setup: Setup, unified: Any) -> Callable[[], object]:
    cache = _filled(setup, backend("TRITON_ATTN"))  # type: ignore[arg-type] # it has a cache
    keys, values = cache.unbind(1)
    out, w = torch.empty_like(setup.query), setup.workload
    segments, rows = 16, max(128 // w.kv_heads, 1)
    shape = (rows, w.heads, segments)
    partial = torch.empty((*shape, HEAD_SIZE), dtype=torch.float32, device="cuda")
    sums = [torch.empty(shape, dtype=torch.float32, device="cuda") for _ in range(2)]
    ones = torch.ones((w.sequences, w.kv_heads), dtype=torch.float32, device="cuda")
    return lambda: unified(
        q=setup.query,
        k=keys,
        v=values,
        out=out,
        cu_seqlens_q=setup.batch.query_start_loc,
        max_seqlen_q=w.query,
        seqused_k=setup.batch.seq_lens,
        max_seqlen_k=setup.batch.max_seq_len,
        softmax_scale=setup.scores.scale,
        causal=True,
        window_size=(-1, -1),
        block_table=setup.batch.block_table,
        softcap=0.0,
        q_descale=None,
        k_descale=ones,
        v_descale=ones,
        seq_threshold_3D=rows,
        num_par_softmax_segments=segments,
        softmax_segm_output=partial,
        softmax_segm_max=sums[0],
        softmax_segm_expsum=sums[1],
    )


def _dense(setup: Setup) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    w = setup.workload
    query = setup.query.view(w.sequences, w.query, w.heads, HEAD_SIZE).transpose(1, 2)
    return query, setup.context_key.transpose(1, 2), setup.context_value.transpose(1, 2)


def _sdpa(setup: Setup) -> Callable[[], object]:
    query, key, value = _dense(setup)
    causal = setup.workload.query > 1
    return lambda: torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=causal, enable_gqa=True
    )


def _flex(setup: Setup) -> Callable[[], object]:
    from torch.nn.attention import flex_attention  # noqa: PLC0415 - slow to import

    query, key, value = _dense(setup)
    w = setup.workload
    mask = None
    if w.query > 1:
        mask = flex_attention.create_block_mask(
            lambda _b, _h, i, j: i >= j, None, None, w.query, w.query + w.context, device="cuda"
        )
    attend = torch.compile(flex_attention.flex_attention, dynamic=False)
    return lambda: attend(query, key, value, block_mask=mask, enable_gqa=True)


def load_unified(folder: Path) -> Any:
    """``unified_attention`` of a vLLM release, loaded from its file without importing vLLM.

    Stand-ins replace what the file imports of vLLM: logger, platform, environment, Triton.

    Raises:
        UsageError: the folder holds no such file.
    """
    path = folder / VLLM_UNIFIED
    if not path.is_file():
        raise UsageError(f"{folder} is no package vllm: it has no {VLLM_UNIFIED}")
    import triton  # noqa: PLC0415 - measured on a GPU only
    import triton.language as tl  # noqa: PLC0415

    platform = types.SimpleNamespace(
        is_rocm=lambda: torch.version.hip is not None,
        is_cuda=lambda: torch.version.hip is None,
        is_xpu=lambda: False,
        fp8_dtype=lambda: torch.float8_e4m3fn,
        get_device_capability=lambda *_: torch.cuda.get_device_capability(),
    )
    stand_ins: dict[str, dict[str, Any]] = {
        "vllm": {},
        "vllm.envs": {"VLLM_BATCH_INVARIANT": False},
        "vllm.logger": {"init_logger": logging.getLogger},
        "vllm.platforms": {"current_platform": platform},
        "vllm.triton_utils": {"tl": tl, "triton": triton},
    }
    for name, members in stand_ins.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        sys.modules.setdefault(name, module)
    sys.modules["vllm"].envs = sys.modules["vllm.envs"]  # type: ignore[attr-defined] # stand-in
    spec = importlib.util.spec_from_file_location("vllm_unified_attention", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.unified_attention


def _timing(workload: Workload, name: str, call: Callable[[], object]) -> Timing:
    launched = _median(call)
    try:
        replayed: float | None = _replayed(call)
    except RuntimeError:
        replayed = None
    best = min(launched, replayed or launched)
    return Timing(
        workload.name,
        name,
        launched,
        replayed,
        workload.flops / best * 1e-6,
        workload.cache_bytes / best * 1e-3,
    )


def _median(call: Callable[[], object]) -> float:
    """Median microseconds of a launch with a cleared L2 cache."""
    from triton.testing import do_bench  # noqa: PLC0415 - measured on a GPU only

    return 1e3 * float(do_bench(call, warmup=20, rep=80, return_mode="median"))


def _replayed(call: Callable[[], object], count: int = 20) -> float:
    """Microseconds per call in a replayed graph of ``count`` calls."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            call()
    return _median(graph.replay) / count
