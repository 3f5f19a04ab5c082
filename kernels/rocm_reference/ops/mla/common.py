"""Multi-head latent attention in its absorbed form: what the decode kernels share.

All query heads read the same row per key: the latent vector of ``RANK`` columns, which is also the
value, followed by ``ROPE`` columns that count in the logits only (DeepSeek-V2,
https://arxiv.org/abs/2405.04434, section 2.1). A tile of keys is loaded once and used as key and as
value by all heads of the program.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

from rocm_reference.attention import Geometry, Scores
from rocm_reference.ops.fp8 import as_bytes, decode, format_of
from rocm_reference.ops.launch import (
    HOPPER,
    Launch,
    current_target,
    family,
    is_cuda,
    is_rdna,
    padded,
    power_of_2,
    segments_for,
)
from rocm_reference.ops.rows import block_rows, load_query
from rocm_reference.ops.softmax import make_logits, update
from rocm_reference.ops.tiles import load_tile, tile_slots


@dataclass(frozen=True)
class LatentLaunch(Launch):
    """``chunk``: columns of a query row in registers at a time; 0: all of them. ``together``: one
    loop does whole tiles and those that need a mask.
    """

    chunk: int = 0
    together: bool = False


def choose_latent(
    query: torch.Tensor, heads: int, max_query_len: int, cache_itemsize: int
) -> LatentLaunch:
    """Launch parameters for rows of 576 elements, all of whose columns a tile holds at once.

    An accumulator of 16 rows by 512 columns fills 64 registers of four waves. A tile of 32 keys
    and 576 columns of 2 bytes is 36 KiB, which leaves room in an AMD target's 64 KiB of LDS.
    """
    tile = 32 if query.element_size() == 2 else 16
    if not is_cuda(query):
        return for_family(LatentLaunch(16, tile, 4, 1), family())
    rows = heads * max_query_len
    # Two stages of 64 keys are 144 KiB, of the 227 that a program may have on Hopper.
    twice = current_target().arch >= HOPPER and query.element_size() == 2
    if rows > 32:
        return LatentLaunch(64, 64 if twice else tile, 8, 2, together=True)
    if twice:
        # fp8 keys are unpacked in registers, of which fewer rows have fewer.
        return LatentLaunch(max(16, power_of_2(rows)), 32 * cache_itemsize, 4, 2, together=True)
    return LatentLaunch(16, tile, 4, 2, together=True)


def latent_segments(
    launch: LatentLaunch, programs: int, max_seq_len: int, device: torch.device
) -> int:
    """Into how many segments keys are split; see :func:`rocm_reference.ops.launch.segments_for`.

    A program fills an NVIDIA multiprocessor's memory, so programs are as many as run at a time, or
    twice as many if they have few rows. A result's 512 columns make every segment dear.
    """
    per_processor = 4
    if device.type == "cuda" and torch.version.hip is None:
        per_processor = 1 if launch.block_m > 32 else 2
    return segments_for(programs, max_seq_len, launch.tile, device, per_processor=per_processor)


def for_family(launch: LatentLaunch, family: str) -> LatentLaunch:
    """Adjusts a launch to waves of 32 lanes; RDNA's have 256 registers each, and must not spill.

    Each wave of a program holds all its query rows: 16 rows of 512 columns take 128 registers per
    lane on RDNA4, and twice as many on RDNA3 (see :func:`rocm_reference.ops.launch.is_rdna3`). So
    there the columns are read in chunks, and the accumulator is spread over 16 waves.
    """
    if is_rdna(family) or family == "CDNA5":
        return LatentLaunch(launch.block_m, 16, 16, 2, chunk=64)
    return launch


def heads_per_tile(heads: int, block_m: int) -> int:
    """Heads per program: as few programs as possible, with about the same number of heads each."""
    return math.ceil(heads / math.ceil(heads / block_m))


def check_scores(name: str, scores: Scores) -> None:
    """Checks that a scale and a causal mask are all that is asked for.

    Raises:
        NotImplementedError: ``scores`` has anything else.
    """
    if scores != Scores(scores.scale, causal=scores.causal):
        raise NotImplementedError(
            f"{name} has no window, soft cap, ALiBi, sinks or prefix ranges: got {scores}"
        )


def latent_arguments(cache: torch.Tensor, geometry: Geometry) -> dict[str, Any]:
    """The arguments for a latent cache [N, B, RANK + ROPE], without its strides."""
    rank = geometry.v_head_size
    rope = geometry.head_size - rank
    return {
        "cache_ptr": as_bytes(cache),
        "H": geometry.num_heads,
        "RANK": rank,
        "RANK_PAD": padded(rank),
        "ROPE": rope,
        "ROPE_PAD": padded(rope),
        "FORMAT": format_of(cache.dtype),
    }


@triton.jit
def load_rows(
    query_ptr,
    start,
    block_in_seq,
    query_len,
    head_tile,
    query_token,
    query_head,
    H: tl.constexpr,
    GROUP: tl.constexpr,
    RANK: tl.constexpr,
    RANK_PAD: tl.constexpr,
    ROPE: tl.constexpr,
    ROPE_PAD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """The rows of a query block: ``(token in the sequence, head, exists, latent part, rope part)``.

    A program has ``BLOCK_Q`` tokens of ``GROUP`` heads each, those from ``head_tile * GROUP`` on.
    With ``CHUNK`` > 0 the latent part is pointers [M, 1] instead of values; rows that do not exist
    point to the block's first row.
    """
    token, head, exists = block_rows(block_in_seq, query_len, head_tile, GROUP, BLOCK_Q, BLOCK_M)
    exists = exists & (head < H)
    rows = start + token
    if CHUNK > 0:
        from_token = tl.where(exists, rows, start + block_in_seq * BLOCK_Q).to(tl.int64)
        from_head = tl.where(exists, head, head_tile * GROUP)
        query = query_ptr + (from_token * query_token + from_head * query_head)[:, None]
    else:
        query = load_query(query_ptr, rows, head, exists, query_token, query_head, RANK, RANK_PAD)
    rope = load_query(query_ptr + RANK, rows, head, exists, query_token, query_head, ROPE, ROPE_PAD)
    return token, head, exists, query, rope


@triton.jit
def dot_chunks(
    query_rows,
    key_rows,
    stored,
    DTYPE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    RANK: tl.constexpr,
    RANK_PAD: tl.constexpr,
    TILE: tl.constexpr,
    FORMAT: tl.constexpr,
    CHUNK: tl.constexpr,
    MASKED: tl.constexpr,
):
    """q . k of the latent parts, from pointers to query rows [M, 1] and to keys [TILE, 1].

    ``CHUNK`` columns at a time, so that few of them are in registers."""
    dot = tl.zeros([BLOCK_M, TILE], dtype=tl.float32)
    for first in range(0, RANK_PAD, CHUNK):
        columns = first + tl.arange(0, CHUNK)[None, :]
        query = load_tile(query_rows + columns, True, columns, RANK, RANK_PAD, False)
        key = load_tile(key_rows + columns, stored[:, None], columns, RANK, RANK_PAD, MASKED)
        key = decode(key, DTYPE, FORMAT)
        dot = tl.dot(query, tl.trans(key), dot, input_precision="ieee")
    return dot


@triton.jit
def attend_tiles(
    acc,
    maximum,
    total,
    query,
    query_rope,
    query_pos,
    first,
    last,
    table_ptr,
    cache_ptr,
    cache_block,
    cache_slot,
    scale,
    RANK: tl.constexpr,
    RANK_PAD: tl.constexpr,
    ROPE: tl.constexpr,
    ROPE_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    FORMAT: tl.constexpr,
    CHUNK: tl.constexpr,
    CAUSAL: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Adds keys [first, last) to the state; ``last`` is a multiple of TILE unless ``MASKED``."""
    lanes = tl.arange(0, TILE)
    columns = tl.arange(0, RANK_PAD)[None, :]
    rope_columns = tl.arange(0, ROPE_PAD)[None, :]
    for start in range(first, last, TILE):
        key_pos = start + lanes
        stored = key_pos < last
        block, slot = tile_slots(table_ptr, start, stored, BLOCK_SIZE, TILE, MASKED)
        rows = cache_ptr + (block * cache_block + slot * cache_slot)[:, None]
        latent = load_tile(rows + columns, stored[:, None], columns, RANK, RANK_PAD, MASKED)
        rope = load_tile(
            rows + RANK + rope_columns, stored[:, None], rope_columns, ROPE, ROPE_PAD, MASKED
        )
        latent = decode(latent, query_rope.dtype, FORMAT)
        rope = decode(rope, query_rope.dtype, FORMAT)
        if CHUNK > 0:
            dot = dot_chunks(
                query,
                rows,
                stored,
                query_rope.dtype,
                acc.shape[0],
                RANK,
                RANK_PAD,
                TILE,
                FORMAT,
                CHUNK,
                MASKED,
            )
        else:
            dot = tl.dot(query, tl.trans(latent), input_precision="ieee")
        dot = tl.dot(query_rope, tl.trans(rope), dot, input_precision="ieee")
        logits = make_logits(dot, scale, 0.0, 0, 0, False, 0)
        if MASKED:
            seen = stored[None, :]
            if CAUSAL:
                seen = seen & (key_pos[None, :] <= query_pos[:, None])
            logits = tl.where(seen, logits, float("-inf"))
        acc, maximum, total = update(acc, maximum, total, logits, latent)
    return acc, maximum, total


@triton.jit
def attend_together(
    acc,
    maximum,
    total,
    query,
    query_rope,
    query_pos,
    first,
    full_last,
    last,
    table_ptr,
    cache_ptr,
    cache_block,
    cache_slot,
    scale,
    RANK: tl.constexpr,
    RANK_PAD: tl.constexpr,
    ROPE: tl.constexpr,
    ROPE_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    FORMAT: tl.constexpr,
    CAUSAL: tl.constexpr,
):
    """Adds keys [first, last) in one loop, which masks tiles past ``full_last``: for NVIDIA GPUs.

    Between the two products Triton then sees a branch, and shares the first out among all warps as
    it does the second; of two products in a row it gives each warp whole rows of the first, so that
    warps beyond the rows repeat others' work. Of pages that are less than a tile, a program of many
    rows, which has a processor to itself, looks up the next tile's while it attends one: 128 heads
    over pages of one token take an H200 312 us, else 418. Programs of few rows would take longer:
    two have a processor.
    """
    AHEAD: tl.constexpr = BLOCK_SIZE % TILE != 0 and acc.shape[0] > 32
    if first < last:
        lanes = tl.arange(0, TILE)
        columns = tl.arange(0, RANK_PAD)[None, :]
        rope_columns = tl.arange(0, ROPE_PAD)[None, :]
        if AHEAD:
            key_pos = tl.minimum(first + lanes, last - 1)
            next_block = tl.load(table_ptr + key_pos // BLOCK_SIZE).to(tl.int64)
        for start in range(first, last, TILE):
            # Past the end the last key is read again: loads need no mask, the logits get one.
            key_pos = tl.minimum(start + lanes, last - 1)
            if BLOCK_SIZE % TILE == 0:
                block = tl.load(table_ptr + start // BLOCK_SIZE).to(tl.int64)
            elif AHEAD:
                block = next_block
                next_pos = tl.minimum(start + TILE + lanes, last - 1)
                next_block = tl.load(table_ptr + next_pos // BLOCK_SIZE).to(tl.int64)
            else:
                block = tl.load(table_ptr + key_pos // BLOCK_SIZE).to(tl.int64)
            rows = cache_ptr + (block * cache_block + key_pos % BLOCK_SIZE * cache_slot)[:, None]
            latent = load_tile(rows + columns, True, columns, RANK, RANK_PAD, False)
            rope = load_tile(rows + RANK + rope_columns, True, rope_columns, ROPE, ROPE_PAD, False)
            latent = decode(latent, query_rope.dtype, FORMAT)
            rope = decode(rope, query_rope.dtype, FORMAT)
            dot = tl.dot(query, tl.trans(latent), input_precision="ieee")
            # Scaled apart: summed in one accumulator they would be two products in a row, too.
            logits = make_logits(dot, scale, 0.0, 0, 0, False, 0)
            dot = tl.dot(query_rope, tl.trans(rope), input_precision="ieee")
            logits += make_logits(dot, scale, 0.0, 0, 0, False, 0)
            if start + TILE > full_last:
                seen = (start + lanes < last)[None, :]
                if CAUSAL:
                    seen = seen & (key_pos[None, :] <= query_pos[:, None])
                logits = tl.where(seen, logits, float("-inf"))
            acc, maximum, total = update(acc, maximum, total, logits, latent)
    return acc, maximum, total


@triton.jit
def attend_latent(
    acc,
    maximum,
    total,
    query,
    query_rope,
    query_pos,
    first,
    full_last,
    last,
    table_ptr,
    cache_ptr,
    cache_block,
    cache_slot,
    scale,
    RANK: tl.constexpr,
    RANK_PAD: tl.constexpr,
    ROPE: tl.constexpr,
    ROPE_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    FORMAT: tl.constexpr,
    CHUNK: tl.constexpr,
    CAUSAL: tl.constexpr,
    TOGETHER: tl.constexpr,
):
    """Adds keys [first, last) to the state; those below ``full_last`` are visible to every row.

    ``query`` [M, RANK_PAD] (with ``CHUNK`` > 0 pointers [M, 1], read ``CHUNK`` columns at a time)
    and ``query_rope`` [M, ROPE_PAD] are at positions ``query_pos`` [M]. ``table_ptr`` points to the
    sequence's row of the block table; ``first`` and ``full_last`` are multiples of TILE.
    """
    if TOGETHER:
        acc, maximum, total = attend_together(
            acc,
            maximum,
            total,
            query,
            query_rope,
            query_pos,
            first,
            full_last,
            last,
            table_ptr,
            cache_ptr,
            cache_block,
            cache_slot,
            scale,
            RANK,
            RANK_PAD,
            ROPE,
            ROPE_PAD,
            BLOCK_SIZE,
            TILE,
            FORMAT,
            CAUSAL,
        )
    else:
        for phase in tl.static_range(2):
            acc, maximum, total = attend_tiles(
                acc,
                maximum,
                total,
                query,
                query_rope,
                query_pos,
                first if phase == 0 else tl.maximum(first, full_last),
                tl.minimum(full_last, last) if phase == 0 else last,
                table_ptr,
                cache_ptr,
                cache_block,
                cache_slot,
                scale,
                RANK,
                RANK_PAD,
                ROPE,
                ROPE_PAD,
                BLOCK_SIZE,
                TILE,
                FORMAT,
                CHUNK,
                CAUSAL,
                phase == 1,
            )
    return acc, maximum, total
