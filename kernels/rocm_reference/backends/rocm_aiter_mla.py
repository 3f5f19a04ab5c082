"""ROCM_AITER_MLA: absorbed latent attention with pages of one token and evenly shared work.

Cache layout: ``[N, B, 576]``, a latent vector of 512 columns and 64 of rope per token. Whatever the
cache's block size, the kernel sees pages of one token: the block table is expanded to a list of
page numbers per sequence
(https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/backends/mla/rocm_aiter_mla.py).
The kernels are in :mod:`rocm_reference.ops.mla.pages` and :mod:`rocm_reference.ops.mla.workers`.
"""

from __future__ import annotations

import torch

from rocm_reference.attention import Batch, Dispatch, Geometry, Scales, Scores
from rocm_reference.ops.mla.cache import LatentCache
from rocm_reference.ops.mla.common import check_scores
from rocm_reference.ops.mla.pages import expand_block_table
from rocm_reference.ops.mla.workers import attend_pages


class AiterMLA(LatentCache):
    """The backend. ``workers``: programs that share the work; None: as many as run at a time."""

    name = "ROCM_AITER_MLA"

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers

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
        check_scores(self.name, scores)
        ran = attend_pages(
            query,
            cache,
            expand_block_table(cache, batch, geometry),
            batch.query_start_loc,
            batch.max_query_len,
            geometry,
            scores,
            scales,
            out,
            lse,
            self._workers,
        )
        return ("expand_block_table", *ran)
