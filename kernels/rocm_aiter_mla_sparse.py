"""ROCM_AITER_MLA_SPARSE: latent attention over the keys that an indexer selects for each token.

Two caches: the latent one ``[N, B, 576]`` and the indexer's keys ``[N, B, 128]``, in the query's
dtype or in fp8 with one scale (vLLM's has a scale per row). In three steps
(https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/backends/mla/rocm_aiter_mla_sparse.py):
:meth:`AiterMLASparse.select` scores the keys and takes the best positions; they are translated
through the block table to page numbers; ROCM_AITER_MLA's kernel attends those, each token being a
sequence of its own.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from kernels.attention import Batch, Dispatch, Geometry, Scales, Scores
from kernels.oplib.cache import write_rows
from kernels.oplib.mla_cache import latent_view
from kernels.oplib.mla_common import check_scores
from kernels.oplib.mla_pages import attend_pages
from kernels.oplib.mla_select import LOGITS_AT_ONCE, select, translate
from kernels.rocm_aiter_mla import AiterMLA


class AiterMLASparse(AiterMLA):
    """The backend."""

    name = "ROCM_AITER_MLA_SPARSE"

    def write_index(
        self,
        key: torch.Tensor,
        cache: torch.Tensor,
        slot_mapping: torch.Tensor,
        geometry: Geometry,
        scale: float = 1.0,
    ) -> Dispatch:
        """Stores the indexer's keys [T, D] in its ``cache`` [N, B, D]; see the seam's ``write``."""
        write_rows(key[:, None], latent_view(cache), slot_mapping, scale, geometry)
        return ("cache_write",)

    def select(
        self,
        query: torch.Tensor,
        weights: torch.Tensor,
        cache: torch.Tensor,
        batch: Batch,
        selected: torch.Tensor,
        scale: float = 1.0,
        logits_at_once: int = LOGITS_AT_ONCE,
    ) -> Dispatch:
        """The positions of the keys that each token attends, into ``selected`` (int32 [T, K]).

        The indexer has ``query`` [T, H, D], ``weights`` float32 [T, H] and ``cache`` [N, B, D], its
        keys, which ``scale`` multiplies. Where a token sees fewer than ``K`` keys the row ends in
        -1. Formula: :mod:`kernels.oplib.mla_select`.
        """
        return select(query, weights, cache, batch, scale, selected, logits_at_once)

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
        *,
        selected: torch.Tensor | None = None,
    ) -> Dispatch:
        """Attention over exactly the ``selected`` positions (int32 [T, K]; -1: none) of each row.

        None: every key that the row sees, as when the indexer selects no fewer than there are.
        """
        if selected is None:
            return super().attend(
                query, key, value, cache, batch, geometry, scores, scales, out, lse
            )
        check_scores(self.name, scores)
        # Every token is a sequence of one query token; one of padding has none.
        tokens = torch.arange(len(query) + 1, dtype=torch.int32, device=query.device)
        ran = attend_pages(
            query,
            cache,
            translate(selected, cache, batch, geometry.block_size),
            tokens.minimum(batch.query_start_loc[-1]),
            1,
            geometry,
            replace(scores, causal=False),
            scales,
            out,
            lse,
            self._workers,
        )
        return ("translate", *ran)
