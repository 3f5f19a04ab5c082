"""Logits, masks and the online softmax.

Logits are to base 2: each is multiplied by log2(e) once, when it is made, so that the exponential
is the hardware's ``exp2``. Source of the algorithm: Milakov and Gimelshein, Online
normalizer calculation for softmax (https://arxiv.org/abs/1805.02867); Dao et al., FlashAttention
(https://arxiv.org/abs/2205.14135).
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def make_logits(
    dot,
    scale,
    soft_cap,
    slopes,
    distance,
    SOFT_CAP: tl.constexpr,
    ALIBI: tl.constexpr,
):
    """Logits [M, N] times log2(e), from ``q . k``, without a mask.

    ``slopes``: [M]; ``distance``: [M, N], key position minus query position. ``ALIBI``: 0 none,
    1 linear, 2 square root. tanh(x) is computed as 1 - 2 / (exp(2x) + 1), whose absolute error is
    a few units of the last place of 1 and which saturates instead of overflowing.
    """
    if SOFT_CAP:
        powers = tl.exp2(dot * (scale * 2.0 * LOG2E / soft_cap))
        logits = (soft_cap * LOG2E) * (1.0 - 2.0 / (powers + 1.0))
    else:
        logits = dot * (scale * LOG2E)
    if ALIBI == 1:
        logits += (slopes * LOG2E)[:, None] * distance
    if ALIBI == 2:
        logits -= (slopes * LOG2E)[:, None] * tl.sqrt(tl.maximum(-distance, 0).to(tl.float32))
    return logits


@triton.jit
def prefixes_of(prefix_ptr, seq, prefixes, PREFIXES: tl.constexpr):
    """A pointer to a sequence's ranges in int32 [S, prefixes, 2]; 0 if there are none."""
    ranges = 0
    if PREFIXES:
        ranges = prefix_ptr + seq * (2 * prefixes)
    return ranges


@triton.jit
def visible(
    query_pos,
    key_pos,
    left,
    right,
    prefix_ptr,
    prefixes,
    CAUSAL: tl.constexpr,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    PREFIXES: tl.constexpr,
    prompt=0,
    PROMPTS: tl.constexpr = False,
):
    """The keys [1, N] that queries [M, 1] see, by position. ``prefix_ptr``: int32 [prefixes, 2].

    With ``PROMPTS`` the window does not hide keys before ``prompt``."""
    seen = key_pos >= 0
    if CAUSAL:
        seen = seen & (key_pos <= query_pos)
    if LEFT:
        near = key_pos >= query_pos - left
        if PROMPTS:
            near = near | (key_pos < prompt)
        seen = seen & near
    if RIGHT:
        seen = seen & (key_pos <= query_pos + right)
    if PREFIXES:
        seen = seen & (query_pos >= 0)
        for i in range(0, prefixes):
            first = tl.load(prefix_ptr + 2 * i)
            last = tl.load(prefix_ptr + 2 * i + 1)
            query_in = (query_pos >= first) & (query_pos <= last)
            key_in = (key_pos >= first) & (key_pos <= last)
            seen = seen | (query_in & key_in & (first < last))
    return seen


@triton.jit
def key_ranges(
    first_query,
    last_query,
    num_keys,
    left,
    right,
    CAUSAL: tl.constexpr,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    PREFIXES: tl.constexpr,
    TILE: tl.constexpr,
):
    """``(first, full_first, full_last, last)``: the key positions that a block of queries visits.

    Keys in [full_first, full_last) are visible to every query; those in the rest of [first, last)
    need the mask. ``full_first`` and ``full_last`` are multiples of TILE. ``first`` is exact: what
    lies before it may have been given up, and its place in the cache may hold anything.
    """
    first = 0
    last = num_keys
    full_last = num_keys
    if PREFIXES:
        full_last = 0
    else:
        if CAUSAL:
            last = tl.minimum(last, last_query + 1)
            full_last = tl.minimum(full_last, first_query + 1)
        if RIGHT:
            last = tl.minimum(last, last_query + right + 1)
            full_last = tl.minimum(full_last, first_query + right + 1)
        if LEFT:
            first = tl.maximum(first_query - left, 0)
    full_first = first // TILE * TILE
    if LEFT:
        full_first = tl.maximum(tl.cdiv(tl.maximum(last_query - left, 0), TILE) * TILE, full_first)
    full_last = tl.maximum(full_last, 0) // TILE * TILE
    full_last = tl.maximum(full_last, full_first)
    return first, tl.minimum(full_first, last), tl.minimum(full_last, last), last


@triton.jit
def clip_ranges(first, full_first, full_last, last, low, high):
    """The part of :func:`key_ranges` in the segment [low, high) of whole tiles."""
    full_first = tl.minimum(tl.maximum(full_first, low), high)
    full_last = tl.minimum(tl.maximum(full_last, low), high)
    return tl.maximum(first, low), full_first, full_last, tl.minimum(last, high)


@triton.jit
def start_state(M: tl.constexpr, V: tl.constexpr):
    """The state before any key: ``(acc [M, V], maximum [M], total [M])``."""
    return (
        tl.zeros([M, V], dtype=tl.float32),
        tl.full([M], float("-inf"), dtype=tl.float32),
        tl.zeros([M], dtype=tl.float32),
    )


@triton.jit
def weigh(maximum, total, logits):
    """``(p, alpha, maximum, total)`` for a tile of masked logits [M, N] (-inf: not seen).

    ``p`` [M, N]: the keys' weights, relative to the new maximum; ``alpha`` [M] rescales what was
    summed before.
    """
    risen = tl.maximum(maximum, tl.max(logits, 1))
    # A row that has seen no key yet keeps -inf: subtracting it from itself would give NaN.
    origin = tl.where(risen == float("-inf"), 0.0, risen)
    p = tl.exp2(logits - origin[:, None])
    alpha = tl.exp2(maximum - origin)
    total = total * alpha + tl.sum(p, 1)
    return p, alpha, risen, total


@triton.jit
def accumulate(acc, p, alpha, value):
    """Adds values [N, V] with weights ``p`` [M, N] to ``acc`` [M, V], after rescaling it."""
    return tl.dot(p.to(value.dtype), value, acc * alpha[:, None], input_precision="ieee")


@triton.jit
def update(acc, maximum, total, logits, value):
    """Adds a tile of masked logits [M, N] (-inf: not seen) and values [N, V] to the state."""
    p, alpha, maximum, total = weigh(maximum, total, logits)
    return accumulate(acc, p, alpha, value), maximum, total


@triton.jit
def finish(acc, maximum, total, sinks, SINKS: tl.constexpr):
    """``(output [M, V], log-sum-exp [M])`` of a state; ``sinks`` [M] in natural units."""
    if SINKS:
        risen = tl.maximum(maximum, sinks * LOG2E)
        origin = tl.where(risen == float("-inf"), 0.0, risen)
        alpha = tl.exp2(maximum - origin)
        total = total * alpha + tl.exp2(sinks * LOG2E - origin)
        acc = acc * alpha[:, None]
        maximum = risen
    # With no key seen acc is zero: any finite divisor gives the zero row.
    divisor = tl.where(total == 0.0, 1.0, total)
    return acc / divisor[:, None], tl.where(
        total == 0.0, float("-inf"), (maximum + tl.log2(divisor)) * LN2
    )
