"""The latent cache: what all MLA backends have in common."""

from __future__ import annotations

from typing import ClassVar

import torch

from rocm_reference.attention import Batch, Dispatch, Geometry, Scales, Scores
from rocm_reference.ops.cache import write_rows
from rocm_reference.ops.mla.common import check_scores
from rocm_reference.ops.mla.prefill import AttendRows, attend_joined, prefill

# How many gathered context tokens the workspace holds, over all sequences.
WORKSPACE_TOKENS = 8 * 1024


class LatentCache:
    """Base of backends that cache a latent vector and its rope part per token.

    The cache is ``[N, B, RANK + ROPE]``, as in vLLM:
    https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/model_executor/layers/attention/mla_attention.py
    """

    name: ClassVar[str]
    _attend_rows: AttendRows = staticmethod(attend_joined)

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        shape = (num_blocks, geometry.block_size, geometry.head_size)
        return torch.empty(shape, dtype=geometry.cache_dtype, device=device)

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,  # noqa: ARG002 - it is the key's first columns
        cache: torch.Tensor,
        slot_mapping: torch.Tensor,
        geometry: Geometry,
        scales: Scales,
    ) -> Dispatch:
        """See :meth:`rocm_reference.attention.PagedBackend.write`.

        Raises:
            ValueError: keys and cache differ in their number of columns.
        """
        if key.shape[2] != cache.shape[2]:
            raise ValueError(
                f"{self.name}: keys of {key.shape[2]} columns for a cache of {cache.shape[2]}"
            )
        write_rows(key, latent_view(cache), slot_mapping, scales.k, geometry)
        return ("cache_write",)

    def prefill(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        weight: torch.Tensor,
        cache: torch.Tensor,
        batch: Batch,
        geometry: Geometry,
        scores: Scores,
        scales: Scales,
        out: torch.Tensor,
        lse: torch.Tensor | None = None,
        workspace_tokens: int = WORKSPACE_TOKENS,
    ) -> Dispatch:
        """Attention of new tokens in the multi-head form: keys and values are up-projected.

        Shapes: ``query`` [T, H, P + ROPE], ``key`` [T, 1, RANK + ROPE] as computed, ``weight``
        [H, RANK, P + V], ``out`` [T, H, V]. The context before the new tokens is read
        from ``cache``, at most ``workspace_tokens`` at a time. Returns the kernels that ran.
        """
        check_scores(self.name, scores)
        return prefill(
            self._attend_rows,
            query,
            key.squeeze(1),
            weight,
            latent_view(cache),
            batch,
            geometry,
            scores,
            scales,
            out,
            lse,
            workspace_tokens,
        )


def latent_view(cache: torch.Tensor) -> torch.Tensor:
    """A cache [N, B, D] as the view [N, 1, D, B] that the cache kernels take."""
    return cache.transpose(1, 2).unsqueeze(1)
