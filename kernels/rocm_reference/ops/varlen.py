"""Attention over packed rows: prefills, encoders, vision, and chunks of a gathered context.

The algorithm is FlashAttention's forward pass (https://arxiv.org/abs/2307.08691), with the query
heads of one KV head packed into the rows of a tile.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rocm_reference.attention import Batch, Dispatch, Geometry, Scores
from rocm_reference.ops.dense import attend_packed
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
    head_arguments,
    result_arguments,
    score_arguments,
)
from rocm_reference.ops.softmax import finish, key_ranges, prefixes_of, start_state


@triton.jit(do_not_specialize=UNSPECIALIZED)
def packed_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    out_ptr,
    lse_ptr,
    query_start_ptr,
    key_start_ptr,
    seq_lens_ptr,
    slopes_ptr,
    sinks_ptr,
    prefix_ptr,
    prefixes,
    group,
    num_seqs,
    chunk_first,
    scale,
    value_scale,
    soft_cap,
    left,
    right,
    query_token,
    query_head,
    key_token,
    key_head,
    value_token,
    value_head,
    out_token,
    out_head,
    lse_token,
    lse_head,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    V: tl.constexpr,
    V_PAD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    TILE: tl.constexpr,
    CHUNK: tl.constexpr,
    SKIP_DECODES: tl.constexpr,
    CAUSAL: tl.constexpr,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    ALIBI: tl.constexpr,
    SINKS: tl.constexpr,
    PREFIXES: tl.constexpr,
    DESCRIBED: tl.constexpr,
):
    """Program (query block, KV head) over its sequence's keys.

    With ``CHUNK`` = 0 the keys of sequence ``s`` are rows [key_start[s], key_start[s+1]), and its
    last query is at its last key. With ``CHUNK`` > 0 they are at most ``CHUNK`` keys of its context
    (its keys before the query tokens; with ``CAUSAL`` those of the query tokens follow) from
    position ``chunk_first`` on, in rows from ``s * CHUNK`` on.
    """
    kv_head = tl.program_id(1)
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    block_q = BLOCK_M // group
    seq = find_sequence(query_start_ptr, block, num_seqs, block_q)
    start = tl.load(query_start_ptr + seq)
    query_len = tl.load(query_start_ptr + seq + 1) - start
    block_in_seq = block - (start // block_q + seq)
    if block_in_seq * block_q >= query_len:
        return
    if SKIP_DECODES and query_len == 1:
        return
    if CHUNK > 0:
        key_row = seq.to(tl.int64) * CHUNK
        context = tl.load(seq_lens_ptr + seq) - query_len
        origin = context - chunk_first
        gathered = origin + query_len if CAUSAL else origin
        num_keys = tl.minimum(tl.maximum(gathered, 0), CHUNK)
    else:
        key_row = tl.load(key_start_ptr + seq).to(tl.int64)
        num_keys = (tl.load(key_start_ptr + seq + 1) - key_row).to(tl.int32)
        origin = num_keys - query_len
    token, head, exists = block_rows(block_in_seq, query_len, kv_head, group, block_q, BLOCK_M)
    query = load_query(query_ptr, start + token, head, exists, query_token, query_head, D, D_PAD)
    slopes = load_per_head(slopes_ptr, head, exists, ALIBI > 0)
    first, full_first, full_last, last = key_ranges(
        origin + block_in_seq * block_q,
        origin + tl.minimum((block_in_seq + 1) * block_q, query_len) - 1,
        num_keys,
        left,
        right,
        CAUSAL,
        LEFT,
        RIGHT,
        PREFIXES,
        TILE,
    )
    acc, maximum, total = start_state(BLOCK_M, V_PAD)
    acc, maximum, total = attend_packed(
        acc,
        maximum,
        total,
        query,
        origin + token,
        first,
        full_first,
        full_last,
        last,
        0,
        key_ptr + key_row * key_token + kv_head * key_head,
        key_token,
        value_ptr + key_row * value_token + kv_head * value_head,
        value_token,
        scale,
        soft_cap,
        slopes,
        left,
        right,
        prefixes_of(prefix_ptr, seq, prefixes, PREFIXES),
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
    output = output * value_scale
    store_output(out_ptr, output, start + token, head, exists, out_token, out_head, V, V_PAD)
    if lse_ptr is not None:
        tl.store(lse_ptr + (start + token) * lse_token + head * lse_head, lse, mask=exists)


def attend_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_start_loc: torch.Tensor,
    key_start_loc: torch.Tensor,
    max_query_len: int,
    max_key_len: int,
    geometry: Geometry,
    scores: Scores,
    out: torch.Tensor,
    lse: torch.Tensor | None = None,
    *,
    skip_decodes: bool = False,
) -> None:
    """See :meth:`rocm_reference.attention.VarlenBackend.attend_varlen`.

    With ``skip_decodes`` the rows of sequences with one query token are not written.
    """
    _launch(
        query,
        key,
        value,
        query_start_loc,
        max_query_len,
        geometry,
        scores,
        out,
        lse,
        key_start_ptr=key_start_loc,
        seq_lens_ptr=key_start_loc,
        chunk_first=0,
        CHUNK=0,
        SKIP_DECODES=skip_decodes,
    )


def attend_context_chunk(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    first: int,
    batch: Batch,
    geometry: Geometry,
    scores: Scores,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    *,
    skip_decodes: bool = False,
) -> None:
    """Query tokens attend one gathered chunk of their context, from position ``first`` on.

    ``keys`` [S, chunk, G, D], ``values`` [S, chunk, G, V], contiguous. With causal ``scores`` the
    query tokens' own follow the context. A sequence whose keys end before ``first`` gets zero rows
    with a log-sum-exp of -inf.
    """
    _launch(
        query,
        keys.flatten(0, 1),
        values.flatten(0, 1),
        batch.query_start_loc,
        batch.max_query_len,
        geometry,
        scores,
        out,
        lse,
        key_start_ptr=batch.seq_lens,
        seq_lens_ptr=batch.seq_lens,
        chunk_first=first,
        CHUNK=keys.shape[1],
        SKIP_DECODES=skip_decodes,
    )


def _launch(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_start_loc: torch.Tensor,
    max_query_len: int,
    geometry: Geometry,
    scores: Scores,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    **keys: object,
) -> None:
    sequences = query_start_loc.shape[0] - 1
    group = geometry.num_heads // geometry.num_kv_heads
    launch = choose(query, group, max_query_len, geometry.head_size, "packed", sequences)
    block_q = launch.block_q(group)
    run_kernel(
        packed_kernel,
        (query.shape[0] // block_q + sequences, geometry.num_kv_heads),
        launch,
        query_ptr=query,
        key_ptr=key,
        value_ptr=value,
        query_start_ptr=query_start_loc,
        num_seqs=sequences,
        scale=scores.scale,
        query_token=query.stride(0),
        query_head=query.stride(1),
        key_token=key.stride(0),
        key_head=key.stride(1),
        value_token=value.stride(0),
        value_head=value.stride(1),
        BLOCK_M=launch.block_m,
        TILE=launch.tile,
        DESCRIBED=describes(launch, key, value),
        **keys,
        **head_arguments(geometry),
        **score_arguments(scores),
        **result_arguments(scores, 1.0, out, lse),
    )


class PackedSequences:
    """Base of backends that also attend packed sequences without a cache, as encoders do."""

    def attend_varlen(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        query_start_loc: torch.Tensor,
        key_start_loc: torch.Tensor,
        max_query_len: int,
        max_key_len: int,
        geometry: Geometry,
        scores: Scores,
        out: torch.Tensor,
        lse: torch.Tensor | None = None,
    ) -> Dispatch:
        """See :class:`rocm_reference.attention.VarlenBackend`."""
        attend_varlen(
            query,
            key,
            value,
            query_start_loc,
            key_start_loc,
            max_query_len,
            max_key_len,
            geometry,
            scores,
            out,
            lse,
        )
        return ("varlen",)
