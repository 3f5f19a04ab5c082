"""aiter's Triton attention behind the ops ``attend`` and ``compile``, through its own functions.

vLLM calls ``unified_attention`` from ROCM_AITER_UNIFIED_ATTN
(https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/backends/rocm_aiter_unified_attn.py)
and ``mha`` from ROCM_AITER_TRITON_MLA; its other Triton kernels take the problems of backends that
do the same with kernels of another kind. Caches are written by torch, as vLLM would: its own writes
are HIP kernels, which are not aiter's.
"""

from types import SimpleNamespace
from typing import Any

import torch

from ..attend import Contestant, Refused
from . import loading as aiter_import

Dispatch = tuple[str, ...]
WRITTEN = ("torch_write",)
# Block tables are read a tile of keys at a time, also past a sequence's end: vLLM's rows have
# columns for the longest sequence that its model allows.
TILE = 128
SPLITS = 8


class AiterContestant(Contestant):
    """aiter's functions, by the backend that uses them or by the module that holds them."""

    def __init__(self, device: Any) -> None:
        self.device = device

    def seam(self) -> Any:
        names = ("Geometry", "Batch", "Scores", "Scales")
        return SimpleNamespace(**dict.fromkeys(names, SimpleNamespace))

    def backend(self, name: str) -> Any:
        if name not in BACKENDS:
            raise Refused(f"the suite drives no Triton kernel of aiter's for {name}")
        return BACKENDS[name]()


class _Paged:
    """A dense cache [2, N, B, G, D]: keys and values."""

    def allocate(self, num_blocks: int, geometry: Any, device: Any) -> Any:
        shape = (2, num_blocks, geometry.block_size, geometry.num_kv_heads, geometry.head_size)
        return torch.empty(shape, dtype=geometry.cache_dtype, device=device)

    def by_slot(self, half: Any) -> Any:
        """Keys or values as [N, B, G, D], whatever the layout."""
        return half

    def write(
        self, key: Any, value: Any, cache: Any, slot_mapping: Any, geometry: Any, scales: Any
    ) -> Dispatch:
        for half, rows, scale in ((cache[0], key, scales.k), (cache[1], value, scales.v)):
            _store(self.by_slot(half), rows, scale, slot_mapping, geometry)
        return WRITTEN


class Unified(_Paged):
    """``unified_attention``: prefill and decode over a paged cache, in two or three dimensions."""

    def attend(
        self,
        query: Any,
        _key: Any,
        _value: Any,
        cache: Any,
        batch: Any,
        _geometry: Any,
        scores: Any,
        scales: Any,
        out: Any,
        _lse: Any,
    ) -> Dispatch:
        _refuse(scores)
        tokens = int(batch.query_start_loc[-1])
        shape = (batch.seq_lens.shape[0], cache.shape[3])
        left = scores.window[0]
        aiter_import.load("unified_attention").unified_attention(
            q=query[:tokens],
            k=cache[0],
            v=cache[1],
            out=out[:tokens],
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
            k_descale=_scale(scales.k, cache).expand(shape),
            v_descale=_scale(scales.v, cache).expand(shape),
            alibi_slopes=scores.alibi_slopes,
            sinks=scores.sinks,
        )
        return ("unified_attention",)

    def attend_varlen(self, *_: Any) -> Dispatch:
        raise Refused("vLLM attends encoders with a kernel of its own there, none of aiter's")


class PagedDecode(_Paged):
    """``paged_attention_decode``: one query token a sequence; a cache [2, N, G, B, D]."""

    def allocate(self, num_blocks: int, geometry: Any, device: Any) -> Any:
        shape = (2, num_blocks, geometry.num_kv_heads, geometry.block_size, geometry.head_size)
        return torch.empty(shape, dtype=geometry.cache_dtype, device=device)

    def by_slot(self, half: Any) -> Any:
        return half.transpose(1, 2)

    def attend(
        self,
        query: Any,
        _key: Any,
        _value: Any,
        cache: Any,
        batch: Any,
        _geometry: Any,
        scores: Any,
        scales: Any,
        out: Any,
        _lse: Any,
    ) -> Dispatch:
        import triton.language as tl  # noqa: PLC0415 - the device is chosen now

        _refuse(scores)
        tokens = int(batch.query_start_loc[-1])
        compute = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}[query.dtype]
        aiter_import.load("pa_decode").paged_attention_decode(
            out[:tokens],
            query[:tokens],
            cache[0],
            cache[1],
            batch.seq_lens,
            _table(batch, cache[0].transpose(1, 2)),
            scores.scale,
            batch.max_seq_len,
            compute,
            torch.tensor([scales.k]),
            torch.tensor([scales.v]),
            alibi_slopes=scores.alibi_slopes,
        )
        return ("paged_attention_decode",)


class _Latent:
    """A latent cache [N, B, 1, 576]."""

    def allocate(self, num_blocks: int, geometry: Any, device: Any) -> Any:
        shape = (num_blocks, geometry.block_size, 1, geometry.head_size)
        return torch.empty(shape, dtype=geometry.cache_dtype, device=device)

    def write(
        self, key: Any, _value: Any, cache: Any, slot_mapping: Any, geometry: Any, scales: Any
    ) -> Dispatch:
        _store(cache, key, scales.k, slot_mapping, geometry)
        return WRITTEN

    def prefill(self, *_: Any) -> Dispatch:
        raise Refused("aiter's latent Triton kernels decode: vLLM prefills with others around them")


class LatentDecode(_Latent):
    """``mla_decode_fwd``: latent decode over a block table, split over the keys."""

    def attend(
        self,
        query: Any,
        _key: Any,
        _value: Any,
        cache: Any,
        batch: Any,
        geometry: Any,
        scores: Any,
        scales: Any,
        out: Any,
        _lse: Any,
    ) -> Dispatch:
        _refuse(scores)
        tokens = int(batch.query_start_loc[-1])
        rank = geometry.v_head_size
        aiter_import.load("mla").mla_decode_fwd(
            query[:tokens],
            cache,
            out[:tokens],
            batch.query_start_loc,
            batch.seq_lens,
            batch.max_seq_len,
            _table(batch, cache),
            scores.scale,
            rank,
            geometry.head_size - rank,
            causal=True,
            q_descale=None,
            kv_descale=_scale(scales.k, cache),
        )
        return ("mla_decode_fwd",)


class LatentDecodeByPage(_Latent):
    """``decode_attention_fwd_grouped_rope`` over pages of one token, without its rotation."""

    def attend(
        self,
        query: Any,
        _key: Any,
        _value: Any,
        cache: Any,
        batch: Any,
        geometry: Any,
        scores: Any,
        _scales: Any,
        out: Any,
        _lse: Any,
    ) -> Dispatch:
        _refuse(scores)
        tokens, rank = int(batch.query_start_loc[-1]), geometry.v_head_size
        rows = cache.flatten(0, 1)
        pages = [
            _table(batch, cache)[s].repeat_interleave(cache.shape[1])[:n] * cache.shape[1]
            + torch.arange(n) % cache.shape[1]
            for s, n in enumerate(batch.seq_lens.tolist())
        ]
        counts = torch.tensor([0, *(len(p) for p in pages)])
        aiter_import.load("mla_decode_rope").decode_attention_fwd_grouped_rope(
            query[:tokens],
            rows,
            rows[..., :rank],
            out[:tokens],
            counts.cumsum(0).to(torch.int32),
            torch.cat(pages).to(torch.int32),
            None,
            rank,
            0,
            None,
            None,
            torch.empty((tokens, query.shape[1], SPLITS, rank + 1)),
            SPLITS,
            scores.scale,
        )
        return ("decode_attention_fwd_grouped_rope",)


class Packed:
    """``flash_attn_varlen_func`` of ``mha``: packed sequences without a cache."""

    def attend_varlen(
        self,
        query: Any,
        keys: Any,
        values: Any,
        query_start: Any,
        key_start: Any,
        max_query_len: int,
        max_key_len: int,
        _geometry: Any,
        scores: Any,
        out: Any,
        lse: Any,
    ) -> Dispatch:
        made = aiter_import.load("mha").flash_attn_varlen_func(
            query,
            keys,
            values,
            query_start,
            key_start,
            max_query_len,
            max_key_len,
            softmax_scale=scores.scale,
            causal=scores.causal,
            window_size=scores.window,
            alibi_slopes=scores.alibi_slopes,
            return_lse=lse is not None,
            sink=scores.sinks,
        )
        tokens = int(query_start[-1])
        out[:tokens] = (made[0] if isinstance(made, tuple) else made)[:tokens]
        if lse is not None:
            lse[:tokens] = made[1][:tokens]
        return ("flash_attn_varlen_func",)


BACKENDS: dict[str, Any] = {
    "ROCM_AITER_UNIFIED_ATTN": Unified,
    "FLASH_ATTN": Packed,
    "ROCM_AITER_TRITON_MLA": LatentDecode,
    "aiter.unified_attention": Unified,
    "aiter.mha": Packed,
    "aiter.pa_decode": PagedDecode,
    "aiter.mla": LatentDecode,
    "aiter.mla_decode_rope": LatentDecodeByPage,
}


def _store(half: Any, rows: Any, scale: float, slots: Any, geometry: Any) -> None:
    """Rows [T, G, D] into [N, B, G, D] at their slots; -1 is skipped, fp8 is saturated."""
    kept = slots >= 0
    stored = rows[: slots.shape[0]][kept]
    if geometry.cache_dtype != geometry.dtype:
        peak = torch.finfo(geometry.cache_dtype).max
        stored = (stored.float() / scale).clamp(-peak, peak)
    place = slots[kept]
    half[place // half.shape[1], place % half.shape[1]] = stored.to(half.dtype)


def _table(batch: Any, half: Any) -> Any:
    """The block table as vLLM's: wide enough for whole tiles, every entry a block of the cache."""
    given = batch.block_table
    blocks, size = half.shape[:2]
    width = -(-max(given.shape[1], 1) * size // TILE) * TILE // size
    table = torch.zeros((given.shape[0], max(width, given.shape[1])), dtype=torch.int32)
    table = table.to(given.device)
    table[:, : given.shape[1]] = given
    return torch.where((table >= 0) & (table < blocks), table, 0)


def _scale(scale: float, cache: Any) -> Any:
    return torch.full((1,), scale, dtype=torch.float32, device=cache.device)


def _refuse(scores: Any) -> None:
    """What these functions have no argument for."""
    if not scores.causal or scores.mm_prefix is not None:
        raise Refused("aiter's paged Triton kernels are causal, without prefix ranges")
