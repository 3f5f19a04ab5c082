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

import torch

from rocm_reference.attention import Batch, Dispatch, Geometry, Scales, Scores
from rocm_reference.backends.triton_attn import unified_attention
from rocm_reference.ops.cache import HalvedCache, key_and_value_views
from rocm_reference.ops.decode import paged_decode, segment_size
from rocm_reference.ops.gathered import WORKSPACE_TOKENS, attend_gathered

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
            ran = attend_gathered(
                query,
                key,
                value,
                views,
                batch,
                geometry,
                scores,
                scales,
                out,
                lse,
                self._workspace_tokens,
            )
        size = segment_size(batch, geometry, scores, out.device, self._segments)
        paged_decode(query, views, batch, geometry, scores, scales, out, lse, size)
        if size is None:
            return (*ran, "paged_decode_2d")
        return (*ran, "paged_decode_segments", "combine_segments")
