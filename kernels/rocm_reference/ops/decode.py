"""Paged decode: one query token per sequence, over its keys in one pass or in segments.

The split and the exact reduction are those of PagedAttention V2 and FlashDecoding
(https://pytorch.org/blog/flash-decoding/).
"""

from __future__ import annotations

from dataclasses import replace

import torch
import triton
import triton.language as tl

from rocm_reference.attention import Batch, Geometry, Scales, Scores
from rocm_reference.ops.combine import STATE, combine_segments, segment_workspace, store_partial
from rocm_reference.ops.launch import (
    choose_decode,
    family,
    power_of_2,
    run_kernel,
    segments_for,
)
from rocm_reference.ops.rows import load_per_head, load_query, store_output
from rocm_reference.ops.scores import (
    PACKED,
    UNSPECIALIZED,
    cache_arguments,
    head_arguments,
    result_arguments,
    score_arguments,
)
from rocm_reference.ops.softmax import clip_ranges, finish, key_ranges, prefixes_of, start_state
from rocm_reference.ops.tiles import attend_paged

PARTITION = 256  # keys, a multiple of every tile
LARGEST_TILE = 64


@triton.jit(do_not_specialize=UNSPECIALIZED)
def paged_decode_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
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
    segment_size,
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
    FORMAT: tl.constexpr,
    CAUSAL: tl.constexpr,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    ALIBI: tl.constexpr,
    SINKS: tl.constexpr,
    PREFIXES: tl.constexpr,
    REST: tl.constexpr,
):
    """Program (sequence, KV head, segment); only sequences of exactly one query token.

    Segments have ``segment_size`` keys, a multiple of TILE, counted from position 0. If there are
    several, their partial states go to a workspace [S, H, segments, V + REST + STATE]. ``REST``
    columns of a head follow its first D, or V: see :func:`two_parts`.
    """
    seq = tl.program_id(0)
    kv_head = tl.program_id(1)
    segment = tl.program_id(2)
    start = tl.load(query_start_ptr + seq)
    if tl.load(query_start_ptr + seq + 1) - start != 1:
        return
    seq_len = tl.load(seq_lens_ptr + seq)
    rows = tl.arange(0, BLOCK_M)
    exists = rows < group
    head = kv_head * group + rows
    token = rows * 0 + start
    query_pos = rows * 0 + seq_len - 1
    query = load_query(query_ptr, token, head, exists, query_token, query_head, D, D_PAD)
    slopes = load_per_head(slopes_ptr, head, exists, ALIBI > 0)
    first, full_first, full_last, last = key_ranges(
        seq_len - 1, seq_len - 1, seq_len, left, right, CAUSAL, LEFT, RIGHT, PREFIXES, TILE
    )
    if partial_ptr is not None:
        low = segment * segment_size
        first, full_first, full_last, last = clip_ranges(
            first, full_first, full_last, last, low, low + segment_size
        )
    acc, maximum, total = start_state(BLOCK_M, V_PAD)
    query_rest = 0
    rest = 0
    if REST > 0:
        query_rest = load_query(
            query_ptr + D, token, head, exists, query_token, query_head, REST, REST
        )
        rest = tl.zeros([BLOCK_M, REST], dtype=tl.float32)
    acc, rest, maximum, total = attend_paged(
        acc,
        maximum,
        total,
        query,
        query_pos,
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
        slopes,
        left,
        right,
        prefixes_of(prefix_ptr, seq, prefixes, PREFIXES),
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
        query_rest=query_rest,
        rest=rest,
        REST=REST,
    )
    if partial_ptr is not None:
        heads = group * tl.num_programs(1)
        row = (seq.to(tl.int64) * heads + head) * tl.num_programs(2) + segment
        store_partial(partial_ptr, acc, maximum, total, row, exists, V, V_PAD, REST)
        if REST > 0:
            columns = V + REST + STATE
            store_output(partial_ptr + V, rest, row, 0, exists, columns, 0, REST, REST)
    else:
        sinks = load_per_head(sinks_ptr, head, exists, SINKS)
        output, lse = finish(acc, maximum, total, sinks, SINKS)
        store_output(
            out_ptr, output * value_scale, token, head, exists, out_token, out_head, V, V_PAD
        )
        if REST > 0:
            output, lse = finish(rest, maximum, total, sinks, SINKS)
            output = output * value_scale
            store_output(out_ptr + V, output, token, head, exists, out_token, out_head, REST, REST)
        if lse_ptr is not None:
            tl.store(lse_ptr + token * lse_token + head * lse_head, lse, mask=exists)


def two_parts(size: int) -> tuple[int, int] | None:
    """A head size as two powers of two that a tile may have as columns, the larger first, or None.

    80 is 64 + 16, 192 is 128 + 64; 128 is a power of two, 224 is more than two. A packed cache
    passes through registers on its way to an NVIDIA GPU's matrix units: an H200 decodes heads of
    80, 96 and 192 columns at 1.03, 1.03 and 0.98 of the rate at which it copies, where padded to a
    power of two it reaches 0.81, 0.84 and 0.67.
    """
    first = power_of_2(size) // 2
    rest = size - first
    return (first, rest) if 16 <= rest < first and rest == power_of_2(rest) else None


def _decode_heads(geometry: Geometry, is_packed: bool) -> dict[str, int]:
    """The arguments for head counts and sizes; AMD targets have not been tried with two parts."""
    heads = head_arguments(geometry) | {"REST": 0}
    parts = two_parts(geometry.head_size) if is_packed and not family() else None
    if parts is None or geometry.cache_dtype != geometry.dtype:
        return heads
    first, rest = parts
    return heads | {"D": first, "D_PAD": first, "V": first, "V_PAD": first, "REST": rest}


def segment_size(
    batch: Batch,
    geometry: Geometry,
    scores: Scores,
    device: torch.device,
    segments: int | None = None,
) -> int | None:
    """Keys of a segment: a whole number of partitions, chosen so that segments fill the device.

    With ``segments`` the longest sequence has about as many, of whole tiles. None: a window lets
    each query see so few keys that a split would cost more than it saves.
    """
    if 0 <= scores.window[0] < 4 * PARTITION and scores.mm_prefix is None:
        return None
    if segments:
        return max(-(-batch.max_seq_len // (segments * LARGEST_TILE)), 1) * LARGEST_TILE
    programs = batch.seq_lens.shape[0] * geometry.num_kv_heads
    segments = segments_for(programs, batch.max_seq_len, PARTITION // 4, device)
    return max(-(-batch.max_seq_len // (segments * PARTITION)), 1) * PARTITION


def paged_decode(
    query: torch.Tensor,
    views: tuple[torch.Tensor, torch.Tensor],
    batch: Batch,
    geometry: Geometry,
    scores: Scores,
    scales: Scales,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    segment_size: int | None,
) -> None:
    """Decodes the sequences of one query token; rows of others are not written.

    ``views``: keys and values as for ``cache_arguments``. ``segment_size``: keys of a segment, a
    multiple of PARTITION; None: no split.
    """
    sequences = batch.seq_lens.shape[0]
    group = geometry.num_heads // geometry.num_kv_heads
    is_packed = views[0].dim() == PACKED
    packed_block = geometry.block_size if is_packed else None
    launch = choose_decode(
        query, group, geometry.head_size, geometry.cache_dtype.itemsize, packed_block
    )
    if segment_size and segment_size % launch.tile:
        launch = replace(launch, tile=LARGEST_TILE)
    size = segment_size or max(batch.max_seq_len, 1)
    segments = max(-(-batch.max_seq_len // size), 1)
    results = result_arguments(scores, scales.v, out, lse)
    partial = None
    if segments > 1:
        partial = segment_workspace(sequences, geometry, segments, query.device)
    run_kernel(
        paged_decode_kernel,
        (sequences, geometry.num_kv_heads, segments),
        launch,
        query_ptr=query,
        query_start_ptr=batch.query_start_loc,
        seq_lens_ptr=batch.seq_lens,
        segment_size=size,
        scale=scores.scale * scales.k,
        query_token=query.stride(0),
        query_head=query.stride(1),
        BLOCK_M=launch.block_m,
        TILE=launch.tile,
        **_decode_heads(geometry, is_packed),
        **cache_arguments(*views, batch, geometry),
        **score_arguments(scores),
        partial_ptr=partial,
        **results,
    )
    if partial is not None:
        combine_segments(partial, batch, only_decodes=True, **results)
