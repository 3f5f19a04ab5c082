"""vLLM's Triton kernels, which the reference's are measured beside."""

from __future__ import annotations

import enum
import importlib
import inspect
import logging
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from conformance.benchmarks.setup import Setup, filled, output
from conformance.errors import UsageError
from rocm_reference.backends.registry import backend
from rocm_reference.ops.launch import current_target, power_of_2, processors

OPS = "vllm.v1.attention.ops"
SEGMENTS = 16


class QuantMode(enum.IntEnum):
    """Stands in for vLLM's enumeration of quantised caches, of which only the first is measured."""

    NONE = 0
    FP8_PER_TENSOR = 1
    INT8_PER_TOKEN_HEAD = 2
    FP8_PER_TOKEN_HEAD = 3
    INT4_PER_TOKEN_HEAD = 4


@dataclass(frozen=True)
class ReleasedKernels:
    """What a release launches for attention over a paged cache, and for MLA's decode."""

    unified_attention: Any
    decode_attention_fwd: Any


def load_released(folder: Path) -> ReleasedKernels:
    """The kernels of a vLLM release, loaded from their files without importing vLLM.

    Stand-ins replace what the files import of vLLM but their neighbours: logger, platform,
    environment, Triton.

    Raises:
        UsageError: the folder lacks such a file.
    """
    return ReleasedKernels(
        _load(folder, "triton_unified_attention").unified_attention,
        _load(folder, "triton_decode_attention").decode_attention_fwd,
    )


def _load(folder: Path, name: str) -> Any:
    path = folder.joinpath(*OPS.split(".")[1:], f"{name}.py")
    if not path.is_file():
        raise UsageError(f"{folder} is no package vllm: it has no {path.relative_to(folder)}")
    before = {name: module for name, module in sys.modules.items() if _is_vllm(name)}
    for loaded in before:
        del sys.modules[loaded]
    try:
        sys.modules.update(_stand_ins(folder))
        return importlib.import_module(f"{OPS}.{name}")
    finally:
        for loaded in [loaded for loaded in sys.modules if _is_vllm(loaded)]:
            del sys.modules[loaded]
        sys.modules.update(before)


def _is_vllm(name: str) -> bool:
    return name.partition(".")[0] == "vllm"


def _on_amd() -> bool:
    """Whether kernels are compiled for an AMD target: a GPU's, or that of an emulated device."""
    target = current_target()
    return target is not None and target.backend == "hip"


def _stand_ins(folder: Path) -> dict[str, types.ModuleType]:
    import triton  # noqa: PLC0415 - measured on a GPU only
    import triton.language as tl  # noqa: PLC0415

    on_amd = _on_amd()
    platform = types.SimpleNamespace(
        is_rocm=lambda: on_amd,
        is_cuda=lambda: not on_amd,
        is_cuda_alike=lambda: True,
        is_xpu=lambda: False,
        fp8_dtype=lambda: torch.float8_e4m3fn,
        get_device_capability=lambda *_: torch.cuda.get_device_capability(),
        is_device_capability_family=lambda family, *_: (
            not on_amd and torch.cuda.get_device_capability()[0] == family // 10
        ),
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
    parts = OPS.split(".")
    for depth in range(len(parts)):
        name = ".".join(parts[: depth + 1])
        package = made[name] = types.ModuleType(name)
        package.__path__ = [str(folder.joinpath(*parts[1 : depth + 1]))]
    made["vllm"].envs = made["vllm.envs"]  # type: ignore[attr-defined] # it is a stand-in
    return made


def vllm_call(setup: Setup, released: ReleasedKernels) -> Callable[[], object]:
    """A call of the kernel that vLLM has for a workload, with the arguments its backend gives."""
    if setup.workload.rope:
        return _latent_call(setup, released.decode_attention_fwd)
    return _unified_call(setup, released.unified_attention)


def _unified_call(setup: Setup, unified: Any) -> Callable[[], object]:
    cache = filled(setup, backend("TRITON_ATTN"))  # type: ignore[arg-type] # it has a cache
    keys, values = cache.unbind(1)
    w, out = setup.workload, output(setup)
    rows = max(128 // w.kv_heads, 1)
    shape = (rows, w.heads, SEGMENTS)
    partial = torch.empty((*shape, power_of_2(w.head_size)), dtype=torch.float32, device=out.device)
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


def _latent_call(setup: Setup, decode: Any) -> Callable[[], object]:
    """MLA's decode: a row of the grid for each new token, as TRITON_MLA asks for it.

    Keys are split as the release's backend does it: in four, or later by their number
    (https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/v1/attention/backends/mla/triton_mla.py).
    """
    cache = filled(setup, backend("TRITON_MLA")).unsqueeze(2)  # type: ignore[arg-type] # likewise
    w, device = setup.workload, setup.query.device
    new = w.lengths[0][0]
    later = "is_mla" in inspect.signature(decode).parameters
    splits = 4
    if later:
        ideal = power_of_2(max(1, setup.batch.max_seq_len // 512))
        splits = min(ideal, 2 * processors(device))
    seen = (setup.batch.seq_lens[:, None] + torch.arange(1 - new, 1, device=device)).flatten().int()
    out = output(setup)
    lse = torch.empty(out.shape[:2], dtype=out.dtype, device=device)
    partial = torch.empty((w.tokens, w.heads, splits, w.head_size + 1), device=device)
    scale = torch.tensor(setup.scales.k, device=device)
    table = setup.batch.block_table.repeat_interleave(new, dim=0)
    return lambda: decode(
        setup.query,
        cache,
        cache[..., : w.head_size],
        out,
        lse,
        table,
        seen,
        partial,
        splits,
        setup.scores.scale,
        w.block_size,
        k_scale=scale,
        v_scale=scale,
        **({"is_mla": True} if later else {}),
    )
