"""Attention tile by tile over dense rows of keys and values."""

from __future__ import annotations

import triton
import triton.language as tl

from rocm_reference.ops.softmax import accumulate
from rocm_reference.ops.tiles import load_tile, masked_start, masked_tiles, weigh_tile, within


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
    DESCRIBED: tl.constexpr,
):
    """Adds key rows [first, last) from ``key_ptr`` on; row ``r`` has position ``base_pos + r``.

    With ``DESCRIBED`` whole tiles are copied by the processor's unit for tensors: see
    :func:`.launch.describes`.
    """
    if DESCRIBED:
        all_keys = tl.make_tensor_descriptor(key_ptr, [last, D], [key_row, 1], [TILE, D_PAD])
        all_values = tl.make_tensor_descriptor(value_ptr, [last, V], [value_row, 1], [TILE, V_PAD])
    lanes = tl.arange(0, TILE)
    dims = tl.arange(0, D_PAD)[:, None]
    columns = tl.arange(0, V_PAD)[None, :]
    for MASKED in tl.static_range(2):
        steps = (full_last - full_first) // TILE
        if MASKED:
            steps = masked_tiles(first, full_first, full_last, last, TILE)
        for i in range(0, steps):
            start = full_first + i * TILE
            if MASKED:
                start = masked_start(i, first, full_first, full_last, TILE)
            row = start + lanes
            stored = within(row, first, last, LEFT)
            if DESCRIBED and not MASKED:
                key = tl.trans(all_keys.load([start, 0]))
                value = all_values.load([start, 0])
            else:
                keys = key_ptr + row.to(tl.int64)[None, :] * key_row + dims
                values = value_ptr + row.to(tl.int64)[:, None] * value_row + columns
                key = load_tile(keys, stored[None, :], dims, D, D_PAD, MASKED)
                value = load_tile(values, stored[:, None], columns, V, V_PAD, MASKED)
            p, alpha, maximum, total = weigh_tile(
                maximum,
                total,
                query,
                key,
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
            acc = accumulate(acc, p, alpha, value.to(query.dtype))
    return acc, maximum, total
