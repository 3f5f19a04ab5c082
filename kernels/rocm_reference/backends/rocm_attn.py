"""ROCM_ATTN: context attention for prefills, paged decode over a packed key cache.

Cache: ``[2, N, B * G * D]`` elements, seen as keys ``[N, G, D/X, B, X]`` with ``X`` elements in 16
bytes, and values ``[N, G, D, B]``
(https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/ops/paged_attn.py).

- Sequences of several query tokens: one kernel attends the context in the cache, then the new
  tokens, which it reads as they were computed and not as they were stored
  (https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/ops/prefix_prefill.py).
- On NVIDIA GPUs a context that many blocks of query rows read is gathered first, and attended over
  dense rows (:mod:`rocm_reference.ops.gathered`).
- Sequences of one query token: partitions of 256 keys and an exact reduction, as in the
  specification's custom kernel (a program takes several partitions if fewer programs fill the
  device). Where the specification has its 2D kernel instead, which is told as ``paged_decode_2d``,
  keys are divided all the same, but not under a narrow window.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import triton
import triton.language as tl

from rocm_reference.attention import Batch, Dispatch, Geometry, Scales, Scores
from rocm_reference.ops.cache import write_both
from rocm_reference.ops.decode import paged_decode, segment_size
from rocm_reference.ops.dense import attend_packed
from rocm_reference.ops.fp8 import NONE, format_of
from rocm_reference.ops.gathered import attend_gathered, is_worth_gathering
from rocm_reference.ops.launch import choose, describes, run_kernel
from rocm_reference.ops.rows import (
    block_rows,
    find_sequence,
    load_per_head,
    load_query,
    store_output,
)
from rocm_reference.ops.scores import (
    UNSPECIALIZED,
    cache_arguments,
    head_arguments,
    result_arguments,
    score_arguments,
)
from rocm_reference.ops.softmax import finish, key_ranges, prefixes_of, start_state
from rocm_reference.ops.tiles import attend_paged
from rocm_reference.ops.varlen import PackedSequences

PACK_BYTES = 16


@triton.jit(do_not_specialize=UNSPECIALIZED)
def context_kernel(
    query_ptr,
    new_key_ptr,
    new_value_ptr,
    key_ptr,
    value_ptr,
    out_ptr,
    lse_ptr,
    table_ptr,
    query_start_ptr,
    seq_lens_ptr,
    slopes_ptr,
    sinks_ptr,
    prefix_ptr,
    prefixes,
    group,
    num_seqs,
    scale,
    key_scale,
    value_scale,
    soft_cap,
    left,
    right,
    query_token,
    query_head,
    new_key_token,
    new_key_head,
    new_value_token,
    new_value_head,
    out_token,
    out_head,
    lse_token,
    lse_head,
    table_row,
    key_block,
    key_head,
    key_dim,
    key_slot,
    value_block,
    value_head,
    value_dim,
    value_slot,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    V: tl.constexpr,
    V_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    PACK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    TILE: tl.constexpr,
    FORMAT: tl.constexpr,
    CAUSAL: tl.constexpr,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    ALIBI: tl.constexpr,
    SINKS: tl.constexpr,
    PREFIXES: tl.constexpr,
    DESCRIBED: tl.constexpr,
):
    """Program (query block, KV head). The decode kernel does sequences of one query token."""
    kv_head = tl.program_id(1)
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    block_q = BLOCK_M // group
    seq = find_sequence(query_start_ptr, block, num_seqs, block_q)
    start = tl.load(query_start_ptr + seq)
    query_len = tl.load(query_start_ptr + seq + 1) - start
    block_in_seq = block - (start // block_q + seq)
    if block_in_seq * block_q >= query_len or query_len == 1:
        return
    context = tl.load(seq_lens_ptr + seq) - query_len
    token, head, exists = block_rows(block_in_seq, query_len, kv_head, group, block_q, BLOCK_M)
    query = load_query(query_ptr, start + token, head, exists, query_token, query_head, D, D_PAD)
    slopes = load_per_head(slopes_ptr, head, exists, ALIBI > 0)
    prefix = prefixes_of(prefix_ptr, seq, prefixes, PREFIXES)
    first_token = block_in_seq * block_q
    last_token = tl.minimum(first_token + block_q, query_len) - 1
    acc, maximum, total = start_state(BLOCK_M, V_PAD)
    # Every context key comes before every query, so only a window or a prefix can hide one.
    first, full_first, full_last, last = key_ranges(
        context + first_token,
        context + last_token,
        context,
        left,
        right,
        CAUSAL,
        LEFT,
        False,
        PREFIXES,
        TILE,
    )
    acc, _, maximum, total = attend_paged(
        acc,
        maximum,
        total,
        query,
        context + token,
        first,
        full_first,
        full_last,
        last,
        table_ptr + seq.to(tl.int64) * table_row,
        key_ptr + kv_head * key_head,
        key_block,
        key_dim,
        key_slot,
        value_ptr + kv_head * value_head,
        value_block,
        value_dim,
        value_slot,
        scale * key_scale,
        soft_cap,
        slopes,
        left,
        right,
        prefix,
        prefixes,
        D,
        D_PAD,
        V,
        V_PAD,
        PACK,
        BLOCK_SIZE,
        TILE,
        FORMAT,
        CAUSAL,
        LEFT,
        False,
        SOFT_CAP,
        ALIBI,
        PREFIXES,
    )
    acc = acc * value_scale
    first, full_first, full_last, last = key_ranges(
        first_token, last_token, query_len, left, right, CAUSAL, LEFT, RIGHT, PREFIXES, TILE
    )
    acc, maximum, total = attend_packed(
        acc,
        maximum,
        total,
        query,
        context + token,
        first,
        full_first,
        full_last,
        last,
        context,
        new_key_ptr + start.to(tl.int64) * new_key_token + kv_head * new_key_head,
        new_key_token,
        new_value_ptr + start.to(tl.int64) * new_value_token + kv_head * new_value_head,
        new_value_token,
        scale,
        soft_cap,
        slopes,
        left,
        right,
        prefix,
        prefixes,
        D,
        D_PAD,
        V,
        V_PAD,
        TILE,
        CAUSAL,
        LEFT,
        RIGHT,
        SOFT_CAP,
        ALIBI,
        PREFIXES,
        DESCRIBED,
    )
    sinks = load_per_head(sinks_ptr, head, exists, SINKS)
    output, lse = finish(acc, maximum, total, sinks, SINKS)
    store_output(out_ptr, output, start + token, head, exists, out_token, out_head, V, V_PAD)
    if lse_ptr is not None:
        tl.store(lse_ptr + (start + token) * lse_token + head * lse_head, lse, mask=exists)


def context_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    views: tuple[torch.Tensor, torch.Tensor],
    batch: Batch,
    geometry: Geometry,
    scores: Scores,
    scales: Scales,
    out: torch.Tensor,
    lse: torch.Tensor | None,
) -> None:
    """Prefills and extends; rows of sequences with one query token are not written."""
    sequences = batch.seq_lens.shape[0]
    group = geometry.num_heads // geometry.num_kv_heads
    launch = choose(query, group, batch.max_query_len, geometry.head_size, "both", sequences)
    block_q = launch.block_q(group)
    run_kernel(
        context_kernel,
        (query.shape[0] // block_q + sequences, geometry.num_kv_heads),
        replace(launch, num_stages=min(launch.num_stages, most_stages(geometry, scores))),
        query_ptr=query,
        new_key_ptr=key,
        new_value_ptr=value,
        query_start_ptr=batch.query_start_loc,
        seq_lens_ptr=batch.seq_lens,
        num_seqs=sequences,
        scale=scores.scale,
        key_scale=scales.k,
        query_token=query.stride(0),
        query_head=query.stride(1),
        new_key_token=key.stride(0),
        new_key_head=key.stride(1),
        new_value_token=value.stride(0),
        new_value_head=value.stride(1),
        BLOCK_M=launch.block_m,
        TILE=launch.tile,
        DESCRIBED=describes(launch, key, value),
        **head_arguments(geometry),
        **cache_arguments(*views, batch, geometry),
        **score_arguments(scores),
        **result_arguments(scores, scales.v, out, lse),
    )


def is_gathered(query: torch.Tensor, batch: Batch, geometry: Geometry, scores: Scores) -> bool:
    """Whether the batch's contexts are gathered to dense rows before they are attended.

    A packed cache passes through registers on its way to an NVIDIA GPU's matrix units, anew for
    each block of query rows: 512 tokens over 32k keys take an H200 1,120 us, gathered 640. All
    sequences of a batch are gathered: most of them must be long.
    """
    longest = batch.max_context_len or 0
    return longest >= batch.max_query_len and is_worth_gathering(query, batch, geometry, scores)


def most_stages(geometry: Geometry, scores: Scores) -> int:
    """In how many stages ptxas (CUDA 13.0, Triton 3.6) compiles the context kernel.

    It crashes on some fp8 caches in three, and on all of them in two under windows with prefixes.
    """
    if format_of(geometry.cache_dtype) == NONE:
        return 3
    return 1 if scores.window[0] >= 0 and scores.mm_prefix is not None else 2


def is_partitioned(geometry: Geometry, scores: Scores, max_seq_len: int) -> bool:
    """Whether decode uses the partitioned kernel: the specification's rule for gfx9.

    https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/platforms/rocm.py,
    ``use_rocm_custom_paged_attention``.
    """
    group = geometry.num_heads // geometry.num_kv_heads
    return (
        geometry.head_size in (64, 128)
        and geometry.block_size in (16, 32)
        and geometry.dtype in (torch.float16, torch.bfloat16)
        and 1 <= group <= 16
        and max_seq_len <= 128 * 1024
        and scores.window[0] < 0
        and scores.sinks is None
    )


class RocmAttention(PackedSequences):
    """The backend ROCM_ATTN; ``segments`` are those of :func:`.decode.segment_size`."""

    name = "ROCM_ATTN"

    def __init__(self, segments: int | None = None) -> None:
        self._segments = segments

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        slots = geometry.block_size * geometry.num_kv_heads * geometry.head_size
        return torch.empty((2, num_blocks, slots), dtype=geometry.cache_dtype, device=device)

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: torch.Tensor,
        slot_mapping: torch.Tensor,
        geometry: Geometry,
        scales: Scales,
    ) -> Dispatch:
        return write_both(key, value, _views(cache, geometry), slot_mapping, geometry, scales)

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor | None,
        value: torch.Tensor | None,
        cache: torch.Tensor,
        batch: Batch,
        geometry: Geometry,
        scores: Scores,
        scales: Scales,
        out: torch.Tensor,
        lse: torch.Tensor | None = None,
    ) -> Dispatch:
        if key is None or value is None:
            raise NotImplementedError("ROCM_ATTN has no cross attention: pass key and value")
        views = _views(cache, geometry)
        ran: Dispatch = ()
        if is_gathered(query, batch, geometry, scores):
            ran = attend_gathered(
                query, key, value, views, batch, geometry, scores, scales, out, lse
            )
        elif batch.max_query_len > 1:
            context_attention(query, key, value, views, batch, geometry, scores, scales, out, lse)
            ran = ("context_attention",)
        partitioned = is_partitioned(geometry, scores, batch.max_seq_len)
        size = segment_size(batch, geometry, scores, out.device, self._segments)
        paged_decode(query, views, batch, geometry, scores, scales, out, lse, size)
        return (*ran, "paged_decode_partitioned" if partitioned else "paged_decode_2d")


def _views(cache: torch.Tensor, geometry: Geometry) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys [N, G, D/X, B, X] and values [N, G, D, B]."""
    blocks, heads = cache.shape[1], geometry.num_kv_heads
    size, slots = geometry.head_size, geometry.block_size
    pack = PACK_BYTES // geometry.cache_dtype.itemsize
    keys = cache[0].view(blocks, heads, size // pack, slots, pack)
    return keys, cache[1].view(blocks, heads, size, slots)
