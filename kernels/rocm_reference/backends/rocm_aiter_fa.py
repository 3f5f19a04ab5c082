"""ROCM_AITER_FA: one algorithm each for prefill, extend and decode.

Cache layout: ``[2, N, B, G, D]``
(https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/backends/rocm_aiter_fa.py).

- The new tokens of a prefill or an extend attend each other over packed rows.
- An extend's context is gathered from the cache into a dense workspace, a chunk at a time,
  dequantised to the layer's dtype, attended without a causal mask, and merged by log-sum-exp.
- A sequence of one query token is decoded over the paged cache in segments.
- A batch of sequences that all have a few new tokens, as drafts that are verified, is attended by
  the unified kernel (the same file, line 1171), unless the cache holds them less exactly.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from rocm_reference.attention import Batch, Dispatch, Geometry, Scales, Scores
from rocm_reference.backends.triton_attn import unified_attention
from rocm_reference.ops.cache import HalvedCache, gather_context, key_and_value_views
from rocm_reference.ops.combine import merge, store_merged
from rocm_reference.ops.decode import paged_decode, segment_size
from rocm_reference.ops.varlen import attend_context_chunk, attend_varlen

# How many gathered context tokens the workspace holds, over all sequences.
WORKSPACE_TOKENS = 32 * 1024
# The most new tokens of a sequence that the unified kernel is given: gathering a context for fewer
# costs more than attending it.
FEW_TOKENS = 8


class AiterFlashAttention(HalvedCache):
    """The backend ROCM_AITER_FA.

    ``workspace_tokens`` of context are gathered at a time; ``segments`` are those of
    :func:`.decode.segment_size`.
    """

    name = "ROCM_AITER_FA"

    def __init__(
        self, workspace_tokens: int = WORKSPACE_TOKENS, segments: int | None = None
    ) -> None:
        self._workspace_tokens = workspace_tokens
        self._segments = segments

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor | None,
        value: torch.Tensor | None,
        cache: torch.Tensor,
        batch: Batch,
        geometry: Geometry,
        scores: Scores,
        scales: Scales,
        out: torch.Tensor,
        lse: torch.Tensor | None = None,
    ) -> Dispatch:
        if key is None or value is None:
            raise NotImplementedError("ROCM_AITER_FA has no cross attention: give the new keys")
        views = key_and_value_views(cache, self._halves)
        few = 1 < batch.max_query_len <= FEW_TOKENS and batch.context_limit > 0
        if few and geometry.cache_dtype == query.dtype:
            return unified_attention(
                query, views, batch, geometry, scores, scales, out, lse, self._segments
            )
        ran: Dispatch = ()
        if batch.max_query_len > 1:
            ran = self._prefill(query, key, value, views, batch, geometry, scores, scales, out, lse)
        size = segment_size(batch, geometry, scores, out.device, self._segments)
        paged_decode(query, views, batch, geometry, scores, scales, out, lse, size)
        if size is None:
            return (*ran, "paged_decode_2d")
        return (*ran, "paged_decode_segments", "combine_segments")

    def _prefill(
        self,
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
    ) -> Dispatch:
        """Attention of the sequences with several query tokens."""
        if batch.context_limit == 0:
            _attend_new(query, key, value, batch, geometry, scores, out, lse)
            return ("varlen",)
        tokens, heads, columns = query.shape[0], geometry.num_heads, geometry.v_head_size
        merged = torch.zeros((tokens, heads, columns), dtype=torch.float32, device=query.device)
        merged_lse = torch.full_like(merged[..., 0], float("-inf"))
        _attend_new(query, key, value, batch, geometry, scores, merged, merged_lse)
        chunk = max(self._workspace_tokens // batch.seq_lens.shape[0], 1)
        chunk = min(chunk, batch.context_limit)
        # A window still hides context keys on its left. Sinks must count once: with the new tokens.
        rules = replace(scores, causal=False, window=(scores.window[0], -1), sinks=None)
        for first in range(0, batch.context_limit, chunk):
            partial = torch.zeros_like(merged)
            partial_lse = torch.full_like(merged_lse, float("-inf"))
            keys, values = (
                _gathered(view, first, chunk, batch, geometry, scale, query.dtype)
                for view, scale in zip(views, (scales.k, scales.v), strict=True)
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
    first: int,
    chunk: int,
    batch: Batch,
    geometry: Geometry,
    scale: float,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Context rows [S, chunk, G, D] from position ``first`` on, in the layer's dtype."""
    _, heads, size, _ = view.shape
    shape = (batch.seq_lens.shape[0], chunk, heads, size)
    rows = torch.empty(shape, dtype=dtype, device=view.device)
    gather_context(view, rows, batch, first, scale, geometry, skip_decodes=True)
    return rows
