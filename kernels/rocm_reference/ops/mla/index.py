"""The indexer of sparse latent attention: which keys each query token attends.

    logit[t, j] = sum over h of weights[t, h] * max(query[t, h] . key[j], 0)

over the keys that the token sees; the ``K`` largest are selected (DeepSeek-V3.2-Exp's lightning
indexer, https://github.com/deepseek-ai/DeepSeek-V3.2-Exp/blob/main/DeepSeek_V3_2.pdf, section 2.1;
https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/ops/rocm_aiter_mla_sparse.py).

An fp8 cache of keys is ``[N, B, D + 4]`` bytes: in each block ``B`` rows of ``D`` values, and then
``B`` float32 scales, one per row. A cache in the keys' dtype is ``[N, B, D]``.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from rocm_reference.attention import Batch, Dispatch, Geometry
from rocm_reference.ops.fp8 import NONE, as_bytes, decode, encode, format_of
from rocm_reference.ops.launch import is_cuda, padded
from rocm_reference.ops.mla.pages import sequence_of
from rocm_reference.ops.tiles import load_tile, slots

# How many logits are in memory at a time: 256 MiB of float32.
LOGITS_AT_ONCE = 64 * 1024 * 1024
# Tiles of keys that a program does with one load of its query.
TILES_PER_PROGRAM = 8
SCALE_BYTES = 4
ROWS = 16  # rows that one program writes
# The largest value of a scaled row, as in vLLM: for FNUZ that is 224, although 240 exists.
PEAKS = {
    torch.float8_e4m3fn: 448.0,
    torch.float8_e4m3fnuz: 224.0,
    torch.float8_e5m2: 57344.0,
}


def allocate_index(num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
    """An uninitialised cache of the indexer's keys, of ``geometry.head_size`` columns."""
    dtype = geometry.cache_dtype
    width = geometry.head_size + (SCALE_BYTES if dtype in PEAKS else 0)
    return torch.empty((num_blocks, geometry.block_size, width), dtype=dtype, device=device)


def _split(cache: torch.Tensor, size: int) -> dict[str, Any]:
    """The kernel arguments for the two parts of a cache: keys and scales. Blocks are contiguous."""
    stored = as_bytes(cache)
    if format_of(cache.dtype) == NONE:
        return {
            "cache_ptr": stored,
            "scales_ptr": stored,
            "cache_block": stored.stride(0),
            "cache_slot": stored.stride(1),
            "scales_block": 0,
            "FORMAT": NONE,
        }
    blocks, slots_in_block, _ = stored.shape
    scales = stored.view(blocks, -1)[:, slots_in_block * size :].view(torch.float32)
    return {
        "cache_ptr": stored,
        "scales_ptr": scales,
        "cache_block": stored.stride(0),
        "cache_slot": size,
        "scales_block": scales.stride(0),
        "FORMAT": format_of(cache.dtype),
    }


@triton.jit(do_not_specialize=["tokens"])
def write_index_kernel(
    rows_ptr,
    slots_ptr,
    cache_ptr,
    scales_ptr,
    tokens,
    row_token,
    cache_block,
    cache_slot,
    scales_block,
    peak,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    FORMAT: tl.constexpr,
):
    """Program (ROWS tokens): scales each row to a maximum of ``peak`` and writes it to its slot."""
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    slot = tl.load(slots_ptr + token, mask=token < tokens, other=-1)
    dims = tl.arange(0, D_PAD)[None, :]
    mask = (slot >= 0)[:, None] & (dims < D)
    at = token.to(tl.int64)[:, None] * row_token + dims
    row = tl.load(rows_ptr + at, mask=mask, other=0)
    block = slot // BLOCK_SIZE
    into = cache_ptr + (block * cache_block + slot % BLOCK_SIZE * cache_slot)[:, None] + dims
    if FORMAT == 0:
        tl.store(into, row.to(cache_ptr.dtype.element_ty), mask=mask)
    else:
        wide = row.to(tl.float32)
        largest = tl.maximum(tl.max(tl.abs(wide), 1), 1e-4)
        scale = tl.div_rn(largest, peak + tl.zeros_like(largest))
        scaled = tl.div_rn(wide, scale[:, None] + tl.zeros_like(wide))
        tl.store(into, encode(scaled, FORMAT), mask=mask)
        tl.store(scales_ptr + block * scales_block + slot % BLOCK_SIZE, scale, mask=slot >= 0)


def write_index(rows: torch.Tensor, cache: torch.Tensor, slot_mapping: torch.Tensor) -> None:
    """Stores keys [T, D] at ``slot_mapping`` (int64 [<= T]); a slot of -1 is skipped."""
    tokens, size = slot_mapping.shape[0], rows.shape[1]
    if tokens == 0:
        return
    write_index_kernel[(-(-tokens // ROWS),)](
        rows,
        slot_mapping,
        tokens=tokens,
        row_token=rows.stride(0),
        peak=PEAKS.get(cache.dtype, 1.0),
        D=size,
        D_PAD=padded(size),
        BLOCK_SIZE=cache.shape[1],
        ROWS=ROWS,
        **_split(cache, size),
    )


@triton.jit(do_not_specialize=["num_seqs", "first_token", "columns"])
def logits_kernel(
    query_ptr,
    weights_ptr,
    cache_ptr,
    scales_ptr,
    logits_ptr,
    table_ptr,
    query_start_ptr,
    seq_lens_ptr,
    num_seqs,
    first_token,
    columns,
    query_token,
    query_head,
    weights_token,
    table_row,
    cache_block,
    cache_slot,
    scales_block,
    H: tl.constexpr,
    H_PAD: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    TILES: tl.constexpr,
    QUERY_FORMAT: tl.constexpr,
    FORMAT: tl.constexpr,
):
    """Program (token from ``first_token`` on, TILES tiles): writes ``logits`` [rows, columns].

    Positions that the token does not see get -inf. Rows of padding are not written.
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
    stored_query = tl.load(
        query_ptr + token * query_token + heads[:, None] * query_head + dims[None, :],
        mask=there[:, None] & (dims < D)[None, :],
        other=0,
    )
    query = stored_query
    if QUERY_FORMAT != 0:
        query = decode(stored_query, tl.float16, QUERY_FORMAT)
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
            if FORMAT != 0:
                scales = scales_ptr + block * scales_block + slot
                summed = summed * tl.load(scales, mask=seen, other=0)
            logits = tl.where(seen, summed, logits)
        tl.store(logits_ptr + row * columns + position, logits, mask=position < columns)


def index_logits(
    query: torch.Tensor,
    weights: torch.Tensor,
    cache: torch.Tensor,
    batch: Batch,
    first_token: int,
    logits: torch.Tensor,
) -> None:
    """Writes ``logits`` (float32 [rows, positions]) of the tokens from ``first_token`` on.

    ``query`` [T, H, D], fp8 or not; ``weights`` float32 [T, H].
    """
    heads, size = query.shape[1:]
    rows, columns = logits.shape
    tile = 64 if is_cuda(query) else 32
    logits_kernel[(rows, -(-columns // (TILES_PER_PROGRAM * tile)))](
        as_bytes(query),
        weights,
        logits_ptr=logits,
        table_ptr=batch.block_table,
        query_start_ptr=batch.query_start_loc,
        seq_lens_ptr=batch.seq_lens,
        num_seqs=batch.seq_lens.shape[0],
        first_token=first_token,
        columns=columns,
        query_token=query.stride(0),
        query_head=query.stride(1),
        weights_token=weights.stride(0),
        table_row=batch.block_table.stride(0),
        H=heads,
        H_PAD=padded(heads),
        D=size,
        D_PAD=padded(size),
        BLOCK_SIZE=cache.shape[1],
        TILE=tile,
        TILES=TILES_PER_PROGRAM,
        QUERY_FORMAT=format_of(query.dtype),
        **_split(cache, size),
        num_warps=4,
        num_stages=1,
    )


def select(
    query: torch.Tensor,
    weights: torch.Tensor,
    cache: torch.Tensor,
    batch: Batch,
    selected: torch.Tensor,
    logits_at_once: int,
) -> Dispatch:
    """See :meth:`rocm_reference.backends.rocm_aiter_mla_sparse.AiterMLASparse.select`."""
    tokens, wanted = selected.shape
    columns = batch.max_seq_len
    taken = min(wanted, columns)
    rows_at_once = max(logits_at_once // max(columns, 1), 1)
    is_used = torch.arange(tokens, device=query.device) < batch.query_start_loc[-1]
    for first in range(0, tokens, rows_at_once):
        rows = selected[first : first + rows_at_once]
        found = torch.full_like(rows, -1)
        if taken:
            logits = torch.empty((len(rows), columns), dtype=torch.float32, device=query.device)
            index_logits(query, weights, cache, batch, first, logits)
            values, positions = logits.topk(taken, dim=1, sorted=False)
            found[:, :taken] = torch.where(values > float("-inf"), positions, -1)
        used = is_used[first : first + len(rows), None]
        rows.copy_(torch.where(used, found, rows))
    return ("index_logits", "topk")
