"""Writes keys and values to paged caches, and gathers part of a context from them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rocm_reference.attention import Batch, Dispatch, Geometry, Scales
from rocm_reference.ops.fp8 import as_bytes, decode, encode, format_of
from rocm_reference.ops.launch import padded

ELEMENTS = 4096  # that one program moves: 32 for each lane of four 32-lane waves


@triton.jit(do_not_specialize=["tokens"])
def write_kernel(
    rows_ptr,
    cache_ptr,
    slots_ptr,
    tokens,
    scale,
    row_token,
    row_head,
    cache_block,
    cache_head,
    cache_slot,
    cache_dim,
    cache_dim_in_pack,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    PACK: tl.constexpr,
    FORMAT: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Program (tokens, KV head): writes rows to their slots; rows with a negative slot are skipped.

    Element ``d`` of a slot is at ``d // PACK * cache_dim + d % PACK * cache_dim_in_pack``.
    """
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    head = tl.program_id(1)
    slot = tl.load(slots_ptr + token, mask=token < tokens, other=-1)
    dims = tl.arange(0, D_PAD)
    mask = (slot >= 0)[:, None] & (dims < D)[None, :]
    at = token.to(tl.int64)[:, None] * row_token + head * row_head + dims[None, :]
    row = tl.load(rows_ptr + at, mask=mask, other=0)
    into = slot // BLOCK_SIZE * cache_block + slot % BLOCK_SIZE * cache_slot + head * cache_head
    within = dims // PACK * cache_dim + dims % PACK * cache_dim_in_pack
    pointers = cache_ptr + into[:, None] + within[None, :]
    if FORMAT == 0:
        tl.store(pointers, row.to(cache_ptr.dtype.element_ty), mask=mask)
    else:
        # IEEE division: the fast one may be off by an ulp, enough to change how some values
        # round to fp8.
        quotient = tl.div_rn(row.to(tl.float32), scale)
        tl.store(pointers, encode(quotient, FORMAT), mask=mask)


def write_rows(
    rows: torch.Tensor,
    cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    scale: float,
    geometry: Geometry,
) -> None:
    """Stores ``rows`` [T, G, D] in ``cache``, a view [N, G, D, B] or, packed, [N, G, D/X, B, X].

    ``slot_mapping``: int64 [<= T]; rows past its end and those with -1 are skipped.
    """
    tokens = slot_mapping.shape[0]
    if tokens == 0:
        return
    packed = cache.dim() == 5
    stored = as_bytes(cache)
    _, heads, size = rows.shape
    at_once = _tokens_at_once(size)
    write_kernel[(-(-tokens // at_once), heads)](
        rows,
        stored,
        slot_mapping,
        tokens,
        scale,
        rows.stride(0),
        rows.stride(1),
        stored.stride(0),
        stored.stride(1),
        stored.stride(3),
        stored.stride(2),
        stored.stride(4) if packed else 0,
        D=size,
        D_PAD=padded(size),
        BLOCK_SIZE=geometry.block_size,
        PACK=cache.shape[4] if packed else 1,
        FORMAT=format_of(cache.dtype),
        TOKENS=at_once,
    )


@triton.jit(do_not_specialize=["first", "chunk"])
def gather_kernel(
    cache_ptr,
    rows_ptr,
    table_ptr,
    seq_lens_ptr,
    query_start_ptr,
    first,
    chunk,
    scale,
    table_row,
    cache_block,
    cache_head,
    cache_slot,
    cache_dim,
    row_seq,
    row_token,
    row_head,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    PACK: tl.constexpr,
    FORMAT: tl.constexpr,
    TOKENS: tl.constexpr,
    SKIP_DECODES: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Program (rows, KV head, sequence): copies context slots, dequantised, to dense rows.

    With ``WHOLE`` those of the query tokens follow. Element ``d`` of a slot is at
    ``d // PACK * cache_dim + d % PACK``.
    """
    row = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    head = tl.program_id(1)
    seq = tl.program_id(2)
    query_len = tl.load(query_start_ptr + seq + 1) - tl.load(query_start_ptr + seq)
    stored_keys = tl.load(seq_lens_ptr + seq)
    if not WHOLE:
        stored_keys -= query_len
    position = first + row
    if SKIP_DECODES and query_len == 1:
        return
    wanted = (row < chunk) & (position < stored_keys)
    table = table_ptr + seq.to(tl.int64) * table_row
    block = tl.load(table + position // BLOCK_SIZE, mask=wanted, other=0).to(tl.int64)
    dims = tl.arange(0, D_PAD)
    mask = wanted[:, None] & (dims < D)[None, :]
    at = block * cache_block + position % BLOCK_SIZE * cache_slot + head * cache_head
    within = dims * cache_dim
    if PACK > 1:
        within = dims // PACK * cache_dim + dims % PACK
    stored = tl.load(cache_ptr + at[:, None] + within[None, :], mask=mask, other=0)
    value = decode(stored, tl.float32, FORMAT)
    if FORMAT != 0:
        value = value * scale
    into = seq.to(tl.int64) * row_seq + row.to(tl.int64) * row_token + head * row_head
    rounded = value.to(rows_ptr.dtype.element_ty)
    tl.store(rows_ptr + into[:, None] + dims[None, :], rounded, mask=mask)


def gather_context(
    cache: torch.Tensor,
    rows: torch.Tensor,
    batch: Batch,
    first: int,
    scale: float,
    geometry: Geometry,
    *,
    skip_decodes: bool = False,
    whole: bool = False,
) -> None:
    """Copies each sequence's context keys (or values) from position ``first`` on to ``rows``.

    With ``whole`` the query tokens' own are copied behind them.

    ``cache``: a view [N, G, D, B] or, packed, [N, G, D/X, B, X]; ``rows``: [S, chunk, G, D] in the
    layer's dtype. Rows past a sequence's context are not written, nor with ``skip_decodes`` those
    of sequences of one query token.
    """
    sequences, chunk, heads, size = rows.shape
    stored = as_bytes(cache)
    at_once = _tokens_at_once(size)
    gather_kernel[(-(-chunk // at_once), heads, sequences)](
        stored,
        rows,
        batch.block_table,
        batch.seq_lens,
        batch.query_start_loc,
        first,
        chunk,
        scale,
        batch.block_table.stride(0),
        stored.stride(0),
        stored.stride(1),
        stored.stride(3),
        stored.stride(2),
        rows.stride(0),
        rows.stride(1),
        rows.stride(2),
        D=size,
        D_PAD=padded(size),
        BLOCK_SIZE=geometry.block_size,
        PACK=cache.shape[4] if cache.dim() == 5 else 1,
        FORMAT=format_of(cache.dtype),
        TOKENS=at_once,
        SKIP_DECODES=skip_decodes,
        WHOLE=whole,
    )


def _tokens_at_once(size: int) -> int:
    return ELEMENTS // padded(size)


def write_both(
    key: torch.Tensor,
    value: torch.Tensor,
    views: tuple[torch.Tensor, torch.Tensor],
    slot_mapping: torch.Tensor,
    geometry: Geometry,
    scales: Scales,
) -> Dispatch:
    """Writes keys and values to the two views of a cache."""
    key_cache, value_cache = views
    write_rows(key, key_cache, slot_mapping, scales.k, geometry)
    write_rows(value, value_cache, slot_mapping, scales.v, geometry)
    return ("cache_write",)


def key_and_value_views(cache: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Views [N, G, D, B] of a cache with keys at index 0 and values at index 1 of ``dim``."""
    keys, values = cache.permute(dim, 1 - dim, 3, 4, 2).unbind()
    return keys, values


class HalvedCache:
    """Base of backends that cache keys and values alike, as ``[N, B, G, D]`` each.

    In the cache keys are at index 0 and values at index 1 of dimension ``_halves``.
    """

    _halves = 0

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        shape = [num_blocks, geometry.block_size, geometry.num_kv_heads, geometry.head_size]
        shape.insert(self._halves, 2)
        return torch.empty(shape, dtype=geometry.cache_dtype, device=device)

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: torch.Tensor,
        slot_mapping: torch.Tensor,
        geometry: Geometry,
        scales: Scales,
    ) -> Dispatch:
        views = key_and_value_views(cache, self._halves)
        return write_both(key, value, views, slot_mapping, geometry, scales)
