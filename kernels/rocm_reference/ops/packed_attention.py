"""Attention over caches of packed rows: see :mod:`rocm_reference.ops.packed_rows`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rocm_reference.attention import Batch, Dispatch, Geometry, Scores
from rocm_reference.ops.combine import combine_segments, segment_workspace, store_partial
from rocm_reference.ops.dense import attend_packed
from rocm_reference.ops.fp8 import decode, encode
from rocm_reference.ops.launch import Launch, family, is_rdna, padded, power_of_2, segments_for
from rocm_reference.ops.packed_rows import (
    codebook,
    load_packed_key,
    load_packed_value,
    rotation,
    row_format,
)
from rocm_reference.ops.rows import block_rows, find_sequence, load_query, store_output
from rocm_reference.ops.scores import result_arguments
from rocm_reference.ops.softmax import LOG2E, finish, key_ranges, start_state, update

# After a context, so many query tokens and fewer are read from the cache.
CONTINUED = 128


@triton.jit
def attend_rows(
    acc,
    maximum,
    total,
    turned,
    query_pos,
    first,
    last,
    table,
    cache_ptr,
    codebook_ptr,
    scale,
    cache_block,
    cache_slot,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    KEY_BITS: tl.constexpr,
    VALUE_BITS: tl.constexpr,
    KEY_BYTES: tl.constexpr,
    VALUE_START: tl.constexpr,
    VALUE_BYTES: tl.constexpr,
    GROUPED: tl.constexpr,
    FORMAT: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """Adds the cached keys [first, last) of a sequence to the state of ``turned`` queries [M, D].

    ``query_pos`` [M]; ``cache_ptr``: the rows of one KV head. Values are rounded to ``DTYPE``.
    """
    lanes = tl.arange(0, TILE)
    for tile in range(first, last, TILE):
        key_pos = tile + lanes
        here = key_pos < last
        number = tl.load(table + key_pos // BLOCK_SIZE, mask=here, other=0).to(tl.int64)
        rows = cache_ptr + number * cache_block + key_pos % BLOCK_SIZE * cache_slot
        key = load_packed_key(
            rows, here, codebook_ptr, D, D_PAD, KEY_BITS, KEY_BYTES, GROUPED, FORMAT
        )
        value = load_packed_value(
            rows + VALUE_START, here, D, D_PAD, VALUE_BITS, VALUE_BYTES, GROUPED
        )
        logits = tl.dot(turned, tl.trans(key), input_precision="ieee") * (scale * LOG2E)
        seen = here[None, :] & (key_pos[None, :] <= query_pos[:, None])
        logits = tl.where(seen, logits, float("-inf"))
        acc, maximum, total = update(acc, maximum, total, logits, value.to(DTYPE))
    return acc, maximum, total


@triton.jit(do_not_specialize=["group", "num_seqs", "segment_size", "table_row"])
def packed_cache_kernel(
    query_ptr,
    turned_ptr,
    new_key_ptr,
    new_value_ptr,
    out_ptr,
    lse_ptr,
    sinks_ptr,
    partial_ptr,
    cache_ptr,
    codebook_ptr,
    table_ptr,
    query_start_ptr,
    seq_lens_ptr,
    group,
    num_seqs,
    segment_size,
    scale,
    value_scale,
    query_token,
    query_head,
    turned_token,
    turned_head,
    new_key_token,
    new_key_head,
    new_value_token,
    new_value_head,
    out_token,
    out_head,
    lse_token,
    lse_head,
    table_row,
    cache_block,
    cache_slot,
    cache_head,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    TILE: tl.constexpr,
    CONTINUED: tl.constexpr,
    PREFILLS: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    KEY_BITS: tl.constexpr,
    VALUE_BITS: tl.constexpr,
    KEY_BYTES: tl.constexpr,
    VALUE_START: tl.constexpr,
    VALUE_BYTES: tl.constexpr,
    GROUPED: tl.constexpr,
    FORMAT: tl.constexpr,
    SINKS: tl.constexpr,
):
    """Program (query block, KV head, segment): the cached keys, then new ones as computed.

    A sequence reads every key from the cache if it has one query token, or at most ``CONTINUED``
    after a context; else the keys of its context alone. ``turned_ptr``: the queries in float32,
    rotated if keys are; of FP4 keys (``GROUPED``) they are rounded to fp8 where all keys are
    cached. If there is a workspace, segments have ``segment_size`` keys, a multiple of TILE, and
    their partial states go to it. ``PREFILLS``: some sequence has several query tokens.
    """
    kv_head = tl.program_id(1)
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    block_q = BLOCK_M // group
    seq = find_sequence(query_start_ptr, block, num_seqs, block_q)
    start = tl.load(query_start_ptr + seq)
    query_len = tl.load(query_start_ptr + seq + 1) - start
    block_in_seq = block - (start // block_q + seq)
    if block_in_seq * block_q >= query_len:
        return
    seq_len = tl.load(seq_lens_ptr + seq)
    context = seq_len - query_len
    computed = (query_len > 1) & ((context == 0) | (query_len > CONTINUED))
    token, head, exists = block_rows(block_in_seq, query_len, kv_head, group, block_q, BLOCK_M)
    query_pos = context + token
    row = start + token
    turned = load_query(turned_ptr, row, head, exists, turned_token, turned_head, D, D_PAD)
    if GROUPED:
        rounded = decode(encode(turned, FORMAT), tl.float32, FORMAT)
        turned = tl.where(computed, turned, rounded)
    last_token = tl.minimum((block_in_seq + 1) * block_q, query_len) - 1
    first = 0
    last = tl.minimum(tl.where(computed, context, seq_len), context + last_token + 1)
    if partial_ptr is not None:
        first = tl.program_id(2) * segment_size
        last = tl.minimum(last, first + segment_size)
    acc, maximum, total = start_state(BLOCK_M, D_PAD)
    acc, maximum, total = attend_rows(
        acc,
        maximum,
        total,
        turned,
        query_pos,
        first,
        last,
        table_ptr + seq.to(tl.int64) * table_row,
        cache_ptr + kv_head * cache_head,
        codebook_ptr,
        scale,
        cache_block,
        cache_slot,
        BLOCK_SIZE,
        TILE,
        D,
        D_PAD,
        KEY_BITS,
        VALUE_BITS,
        KEY_BYTES,
        VALUE_START,
        VALUE_BYTES,
        GROUPED,
        FORMAT,
        query_ptr.dtype.element_ty,
    )
    if PREFILLS:
        query = load_query(query_ptr, row, head, exists, query_token, query_head, D, D_PAD)
        first, full_first, full_last, last = key_ranges(
            block_in_seq * block_q,
            last_token,
            tl.where(computed, query_len, 0),
            -1,
            -1,
            True,
            False,
            False,
            False,
            TILE,
        )
        acc, maximum, total = attend_packed(
            acc,
            maximum,
            total,
            query,
            query_pos,
            first,
            full_first,
            full_last,
            last,
            context,
            new_key_ptr + start.to(tl.int64) * new_key_token + kv_head * new_key_head,
            new_key_token,
            new_value_ptr + start.to(tl.int64) * new_value_token + kv_head * new_value_head,
            new_value_token,
            scale,
            0.0,
            tl.zeros(head.shape, dtype=tl.float32),
            -1,
            -1,
            query_start_ptr,
            0,
            D,
            D_PAD,
            D,
            D_PAD,
            TILE,
            True,
            False,
            False,
            False,
            0,
            False,
            False,
        )
    if partial_ptr is not None:
        heads = group * tl.num_programs(1)
        number = (row.to(tl.int64) * heads + head) * tl.num_programs(2) + tl.program_id(2)
        store_partial(partial_ptr, acc, maximum, total, number, exists, D, D_PAD)
    else:
        output, lse = finish(acc, maximum, total, maximum, False)
        store_output(out_ptr, output, row, head, exists, out_token, out_head, D, D_PAD)
        if lse_ptr is not None:
            tl.store(lse_ptr + row * lse_token + head * lse_head, lse, mask=exists)


def attend_packed_cache(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cache: torch.Tensor,
    batch: Batch,
    geometry: Geometry,
    scores: Scores,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    segments: int | None = None,
) -> Dispatch:
    """Attends the rows of ``cache``, uint8 [N, B, G, bytes], and new keys and values [T, G, D].

    ``segments`` of each sequence's keys in a batch of decodes; None: as many as fill the device.
    """
    form, tokens, sequences = row_format(geometry), query.shape[0], batch.seq_lens.shape[0]
    turned, entries = query.float(), None
    if form.rotates:
        turned = turned @ rotation(form.size, query.device)
        if not form.grouped:
            entries = codebook(form.size, form.key_bits, query.device)
    group = geometry.num_heads // geometry.num_kv_heads
    launch = _launch(group * batch.max_query_len, group, form.size)
    blocks = tokens // launch.block_q(group) + sequences
    size = max(batch.max_seq_len, 1)
    if batch.max_query_len == 1:
        wanted = segments or segments_for(
            sequences * geometry.num_kv_heads, size, launch.tile, query.device
        )
        size = -(-size // (wanted * launch.tile)) * launch.tile
    count = -(-max(batch.max_seq_len, 1) // size)
    partial = segment_workspace(tokens, geometry, count, query.device) if count > 1 else None
    results = result_arguments(scores, 1.0, out, lse)
    packed_cache_kernel[(blocks, geometry.num_kv_heads, count)](
        query,
        turned,
        key,
        value,
        cache_ptr=cache,
        codebook_ptr=entries,
        table_ptr=batch.block_table,
        query_start_ptr=batch.query_start_loc,
        seq_lens_ptr=batch.seq_lens,
        group=group,
        num_seqs=sequences,
        segment_size=size,
        scale=scores.scale,
        query_token=query.stride(0),
        query_head=query.stride(1),
        turned_token=turned.stride(0),
        turned_head=turned.stride(1),
        new_key_token=key.stride(0),
        new_key_head=key.stride(1),
        new_value_token=value.stride(0),
        new_value_head=value.stride(1),
        table_row=batch.block_table.stride(0),
        cache_block=cache.stride(0),
        cache_slot=cache.stride(1),
        cache_head=cache.stride(2),
        BLOCK_SIZE=geometry.block_size,
        BLOCK_M=launch.block_m,
        TILE=launch.tile,
        CONTINUED=CONTINUED,
        PREFILLS=batch.max_query_len > 1,
        partial_ptr=partial,
        **form.arguments(),
        **results,
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
    )
    if partial is None:
        return ("packed_attention",)
    combine_segments(partial, batch, **results)
    return ("packed_attention_split", "combine_segments")


def _launch(rows: int, group: int, head_size: int) -> Launch:
    """Small tiles: unpacked keys and queries are float32, four bytes an element.

    RDNA multiplies float32 by lanes, each of which holds whole rows: more waves share a tile.
    """
    block_m = max(16, power_of_2(group), min(32, power_of_2(rows)))
    if is_rdna(family()):
        return Launch(max(16, power_of_2(group)), 16, 8, 1)
    return Launch(block_m, 32 if padded(head_size) <= 64 else 16, 4, 1)
