"""Segmented attention: every block of queries, prefill or decode, over equal parts of its keys.

A first kernel attends each part by itself and stores its normalised output with the log-sum-exp;
a second weighs the parts of a row by these and adds them up. The parts divide what the block's
queries see, so a window and the causal mask make them shorter and not fewer. Source of the split:
FlashDecoding (https://pytorch.org/blog/flash-decoding/); of the sum, section 2.2 of
https://arxiv.org/abs/2501.01005.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rocm_reference.attention import Batch, Dispatch, Geometry, Scales, Scores
from rocm_reference.ops.launch import choose, choose_decode, power_of_2, segments_for
from rocm_reference.ops.rows import block_rows, load_per_head, load_query, store_output
from rocm_reference.ops.scores import (
    UNSPECIALIZED,
    cache_arguments,
    head_arguments,
    result_arguments,
    score_arguments,
    visible_keys,
)
from rocm_reference.ops.softmax import (
    LOG2E,
    clip_ranges,
    finish,
    key_ranges,
    start_state,
)
from rocm_reference.ops.tiles import attend_paged

MOST_PARTS = 64


@triton.jit(do_not_specialize=(*UNSPECIALIZED, "kv_heads"))
def stage_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    out_ptr,
    lse_ptr,
    table_ptr,
    query_start_ptr,
    seq_lens_ptr,
    slopes_ptr,
    sinks_ptr,
    prefix_ptr,
    prefixes,
    group,
    kv_heads,
    scale,
    value_scale,
    soft_cap,
    left,
    right,
    query_token,
    query_head,
    out_token,
    out_head,
    lse_token,
    lse_head,
    table_row,
    key_block,
    key_head,
    key_dim,
    key_slot,
    value_block,
    value_head,
    value_dim,
    value_slot,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    V: tl.constexpr,
    V_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    PACK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    TILE: tl.constexpr,
    PARTS: tl.constexpr,
    FORMAT: tl.constexpr,
    CAUSAL: tl.constexpr,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    ALIBI: tl.constexpr,
    SINKS: tl.constexpr,
    PREFIXES: tl.constexpr,
):
    """Program (sequence and KV head, query block, part): one part of the block's keys.

    ``out``: [T, H, PARTS, V] and ``lse``: [T, H, PARTS], in float32, or with one part the results
    themselves. The first part has the sink.
    """
    item = tl.program_id(0)
    block = tl.program_id(1)
    part = tl.program_id(2)
    seq = item // kv_heads
    kv_head = item % kv_heads
    block_q = BLOCK_M // group
    start = tl.load(query_start_ptr + seq)
    query_len = tl.load(query_start_ptr + seq + 1) - start
    if block * block_q >= query_len:
        return
    seq_len = tl.load(seq_lens_ptr + seq)
    context = seq_len - query_len
    token, head, exists = block_rows(block, query_len, kv_head, group, block_q, BLOCK_M)
    query = load_query(query_ptr, start + token, head, exists, query_token, query_head, D, D_PAD)
    first, full_first, full_last, last = key_ranges(
        context + block * block_q,
        context + tl.minimum((block + 1) * block_q, query_len) - 1,
        seq_len,
        left,
        right,
        CAUSAL,
        LEFT,
        RIGHT,
        PREFIXES,
        TILE,
    )
    if PARTS > 1:
        begin = first // TILE * TILE
        size = tl.cdiv(tl.cdiv(last - begin, TILE), PARTS) * TILE
        low = begin + part * size
        first, full_first, full_last, last = clip_ranges(
            first, full_first, full_last, last, low, low + size
        )
    acc, maximum, total = start_state(BLOCK_M, V_PAD)
    acc, _, maximum, total = attend_paged(
        acc,
        maximum,
        total,
        query,
        context + token,
        first,
        full_first,
        full_last,
        last,
        table_ptr + seq.to(tl.int64) * table_row,
        key_ptr + kv_head * key_head,
        key_block,
        key_dim,
        key_slot,
        value_ptr + kv_head * value_head,
        value_block,
        value_dim,
        value_slot,
        scale,
        soft_cap,
        load_per_head(slopes_ptr, head, exists, ALIBI > 0),
        left,
        right,
        prefix_ptr,
        prefixes,
        D,
        D_PAD,
        V,
        V_PAD,
        PACK,
        BLOCK_SIZE,
        TILE,
        FORMAT,
        CAUSAL,
        LEFT,
        RIGHT,
        SOFT_CAP,
        ALIBI,
        PREFIXES,
    )
    sinks = load_per_head(sinks_ptr, head, exists, SINKS)
    if SINKS:
        sinks = tl.where(part == 0, sinks, float("-inf"))
    output, lse = finish(acc, maximum, total, sinks, SINKS)
    row = (start + token) * PARTS + part
    store_output(out_ptr, output * value_scale, row, head, exists, out_token, out_head, V, V_PAD)
    if lse_ptr is not None:
        tl.store(lse_ptr + row.to(tl.int64) * lse_token + head * lse_head, lse, mask=exists)


@triton.jit(do_not_specialize=["num_seqs", "lse_token", "lse_head"])
def reduce_kernel(
    parts_ptr,
    sums_ptr,
    out_ptr,
    lse_ptr,
    query_start_ptr,
    num_seqs,
    out_token,
    out_head,
    lse_token,
    lse_head,
    V: tl.constexpr,
    V_PAD: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Program (token, head): the sum of its parts [T, PARTS, H, V], weighed by [T, PARTS, H].

    A part that saw no key has a log-sum-exp of -inf, and so no weight. Padding is not written.
    """
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    heads = tl.num_programs(1)
    if token >= tl.load(query_start_ptr + num_seqs):
        return
    number = (token * PARTS + tl.arange(0, PARTS)) * heads + head
    columns = tl.arange(0, V_PAD)
    sums = tl.load(sums_ptr + number) * LOG2E
    top = tl.max(sums, 0)
    origin = tl.where(top == float("-inf"), 0.0, top)
    weights = tl.exp2(sums - origin)
    parts = tl.load(
        parts_ptr + number[:, None] * V + columns[None, :],
        mask=(columns < V)[None, :],
        other=0,
    )
    total = tl.sum(weights, 0)
    divisor = tl.where(total == 0.0, 1.0, total)
    output = tl.sum(parts * weights[:, None], 0) / divisor
    pointers = out_ptr + token * out_token + head * out_head + columns
    tl.store(pointers, output.to(out_ptr.dtype.element_ty), mask=columns < V)
    if lse_ptr is not None:
        lse = tl.where(total == 0.0, float("-inf"), (origin + tl.log2(divisor)) / LOG2E)
        tl.store(lse_ptr + token * lse_token + head * lse_head, lse)


def segmented_attention(
    query: torch.Tensor,
    views: tuple[torch.Tensor, torch.Tensor],
    batch: Batch,
    geometry: Geometry,
    scores: Scores,
    scales: Scales,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    segments: int | None = None,
) -> Dispatch:
    """Attends over key and value views [N, G, D, B] of a cache.

    ``segments``: into how many parts keys are divided, rounded up to a power of two; None: as many
    as fill the device.
    """
    sequences = batch.seq_lens.shape[0]
    group = geometry.num_heads // geometry.num_kv_heads
    if batch.max_query_len == 1:
        launch = choose_decode(query, group, geometry.head_size, geometry.cache_dtype.itemsize)
    else:
        launch = choose(query, group, batch.max_query_len, geometry.head_size, "paged")
    blocks = -(-batch.max_query_len // launch.block_q(group))
    items = sequences * geometry.num_kv_heads
    parts = power_of_2(segments) if segments else 0
    parts = parts or segments_for(
        items * blocks, visible_keys(batch, scores), launch.tile, query.device, MOST_PARTS
    )
    results = result_arguments(scores, scales.v, out, lse)
    stored = results
    if parts > 1:
        shape = (query.shape[0], parts, geometry.num_heads, geometry.v_head_size)
        partial = torch.empty(shape, dtype=torch.float32, device=query.device)
        sums = torch.empty(shape[:-1], dtype=torch.float32, device=query.device)
        stored = {
            **results,
            "out_ptr": partial,
            "out_token": partial.stride(1),
            "out_head": partial.stride(2),
            "lse_ptr": sums,
            "lse_token": sums.stride(1),
            "lse_head": sums.stride(2),
        }
    stage_kernel[(items, blocks, parts)](
        query,
        query_start_ptr=batch.query_start_loc,
        seq_lens_ptr=batch.seq_lens,
        kv_heads=geometry.num_kv_heads,
        scale=scores.scale * scales.k,
        query_token=query.stride(0),
        query_head=query.stride(1),
        BLOCK_M=launch.block_m,
        TILE=launch.tile,
        PARTS=parts,
        **head_arguments(geometry),
        **cache_arguments(*views, batch, geometry),
        **score_arguments(scores),
        **stored,
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
    )
    if parts == 1:
        return ("segmented_stage",)
    for name in ("sinks_ptr", "SINKS", "value_scale"):
        results.pop(name)
    head_sizes = head_arguments(geometry)
    reduce_kernel[(query.shape[0], geometry.num_heads)](
        partial,
        sums,
        query_start_ptr=batch.query_start_loc,
        num_seqs=sequences,
        V=head_sizes["V"],
        V_PAD=head_sizes["V_PAD"],
        PARTS=parts,
        **results,
    )
    return ("segmented_stage", "segmented_reduce")
