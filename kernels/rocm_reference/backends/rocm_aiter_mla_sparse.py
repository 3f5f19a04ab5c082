"""ROCM_AITER_MLA_SPARSE: latent attention over the keys that an indexer selects for each token.

There are two caches: the latent one, ``[N, B, 576]``, and that of the indexer's keys
(:mod:`rocm_reference.ops.mla.index`). It works in three steps
(https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/backends/mla/rocm_aiter_mla_sparse.py):
:meth:`AiterMLASparse.select` scores the keys and takes the best positions; they are translated
through the block table to page numbers; ROCM_AITER_MLA's kernel attends those, each token being a
sequence of its own. Later releases have a kernel for lists of any length besides
(:mod:`rocm_reference.ops.mla.ragged`), for what AITER's does not take
(https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/v1/attention/backends/mla/rocm_aiter_mla_sparse.py#L895).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from rocm_reference.attention import Batch, Dispatch, Geometry, Scales, Scores
from rocm_reference.backends.rocm_aiter_mla import AiterMLA
from rocm_reference.ops.mla.common import check_scores
from rocm_reference.ops.mla.index import LOGITS_AT_ONCE, allocate_index, select, write_index
from rocm_reference.ops.mla.pages import translate
from rocm_reference.ops.mla.ragged import attend_ragged
from rocm_reference.ops.mla.workers import attend_pages


class AiterMLASparse(AiterMLA):
    """The backend. The geometry of an indexer's cache has no rope part: ``v_head_size`` is
    ``head_size``."""

    name = "ROCM_AITER_MLA_SPARSE"

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        if _is_index(geometry):
            return allocate_index(num_blocks, geometry, device)
        return super().allocate(num_blocks, geometry, device)

    def write_index(
        self,
        key: torch.Tensor,
        cache: torch.Tensor,
        slot_mapping: torch.Tensor,
        geometry: Geometry,  # noqa: ARG002 - the tensors' shapes say it all
    ) -> Dispatch:
        """Stores the indexer's keys [T, D] at ``slot_mapping`` (int64 [<= T]); -1 is skipped.

        In an fp8 cache each row gets its own scale, computed from its largest element.
        """
        write_index(key, cache, slot_mapping)
        return ("index_write",)

    def select(
        self,
        query: torch.Tensor,
        weights: torch.Tensor,
        cache: torch.Tensor,
        batch: Batch,
        selected: torch.Tensor,
        logits_at_once: int = LOGITS_AT_ONCE,
    ) -> Dispatch:
        """The positions of the keys that each token attends, into ``selected`` (int32 [T, K]).

        ``query`` [T, H, D] (fp8 or not), ``weights`` (float32 [T, H]) and ``cache`` belong to the
        indexer. The order of a row's positions is not defined; if a token sees fewer than ``K``
        keys, the rest are -1. Rows of padding are not written. ``logits_at_once``: how many logits
        may be in memory at a time.
        """
        return select(query, weights, cache, batch, selected, logits_at_once)

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

        With None each row attends every key that it sees, as if the indexer had selected all.
        """
        if selected is None:
            return super().attend(
                query, key, value, cache, batch, geometry, scores, scales, out, lse
            )
        # From 0.30 on it has sinks.
        check_scores(self.name, replace(scores, sinks=None))
        pages = translate(selected, cache, batch, geometry.block_size)
        if _is_ragged(geometry, batch, scores, selected.shape[1]):
            most = min(selected.shape[1], batch.max_seq_len)
            ran = attend_ragged(
                *(query, cache, pages, batch, geometry, scores, scales, out, lse, most)
            )
            return ("translate", *ran)
        # Each token is treated as a sequence of one query token, with no keys if it is padding.
        tokens = torch.arange(len(query) + 1, dtype=torch.int32, device=query.device)
        ran = attend_pages(
            query,
            cache,
            pages,
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


def _is_ragged(geometry: Geometry, batch: Batch, scores: Scores, topk: int) -> bool:
    """Whether AITER's kernel does not take it: sinks in float16, or a long prefill in bfloat16."""
    if geometry.cache_dtype != geometry.dtype:
        return False
    if scores.sinks is not None:
        return geometry.dtype == torch.float16
    long = batch.max_query_len > 1 and batch.max_seq_len > topk
    return geometry.dtype == torch.bfloat16 and long


def _is_index(geometry: Geometry) -> bool:
    return geometry.v_head_size == geometry.head_size
