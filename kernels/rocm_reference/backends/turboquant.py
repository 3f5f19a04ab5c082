"""TURBOQUANT and ULTRAQUANT: caches of keys and values in 3 to 8 bits.

Cache layout: ``[N, B, G, bytes]``, uint8; :mod:`rocm_reference.ops.packed_rows` says what a row
holds (https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/v1/attention/backends/turboquant_attn.py
and ultraquant_attn.py beside it, which takes everything but the format of a row from it).

- One query token, or up to 128 after a context: all keys are read as stored. Queries are rotated as
  the stored keys are; UltraQuant rounds them to fp8.
- Without a context, or more query tokens after one: new keys and values are read as computed, and
  those of the context as stored.
"""

from __future__ import annotations

import torch

from rocm_reference.attention import Batch, Dispatch, Geometry, Scales, Scores
from rocm_reference.ops.packed_attention import attend_packed_cache
from rocm_reference.ops.packed_rows import row_format, write_packed


class TurboQuantAttention:
    """The backend TURBOQUANT; ``segments`` are those of :func:`.attend_packed_cache`."""

    name = "TURBOQUANT"

    def __init__(self, segments: int | None = None) -> None:
        self._segments = segments

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        row = row_format(geometry).bytes
        shape = (num_blocks, geometry.block_size, geometry.num_kv_heads, row)
        return torch.empty(shape, dtype=torch.uint8, device=device)

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: torch.Tensor,
        slot_mapping: torch.Tensor,
        geometry: Geometry,
        scales: Scales,  # noqa: ARG002 - rows hold what they are multiplied by
    ) -> Dispatch:
        write_packed(key, value, cache, slot_mapping, geometry)
        return ("packed_write",)

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor | None,
        value: torch.Tensor | None,
        cache: torch.Tensor,
        batch: Batch,
        geometry: Geometry,
        scores: Scores,
        scales: Scales,  # noqa: ARG002 - likewise
        out: torch.Tensor,
        lse: torch.Tensor | None = None,
    ) -> Dispatch:
        if key is None or value is None:
            raise NotImplementedError(f"{self.name} has no cross attention: pass key and value")
        return attend_packed_cache(
            query, key, value, cache, batch, geometry, scores, out, lse, self._segments
        )


class UltraQuantAttention(TurboQuantAttention):
    """The backend ULTRAQUANT, whose rows are FP4."""

    name = "ULTRAQUANT"
