"""aiter's attention behind the ops ``attend`` and ``compile``, through its own functions.

vLLM calls ``unified_attention`` from ROCM_AITER_UNIFIED_ATTN
(https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/backends/rocm_aiter_unified_attn.py)
and ``mha`` from ROCM_AITER_TRITON_MLA. aiter's other Triton kernels are given the problems of the
backends that compute the same with kernels of another kind. torch writes the caches, as vLLM's HIP
kernels would: aiter has none of its own for that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ..errors import Refused
from ..interfaces import (
    Backend,
    Batch,
    Dispatch,
    Geometry,
    KernelSubject,
    LatentPrefill,
    Layer,
    Paged,
    Scores,
    Varlen,
)
from . import loading
from .code_objects import CodeObjects
from .either_paged import EitherPaged
from .latent_assembly import AskedLatentAssembly, LatentAssembly, PlannedLatentAssembly
from .paged_assembly import PagedAssembly

if TYPE_CHECKING:
    from ...devices.triton.driver import Driver

WRITTEN = ("torch_write",)
# The kernels read block tables a tile of keys at a time, past a sequence's end too: vLLM's have
# columns for the longest sequence that its model allows.
TILE = 128
SPLITS = 8


class AiterKernels(KernelSubject):
    """aiter's functions, by the vLLM backend that uses them or by their module in aiter."""

    def __init__(self, device: torch.device, driver: Driver | None) -> None:
        """``driver``: of the device, where it is emulated."""
        super().__init__(device)
        self._driver = driver

    def backend(self, name: str) -> Backend:
        if name in ASSEMBLY:
            return ASSEMBLY[name](CodeObjects(self._driver))
        if name not in BACKENDS:
            raise Refused(f"the suite drives no kernel of aiter's for {name}")
        return BACKENDS[name]()


class _Dense(Backend):
    """A dense cache [2, N, B, G, D]: keys and values."""

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        shape = (2, num_blocks, geometry.block_size, geometry.num_kv_heads, geometry.head_size)
        return torch.empty(shape, dtype=geometry.cache_dtype, device=device)

    def by_slot(self, half: torch.Tensor) -> torch.Tensor:
        """Keys or values as [N, B, G, D], whatever the layout."""
        return half

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: torch.Tensor,
        slots: torch.Tensor,
        layer: Layer,
    ) -> Dispatch:
        scales = layer.scales
        for half, rows, scale in ((cache[0], key, scales.k), (cache[1], value, scales.v)):
            _store(self.by_slot(half), rows, scale, slots, layer.geometry)
        return WRITTEN


class Unified(_Dense):
    """``unified_attention``: prefill and decode over a paged cache, in two or three dimensions."""

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        scores, batch, cache = layer.scores, given.batch, given.cache
        _check_scores(scores)
        tokens = int(batch.query_start_loc[-1])
        shape = (batch.seq_lens.shape[0], cache.shape[3])
        left = scores.window[0]
        loading.load("unified_attention").unified_attention(
            q=given.query[:tokens],
            k=cache[0],
            v=cache[1],
            out=given.out[:tokens],
            cu_seqlens_q=batch.query_start_loc,
            max_seqlen_q=batch.max_query_len,
            seqused_k=batch.seq_lens,
            max_seqlen_k=batch.max_seq_len,
            softmax_scale=scores.scale,
            causal=True,
            window_size=(left, 0) if left >= 0 else (-1, -1),
            block_table=_table(batch, cache[0]),
            softcap=scores.soft_cap,
            q_descale=None,
            k_descale=_scale(layer.scales.k, cache).expand(shape),
            v_descale=_scale(layer.scales.v, cache).expand(shape),
            alibi_slopes=scores.alibi_slopes,
            sinks=scores.sinks,
        )
        return ("unified_attention",)

    def attend_varlen(self, given: Varlen, layer: Layer) -> Dispatch:  # noqa: ARG002 - refused
        raise Refused("vLLM attends encoders with a kernel of its own there, none of aiter's")


class PagedDecode(_Dense):
    """``paged_attention_decode``: one query token for each sequence; a cache [2, N, G, B, D]."""

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        shape = (2, num_blocks, geometry.num_kv_heads, geometry.block_size, geometry.head_size)
        return torch.empty(shape, dtype=geometry.cache_dtype, device=device)

    def by_slot(self, half: torch.Tensor) -> torch.Tensor:
        return half.transpose(1, 2)

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        import triton.language as tl  # noqa: PLC0415 - the device is chosen now

        scores, batch, cache = layer.scores, given.batch, given.cache
        _check_scores(scores)
        tokens = int(batch.query_start_loc[-1])
        compute = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}[given.query.dtype]
        loading.load("pa_decode").paged_attention_decode(
            given.out[:tokens],
            given.query[:tokens],
            cache[0],
            cache[1],
            batch.seq_lens,
            _table(batch, cache[0].transpose(1, 2)),
            scores.scale,
            batch.max_seq_len,
            compute,
            torch.tensor([layer.scales.k]),
            torch.tensor([layer.scales.v]),
            alibi_slopes=scores.alibi_slopes,
        )
        return ("paged_attention_decode",)


class _Latent(Backend):
    """A latent cache [N, B, 1, 576]."""

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        shape = (num_blocks, geometry.block_size, 1, geometry.head_size)
        return torch.empty(shape, dtype=geometry.cache_dtype, device=device)

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,  # noqa: ARG002 - it is the first columns of the key
        cache: torch.Tensor,
        slots: torch.Tensor,
        layer: Layer,
    ) -> Dispatch:
        _store(cache, key, layer.scales.k, slots, layer.geometry)
        return WRITTEN

    def prefill(self, given: LatentPrefill, layer: Layer) -> Dispatch:  # noqa: ARG002 - refused
        raise Refused("aiter's latent Triton kernels decode: vLLM prefills with others around them")


class LatentDecode(_Latent):
    """``mla_decode_fwd``: latent decode over a block table, split over the keys."""

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        batch, cache, geometry = given.batch, given.cache, layer.geometry
        _check_scores(layer.scores)
        tokens = int(batch.query_start_loc[-1])
        rank = geometry.v_head_size
        loading.load("mla").mla_decode_fwd(
            given.query[:tokens],
            cache,
            given.out[:tokens],
            batch.query_start_loc,
            batch.seq_lens,
            batch.max_seq_len,
            _table(batch, cache),
            layer.scores.scale,
            rank,
            geometry.head_size - rank,
            causal=True,
            q_descale=None,
            kv_descale=_scale(layer.scales.k, cache),
        )
        return ("mla_decode_fwd",)


class LatentDecodeByPage(_Latent):
    """``decode_attention_fwd_grouped_rope`` over pages of one token, without its rotation."""

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        query, batch, cache = given.query, given.batch, given.cache
        _check_scores(layer.scores)
        tokens, rank = int(batch.query_start_loc[-1]), layer.geometry.v_head_size
        rows, size = cache.flatten(0, 1), cache.shape[1]
        table = _table(batch, cache)
        pages = [
            table[s].repeat_interleave(size)[:n] * size + torch.arange(n) % size
            for s, n in enumerate(batch.seq_lens.tolist())
        ]
        counts = torch.tensor([0, *(len(p) for p in pages)])
        loading.load("mla_decode_rope").decode_attention_fwd_grouped_rope(
            query[:tokens],
            rows,
            rows[..., :rank],
            given.out[:tokens],
            counts.cumsum(0).to(torch.int32),
            torch.cat(pages).to(torch.int32),
            None,
            rank,
            0,
            None,
            None,
            torch.empty((tokens, query.shape[1], SPLITS, rank + 1)),
            SPLITS,
            layer.scores.scale,
        )
        return ("decode_attention_fwd_grouped_rope",)


class Packed(Backend):
    """``flash_attn_varlen_func`` of ``mha``: packed sequences without a cache."""

    def attend_varlen(self, given: Varlen, layer: Layer) -> Dispatch:
        scores = layer.scores
        computed = loading.load("mha").flash_attn_varlen_func(
            given.query,
            given.key,
            given.value,
            given.query_start_loc,
            given.key_start_loc,
            given.max_query_len,
            given.max_key_len,
            softmax_scale=scores.scale,
            causal=scores.causal,
            window_size=scores.window,
            alibi_slopes=scores.alibi_slopes,
            return_lse=given.lse is not None,
            # Older versions have none, and refuse the argument.
            **({} if scores.sinks is None else {"sink": scores.sinks}),
        )
        tokens = int(given.query_start_loc[-1])
        out = computed[0] if isinstance(computed, tuple) else computed
        given.out[:tokens] = out[:tokens]
        if given.lse is not None:
            given.lse[:tokens] = computed[1][:tokens]
        return ("flash_attn_varlen_func",)


BACKENDS: dict[str, type[Backend]] = {
    "ROCM_AITER_UNIFIED_ATTN": Unified,
    "FLASH_ATTN": Packed,
    "ROCM_AITER_TRITON_MLA": LatentDecode,
    "aiter.unified_attention": Unified,
    "aiter.mha": Packed,
    "aiter.pa_decode": PagedDecode,
    "aiter.mla": LatentDecode,
    "aiter.mla_decode_rope": LatentDecodeByPage,
}

# Those whose kernels are code objects.
ASSEMBLY: dict[str, Callable[[CodeObjects], Backend]] = {
    "ROCM_AITER_FA": EitherPaged,
    "ROCM_AITER_MLA": PlannedLatentAssembly,
    "aiter.pa_fwd_asm": PagedAssembly,
    "aiter.mla_decode_stage1_asm_fwd": LatentAssembly,
    "aiter.mla_decode_fwd": AskedLatentAssembly,
}


def _store(
    half: torch.Tensor, rows: torch.Tensor, scale: float, slots: torch.Tensor, geometry: Geometry
) -> None:
    """Stores rows [T, G, D] in [N, B, G, D] at their slots; -1 is skipped, fp8 is saturated."""
    kept = slots >= 0
    stored = rows[: slots.shape[0]][kept]
    if geometry.cache_dtype != geometry.dtype:
        peak = torch.finfo(geometry.cache_dtype).max
        stored = (stored.float() / scale).clamp(-peak, peak)
    at = slots[kept]
    half[at // half.shape[1], at % half.shape[1]] = stored.to(half.dtype)


def _table(batch: Batch, half: torch.Tensor) -> torch.Tensor:
    """A block table like vLLM's: wide enough for whole tiles, every entry a block of the cache."""
    given = batch.block_table
    blocks, size = half.shape[:2]
    width = -(-max(given.shape[1], 1) * size // TILE) * TILE // size
    table = torch.zeros((given.shape[0], max(width, given.shape[1])), dtype=torch.int32)
    table = table.to(given.device)
    table[:, : given.shape[1]] = given
    return torch.where((table >= 0) & (table < blocks), table, 0)


def _scale(scale: float, cache: torch.Tensor) -> torch.Tensor:
    return torch.full((1,), scale, dtype=torch.float32, device=cache.device)


def _check_scores(scores: Scores) -> None:
    """Refuses scores that these functions have no argument for."""
    if not scores.causal or scores.mm_prefix is not None:
        raise Refused("aiter's paged Triton kernels are causal, without prefix ranges")
