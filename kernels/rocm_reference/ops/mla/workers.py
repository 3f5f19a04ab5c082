"""Absorbed latent attention over pages of one token, by as many programs as run at a time.

The work is a list of (query block, tile of heads, tile of keys) in that order, cut into equal
shares. Each program takes one share, whichever sequences that spans; blocks that were cut are
combined afterwards (Stream-K, https://arxiv.org/abs/2301.03598). aiter plans its MLA decode on the
device in a similar way
(https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/backends/mla/rocm_aiter_mla.py).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rocm_reference.attention import Dispatch, Geometry, Scales, Scores
from rocm_reference.ops.combine import STATE, store_partial, store_row, take_partials
from rocm_reference.ops.launch import Launch, processors, run_kernel
from rocm_reference.ops.mla.common import (
    attend_latent,
    choose_latent,
    heads_per_tile,
    latent_arguments,
    load_rows,
)
from rocm_reference.ops.mla.pages import Pages
from rocm_reference.ops.rows import find_sequence, load_per_head, store_output
from rocm_reference.ops.scores import result_arguments
from rocm_reference.ops.softmax import finish, key_ranges, start_state


@triton.jit
def block_keys(
    query_start_ptr,
    lens_ptr,
    num_seqs,
    block,
    BLOCK_Q: tl.constexpr,
    TILE: tl.constexpr,
    CAUSAL: tl.constexpr,
):
    """``(sequence, its first row, its query length, block in it, full_last, last)`` of a block."""
    seq = find_sequence(query_start_ptr, block, num_seqs, BLOCK_Q)
    start = tl.load(query_start_ptr + seq)
    query_len = tl.load(query_start_ptr + seq + 1) - start
    block_in_seq = block - (start // BLOCK_Q + seq)
    num_keys = tl.load(lens_ptr + seq)
    context = num_keys - query_len
    _, _, full_last, last = key_ranges(
        context + block_in_seq * BLOCK_Q,
        context + tl.minimum((block_in_seq + 1) * BLOCK_Q, query_len) - 1,
        num_keys,
        -1,
        -1,
        CAUSAL,
        False,
        False,
        0,
        TILE,
    )
    return seq, start, query_len, block_in_seq, full_last, last


@triton.jit(do_not_specialize=["num_seqs"])
def plan_kernel(
    query_start_ptr,
    lens_ptr,
    counts_ptr,
    num_seqs,
    HEAD_TILES: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    TILE: tl.constexpr,
    CAUSAL: tl.constexpr,
):
    """Program (query block): counts its tiles of keys, for each tile of heads.

    A block whose rows see no key counts as one tile, so that a program writes its zeros.
    """
    block = tl.program_id(0)
    _, _, query_len, block_in_seq, _, last = block_keys(
        query_start_ptr, lens_ptr, num_seqs, block, BLOCK_Q, TILE, CAUSAL
    )
    count = tl.maximum(tl.cdiv(last, TILE), 1)
    count = tl.where(block_in_seq * BLOCK_Q < query_len, count, 0)
    for head_tile in range(HEAD_TILES):
        tl.store(counts_ptr + block * HEAD_TILES + head_tile, count)


@triton.jit
def find_item(ends_ptr, unit, num_items):
    """The item that tile ``unit`` of the list belongs to: binary search in ``ends``."""
    low = 0
    high = num_items - 1
    while low < high:
        middle = (low + high) // 2
        if tl.load(ends_ptr + middle) > unit:
            high = middle
        else:
            low = middle + 1
    return low


@triton.jit
def share_of(worker, ends_ptr, num_items, num_workers):
    """``(first, last)`` of a worker's tiles, and how many a whole share has."""
    units = tl.load(ends_ptr + num_items - 1)
    share = tl.cdiv(units, num_workers)
    first = worker.to(tl.int64) * share
    return first, tl.minimum(first + share, units), share


@triton.jit(do_not_specialize=["num_seqs", "num_items"])
def worker_kernel(
    query_ptr,
    cache_ptr,
    out_ptr,
    lse_ptr,
    partial_ptr,
    cut_ptr,
    indices_ptr,
    pages_start_ptr,
    lens_ptr,
    query_start_ptr,
    ends_ptr,
    sinks_ptr,
    num_seqs,
    num_items,
    scale,
    value_scale,
    query_token,
    query_head,
    page_stride,
    out_token,
    out_head,
    lse_token,
    lse_head,
    H: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_TILES: tl.constexpr,
    RANK: tl.constexpr,
    RANK_PAD: tl.constexpr,
    ROPE: tl.constexpr,
    ROPE_PAD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    TILE: tl.constexpr,
    FORMAT: tl.constexpr,
    CHUNK: tl.constexpr,
    TOGETHER: tl.constexpr,
    CAUSAL: tl.constexpr,
    SINKS: tl.constexpr,
):
    """Program (worker): tiles [first, last) of the list, an item (block, tile of heads) at a time.

    Items that lie within the share are finished here. The state of one that was cut goes to
    ``partial`` [2 * workers, BLOCK_M, RANK + STATE]: to slot ``2 * worker`` if the item began in an
    earlier share, to the next slot if it begins in this one. At most one item begins here and ends
    later; ``cut`` [workers] has its number, or -1.
    """
    worker = tl.program_id(0)
    begin, end, _ = share_of(worker, ends_ptr, num_items, tl.num_programs(0))
    cut = -1
    item = find_item(ends_ptr, begin, num_items)
    while begin < end:
        block = item // HEAD_TILES
        head_tile = item % HEAD_TILES
        item_begin = tl.load(ends_ptr + item - 1, mask=item > 0, other=0)
        item_end = tl.load(ends_ptr + item)
        stop = tl.minimum(end, item_end)
        if begin < stop:
            seq, start, query_len, block_in_seq, full_last, last = block_keys(
                query_start_ptr, lens_ptr, num_seqs, block, BLOCK_Q, TILE, CAUSAL
            )
            token, head, exists, query, query_rope = load_rows(
                query_ptr,
                start,
                block_in_seq,
                query_len,
                head_tile,
                query_token,
                query_head,
                H,
                GROUP,
                RANK,
                RANK_PAD,
                ROPE,
                ROPE_PAD,
                BLOCK_M,
                BLOCK_Q,
                CHUNK,
            )
            first_key = (begin - item_begin).to(tl.int32) * TILE
            last_key = tl.minimum((stop - item_begin).to(tl.int32) * TILE, last)
            acc, maximum, total = start_state(BLOCK_M, RANK_PAD)
            acc, maximum, total = attend_latent(
                acc,
                maximum,
                total,
                query,
                query_rope,
                tl.load(lens_ptr + seq) - query_len + token,
                first_key,
                tl.minimum(full_last, last_key) // TILE * TILE,
                last_key,
                indices_ptr + tl.load(pages_start_ptr + seq),
                cache_ptr,
                page_stride,
                0,
                scale,
                RANK,
                RANK_PAD,
                ROPE,
                ROPE_PAD,
                1,
                TILE,
                FORMAT,
                CHUNK,
                CAUSAL,
                TOGETHER,
            )
            if (begin == item_begin) & (stop == item_end):
                sinks = load_per_head(sinks_ptr, head, exists, SINKS)
                output, lse = finish(acc, maximum, total, sinks, SINKS)
                output = output * value_scale
                row = start + token
                store_output(
                    out_ptr, output, row, head, exists, out_token, out_head, RANK, RANK_PAD
                )
                if lse_ptr is not None:
                    tl.store(lse_ptr + row * lse_token + head * lse_head, lse, mask=exists)
            else:
                slot = 2 * worker
                if begin == item_begin:
                    slot += 1
                    cut = item
                row = slot * BLOCK_M + tl.arange(0, BLOCK_M)
                store_partial(partial_ptr, acc, maximum, total, row, row >= 0, RANK, RANK_PAD)
        begin = tl.maximum(begin, stop)
        item += 1
    tl.store(cut_ptr + worker, cut)


@triton.jit(do_not_specialize=["num_seqs", "num_items", "num_workers"])
def combine_cut_kernel(
    partial_ptr,
    cut_ptr,
    out_ptr,
    lse_ptr,
    query_start_ptr,
    ends_ptr,
    sinks_ptr,
    num_seqs,
    num_items,
    num_workers,
    value_scale,
    out_token,
    out_head,
    lse_token,
    lse_head,
    H: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_TILES: tl.constexpr,
    RANK: tl.constexpr,
    RANK_PAD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    CHUNK: tl.constexpr,
    SINKS: tl.constexpr,
):
    """Program (worker, row): finishes the item that begins in its share and ends past it."""
    worker = tl.program_id(0)
    row = tl.program_id(1)
    item = tl.load(cut_ptr + worker)
    if (item < 0) | (row >= BLOCK_Q * GROUP):
        return
    block = item // HEAD_TILES
    seq = find_sequence(query_start_ptr, block, num_seqs, BLOCK_Q)
    start = tl.load(query_start_ptr + seq)
    token = (block - (start // BLOCK_Q + seq)) * BLOCK_Q + row // GROUP
    head = item % HEAD_TILES * GROUP + row % GROUP
    query_len = tl.load(query_start_ptr + seq + 1) - start
    if (token >= query_len) | (head >= H):
        return
    _, _, share = share_of(worker, ends_ptr, num_items, num_workers)
    acc = tl.zeros([RANK_PAD], dtype=tl.float32)
    maximum = tl.full([1], float("-inf"), dtype=tl.float32)
    total = tl.zeros([1], dtype=tl.float32)
    workers = tl.cdiv(tl.load(ends_ptr + item), share).to(tl.int32) - worker
    for first in range(0, workers, CHUNK):
        after = first + tl.arange(0, CHUNK)
        slot = 2 * (worker + after) + (after == 0).to(tl.int32)
        acc, maximum, total = take_partials(
            acc,
            maximum,
            total,
            partial_ptr,
            slot * BLOCK_M + row,
            after < workers,
            RANK,
            RANK_PAD,
        )
    sinks = tl.zeros([1], dtype=tl.float32)
    if SINKS:
        sinks += tl.load(sinks_ptr + head).to(tl.float32)
    output, lse = finish(acc[None, :], maximum, total, sinks, SINKS)
    token = (start + token).to(tl.int64)
    store_row(output * value_scale, out_ptr + token * out_token + head * out_head, RANK, RANK_PAD)
    if lse_ptr is not None:
        tl.store(lse_ptr + token * lse_token + head * lse_head + tl.arange(0, 1), lse)


def attend_pages(
    query: torch.Tensor,
    cache: torch.Tensor,
    pages: Pages,
    query_start_loc: torch.Tensor,
    max_query_len: int,
    geometry: Geometry,
    scores: Scores,
    scales: Scales,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    workers: int | None = None,
) -> Dispatch:
    """Every query token attends its sequence's pages; see ``PagedBackend.attend``.

    ``query_start_loc``: int32 [S+1]. ``workers``: programs that share the work; None: as many as
    run at a time.
    """
    sequences = pages.lens.shape[0]
    heads = geometry.num_heads
    launch = choose_latent(query, heads, max_query_len, cache.dtype.itemsize)
    group = heads_per_tile(heads, launch.block_m)
    block_q = launch.block_q(group)
    head_tiles = -(-heads // group)
    blocks = query.shape[0] // block_q + sequences
    workers = workers or _workers(launch, query.device)
    counts = torch.empty(blocks * head_tiles, dtype=torch.int32, device=query.device)
    shape: dict[str, int] = {"HEAD_TILES": head_tiles, "BLOCK_Q": block_q}
    plan_kernel[(blocks,)](
        query_start_loc,
        pages.lens,
        counts,
        sequences,
        TILE=launch.tile,
        CAUSAL=scores.causal,
        **shape,
    )
    ends = counts.cumsum(0)
    columns = geometry.v_head_size + STATE.value
    partial = torch.empty((2 * workers, launch.block_m, columns), device=query.device)
    cut = torch.empty(workers, dtype=torch.int32, device=query.device)
    latent = latent_arguments(cache, geometry)
    results = result_arguments(scores, scales.k, out, lse)
    shape |= {"GROUP": group, "BLOCK_M": launch.block_m}
    run_kernel(
        worker_kernel,
        (workers,),
        launch,
        query_ptr=query,
        partial_ptr=partial,
        cut_ptr=cut,
        indices_ptr=pages.indices,
        pages_start_ptr=pages.start,
        lens_ptr=pages.lens,
        query_start_ptr=query_start_loc,
        ends_ptr=ends,
        num_seqs=sequences,
        num_items=len(counts),
        scale=scores.scale * scales.k,
        query_token=query.stride(0),
        query_head=query.stride(1),
        page_stride=pages.stride,
        TILE=launch.tile,
        CHUNK=launch.chunk,
        TOGETHER=launch.together,
        CAUSAL=scores.causal,
        **shape,
        **latent,
        **results,
    )
    run_kernel(
        combine_cut_kernel,
        (workers, launch.block_m),
        partial_ptr=partial,
        cut_ptr=cut,
        query_start_ptr=query_start_loc,
        ends_ptr=ends,
        num_seqs=sequences,
        num_items=len(counts),
        num_workers=workers,
        H=heads,
        RANK=latent["RANK"],
        RANK_PAD=latent["RANK_PAD"],
        CHUNK=16,
        **shape,
        **results,
    )
    return ("plan_work", "latent_worker", "combine_cut")


def _workers(launch: Launch, device: torch.device) -> int:
    """How many programs run at a time: one of 64 rows, or two of 16, per processor."""
    return processors(device) * (1 if launch.block_m > 16 else 2)
