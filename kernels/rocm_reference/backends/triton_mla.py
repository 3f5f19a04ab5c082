"""TRITON_MLA: absorbed latent attention over any page size, in two stages.

Cache layout: ``[N, B, 576]``, a latent vector of 512 columns and 64 of rope per token
(https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/backends/mla/triton_mla.py).
The first stage attends one segment of a sequence's keys for a tile of up to 16 rows (64 on NVIDIA
GPUs), each a (token, head) pair; the second combines the segments exactly (FlashDecoding,
https://pytorch.org/blog/flash-decoding/). With a single segment there is no second stage.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rocm_reference.attention import Batch, Dispatch, Geometry, Scales, Scores
from rocm_reference.ops.combine import combine_segments, segment_workspace, store_partial
from rocm_reference.ops.launch import run_kernel
from rocm_reference.ops.mla.cache import LatentCache
from rocm_reference.ops.mla.common import (
    attend_latent,
    check_scores,
    choose_latent,
    heads_per_tile,
    latent_arguments,
    latent_segments,
    load_rows,
)
from rocm_reference.ops.rows import find_sequence, store_output
from rocm_reference.ops.scores import result_arguments
from rocm_reference.ops.softmax import finish, key_ranges, start_state


@triton.jit(do_not_specialize=["num_seqs"])
def latent_kernel(
    query_ptr,
    cache_ptr,
    out_ptr,
    lse_ptr,
    partial_ptr,
    table_ptr,
    query_start_ptr,
    seq_lens_ptr,
    sinks_ptr,
    num_seqs,
    scale,
    value_scale,
    query_token,
    query_head,
    cache_block,
    cache_slot,
    table_row,
    out_token,
    out_head,
    lse_token,
    lse_head,
    H: tl.constexpr,
    GROUP: tl.constexpr,
    RANK: tl.constexpr,
    RANK_PAD: tl.constexpr,
    ROPE: tl.constexpr,
    ROPE_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    TILE: tl.constexpr,
    SEGMENTS: tl.constexpr,
    FORMAT: tl.constexpr,
    CHUNK: tl.constexpr,
    TOGETHER: tl.constexpr,
    CAUSAL: tl.constexpr,
    SINKS: tl.constexpr,
):
    """Program (query block, tile of heads, segment): softmax(scale * q . k) @ k[:RANK].

    With ``SEGMENTS`` > 1 the partial states go to the float32 workspace ``acc`` [T, H, SEGMENTS,
    RANK], ``maximum`` and ``total`` [T, H, SEGMENTS].
    """
    head_tile = tl.program_id(1)
    segment = tl.program_id(2)
    # The last blocks of a causal sequence have the most keys, so they start first.
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    seq = find_sequence(query_start_ptr, block, num_seqs, BLOCK_Q)
    start = tl.load(query_start_ptr + seq)
    query_len = tl.load(query_start_ptr + seq + 1) - start
    block_in_seq = block - (start // BLOCK_Q + seq)
    if block_in_seq * BLOCK_Q >= query_len:
        return
    seq_len = tl.load(seq_lens_ptr + seq)
    context = seq_len - query_len
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
    first, _, full_last, last = key_ranges(
        context + block_in_seq * BLOCK_Q,
        context + tl.minimum((block_in_seq + 1) * BLOCK_Q, query_len) - 1,
        seq_len,
        -1,
        -1,
        CAUSAL,
        False,
        False,
        0,
        TILE,
    )
    if SEGMENTS > 1:
        per_segment = tl.cdiv(tl.cdiv(last, TILE), SEGMENTS) * TILE
        first = segment * per_segment
        last = tl.minimum(last, first + per_segment)
        full_last = tl.minimum(full_last, first + per_segment)
    acc, maximum, total = start_state(BLOCK_M, RANK_PAD)
    acc, maximum, total = attend_latent(
        acc,
        maximum,
        total,
        query,
        query_rope,
        context + token,
        first,
        full_last,
        last,
        table_ptr + seq.to(tl.int64) * table_row,
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
        TOGETHER,
    )
    if SEGMENTS > 1:
        row = ((start + token).to(tl.int64) * H + head) * SEGMENTS + segment
        store_partial(partial_ptr, acc, maximum, total, row, exists, RANK, RANK_PAD)
    else:
        output, lse = finish(acc, maximum, total, 0.0, SINKS)
        output = output * value_scale
        token += start
        store_output(out_ptr, output, token, head, exists, out_token, out_head, RANK, RANK_PAD)
        if lse_ptr is not None:
            tl.store(lse_ptr + token * lse_token + head * lse_head, lse, mask=exists)


class TritonMLA(LatentCache):
    """The backend. ``segments`` of each sequence's keys; None: as many as fill the device."""

    name = "TRITON_MLA"

    def __init__(self, segments: int | None = None) -> None:
        self._segments = segments

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor | None,  # noqa: ARG002 - all keys are read from the cache
        value: torch.Tensor | None,  # noqa: ARG002 - likewise
        cache: torch.Tensor,
        batch: Batch,
        geometry: Geometry,
        scores: Scores,
        scales: Scales,
        out: torch.Tensor,
        lse: torch.Tensor | None = None,
    ) -> Dispatch:
        check_scores(self.name, scores)
        tokens, sequences = query.shape[0], batch.seq_lens.shape[0]
        heads = geometry.num_heads
        launch = choose_latent(query, heads, batch.max_query_len, cache.dtype.itemsize)
        group = heads_per_tile(heads, launch.block_m)
        block_q = launch.block_q(group)
        head_tiles = -(-heads // group)
        segments = self._segments or latent_segments(
            launch,
            max(-(-tokens // block_q), sequences) * head_tiles,
            batch.max_seq_len,
            query.device,
        )
        partial = None
        if segments > 1:
            partial = segment_workspace(tokens, geometry, segments, query.device)
        results = result_arguments(scores, scales.k, out, lse)
        run_kernel(
            latent_kernel,
            (tokens // block_q + sequences, head_tiles, segments),
            launch,
            query_ptr=query,
            table_ptr=batch.block_table,
            query_start_ptr=batch.query_start_loc,
            seq_lens_ptr=batch.seq_lens,
            num_seqs=sequences,
            scale=scores.scale * scales.k,
            query_token=query.stride(0),
            query_head=query.stride(1),
            cache_block=cache.stride(0),
            cache_slot=cache.stride(1),
            table_row=batch.block_table.stride(0),
            GROUP=group,
            BLOCK_SIZE=geometry.block_size,
            BLOCK_M=launch.block_m,
            BLOCK_Q=block_q,
            TILE=launch.tile,
            CHUNK=launch.chunk,
            TOGETHER=launch.together,
            SEGMENTS=segments,
            CAUSAL=scores.causal,
            **latent_arguments(cache, geometry),
            partial_ptr=partial,
            **results,
        )
        if partial is None:
            return ("latent_decode",)
        combine_segments(partial, batch, **results)
        return ("latent_decode_split", "combine_segments")
