"""Exact combination of partial attentions: of the segments of one sequence, or of two outputs.

Partial states over disjoint sets of keys are merged by their maxima and totals. The formulas are
those of FlashDecoding (https://pytorch.org/blog/flash-decoding/) and, for normalised outputs with
log-sum-exps, of section 2.2 of https://arxiv.org/abs/2501.01005.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from rocm_reference.attention import Batch, Geometry
from rocm_reference.ops.launch import padded, run_kernel
from rocm_reference.ops.rows import store_output
from rocm_reference.ops.softmax import LN2, LOG2E, finish

ROWS = 16  # rows that one program merges
# Elements after the V columns of a partial state: maximum, total, and two for alignment.
STATE = tl.constexpr(4)


@triton.jit
def store_partial(
    partial_ptr,
    acc,
    maximum,
    total,
    number,
    exists,
    V: tl.constexpr,
    V_PAD: tl.constexpr,
    REST: tl.constexpr = 0,
):
    """Stores partial states [M] under the numbers ``number`` [M], where they exist.

    ``REST`` columns between ``acc`` and the rest of the state are left to the caller."""
    COLUMNS: tl.constexpr = V + REST + STATE
    store_output(partial_ptr, acc, number, 0, exists, COLUMNS, 0, V, V_PAD)
    behind = partial_ptr + number.to(tl.int64) * COLUMNS + V + REST
    tl.store(behind, maximum, mask=exists)
    tl.store(behind + 1, total, mask=exists)


@triton.jit
def take_partials(
    acc,
    maximum,
    total,
    partial_ptr,
    number,
    here,
    V: tl.constexpr,
    V_PAD: tl.constexpr,
):
    """Merges the partial states numbered ``number`` [N], where ``here``, into one row's state.

    ``acc`` [V_PAD], ``maximum`` [1], ``total`` [1]. A state that saw no key has maximum -inf and is
    skipped, whatever its ``acc`` holds.
    """
    columns = tl.arange(0, V_PAD)
    partials = partial_ptr + number.to(tl.int64) * (V + STATE)
    maxima = tl.load(partials + V, mask=here, other=float("-inf"))
    seen = maxima != float("-inf")
    totals = tl.load(partials + (V + 1), mask=seen, other=0)
    partial = tl.load(
        partials[:, None] + columns[None, :],
        mask=seen[:, None] & (columns < V)[None, :],
        other=0,
    )
    risen = tl.maximum(maximum, tl.max(maxima, 0))
    origin = tl.where(risen == float("-inf"), 0.0, risen)
    weights = tl.exp2(maxima - origin)
    alpha = tl.exp2(maximum - origin)
    acc = acc * alpha + tl.sum(partial * weights[:, None], 0)
    return acc, risen, total * alpha + tl.sum(totals * weights, 0)


@triton.jit
def store_row(output, pointer, V: tl.constexpr, V_PAD: tl.constexpr):
    """Stores one output row [1, V_PAD], rounded to the output's dtype."""
    columns = tl.arange(0, V_PAD)[None, :]
    tl.store(pointer + columns, output.to(pointer.dtype.element_ty), mask=columns < V)


@triton.jit(do_not_specialize=["num_seqs", "segments", "lse_token", "lse_head"])
def combine_segments_kernel(
    partial_ptr,
    sinks_ptr,
    out_ptr,
    lse_ptr,
    query_start_ptr,
    num_seqs,
    segments,
    value_scale,
    out_token,
    out_head,
    lse_token,
    lse_head,
    V: tl.constexpr,
    V_PAD: tl.constexpr,
    CHUNK: tl.constexpr,
    SINKS: tl.constexpr,
    ONLY_DECODES: tl.constexpr,
):
    """Program (row, head): combines its partial states [R, H, segments, V + STATE].

    Rows are tokens, or sequences of one query token with ``ONLY_DECODES``.
    """
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    token = row
    if ONLY_DECODES:
        token = tl.load(query_start_ptr + row).to(tl.int64)
        if tl.load(query_start_ptr + row + 1) - token != 1:
            return
    elif token >= tl.load(query_start_ptr + num_seqs):
        return
    lanes = tl.arange(0, CHUNK)
    number = (row * tl.num_programs(1) + head) * segments
    acc = tl.zeros([V_PAD], dtype=tl.float32)
    maximum = tl.full([1], float("-inf"), dtype=tl.float32)
    total = tl.zeros([1], dtype=tl.float32)
    for first in range(0, segments, CHUNK):
        acc, maximum, total = take_partials(
            acc,
            maximum,
            total,
            partial_ptr,
            number + first + lanes,
            first + lanes < segments,
            V,
            V_PAD,
        )
    sinks = tl.zeros([1], dtype=tl.float32)
    if SINKS:
        sinks += tl.load(sinks_ptr + head).to(tl.float32)
    output, lse = finish(acc[None, :], maximum, total, sinks, SINKS)
    store_row(output * value_scale, out_ptr + token * out_token + head * out_head, V, V_PAD)
    if lse_ptr is not None:
        tl.store(lse_ptr + token * lse_token + head * lse_head + tl.arange(0, 1), lse)


def combine_segments(
    partial: torch.Tensor,
    batch: Batch,
    only_decodes: bool = False,
    **results: Any,
) -> None:
    """Combines a :func:`segment_workspace`; ``results`` are the arguments for the output."""
    rows, heads, segments, columns = partial.shape
    columns -= STATE.value
    run_kernel(
        combine_segments_kernel,
        (rows, heads),
        partial_ptr=partial,
        query_start_ptr=batch.query_start_loc,
        num_seqs=batch.seq_lens.shape[0],
        segments=segments,
        V=columns,
        V_PAD=padded(columns),
        CHUNK=16,
        ONLY_DECODES=only_decodes,
        **results,
    )


@triton.jit(do_not_specialize=["rows"])
def merge_kernel(
    into_ptr,
    into_lse_ptr,
    other_ptr,
    other_lse_ptr,
    rows,
    V: tl.constexpr,
    V_PAD: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Merges rows of ``other`` into those of ``into`` (float32 [rows, V]), and their lse [rows]."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    here = row < rows
    columns = tl.arange(0, V_PAD)
    at = row[:, None] * V + columns[None, :]
    mask = here[:, None] & (columns < V)[None, :]
    a = tl.load(into_lse_ptr + row, mask=here, other=float("-inf")) * LOG2E
    b = tl.load(other_lse_ptr + row, mask=here, other=float("-inf")) * LOG2E
    risen = tl.maximum(a, b)
    origin = tl.where(risen == float("-inf"), 0.0, risen)
    weight_a = tl.exp2(a - origin)
    weight_b = tl.exp2(b - origin)
    total = weight_a + weight_b
    divisor = tl.where(total == 0.0, 1.0, total)
    mine = tl.load(into_ptr + at, mask=mask, other=0) * weight_a[:, None]
    its = tl.load(other_ptr + at, mask=mask, other=0) * weight_b[:, None]
    # Several warps may load one row's log-sum-exp: all must have read it before any writes it.
    tl.debug_barrier()
    tl.store(into_ptr + at, (mine + its) / divisor[:, None], mask=mask)
    lse = tl.where(total == 0.0, float("-inf"), (origin + tl.log2(divisor)) * LN2)
    tl.store(into_lse_ptr + row, lse, mask=here)


def segment_workspace(
    rows: int, geometry: Geometry, segments: int, device: torch.device
) -> torch.Tensor:
    """Partial states, uninitialised: float32 [R, H, segments, V + STATE]."""
    shape = (rows, geometry.num_heads, segments, geometry.v_head_size + STATE.value)
    return torch.empty(shape, dtype=torch.float32, device=device)


def merge(
    into: torch.Tensor, into_lse: torch.Tensor, other: torch.Tensor, other_lse: torch.Tensor
) -> None:
    """Merges normalised outputs over disjoint keys, in place; all float32 and contiguous.

    ``into``, ``other``: [T, H, V]; ``*_lse``: [T, H] in natural units, -inf where no key was seen.
    """
    rows, columns = into_lse.numel(), into.shape[-1]
    merge_kernel[(-(-rows // ROWS),)](
        into,
        into_lse,
        other,
        other_lse,
        rows,
        V=columns,
        V_PAD=padded(columns),
        ROWS=ROWS,
    )


@triton.jit(do_not_specialize=["heads", "num_seqs", "lse_token", "lse_head"])
def store_merged_kernel(
    merged_ptr,
    merged_lse_ptr,
    out_ptr,
    lse_ptr,
    query_start_ptr,
    heads,
    num_seqs,
    out_token,
    out_head,
    lse_token,
    lse_head,
    V: tl.constexpr,
    V_PAD: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Rounds rows (token, head) of float32 [T, H, V] into the output; padding is not written."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    token = row // heads
    head = row % heads
    here = token < tl.load(query_start_ptr + num_seqs)
    columns = tl.arange(0, V_PAD)
    mask = here[:, None] & (columns < V)[None, :]
    value = tl.load(merged_ptr + row[:, None] * V + columns[None, :], mask=mask, other=0)
    at = (token * out_token + head * out_head)[:, None] + columns[None, :]
    tl.store(out_ptr + at, value.to(out_ptr.dtype.element_ty), mask=mask)
    if lse_ptr is not None:
        lse = tl.load(merged_lse_ptr + row, mask=here, other=0)
        tl.store(lse_ptr + token * lse_token + head * lse_head, lse, mask=here)


def store_merged(
    merged: torch.Tensor,
    merged_lse: torch.Tensor,
    batch: Batch,
    out: torch.Tensor,
    lse: torch.Tensor | None,
) -> None:
    """Rounds a merged result (float32 [T, H, V], [T, H]) into ``out`` and ``lse``."""
    tokens, heads, columns = merged.shape
    store_merged_kernel[(-(-tokens * heads // ROWS),)](
        merged,
        merged_lse,
        out,
        lse,
        batch.query_start_loc,
        heads,
        batch.seq_lens.shape[0],
        out.stride(0),
        out.stride(1),
        0 if lse is None else lse.stride(0),
        0 if lse is None else lse.stride(1),
        V=columns,
        V_PAD=padded(columns),
        ROWS=ROWS,
    )
