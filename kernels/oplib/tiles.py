"""One tile of attention: keys and values from a paged cache or from packed rows, into the state."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.oplib.fp8 import decode
from kernels.oplib.softmax import make_logits, update, visible


@triton.jit
def slots(table_ptr, positions, stored, BLOCK_SIZE: tl.constexpr, MASKED: tl.constexpr):
    """``(block [N] as int64, slot in it [N])`` of key positions; only their entries are read."""
    if MASKED:
        block = tl.load(table_ptr + positions // BLOCK_SIZE, mask=stored, other=0)
    else:
        block = tl.load(table_ptr + positions // BLOCK_SIZE)
    return block.to(tl.int64), positions % BLOCK_SIZE


@triton.jit
def element_offsets(dim, PACK: tl.constexpr, D_PAD: tl.constexpr):
    """Offsets [D_PAD] of a slot's elements: ``dim`` apart, or packs of ``PACK`` that are."""
    d = tl.arange(0, D_PAD)
    if PACK == 1:
        return d * dim
    return d // PACK * dim + d % PACK


@triton.jit
def load_tile(
    pointers,
    stored,
    dims,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    MASKED: tl.constexpr,
):
    """A tile whose elements past ``D``, and if ``MASKED`` those not ``stored``, are zero."""
    if MASKED:
        if D_PAD == D:
            return tl.load(pointers, mask=stored, other=0)
        return tl.load(pointers, mask=stored & (dims < D), other=0)
    if D_PAD == D:
        return tl.load(pointers)
    return tl.load(pointers, mask=(dims < D) & stored, other=0)


@triton.jit
def attend_tile(
    acc,
    maximum,
    total,
    query,
    stored_key,
    stored_value,
    query_pos,
    key_pos,
    stored,
    scale,
    soft_cap,
    slopes,
    left,
    right,
    prefix_ptr,
    prefixes,
    FORMAT: tl.constexpr,
    MASKED: tl.constexpr,
    CAUSAL: tl.constexpr,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    ALIBI: tl.constexpr,
    PREFIXES: tl.constexpr,
):
    """Query [M, D] over keys [D, N] and values [N, V]; positions [M] and [N]; ``stored`` [N]."""
    key = decode(stored_key, query.dtype, FORMAT)
    value = decode(stored_value, query.dtype, FORMAT)
    dot = tl.dot(query, key, input_precision="ieee")
    distance = key_pos[None, :] - query_pos[:, None]
    logits = make_logits(dot, scale, soft_cap, slopes, distance, SOFT_CAP, ALIBI)
    if MASKED:
        seen = visible(
            query_pos[:, None],
            key_pos[None, :],
            left,
            right,
            prefix_ptr,
            prefixes,
            CAUSAL,
            LEFT,
            RIGHT,
            PREFIXES,
        )
        logits = tl.where(seen & stored[None, :], logits, float("-inf"))
    return update(acc, maximum, total, logits, value)


@triton.jit
def masked_start(i, first, full_first, full_last, TILE: tl.constexpr):
    """Where the ``i``-th tile that needs a mask begins: before the full tiles, then after them."""
    before = tl.cdiv(full_first - first, TILE)
    return tl.where(i < before, first + i * TILE, full_last + (i - before) * TILE)


@triton.jit
def masked_tiles(first, full_first, full_last, last, TILE: tl.constexpr):
    """How many tiles need a mask."""
    before = tl.cdiv(full_first - first, TILE)
    return before + tl.cdiv(tl.maximum(last - full_last, 0), TILE)


@triton.jit
def attend_paged(
    acc,
    maximum,
    total,
    query,
    query_pos,
    first,
    full_first,
    full_last,
    last,
    table_ptr,
    key_ptr,
    key_dims,
    key_block,
    key_slot,
    value_ptr,
    value_dims,
    value_block,
    value_slot,
    scale,
    soft_cap,
    slopes,
    left,
    right,
    prefix_ptr,
    prefixes,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    V: tl.constexpr,
    V_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    VALUE_RUN: tl.constexpr,
    TILE: tl.constexpr,
    FORMAT: tl.constexpr,
    CAUSAL: tl.constexpr,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    ALIBI: tl.constexpr,
    PREFIXES: tl.constexpr,
):
    """Keys at positions [first, last) of a paged cache; see :func:`softmax.key_ranges`.

    ``key_ptr`` and ``value_ptr`` point at the KV head; ``key_dims`` [D_PAD] and ``value_dims``
    [V_PAD] are the offsets of a slot's elements, whatever the layout; ``*_block`` and ``*_slot``
    are strides in elements. ``VALUE_RUN`` aligned slots in a row hold their values side by side,
    which the compiler cannot see through the block table.
    """
    lanes = tl.arange(0, TILE)
    dims = tl.arange(0, D_PAD)[:, None]
    columns = tl.arange(0, V_PAD)[None, :]
    for MASKED in tl.static_range(2):
        steps = (full_last - full_first) // TILE
        if MASKED:
            steps = masked_tiles(first, full_first, full_last, last, TILE)
        for i in range(0, steps):
            key_pos = full_first + i * TILE + lanes
            if MASKED:
                key_pos = masked_start(i, first, full_first, full_last, TILE) + lanes
            stored = key_pos < last
            block, slot = slots(table_ptr, key_pos, stored, BLOCK_SIZE, MASKED)
            keys = key_ptr + (block * key_block + slot * key_slot)[None, :] + key_dims[:, None]
            into_values = block * value_block + slot * value_slot
            if VALUE_RUN > 1:
                into_values = tl.max_contiguous(tl.multiple_of(into_values, VALUE_RUN), VALUE_RUN)
            values = value_ptr + into_values[:, None] + value_dims[None, :]
            acc, maximum, total = attend_tile(
                acc,
                maximum,
                total,
                query,
                load_tile(keys, stored[None, :], dims, D, D_PAD, MASKED),
                load_tile(values, stored[:, None], columns, V, V_PAD, MASKED),
                query_pos,
                key_pos,
                stored,
                scale,
                soft_cap,
                slopes,
                left,
                right,
                prefix_ptr,
                prefixes,
                FORMAT,
                MASKED,
                CAUSAL,
                LEFT,
                RIGHT,
                SOFT_CAP,
                ALIBI,
                PREFIXES,
            )
    return acc, maximum, total


@triton.jit
def attend_packed(
    acc,
    maximum,
    total,
    query,
    query_pos,
    first,
    full_first,
    full_last,
    last,
    base_pos,
    key_ptr,
    key_row,
    value_ptr,
    value_row,
    scale,
    soft_cap,
    slopes,
    left,
    right,
    prefix_ptr,
    prefixes,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    V: tl.constexpr,
    V_PAD: tl.constexpr,
    TILE: tl.constexpr,
    CAUSAL: tl.constexpr,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    ALIBI: tl.constexpr,
    PREFIXES: tl.constexpr,
):
    """Keys in rows [first, last) from ``key_ptr`` on; row ``r`` is at position ``base_pos + r``."""
    lanes = tl.arange(0, TILE)
    dims = tl.arange(0, D_PAD)[:, None]
    columns = tl.arange(0, V_PAD)[None, :]
    for MASKED in tl.static_range(2):
        steps = (full_last - full_first) // TILE
        if MASKED:
            steps = masked_tiles(first, full_first, full_last, last, TILE)
        for i in range(0, steps):
            row = full_first + i * TILE + lanes
            if MASKED:
                row = masked_start(i, first, full_first, full_last, TILE) + lanes
            stored = row < last
            keys = key_ptr + row.to(tl.int64)[None, :] * key_row + dims
            values = value_ptr + row.to(tl.int64)[:, None] * value_row + columns
            acc, maximum, total = attend_tile(
                acc,
                maximum,
                total,
                query,
                load_tile(keys, stored[None, :], dims, D, D_PAD, MASKED),
                load_tile(values, stored[:, None], columns, V, V_PAD, MASKED),
                query_pos,
                base_pos + row,
                stored,
                scale,
                soft_cap,
                slopes,
                left,
                right,
                prefix_ptr,
                prefixes,
                0,
                MASKED,
                CAUSAL,
                LEFT,
                RIGHT,
                SOFT_CAP,
                ALIBI,
                PREFIXES,
            )
    return acc, maximum, total
