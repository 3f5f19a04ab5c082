"""The arguments that attention kernels have in common, made from a layer's geometry and rules."""

from __future__ import annotations

from typing import Any

import torch

from rocm_reference.attention import Batch, Geometry, Scores
from rocm_reference.ops.fp8 import PAIRS, as_bytes, format_of, in_pairs
from rocm_reference.ops.launch import padded

# Why kernels take fifty arguments one by one. Named tuples would halve the lists, and Triton 3.3.1,
# 3.4.0, 3.6.0, 3.8.0 and 3.9.0 do compile, launch and interpret them, None and tl.constexpr as
# elements included, and to the same machine code (registers, LDS, spills and bytes of a small
# attention kernel on gfx942 and gfx1100). But
# - three stacks (rocm62, rocm63, rocm64) have Triton 3.2, which has no tuples, and their images run
#   these kernels with it;
# - do_not_specialize does not reach into a tuple: a number in one makes three kernels (for 1, for
#   multiples of 16, for others) where UNSPECIALIZED makes one. Those arguments would have to stay
#   outside, which leaves unified_kernel with about 25 of its 54;
# - Triton 3.3.1 cannot make a named tuple with a None in it inside a kernel;
# - a launch costs the host more: 120 us become 144 with unified_kernel's arguments (3.3.1), 140
#   become 182 (3.4.0), 76 become 85 (3.6.0), 77 become 87 (3.8.0), 81 become 93 (3.9.0).
# A named tuple of constants as one tl.constexpr needs 3.4: before, its fields cannot be read.

# Arguments that the compiler shall know nothing of: for each it would make several kernels.
UNSPECIALIZED = (
    "group",
    "num_seqs",
    "segment_size",
    "chunk_first",
    "prefixes",
    "bias_row",
    "bias_size",
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
    """The arguments for masks and for what is done to logits."""
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
    """The arguments of kernels that finish a softmax: where results go, sinks, value scale."""
    sinks = scores.sinks
    return {
        "out_ptr": out,
        "out_token": out.stride(0),
        "out_head": out.stride(1),
        "lse_ptr": lse,
        "lse_token": 0 if lse is None else lse.stride(0),
        "lse_head": 0 if lse is None else lse.stride(1),
        "sinks_ptr": sinks,
        "SINKS": sinks is not None,
        "value_scale": value_scale,
    }


def cache_arguments(
    keys: torch.Tensor, values: torch.Tensor, batch: Batch, geometry: Geometry
) -> dict[str, Any]:
    """The arguments for a cache of two views [N, G, D, B]; packed keys are [N, G, D/X, B, X]."""
    keys, values = as_bytes(keys), as_bytes(values)
    encoding = format_of(geometry.cache_dtype)
    if encoding and keys.dim() != PACKED and (pairs := in_pairs(values)) is not None:
        values, encoding = pairs, encoding + PAIRS
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
        "FORMAT": encoding,
    }


def visible_keys(batch: Batch, scores: Scores) -> int:
    """The most keys that the queries of one block can see: what is divided into segments."""
    left = scores.window[0]
    if left < 0 or scores.mm_prefix is not None or scores.prompt_lens is not None:
        return batch.max_seq_len
    return min(batch.max_seq_len, left + batch.max_query_len)


def head_arguments(geometry: Geometry) -> dict[str, Any]:
    """The arguments for head counts and sizes."""
    return {
        "group": geometry.num_heads // geometry.num_kv_heads,
        "D": geometry.head_size,
        "D_PAD": padded(geometry.head_size),
        "V": geometry.v_head_size,
        "V_PAD": padded(geometry.v_head_size),
    }
