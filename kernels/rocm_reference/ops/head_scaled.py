"""Attention over caches of codes with a scale for each token and head.

:mod:`rocm_reference.ops.head_scaled_rows` says how they lie. Products of queries and keys are
multiplied by the keys' scales, and probabilities by those of values: codes are exact in the
queries' dtype. Where rows are rotated (int4), so are queries, and outputs are rotated back.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from rocm_reference.attention import Batch, Dispatch, Geometry, Scores
from rocm_reference.ops.combine import combine_segments, segment_workspace, store_partial
from rocm_reference.ops.head_scaled_rows import (
    code_format,
    code_name,
    codes_and_scales,
    load_scaled_tile,
    rotation,
)
from rocm_reference.ops.launch import choose, choose_decode, segments_for
from rocm_reference.ops.rows import (
    block_rows,
    find_sequence,
    load_per_head,
    load_query,
    store_output,
)
from rocm_reference.ops.scores import (
    UNSPECIALIZED,
    head_arguments,
    result_arguments,
    score_arguments,
    visible_keys,
)
from rocm_reference.ops.softmax import (
    accumulate,
    finish,
    key_ranges,
    make_logits,
    prefixes_of,
    start_state,
    visible,
    weigh,
)
from rocm_reference.ops.tiles import load_entries


@triton.jit(do_not_specialize=UNSPECIALIZED)
def head_scaled_kernel(
    query_ptr,
    key_ptr,
    key_scale_ptr,
    value_ptr,
    value_scale_ptr,
    out_ptr,
    lse_ptr,
    partial_ptr,
    table_ptr,
    query_start_ptr,
    seq_lens_ptr,
    slopes_ptr,
    sinks_ptr,
    prefix_ptr,
    prefixes,
    group,
    num_seqs,
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
    code_block,
    code_slot,
    code_head,
    scale_block,
    scale_slot,
    scale_head,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    V: tl.constexpr,
    V_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    TILE: tl.constexpr,
    FORMAT: tl.constexpr,
    CAUSAL: tl.constexpr,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    ALIBI: tl.constexpr,
    SINKS: tl.constexpr,
    PREFIXES: tl.constexpr,
):
    """Program (query block, KV head, segment), as :func:`.triton_attn.unified_kernel`'s."""
    kv_head = tl.program_id(1)
    block_q = BLOCK_M // group
    block = tl.program_id(0)
    seq = find_sequence(query_start_ptr, block, num_seqs, block_q)
    start = tl.load(query_start_ptr + seq)
    query_len = tl.load(query_start_ptr + seq + 1) - start
    block_in_seq = block - (start // block_q + seq)
    if block_in_seq * block_q >= query_len:
        return
    seq_len = tl.load(seq_lens_ptr + seq)
    token, head, exists = block_rows(block_in_seq, query_len, kv_head, group, block_q, BLOCK_M)
    query = load_query(query_ptr, start + token, head, exists, query_token, query_head, D, D_PAD)
    slopes = load_per_head(slopes_ptr, head, exists, ALIBI > 0)
    prefix = prefixes_of(prefix_ptr, seq, prefixes, PREFIXES)
    context = seq_len - query_len
    query_pos = context + token
    first, _, _, last = key_ranges(
        context + block_in_seq * block_q,
        context + tl.minimum((block_in_seq + 1) * block_q, query_len) - 1,
        seq_len,
        left,
        right,
        CAUSAL,
        LEFT,
        RIGHT,
        PREFIXES,
        TILE,
    )
    begin = first // TILE * TILE
    end = last
    if partial_ptr is not None:
        per_segment = tl.cdiv(tl.cdiv(last - begin, TILE), tl.num_programs(2)) * TILE
        begin += tl.program_id(2) * per_segment
        end = tl.minimum(begin + per_segment, last)
    table = table_ptr + seq.to(tl.int64) * table_row
    acc, maximum, total = start_state(BLOCK_M, V_PAD)
    for tile in range(begin, end, TILE):
        key_pos = tile + tl.arange(0, TILE)
        stored = (key_pos >= first) & (key_pos < last)
        number = load_entries(table, key_pos // BLOCK_SIZE, stored, True)
        place = key_pos % BLOCK_SIZE
        codes = number * code_block + place * code_slot + kv_head * code_head
        scales = number * scale_block + place * scale_slot + kv_head * scale_head
        key, key_scale = load_scaled_tile(
            (key_ptr + codes)[None, :],
            (key_scale_ptr + scales)[None, :],
            tl.arange(0, D_PAD)[:, None],
            stored[None, :],
            D,
            query.dtype,
            FORMAT,
        )
        value, own_scale = load_scaled_tile(
            (value_ptr + codes)[:, None],
            (value_scale_ptr + scales)[:, None],
            tl.arange(0, V_PAD)[None, :],
            stored[:, None],
            V,
            query.dtype,
            FORMAT,
        )
        dot = tl.dot(query, key, input_precision="ieee") * key_scale
        logits = make_logits(
            dot,
            scale,
            soft_cap,
            slopes,
            key_pos[None, :] - query_pos[:, None],
            SOFT_CAP,
            ALIBI,
        )
        seen = visible(
            query_pos[:, None],
            key_pos[None, :],
            left,
            right,
            prefix,
            prefixes,
            CAUSAL,
            LEFT,
            RIGHT,
            PREFIXES,
        )
        logits = tl.where(seen & stored[None, :], logits, float("-inf"))
        p, alpha, maximum, total = weigh(maximum, total, logits)
        acc = accumulate(acc, p * tl.trans(own_scale), alpha, value)
    if partial_ptr is not None:
        heads = group * tl.num_programs(1)
        row = ((start + token).to(tl.int64) * heads + head) * tl.num_programs(2) + tl.program_id(2)
        store_partial(partial_ptr, acc, maximum, total, row, exists, V, V_PAD)
    else:
        sinks = load_per_head(sinks_ptr, head, exists, SINKS)
        output, lse = finish(acc, maximum, total, sinks, SINKS)
        output = output * value_scale
        store_output(out_ptr, output, start + token, head, exists, out_token, out_head, V, V_PAD)
        if lse_ptr is not None:
            tl.store(lse_ptr + (start + token) * lse_token + head * lse_head, lse, mask=exists)


def attend_head_scaled(
    query: torch.Tensor,
    cache: torch.Tensor,
    batch: Batch,
    geometry: Geometry,
    scores: Scores,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    segments: int | None,
) -> Dispatch:
    """Attention over a cache [N, 2, B, G, row]; ``segments`` of each sequence's keys, or None."""
    turns, block = code_name(geometry) == "int4", geometry.head_size & -geometry.head_size
    scale, into = scores.scale, out
    if turns:
        turn = rotation(geometry.head_size, query.device)
        query = (query.float() @ turn).to(query.dtype)
        scale /= block
        into = torch.empty_like(query)
    tokens, sequences = query.shape[0], batch.seq_lens.shape[0]
    group = geometry.num_heads // geometry.num_kv_heads
    if batch.max_query_len == 1:
        launch = choose_decode(query, group, geometry.head_size, 1)
    else:
        launch = choose(query, group, batch.max_query_len, geometry.head_size, "paged", sequences)
    blocks = tokens // launch.block_q(group) + sequences
    segments = segments or segments_for(
        blocks * geometry.num_kv_heads, visible_keys(batch, scores), launch.tile, query.device
    )
    results = result_arguments(scores, 1.0, into, lse)
    partial = segment_workspace(tokens, geometry, segments, query.device) if segments > 1 else None
    head_scaled_kernel[(blocks, geometry.num_kv_heads, segments)](
        query,
        query_start_ptr=batch.query_start_loc,
        seq_lens_ptr=batch.seq_lens,
        num_seqs=sequences,
        scale=scale,
        query_token=query.stride(0),
        query_head=query.stride(1),
        BLOCK_M=launch.block_m,
        TILE=launch.tile,
        **head_arguments(geometry),
        **_cache_arguments(cache, batch, geometry),
        **score_arguments(scores),
        partial_ptr=partial,
        **results,
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
    )
    if partial is not None:
        combine_segments(partial, batch, **results)
    if turns:
        back = (into.float() @ turn.T / block).to(out.dtype)
        counted = torch.arange(tokens, device=out.device) < batch.query_start_loc[-1]
        out.copy_(torch.where(counted[:, None, None], back, out))
    return ("heads_2d",) if partial is None else ("heads_3d", "combine_segments")


def _cache_arguments(cache: torch.Tensor, batch: Batch, geometry: Geometry) -> dict[str, Any]:
    keys, values = (codes_and_scales(half) for half in cache.unbind(1))
    names = ("block", "slot", "head")
    strides = {f"code_{name}": at for name, at in zip(names, keys[0].stride(), strict=False)}
    strides |= {f"scale_{name}": at for name, at in zip(names, keys[1].stride(), strict=True)}
    return {
        "key_ptr": keys[0],
        "key_scale_ptr": keys[1],
        "value_ptr": values[0],
        "value_scale_ptr": values[1],
        "table_ptr": batch.block_table,
        "table_row": batch.block_table.stride(0),
        "BLOCK_SIZE": geometry.block_size,
        "FORMAT": code_format(geometry),
        **strides,
    }
