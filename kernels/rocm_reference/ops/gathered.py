"""Attention over keys that are copied from a paged cache to dense rows first.

- New tokens attend each other, and a context that is gathered in chunks, attended without a causal
  mask, and merged by log-sum-exp, as AITER does it
  (https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/backends/rocm_aiter_fa.py).
- Or all keys of a sequence, the new tokens' among them, are gathered and attended at once.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from rocm_reference.attention import Batch, Dispatch, Geometry, Scales, Scores
from rocm_reference.ops.cache import gather_context
from rocm_reference.ops.combine import merge, store_merged
from rocm_reference.ops.launch import is_cuda
from rocm_reference.ops.varlen import attend_context_chunk, attend_varlen

# How many gathered context tokens the workspace holds, over all sequences.
WORKSPACE_TOKENS = 32 * 1024
# How many tokens are gathered at most where all of them are at once.
WHOLE_TOKENS = 64 * 1024
# From so many rows of query tokens and heads on, gathering keys costs less than it saves.
GATHERED_FROM = 1024


def is_worth_gathering(
    query: torch.Tensor, batch: Batch, geometry: Geometry, scores: Scores
) -> bool:
    """Whether many blocks of query rows read each key of most of the batch's sequences.

    An NVIDIA GPU copies dense rows to its matrix units without a thread's help (see
    :func:`.launch.describes`), pages with it. fp8 keys would be rounded once more, and under a
    window more would be read than is seen.
    """
    rows = batch.max_query_len * geometry.num_heads // geometry.num_kv_heads
    mostly_long = 2 * query.shape[0] >= batch.max_query_len * batch.seq_lens.shape[0]
    return (
        is_cuda(query)
        and rows >= GATHERED_FROM
        and mostly_long
        and geometry.cache_dtype == query.dtype
        and scores.window[0] < 0
        and scores.mm_prefix is None
    )


def fits_whole(batch: Batch, scores: Scores) -> bool:
    """Whether :func:`attend_whole` can do a batch: its keys fit, and the kernel has its rules."""
    tokens = batch.seq_lens.shape[0] * batch.max_seq_len
    ruled = scores.prompt_lens is None and scores.query_bias is None
    return tokens <= WHOLE_TOKENS and scores.causal and ruled


def attend_whole(
    query: torch.Tensor,
    views: tuple[torch.Tensor, torch.Tensor],
    batch: Batch,
    geometry: Geometry,
    scores: Scores,
    scales: Scales,
    out: torch.Tensor,
    lse: torch.Tensor | None,
) -> Dispatch:
    """Causal attention over all keys of a cache; ``views``: as for :func:`attend_gathered`."""
    keys, values = (
        _gathered(view, size, 0, batch.max_seq_len, batch, geometry, scale, query.dtype, whole=True)
        for view, size, scale in _halves(views, geometry, scales)
    )
    attend_context_chunk(query, keys, values, 0, batch, geometry, scores, out, lse)
    return ("gather_cache", "varlen")


def attend_gathered(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    views: tuple[torch.Tensor, torch.Tensor],
    batch: Batch,
    geometry: Geometry,
    scores: Scores,
    scales: Scales,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    workspace_tokens: int = WORKSPACE_TOKENS,
) -> Dispatch:
    """Attention of the sequences with several query tokens; decodes' rows hold anything after it.

    ``views``: the cache's keys and values, [N, G, D, B] each or packed. ``workspace_tokens`` of
    context are gathered at a time.
    """
    if batch.context_limit == 0:
        _attend_new(query, key, value, batch, geometry, scores, out, lse)
        return ("varlen",)
    tokens, heads, columns = query.shape[0], geometry.num_heads, geometry.v_head_size
    merged = torch.zeros((tokens, heads, columns), dtype=torch.float32, device=query.device)
    merged_lse = torch.full_like(merged[..., 0], float("-inf"))
    _attend_new(query, key, value, batch, geometry, scores, merged, merged_lse)
    chunk = max(workspace_tokens // batch.seq_lens.shape[0], 1)
    chunk = min(chunk, batch.context_limit)
    # A window still hides context keys on its left. Sinks must count once: with the new tokens.
    rules = replace(scores, causal=False, window=(scores.window[0], -1), sinks=None)
    for first in range(0, batch.context_limit, chunk):
        partial = torch.zeros_like(merged)
        partial_lse = torch.full_like(merged_lse, float("-inf"))
        keys, values = (
            _gathered(view, size, first, chunk, batch, geometry, scale, query.dtype, whole=False)
            for view, size, scale in _halves(views, geometry, scales)
        )
        attend_context_chunk(
            query,
            keys,
            values,
            first,
            batch,
            geometry,
            rules,
            partial,
            partial_lse,
            skip_decodes=True,
        )
        merge(merged, merged_lse, partial, partial_lse)
    store_merged(merged, merged_lse, batch, out, lse)
    return ("varlen", "gather_context", "context_chunk", "merge")


def _attend_new(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    batch: Batch,
    geometry: Geometry,
    scores: Scores,
    out: torch.Tensor,
    lse: torch.Tensor | None,
) -> None:
    attend_varlen(
        query,
        key,
        value,
        batch.query_start_loc,
        batch.query_start_loc,
        batch.max_query_len,
        batch.max_query_len,
        geometry,
        scores,
        out,
        lse,
        skip_decodes=True,
    )


def _halves(
    views: tuple[torch.Tensor, torch.Tensor], geometry: Geometry, scales: Scales
) -> tuple[tuple[torch.Tensor, int, float], ...]:
    """Keys and values: the view of each, its head size and its scale."""
    keys, values = views
    return (keys, geometry.head_size, scales.k), (values, geometry.v_head_size, scales.v)


def _gathered(
    view: torch.Tensor,
    size: int,
    first: int,
    chunk: int,
    batch: Batch,
    geometry: Geometry,
    scale: float,
    dtype: torch.dtype,
    *,
    whole: bool,
) -> torch.Tensor:
    """Rows [S, chunk, G, size] from position ``first`` on, in the layer's dtype.

    They are the context's; with ``whole`` those of the query tokens follow, also of decodes.
    """
    shape = (batch.seq_lens.shape[0], chunk, geometry.num_kv_heads, size)
    rows = torch.empty(shape, dtype=dtype, device=view.device)
    gather_context(view, rows, batch, first, scale, geometry, skip_decodes=not whole, whole=whole)
    return rows
