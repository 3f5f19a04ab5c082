"""The vision backends: bidirectional attention over packed images, no cache.

https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/ops/vit_attn_wrappers.py
"""

from __future__ import annotations

import torch

from rocm_reference.attention import Dispatch, Geometry, Scores
from rocm_reference.ops.varlen import PackedSequences


class FlashAttention(PackedSequences):
    """FLASH_ATTN: one kernel over all images."""

    name = "FLASH_ATTN"


class TorchSdpa:
    """TORCH_SDPA: torch's ``scaled_dot_product_attention``, one image at a time."""

    name = "TORCH_SDPA"

    def attend_varlen(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        query_start_loc: torch.Tensor,
        key_start_loc: torch.Tensor,
        max_query_len: int,  # noqa: ARG002 - the slices have the lengths
        max_key_len: int,  # noqa: ARG002 - likewise
        geometry: Geometry,
        scores: Scores,
        out: torch.Tensor,
        lse: torch.Tensor | None = None,
    ) -> Dispatch:
        """See :class:`~rocm_reference.attention.VarlenBackend`; ``causal`` only, no log-sum-exp.

        Raises:
            NotImplementedError: something that torch's function has no argument for.
        """
        if scores != Scores(scores.scale, causal=scores.causal) or lse is not None:
            raise NotImplementedError("TORCH_SDPA supports a scale and a causal mask only")
        queries, keys = query_start_loc.tolist(), key_start_loc.tolist()
        for seq in range(len(queries) - 1):
            rows, columns = slice(*queries[seq : seq + 2]), slice(*keys[seq : seq + 2])
            if rows.start == rows.stop:
                continue
            if columns.start == columns.stop:
                out[rows] = 0
                continue
            heads = (tensor.transpose(0, 1)[None] for tensor in (query[rows], key[columns]))
            q, k = heads
            attended = torch.nn.functional.scaled_dot_product_attention(
                q,
                k,
                value[columns].transpose(0, 1)[None],
                is_causal=scores.causal,
                scale=scores.scale,
                enable_gqa=geometry.num_heads != geometry.num_kv_heads,
            )
            out[rows] = attended[0].transpose(0, 1)
        return ("torch_sdpa",)
