"""The kernel arguments that every attention kernel has in common, from the seam's values."""

from __future__ import annotations

from typing import Any

import torch

from kernels.attention import Geometry, Scores
from kernels.oplib.launch import padded

ALIBI_LINEAR = 1
ALIBI_SQRT = 2


def score_arguments(scores: Scores, unused: torch.Tensor) -> dict[str, Any]:
    """Masks and transformations of logits; ``unused`` stands for tensors that are not there."""
    left, right = scores.window
    alibi = ALIBI_SQRT if scores.alibi_sqrt else ALIBI_LINEAR
    prefix = scores.mm_prefix
    return {
        "slopes_ptr": unused if scores.alibi_slopes is None else scores.alibi_slopes,
        "prefix_ptr": unused if prefix is None else prefix.contiguous(),
        "soft_cap": scores.soft_cap,
        "left": left,
        "right": right,
        "CAUSAL": scores.causal,
        "LEFT": left >= 0,
        "RIGHT": right >= 0 and not (scores.causal and right == 0),
        "SOFT_CAP": scores.soft_cap > 0,
        "ALIBI": 0 if scores.alibi_slopes is None else alibi,
        "PREFIXES": 0 if prefix is None else prefix.shape[1],
    }


def sink_arguments(scores: Scores, unused: torch.Tensor) -> dict[str, Any]:
    """The sinks, for kernels that finish a softmax."""
    sinks = scores.sinks
    return {"sinks_ptr": unused if sinks is None else sinks, "SINKS": sinks is not None}


def lse_arguments(lse: torch.Tensor | None, unused: torch.Tensor) -> dict[str, Any]:
    """Where log-sum-exps go, if they are wanted."""
    return {
        "lse_ptr": unused if lse is None else lse,
        "lse_token": 0 if lse is None else lse.stride(0),
        "lse_head": 0 if lse is None else lse.stride(1),
        "LSE": lse is not None,
    }


def head_arguments(geometry: Geometry) -> dict[str, Any]:
    """Head counts and sizes, as kernels hold them."""
    return {
        "H": geometry.num_heads,
        "GROUP": geometry.num_heads // geometry.num_kv_heads,
        "D": geometry.head_size,
        "D_PAD": padded(geometry.head_size),
        "V": geometry.v_head_size,
        "V_PAD": padded(geometry.v_head_size),
    }
