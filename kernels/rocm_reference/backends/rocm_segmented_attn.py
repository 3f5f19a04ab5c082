"""ROCM_SEGMENTED_ATTN: RDNA's backend, which divides the keys of prefills and decodes alike.

Cache layout: ``[N, 2, B, G, D]``, a block's keys before its values and tokens before heads
(https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/v1/attention/backends/rocm_segmented_attn.py#L236-L247).
The algorithm is that of :mod:`rocm_reference.ops.segmented`.
"""

from __future__ import annotations

import torch

from rocm_reference.attention import Batch, Dispatch, Geometry, Scales, Scores
from rocm_reference.ops.cache import HalvedCache, key_and_value_views
from rocm_reference.ops.segmented import segmented_attention


class SegmentedAttention(HalvedCache):
    """The backend ROCM_SEGMENTED_ATTN; ``segments`` are those of :func:`segmented_attention`."""

    name = "ROCM_SEGMENTED_ATTN"
    _halves = 1

    def __init__(self, segments: int | None = None) -> None:
        self._segments = segments

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor | None,  # noqa: ARG002 - all keys are read from the cache
        value: torch.Tensor | None,  # noqa: ARG002 - likewise
        cache: torch.Tensor,
        batch: Batch,
        geometry: Geometry,
        scores: Scores,
        scales: Scales,
        out: torch.Tensor,
        lse: torch.Tensor | None = None,
    ) -> Dispatch:
        views = key_and_value_views(cache, self._halves)
        return segmented_attention(
            query, views, batch, geometry, scores, scales, out, lse, self._segments
        )
