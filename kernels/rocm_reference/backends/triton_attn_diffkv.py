"""TRITON_ATTN_DIFFKV: the unified algorithm where values have another head size than keys.

Cache layout: ``[N, B, G, D + V]``, a slot's key followed by its value
(https://github.com/vllm-project/vllm/blob/v0.24.0/vllm/v1/attention/backends/triton_attn_diffkv.py).
The kernel is TRITON_ATTN's, which takes keys and values of different sizes.
"""

from __future__ import annotations

import torch

from rocm_reference.attention import Batch, Dispatch, Geometry, Scales, Scores
from rocm_reference.backends.triton_attn import unified_attention
from rocm_reference.ops.cache import write_both


def views_of(cache: torch.Tensor, geometry: Geometry) -> tuple[torch.Tensor, torch.Tensor]:
    """Views [N, G, D, B] of the keys and [N, G, V, B] of the values of a cache."""
    keys, values = cache[..., : geometry.head_size], cache[..., geometry.head_size :]
    return keys.permute(0, 2, 3, 1), values.permute(0, 2, 3, 1)


class TritonAttentionDiffKV:
    """The backend TRITON_ATTN_DIFFKV; ``segments`` are those of :func:`unified_attention`."""

    name = "TRITON_ATTN_DIFFKV"

    def __init__(self, segments: int | None = None) -> None:
        self._segments = segments

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        columns = geometry.head_size + geometry.v_head_size
        shape = (num_blocks, geometry.block_size, geometry.num_kv_heads, columns)
        return torch.empty(shape, dtype=geometry.cache_dtype, device=device)

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: torch.Tensor,
        slot_mapping: torch.Tensor,
        geometry: Geometry,
        scales: Scales,
    ) -> Dispatch:
        return write_both(key, value, views_of(cache, geometry), slot_mapping, geometry, scales)

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
        views = views_of(cache, geometry)
        return unified_attention(
            query, views, batch, geometry, scores, scales, out, lse, self._segments
        )
