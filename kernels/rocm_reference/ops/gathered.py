"""New tokens attend each other, and a context that is gathered from the cache in chunks.

The context is copied to a dense workspace, dequantised to the layer's dtype, attended without a
causal mask, and merged by log-sum-exp, as AITER does it
(https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/backends/rocm_aiter_fa.py).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from rocm_reference.attention import Batch, Dispatch, Geometry, Scales, Scores
from rocm_reference.ops.cache import gather_context
from rocm_reference.ops.combine import merge, store_merged
from rocm_reference.ops.varlen import attend_context_chunk, attend_varlen

# How many gathered context tokens the workspace holds, over all sequences.
WORKSPACE_TOKENS = 32 * 1024


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
    sizes = geometry.head_size, geometry.v_head_size
    # A window still hides context keys on its left. Sinks must count once: with the new tokens.
    rules = replace(scores, causal=False, window=(scores.window[0], -1), sinks=None)
    for first in range(0, batch.context_limit, chunk):
        partial = torch.zeros_like(merged)
        partial_lse = torch.full_like(merged_lse, float("-inf"))
        keys, values = (
            _gathered(view, size, first, chunk, batch, geometry, scale, query.dtype)
            for view, size, scale in zip(views, sizes, (scales.k, scales.v), strict=True)
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


def _gathered(
    view: torch.Tensor,
    size: int,
    first: int,
    chunk: int,
    batch: Batch,
    geometry: Geometry,
    scale: float,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Context rows [S, chunk, G, size] from position ``first`` on, in the layer's dtype."""
    shape = (batch.seq_lens.shape[0], chunk, geometry.num_kv_heads, size)
    rows = torch.empty(shape, dtype=dtype, device=view.device)
    gather_context(view, rows, batch, first, scale, geometry, skip_decodes=True)
    return rows
