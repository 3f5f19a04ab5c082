"""A sequence's keys as pages of one token: all of them, or those that were selected.

aiter's MLA decode takes page numbers instead of block tables
(https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/backends/mla/rocm_aiter_mla.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from rocm_reference.attention import Batch, Geometry


@dataclass(frozen=True)
class Pages:
    """The keys of each sequence, in order, as pages of one token.

    ``indices``: int64, page numbers in steps of ``stride`` elements of the cache; ``start``: int64
    [S], where a sequence's pages begin in ``indices``; ``lens``: int32 [S], how many it has.
    """

    indices: torch.Tensor
    start: torch.Tensor
    lens: torch.Tensor
    stride: int


def page_stride(cache: torch.Tensor) -> int:
    """The unit of page numbers, in elements: the size of a slot if blocks are contiguous."""
    return math.gcd(cache.stride(0), cache.stride(1))


@triton.jit
def expand_kernel(
    table_ptr,
    seq_lens_ptr,
    start_ptr,
    indices_ptr,
    table_row,
    block_pages,
    slot_pages,
    BLOCK_SIZE: tl.constexpr,
    STEP: tl.constexpr,
):
    """Program (sequence, STEP positions): turns block table entries into page numbers."""
    seq = tl.program_id(0).to(tl.int64)
    position = tl.program_id(1) * STEP + tl.arange(0, STEP)
    mask = position < tl.load(seq_lens_ptr + seq)
    block = tl.load(table_ptr + seq * table_row + position // BLOCK_SIZE, mask=mask, other=0)
    page = block.to(tl.int64) * block_pages + position % BLOCK_SIZE * slot_pages
    tl.store(indices_ptr + tl.load(start_ptr + seq) + position, page, mask=mask)


def expand_block_table(cache: torch.Tensor, batch: Batch, geometry: Geometry) -> Pages:
    """The pages of every slot that a sequence's length covers."""
    sequences, step = batch.seq_lens.shape[0], 1024
    lens = batch.seq_lens
    start = lens.cumsum(0) - lens
    indices = torch.empty(sequences * batch.max_seq_len, dtype=torch.int64, device=lens.device)
    stride = page_stride(cache)
    expand_kernel[(sequences, max(-(-batch.max_seq_len // step), 1))](
        batch.block_table,
        lens,
        start,
        indices,
        batch.block_table.stride(0),
        cache.stride(0) // stride,
        cache.stride(1) // stride,
        BLOCK_SIZE=geometry.block_size,
        STEP=step,
    )
    return Pages(indices, start, lens, stride)


@triton.jit
def sequence_of(query_start_ptr, token, num_seqs):
    """The sequence of a token: the last one that starts at or before it. Binary search."""
    low = 0
    high = num_seqs
    while high - low > 1:
        middle = (low + high) // 2
        if tl.load(query_start_ptr + middle) <= token:
            low = middle
        else:
            high = middle
    return low


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
    """Program (token): turns its positions into page numbers [T, K], without gaps.

    Positions of -1 and positions past the sequence's length are dropped. A row of padding gets no
    pages.
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
    """The pages of selected positions (int32 [T, K], -1: none), a list for each token."""
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
