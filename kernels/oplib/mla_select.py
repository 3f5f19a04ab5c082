"""The indexer of sparse latent attention: which keys each query token attends.

    logit[t, j] = scale * sum over h of weights[t, h] * max(query[t, h] . key[j], 0)

over the keys that the token sees; the ``K`` largest are selected (DeepSeek-V3.2-Exp's lightning
indexer, https://github.com/deepseek-ai/DeepSeek-V3.2-Exp/blob/main/DeepSeek_V3_2.pdf, section 2.1;
https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/ops/rocm_aiter_mla_sparse.py).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.attention import Batch, Dispatch
from kernels.oplib.fp8 import as_bytes, decode, format_of
from kernels.oplib.launch import is_cuda, padded
from kernels.oplib.mla_pages import Pages, page_stride
from kernels.oplib.tiles import load_tile, slots

# Logits in memory at a time: 256 MiB of float32.
LOGITS_AT_ONCE = 64 * 1024 * 1024
# Tiles of keys for which a program keeps its query.
TILES_PER_PROGRAM = 8


@triton.jit
def sequence_of(query_start_ptr, token, num_seqs):
    """The sequence of a token: the last that starts at it or before. Binary search."""
    low = 0
    high = num_seqs
    while high - low > 1:
        middle = (low + high) // 2
        if tl.load(query_start_ptr + middle) <= token:
            low = middle
        else:
            high = middle
    return low


@triton.jit(do_not_specialize=["num_seqs", "first_token", "columns"])
def logits_kernel(
    query_ptr,
    weights_ptr,
    cache_ptr,
    logits_ptr,
    table_ptr,
    query_start_ptr,
    seq_lens_ptr,
    num_seqs,
    first_token,
    columns,
    scale,
    query_token,
    query_head,
    weights_token,
    table_row,
    cache_block,
    cache_slot,
    H: tl.constexpr,
    H_PAD: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    TILES: tl.constexpr,
    FORMAT: tl.constexpr,
):
    """Program (token from ``first_token`` on, TILES tiles of keys): ``logits`` [rows, columns].

    A position that the token does not see gets -inf. Rows of padding are left alone.
    """
    row = tl.program_id(0).to(tl.int64)
    token = first_token + row
    if token >= tl.load(query_start_ptr + num_seqs):
        return
    seq = sequence_of(query_start_ptr, token, num_seqs)
    after = tl.load(query_start_ptr + seq + 1) - token.to(tl.int32)
    num_keys = tl.load(seq_lens_ptr + seq) - after + 1
    heads = tl.arange(0, H_PAD)
    dims = tl.arange(0, D_PAD)
    there = heads < H
    query = tl.load(
        query_ptr + token * query_token + heads[:, None] * query_head + dims[None, :],
        mask=there[:, None] & (dims < D)[None, :],
        other=0,
    )
    weights = tl.load(weights_ptr + token * weights_token + heads, mask=there, other=0)
    begin = tl.program_id(1) * (TILES * TILE)
    for first in range(begin, tl.minimum(begin + TILES * TILE, columns), TILE):
        position = first + tl.arange(0, TILE)
        seen = position < num_keys
        logits = tl.full([TILE], float("-inf"), dtype=tl.float32)
        if first < num_keys:
            table = table_ptr + seq.to(tl.int64) * table_row
            block, slot = slots(table, position, seen, BLOCK_SIZE, True)
            keys = cache_ptr + (block * cache_block + slot * cache_slot)[:, None] + dims[None, :]
            stored = load_tile(keys, seen[:, None], dims[None, :], D, D_PAD, True)
            key = decode(stored, query.dtype, FORMAT)
            dot = tl.dot(query, tl.trans(key), input_precision="ieee")
            summed = tl.sum(tl.maximum(dot, 0.0) * weights[:, None].to(tl.float32), 0)
            logits = tl.where(seen, summed * scale, logits)
        tl.store(logits_ptr + row * columns + position, logits, mask=position < columns)


def index_logits(
    query: torch.Tensor,
    weights: torch.Tensor,
    cache: torch.Tensor,
    batch: Batch,
    scale: float,
    first_token: int,
    logits: torch.Tensor,
) -> None:
    """Logits of the tokens from ``first_token`` on into ``logits`` (float32 [rows, positions]).

    ``query`` [T, H, D], ``weights`` float32 [T, H], ``cache`` [N, B, D], in the query's dtype or in
    fp8; its values are multiplied by ``scale``.
    """
    heads, size = query.shape[1:]
    rows, columns = logits.shape
    tile = 64 if is_cuda(query) else 32
    grid = (rows, triton.cdiv(columns, TILES_PER_PROGRAM * tile))
    logits_kernel[grid](
        query,
        weights,
        as_bytes(cache),
        logits,
        batch.block_table,
        batch.query_start_loc,
        batch.seq_lens,
        batch.seq_lens.shape[0],
        first_token,
        columns,
        scale,
        query.stride(0),
        query.stride(1),
        weights.stride(0),
        batch.block_table.stride(0),
        cache.stride(0),
        cache.stride(1),
        H=heads,
        H_PAD=padded(heads),
        D=size,
        D_PAD=padded(size),
        BLOCK_SIZE=cache.shape[1],
        TILE=tile,
        TILES=TILES_PER_PROGRAM,
        FORMAT=format_of(cache.dtype),
        num_warps=4,
        num_stages=1,
    )


def select(
    query: torch.Tensor,
    weights: torch.Tensor,
    cache: torch.Tensor,
    batch: Batch,
    scale: float,
    selected: torch.Tensor,
    logits_at_once: int = LOGITS_AT_ONCE,
) -> Dispatch:
    """The positions of the largest logits into ``selected`` (int32 [T, K]); -1: there are fewer.

    Rows of padding are left alone; the order in a row is not defined. Arguments as for
    :func:`index_logits`; ``logits_at_once``: how many logits may be in memory.
    """
    tokens, wanted = selected.shape
    columns = batch.max_seq_len
    taken = min(wanted, columns)
    rows_at_once = max(logits_at_once // max(columns, 1), 1)
    used = batch.query_start_loc[-1]
    for first in range(0, tokens, rows_at_once):
        rows = selected[first : first + rows_at_once]
        logits = torch.empty((len(rows), columns), dtype=torch.float32, device=query.device)
        index_logits(query, weights, cache, batch, scale, first, logits)
        values, positions = logits.topk(taken, dim=1, sorted=False)
        found = torch.full_like(rows, -1)
        found[:, :taken] = torch.where(values > float("-inf"), positions, -1)
        is_used = torch.arange(first, first + len(rows), device=query.device) < used
        rows.copy_(torch.where(is_used[:, None], found, rows))
    return ("index_logits", "topk")


@triton.jit(do_not_specialize=["num_seqs"])
def translate_kernel(
    selected_ptr,
    table_ptr,
    query_start_ptr,
    seq_lens_ptr,
    pages_ptr,
    counts_ptr,
    num_seqs,
    selected_token,
    table_row,
    block_pages,
    slot_pages,
    K: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    STEP: tl.constexpr,
):
    """Program (token): its positions to page numbers [T, K], those that are left out closed up.

    Left out are -1 and what the sequence's length does not cover. A row of padding has none.
    """
    token = tl.program_id(0).to(tl.int64)
    count = 0
    if token < tl.load(query_start_ptr + num_seqs):
        seq = sequence_of(query_start_ptr, token, num_seqs)
        seq_len = tl.load(seq_lens_ptr + seq)
        for first in range(0, K, STEP):
            lanes = first + tl.arange(0, STEP)
            entries = selected_ptr + token * selected_token + lanes
            position = tl.load(entries, mask=lanes < K, other=-1)
            valid = (position >= 0) & (position < seq_len)
            entry = table_ptr + seq.to(tl.int64) * table_row + position // BLOCK_SIZE
            block = tl.load(entry, mask=valid, other=0).to(tl.int64)
            page = block * block_pages + position % BLOCK_SIZE * slot_pages
            place = count + tl.cumsum(valid.to(tl.int32), 0) - 1
            tl.store(pages_ptr + token * K + place, page, mask=valid)
            count += tl.sum(valid.to(tl.int32), 0)
    tl.store(counts_ptr + token, count)


def translate(selected: torch.Tensor, cache: torch.Tensor, batch: Batch, block_size: int) -> Pages:
    """Positions in the token's sequence (int32 [T, K], -1: none) as pages, a list per token."""
    tokens, wanted = selected.shape
    device = selected.device
    indices = torch.empty(tokens * wanted, dtype=torch.int64, device=device)
    counts = torch.empty(tokens, dtype=torch.int32, device=device)
    stride = page_stride(cache)
    translate_kernel[(tokens,)](
        selected,
        batch.block_table,
        batch.query_start_loc,
        batch.seq_lens,
        indices,
        counts,
        batch.seq_lens.shape[0],
        selected.stride(0),
        batch.block_table.stride(0),
        cache.stride(0) // stride,
        cache.stride(1) // stride,
        K=wanted,
        BLOCK_SIZE=block_size,
        STEP=256,
    )
    start = torch.arange(tokens, dtype=torch.int64, device=device) * wanted
    return Pages(indices, start, counts, stride)
