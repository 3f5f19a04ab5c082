"""The query rows of a program: its tokens times the query heads of one KV head."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def find_sequence(query_start_ptr, block, num_seqs, block_q):
    """The sequence that query block ``block`` belongs to.

    Sequence ``s`` owns the blocks from ``query_start[s] // block_q + s`` on. These are at least as
    many as its tokens need, so the host does not have to know the lengths. Binary search.
    """
    low = 0
    high = num_seqs
    while high - low > 1:
        middle = (low + high) // 2
        if tl.load(query_start_ptr + middle) // block_q + middle <= block:
            low = middle
        else:
            high = middle
    return low


@triton.jit
def block_rows(
    block_in_seq,
    query_len,
    kv_head,
    group,
    block_q,
    BLOCK_M: tl.constexpr,
):
    """``(token in the sequence [M], query head [M], whether the row exists [M])``."""
    row = tl.arange(0, BLOCK_M)
    token = block_in_seq * block_q + row // group
    exists = (row < block_q * group) & (token < query_len)
    return token, kv_head * group + row % group, exists


@triton.jit
def load_query(
    query_ptr,
    token,
    head,
    exists,
    query_token,
    query_head,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
):
    """Query rows [M, D_PAD]; rows and columns that do not exist are zero."""
    dims = tl.arange(0, D_PAD)
    pointers = query_ptr + (token.to(tl.int64) * query_token + head * query_head)[:, None] + dims
    return tl.load(pointers, mask=exists[:, None] & (dims < D)[None, :], other=0)


@triton.jit
def load_per_head(pointer, head, exists, WANTED: tl.constexpr):
    """One float32 per query head (slopes, sinks); zeros unless ``WANTED``."""
    if WANTED:
        return tl.load(pointer + head, mask=exists, other=0).to(tl.float32)
    return tl.zeros(head.shape, dtype=tl.float32)


@triton.jit
def store_output(
    out_ptr,
    output,
    token,
    head,
    exists,
    out_token,
    out_head,
    V: tl.constexpr,
    V_PAD: tl.constexpr,
):
    """Writes the rows that exist, rounded to the output's dtype."""
    columns = tl.arange(0, V_PAD)
    pointers = out_ptr + (token.to(tl.int64) * out_token + head * out_head)[:, None] + columns
    mask = exists[:, None] & (columns < V)[None, :]
    tl.store(pointers, output.to(out_ptr.dtype.element_ty), mask=mask)
