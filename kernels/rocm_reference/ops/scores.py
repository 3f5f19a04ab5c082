"""The kernel arguments that every attention kernel has in common, from the seam's values."""

from __future__ import annotations

from typing import Any

import torch

from rocm_reference.attention import Batch, Geometry, Scores
from rocm_reference.ops.fp8 import as_bytes, format_of
from rocm_reference.ops.launch import padded

# Arguments whose values the compiler need not know: each would give as many kernels.
UNSPECIALIZED = (
    "group",
    "num_seqs",
    "segment_size",
    "chunk_first",
    "prefixes",
    "left",
    "right",
    "table_row",
    "lse_token",
    "lse_head",
)
ALIBI_LINEAR = 1
ALIBI_SQRT = 2
PACKED = 5  # dimensions of a packed key cache's view


def score_arguments(scores: Scores) -> dict[str, Any]:
    """Masks and transformations of logits."""
    left, right = scores.window
    alibi = ALIBI_SQRT if scores.alibi_sqrt else ALIBI_LINEAR
    prefix = scores.mm_prefix
    return {
        "slopes_ptr": scores.alibi_slopes,
        "prefix_ptr": None if prefix is None else prefix.contiguous(),
        "soft_cap": scores.soft_cap,
        "left": left,
        "right": right,
        "CAUSAL": scores.causal,
        "LEFT": left >= 0,
        "RIGHT": right >= 0 and not (scores.causal and right == 0),
        "SOFT_CAP": scores.soft_cap > 0,
        "ALIBI": 0 if scores.alibi_slopes is None else alibi,
        "prefixes": 0 if prefix is None else prefix.shape[1],
        "PREFIXES": prefix is not None,
    }


def result_arguments(
    scores: Scores, value_scale: float, out: torch.Tensor, lse: torch.Tensor | None
) -> dict[str, Any]:
    """Where a kernel that finishes a softmax puts its results, and what it still applies."""
    sinks = scores.sinks
    return {
        "out_ptr": out,
        "out_token": out.stride(0),
        "out_head": out.stride(1),
        "lse_ptr": lse,
        "lse_token": 0 if lse is None else lse.stride(0),
        "lse_head": 0 if lse is None else lse.stride(1),
        "LSE": lse is not None,
        "sinks_ptr": sinks,
        "SINKS": sinks is not None,
        "value_scale": value_scale,
    }


def cache_arguments(
    keys: torch.Tensor, values: torch.Tensor, batch: Batch, geometry: Geometry
) -> dict[str, Any]:
    """A paged cache as two views [N, G, D, B]; a packed key view is [N, G, D/X, B, X]."""
    keys, values = as_bytes(keys), as_bytes(values)
    key_strides, value_strides = keys.stride(), values.stride()
    return {
        "key_ptr": keys,
        "value_ptr": values,
        "table_ptr": batch.block_table,
        "table_row": batch.block_table.stride(0),
        "key_block": key_strides[0],
        "key_head": key_strides[1],
        "key_dim": key_strides[2],
        "key_slot": key_strides[3],
        "value_block": value_strides[0],
        "value_head": value_strides[1],
        "value_dim": value_strides[2],
        "value_slot": value_strides[3],
        "PACK": keys.shape[4] if keys.dim() == PACKED else 1,
        "BLOCK_SIZE": geometry.block_size,
        "FORMAT": format_of(geometry.cache_dtype),
    }


def head_arguments(geometry: Geometry) -> dict[str, Any]:
    """Head counts and sizes, as kernels hold them."""
    return {
        "group": geometry.num_heads // geometry.num_kv_heads,
        "D": geometry.head_size,
        "D_PAD": padded(geometry.head_size),
        "V": geometry.v_head_size,
        "V_PAD": padded(geometry.v_head_size),
    }
