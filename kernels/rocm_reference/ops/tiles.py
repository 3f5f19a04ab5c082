"""Attention tile by tile over a paged cache; what tiles of any kind have in common."""

from __future__ import annotations

import triton
import triton.language as tl

from rocm_reference.ops.fp8 import decode
from rocm_reference.ops.softmax import LOG2E, accumulate, make_logits, visible, weigh


@triton.jit
def load_entries(table_ptr, number, stored, MASKED: tl.constexpr):
    """Entries ``number`` of a block table as int64; only ``stored`` ones are read if ``MASKED``."""
    if MASKED:
        return tl.load(table_ptr + number, mask=stored, other=0).to(tl.int64)
    return tl.load(table_ptr + number).to(tl.int64)


@triton.jit
def slots(table_ptr, positions, stored, BLOCK_SIZE: tl.constexpr, MASKED: tl.constexpr):
    """``(block [N] as int64, slot in the block [N])`` of key positions."""
    block = load_entries(table_ptr, positions // BLOCK_SIZE, stored, MASKED)
    return block, positions % BLOCK_SIZE


@triton.jit
def tile_slots(
    table_ptr,
    start,
    stored,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    MASKED: tl.constexpr,
):
    """:func:`slots` of positions from ``start`` on: a multiple of TILE, where a key is stored.

    A block of whole tiles is looked up once for all: its block is a scalar.
    """
    if BLOCK_SIZE % TILE == 0:
        block = tl.load(table_ptr + start // BLOCK_SIZE).to(tl.int64)
        slot = start % BLOCK_SIZE + tl.arange(0, TILE)
    else:
        block, slot = slots(table_ptr, start + tl.arange(0, TILE), stored, BLOCK_SIZE, MASKED)
    return block, slot


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
    return tl.load(pointers, mask=dims < D, other=0)


@triton.jit
def weigh_tile(
    maximum,
    total,
    query,
    stored_key,
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
    prompt=0,
    PROMPTS: tl.constexpr = False,
    bias_ptr=0,
    bias_row=0,
    context=0,
    biased=0,
    BIASED: tl.constexpr = False,
    query_rest=0,
    stored_rest=0,
    REST: tl.constexpr = 0,
):
    """The weights of keys [D, N] for queries [M, D], as :func:`.softmax.weigh` gives them.

    ``query_pos`` [M], ``key_pos`` [N]; ``stored`` [N]: which keys exist. With ``BIASED`` the first
    ``biased`` positions from ``context`` on have a bias for one another, float32 in rows of
    ``bias_row``, which tiles without a mask need not have. ``REST`` more columns of queries and
    keys are in ``query_rest`` and ``stored_rest``."""
    key = decode(stored_key, query.dtype, FORMAT)
    dot = tl.dot(query, key, input_precision="ieee")
    if REST > 0:
        key_rest = decode(stored_rest, query.dtype, FORMAT)
        dot = tl.dot(query_rest, key_rest, dot, input_precision="ieee")
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
            prompt,
            PROMPTS,
        )
        if BIASED:
            row, column = (query_pos - context)[:, None], (key_pos - context)[None, :]
            known = (row < biased) & (column >= 0) & (column < biased)
            pointers = bias_ptr + row.to(tl.int64) * bias_row + column
            logits += tl.load(pointers, mask=known, other=0.0) * LOG2E
        logits = tl.where(seen & stored[None, :], logits, float("-inf"))
    return weigh(maximum, total, logits)


@triton.jit
def masked_start(i, first, full_first, full_last, TILE: tl.constexpr):
    """Where the ``i``-th tile that needs a mask begins: before the full tiles or after them."""
    start = first // TILE * TILE
    before = tl.cdiv(full_first - start, TILE)
    return tl.where(i < before, start + i * TILE, full_last + (i - before) * TILE)


@triton.jit
def masked_tiles(first, full_first, full_last, last, TILE: tl.constexpr):
    """How many tiles need a mask."""
    before = tl.cdiv(full_first - first // TILE * TILE, TILE)
    return before + tl.cdiv(tl.maximum(last - full_last, 0), TILE)


@triton.jit
def within(position, first, last, LEFT: tl.constexpr):
    """Whether positions are in [first, last); without ``LEFT`` none is before ``first``."""
    inside = position < last
    if LEFT:
        inside = inside & (position >= first)
    return inside


@triton.jit
def load_pages(
    key_ptr,
    value_ptr,
    table_ptr,
    start,
    first,
    last,
    key_block,
    key_dim,
    key_slot,
    value_block,
    value_dim,
    value_slot,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    V: tl.constexpr,
    V_PAD: tl.constexpr,
    PACK: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    MASKED: tl.constexpr,
    LEFT: tl.constexpr,
):
    """Keys [D_PAD, TILE] and values [TILE, V_PAD] of a paged cache from position ``start`` on.

    With ``PAIRS`` an element of the values is two neighbours: [TILE, V_PAD / 2]. If ``MASKED``,
    positions outside of [first, last) are zero; without ``LEFT``, ``first`` is 0.

    Slots of a packed cache are ``PACK`` elements apart. If whole blocks make up a tile, they are
    read from end to end, so that neighbouring lanes read neighbouring slots; read slot by slot,
    each pack would touch another cache line.
    """
    if PACK > 1 and TILE % BLOCK_SIZE == 0:
        number = tl.arange(0, TILE // BLOCK_SIZE)
        block_start = start + number * BLOCK_SIZE
        block = load_entries(table_ptr, start // BLOCK_SIZE + number, block_start < last, MASKED)
        # Axes: block, pack, (slot, element of the pack). The last is contiguous and is split after
        # the load: with four axes the load takes 1.5 times as long on an H100.
        run = tl.arange(0, BLOCK_SIZE * PACK)[None, None, :]
        pack = tl.arange(0, D_PAD // PACK)[None, :, None]
        slot = tl.arange(0, BLOCK_SIZE)[None, None, :]
        columns = tl.arange(0, V_PAD)[None, :, None]
        block_start = block_start[:, None, None]
        keys = key_ptr + (block * key_block)[:, None, None] + run + pack * key_dim
        values = (
            value_ptr
            + (block * value_block)[:, None, None]
            + slot * value_slot
            + columns * value_dim
        )
        key_stored = within(block_start + run // PACK, first, last, LEFT)
        value_stored = within(block_start + slot, first, last, LEFT)
        key = load_tile(keys, key_stored, pack * PACK, D, D_PAD, MASKED)
        value = load_tile(values, value_stored, columns, V, V_PAD, MASKED)
        key = tl.reshape(key, (TILE // BLOCK_SIZE, D_PAD // PACK, BLOCK_SIZE, PACK))
        key = tl.reshape(tl.permute(key, (1, 3, 0, 2)), (D_PAD, TILE))
        value = tl.reshape(tl.permute(value, (0, 2, 1)), (TILE, V_PAD))
    else:
        if PACK > 1:
            # A constant, so that the compiler knows that 16 bytes are aligned.
            key_slot = PACK
        position = start + tl.arange(0, TILE)
        stored = within(position, first, last, LEFT)
        block, slot = tile_slots(table_ptr, start, stored, BLOCK_SIZE, TILE, MASKED)
        into_keys = block * key_block + slot * key_slot
        into_values = block * value_block + slot * value_slot
        WIDTH: tl.constexpr = 2 if PAIRS else 1
        dims = tl.arange(0, D_PAD)[:, None]
        columns = tl.arange(0, V_PAD // WIDTH)[None, :]
        keys = key_ptr + into_keys[None, :] + dims // PACK * key_dim + dims % PACK
        values = value_ptr + into_values[:, None] + columns * value_dim
        key = load_tile(keys, stored[None, :], dims, D, D_PAD, MASKED)
        value = load_tile(values, stored[:, None], columns, V // WIDTH, V_PAD // WIDTH, MASKED)
    return key, value


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
    key_block,
    key_dim,
    key_slot,
    value_ptr,
    value_block,
    value_dim,
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
    PACK: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    FORMAT: tl.constexpr,
    CAUSAL: tl.constexpr,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    ALIBI: tl.constexpr,
    PREFIXES: tl.constexpr,
    prompt=0,
    PROMPTS: tl.constexpr = False,
    bias_ptr=0,
    bias_row=0,
    context=0,
    biased=0,
    BIASED: tl.constexpr = False,
    query_rest=0,
    rest=0,
    REST: tl.constexpr = 0,
):
    """Adds keys at positions [first, last) of a paged cache; see :func:`.softmax.key_ranges`.

    ``key_ptr`` and ``value_ptr`` point at the KV head; ``*_block``, ``*_slot`` and ``*_dim`` are
    strides in elements, ``key_dim`` that of packs of ``PACK`` elements. ``FORMAT``: see
    :func:`.fp8.format_of`; if it says so, a value's element is a pair of columns. With ``REST`` > 0
    so many columns follow the ``D`` of keys and the ``V`` of values: ``query_rest`` [M, REST] has
    those of the queries, ``rest`` [M, REST] their part of ``acc``, and is returned behind it.
    """
    PAIRS: tl.constexpr = FORMAT >= 8
    if PAIRS:
        # Sums of even and of odd columns, put together after the loop: in it, lanes would change.
        even, odd = tl.split(tl.reshape(acc, (acc.shape[0], V_PAD // 2, 2)))
    for MASKED in tl.static_range(2):
        steps = (full_last - full_first) // TILE
        if MASKED:
            steps = masked_tiles(first, full_first, full_last, last, TILE)
        for i in range(0, steps):
            start = full_first + i * TILE
            if MASKED:
                start = masked_start(i, first, full_first, full_last, TILE)
            key, value = load_pages(
                key_ptr,
                value_ptr,
                table_ptr,
                start,
                first,
                last,
                key_block,
                key_dim,
                key_slot,
                value_block,
                value_dim,
                value_slot,
                D,
                D_PAD,
                V,
                V_PAD,
                PACK,
                PAIRS,
                BLOCK_SIZE,
                TILE,
                MASKED,
                LEFT,
            )
            key_rest = 0
            if REST > 0:
                key_rest, value_rest = load_pages(
                    key_ptr + D // PACK * key_dim,
                    value_ptr + V * value_dim,
                    table_ptr,
                    start,
                    first,
                    last,
                    key_block,
                    key_dim,
                    key_slot,
                    value_block,
                    value_dim,
                    value_slot,
                    REST,
                    REST,
                    REST,
                    REST,
                    PACK,
                    False,
                    BLOCK_SIZE,
                    TILE,
                    MASKED,
                    LEFT,
                )
            key_pos = start + tl.arange(0, TILE)
            p, alpha, maximum, total = weigh_tile(
                maximum,
                total,
                query,
                key,
                query_pos,
                key_pos,
                key_pos < last,
                scale,
                soft_cap,
                slopes,
                left,
                right,
                prefix_ptr,
                prefixes,
                FORMAT % 8,
                MASKED,
                CAUSAL,
                LEFT,
                RIGHT,
                SOFT_CAP,
                ALIBI,
                PREFIXES,
                prompt,
                PROMPTS,
                bias_ptr,
                bias_row,
                context,
                biased,
                BIASED,
                query_rest,
                key_rest,
                REST,
            )
            if REST > 0:
                rest = accumulate(rest, p, alpha, decode(value_rest, query.dtype, FORMAT))
            if PAIRS:
                first_of_pair, second_of_pair = (
                    (value & 0xFF).to(tl.uint8),
                    (value >> 8).to(tl.uint8),
                )
                even = accumulate(even, p, alpha, decode(first_of_pair, query.dtype, FORMAT % 8))
                odd = accumulate(odd, p, alpha, decode(second_of_pair, query.dtype, FORMAT % 8))
            else:
                acc = accumulate(acc, p, alpha, decode(value, query.dtype, FORMAT))
    if PAIRS:
        acc = tl.reshape(tl.join(even, odd), (acc.shape[0], V_PAD))
    return acc, rest, maximum, total
