"""Exact combination of partial attentions: of the segments of one sequence, or of two outputs.

The partial states of disjoint sets of keys are merged by their maxima and totals; formula and name
from FlashDecoding (https://pytorch.org/blog/flash-decoding/) and, for normalised outputs with
log-sum-exps, from section 2.2 of https://arxiv.org/abs/2501.01005.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.attention import Geometry
from kernels.oplib.softmax import LN2, LOG2E, finish


@triton.jit
def combine_segments_kernel(  # type: ignore[no-untyped-def] # triton
    acc_ptr,
    maximum_ptr,
    total_ptr,
    sinks_ptr,
    out_ptr,
    lse_ptr,
    query_start_ptr,
    num_seqs,
    value_scale,
    out_token,
    out_head,
    lse_token,
    lse_head,
    H: tl.constexpr,
    V: tl.constexpr,
    V_PAD: tl.constexpr,
    SEGMENTS: tl.constexpr,
    SINKS: tl.constexpr,
    LSE: tl.constexpr,
):
    """One (token, head): ``acc`` [T, H, SEGMENTS, V], ``maximum`` and ``total`` [T, H, SEGMENTS].

    A segment that saw no key has maximum -inf and is left out, whatever its ``acc`` holds.
    """
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    if token >= tl.load(query_start_ptr + num_seqs):
        return
    segments = tl.arange(0, SEGMENTS)
    columns = tl.arange(0, V_PAD)
    row = (token * H + head) * SEGMENTS
    maxima = tl.load(maximum_ptr + row + segments)
    totals = tl.load(total_ptr + row + segments)
    risen = tl.max(maxima, 0)
    origin = tl.where(risen == float("-inf"), 0.0, risen)
    weights = tl.where(maxima == float("-inf"), 0.0, tl.exp2(maxima - origin))
    seen = (maxima != float("-inf"))[:, None] & (columns < V)[None, :]
    partial = tl.load(acc_ptr + (row + segments)[:, None] * V + columns, mask=seen, other=0)
    acc = tl.sum(partial * weights[:, None], 0)[None, :]
    total = tl.sum(tl.where(weights > 0, totals * weights, 0.0), 0)
    sinks = tl.zeros([1], dtype=tl.float32)
    if SINKS:
        sinks += tl.load(sinks_ptr + head).to(tl.float32)
    maximum = tl.zeros([1], dtype=tl.float32) + risen
    output, lse = finish(acc, maximum, total + tl.zeros([1], dtype=tl.float32), sinks, SINKS)
    pointers = out_ptr + token * out_token + head * out_head + columns[None, :]
    rounded = (output * value_scale).to(out_ptr.dtype.element_ty)
    tl.store(pointers, rounded, mask=(columns < V)[None, :])
    if LSE:
        tl.store(lse_ptr + token * lse_token + head * lse_head + tl.arange(0, 1), lse)


@triton.jit
def merge_kernel(  # type: ignore[no-untyped-def] # triton
    into_ptr,
    into_lse_ptr,
    other_ptr,
    other_lse_ptr,
    H: tl.constexpr,
    V: tl.constexpr,
    V_PAD: tl.constexpr,
):
    """One (token, head) of ``into`` (float32 [T, H, V]) takes in ``other``; likewise [T, H] lse."""
    row = tl.program_id(0).to(tl.int64) * H + tl.program_id(1)
    columns = tl.arange(0, V_PAD)
    a = tl.load(into_lse_ptr + row) * LOG2E
    b = tl.load(other_lse_ptr + row) * LOG2E
    risen = tl.maximum(a, b)
    if risen > float("-inf"):
        weight_a = tl.exp2(a - risen)
        weight_b = tl.exp2(b - risen)
        total = weight_a + weight_b
        mask = columns < V
        mine = tl.load(into_ptr + row * V + columns, mask=mask & (weight_a > 0), other=0)
        its = tl.load(other_ptr + row * V + columns, mask=mask & (weight_b > 0), other=0)
        merged = (mine * weight_a + its * weight_b) / total
        tl.store(into_ptr + row * V + columns, merged, mask=mask)
        tl.store(into_lse_ptr + row, (risen + tl.log2(total)) * LN2)


def segment_workspace(
    query: torch.Tensor, geometry: Geometry, segments: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Uninitialised float32 ``acc`` [T, H, SEGMENTS, V], ``maximum`` and ``total`` [T, H, SEGMENTS]."""
    rows = (query.shape[0], geometry.num_heads, segments)
    like = {"dtype": torch.float32, "device": query.device}
    return (
        torch.empty((*rows, geometry.v_head_size), **like),
        torch.empty(rows, **like),
        torch.empty(rows, **like),
    )


def merge(
    into: torch.Tensor, into_lse: torch.Tensor, other: torch.Tensor, other_lse: torch.Tensor
) -> None:
    """Merges normalised outputs over disjoint keys, in place; all float32 and contiguous.

    ``into``, ``other``: [T, H, V]; ``*_lse``: [T, H] in natural units, -inf where no key was seen.
    """
    tokens, heads, columns = into.shape
    merge_kernel[(tokens, heads)](
        into,
        into_lse,
        other,
        other_lse,
        H=heads,
        V=columns,
        V_PAD=triton.next_power_of_2(columns),
    )
