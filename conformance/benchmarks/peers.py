"""What the reference's kernels are measured beside: torch's attention and vLLM's unified kernel."""

from __future__ import annotations

import enum
import importlib
import inspect
import logging
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from conformance.benchmarks.setup import Setup, filled
from conformance.errors import UsageError
from rocm_reference.backends.registry import backend

UNIFIED = "vllm.v1.attention.ops.triton_unified_attention"
SEGMENTS = 16


class QuantMode(enum.IntEnum):
    """Stands in for vLLM's enumeration of quantised caches, of which only the first is measured."""

    NONE = 0
    FP8_PER_TENSOR = 1
    INT8_PER_TOKEN_HEAD = 2
    FP8_PER_TOKEN_HEAD = 3
    INT4_PER_TOKEN_HEAD = 4


def load_unified(folder: Path) -> Any:
    """``unified_attention`` of a vLLM release, loaded from its file without importing vLLM.

    Stand-ins replace what the file imports of vLLM but its neighbours: logger, platform,
    environment, Triton.

    Raises:
        UsageError: the folder holds no such file.
    """
    path = folder.joinpath(*UNIFIED.split(".")[1:]).with_suffix(".py")
    if not path.is_file():
        raise UsageError(f"{folder} is no package vllm: it has no {path.relative_to(folder)}")
    before = {name: module for name, module in sys.modules.items() if _is_vllm(name)}
    for name in before:
        del sys.modules[name]
    try:
        sys.modules.update(_stand_ins(folder))
        return importlib.import_module(UNIFIED).unified_attention
    finally:
        for name in [name for name in sys.modules if _is_vllm(name)]:
            del sys.modules[name]
        sys.modules.update(before)


def _is_vllm(name: str) -> bool:
    return name.partition(".")[0] == "vllm"


def _stand_ins(folder: Path) -> dict[str, types.ModuleType]:
    import triton  # noqa: PLC0415 - measured on a GPU only
    import triton.language as tl  # noqa: PLC0415

    platform = types.SimpleNamespace(
        is_rocm=lambda: torch.version.hip is not None,
        is_cuda=lambda: torch.version.hip is None,
        is_cuda_alike=lambda: True,
        is_xpu=lambda: False,
        fp8_dtype=lambda: torch.float8_e4m3fn,
        get_device_capability=lambda *_: torch.cuda.get_device_capability(),
    )
    members: dict[str, dict[str, Any]] = {
        "vllm.envs": {"VLLM_BATCH_INVARIANT": False},
        "vllm.logger": {"init_logger": logging.getLogger},
        "vllm.platforms": {"current_platform": platform},
        "vllm.triton_utils": {"tl": tl, "triton": triton},
        "vllm.v1.kv_cache_interface": {"KVQuantMode": QuantMode},
    }
    made = {name: types.ModuleType(name) for name in members}
    for name, module in made.items():
        vars(module).update(members[name])
    parts = UNIFIED.split(".")[:-1]
    for depth in range(len(parts)):
        name = ".".join(parts[: depth + 1])
        package = made[name] = types.ModuleType(name)
        package.__path__ = [str(folder.joinpath(*parts[1 : depth + 1]))]
    made["vllm"].envs = made["vllm.envs"]  # type: ignore[attr-defined] # it is a stand-in
    return made


def vllm_call(setup: Setup, unified: Any) -> Callable[[], object]:
    """A call of vLLM's unified kernel, with the arguments that its backend gives it."""
    cache = filled(setup, backend("TRITON_ATTN"))  # type: ignore[arg-type] # it has a cache
    keys, values = cache.unbind(1)
    w, out = setup.workload, torch.empty_like(setup.query)
    rows = max(128 // w.kv_heads, 1)
    padded = 1 << (w.head_size - 1).bit_length()
    shape = (rows, w.heads, SEGMENTS)
    partial = torch.empty((*shape, padded), dtype=torch.float32, device=out.device)
    sums = [torch.empty(shape, dtype=torch.float32, device=out.device) for _ in range(2)]
    scales = (
        torch.full((len(w.lengths), w.kv_heads), scale, device=out.device)
        for scale in (setup.scales.k, setup.scales.v)
    )
    key_scales, value_scales = scales
    stated = inspect.signature(unified).parameters
    quantised = {"kv_quant_mode": QuantMode.FP8_PER_TENSOR} if "kv_quant_mode" in stated else {}
    return lambda: unified(
        q=setup.query,
        k=keys,
        v=values,
        out=out,
        cu_seqlens_q=setup.batch.query_start_loc,
        max_seqlen_q=setup.batch.max_query_len,
        seqused_k=setup.batch.seq_lens,
        max_seqlen_k=setup.batch.max_seq_len,
        softmax_scale=setup.scores.scale,
        causal=True,
        window_size=(w.window - 1, 0) if w.window else (-1, -1),
        block_table=setup.batch.block_table,
        softcap=0.0,
        q_descale=None,
        k_descale=key_scales,
        v_descale=value_scales,
        seq_threshold_3D=rows,
        num_par_softmax_segments=SEGMENTS,
        softmax_segm_output=partial,
        softmax_segm_max=sums[0],
        softmax_segm_expsum=sums[1],
        sinks=setup.scores.sinks,
        **(quantised if w.fp8 else {}),
    )


def torch_calls(setup: Setup) -> Iterator[tuple[str, Callable[[], object]]]:
    """torch's attention over dense keys and values, where it computes the same."""
    w = setup.workload
    if not w.is_even or w.window or w.sinks or w.fp8:
        return
    yield "torch flash", _sdpa(setup, "FLASH_ATTENTION")
    yield "torch cuDNN", _sdpa(setup, "CUDNN_ATTENTION")
    yield "torch flex_attention", _flex(setup)


def _dense(setup: Setup) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    w = setup.workload
    (new, context), *_ = w.lengths
    query = setup.query.view(len(w.lengths), new, w.heads, w.head_size).transpose(1, 2)
    shape = (len(w.lengths), new + context, w.kv_heads, w.head_size)
    keys, values = (t.view(shape).transpose(1, 2) for t in (setup.keys, setup.values))
    return query, keys, values


def _sdpa(setup: Setup, name: str) -> Callable[[], object]:
    from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: PLC0415 - slow to import
    from torch.nn.attention.bias import causal_lower_right  # noqa: PLC0415

    query, keys, values = _dense(setup)
    new, length = query.shape[2], keys.shape[2]
    mask = causal_lower_right(new, length) if 1 < new < length else None
    chosen = getattr(SDPBackend, name)

    def call() -> object:
        with sdpa_kernel(chosen):
            return torch.nn.functional.scaled_dot_product_attention(
                query, keys, values, mask, is_causal=new == length, enable_gqa=True
            )

    return call


def _flex(setup: Setup) -> Callable[[], object]:
    from torch.nn.attention import flex_attention  # noqa: PLC0415 - slow to import

    query, keys, values = _dense(setup)
    new, length = query.shape[2], keys.shape[2]
    before = length - new
    mask = None
    if new > 1:
        mask = flex_attention.create_block_mask(
            lambda _b, _h, i, j: i + before >= j, None, None, new, length, device=query.device
        )
    attend = torch.compile(flex_attention.flex_attention, dynamic=False)
    return lambda: attend(query, keys, values, block_mask=mask, enable_gqa=True)
