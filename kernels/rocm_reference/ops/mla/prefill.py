"""Latent attention in its multi-head form, for prefills: keys and values are up-projected.

New tokens attend each other as computed, not as stored. The context is gathered from the cache a
chunk at a time, dequantised, up-projected, attended without a causal mask, and merged by
log-sum-exp
(https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/model_executor/layers/attention/mla_attention.py,
"Chunked Prefill"). The up-projection is torch's matrix product; in vLLM the model does it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
import triton
import triton.language as tl

from rocm_reference.attention import Batch, Dispatch, Geometry, Scales, Scores
from rocm_reference.ops.cache import gather_context
from rocm_reference.ops.combine import merge, store_merged
from rocm_reference.ops.launch import choose, family, is_rdna3, padded
from rocm_reference.ops.rows import block_rows, find_sequence, load_query, store_output
from rocm_reference.ops.scores import result_arguments
from rocm_reference.ops.softmax import finish, key_ranges, make_logits, start_state, update
from rocm_reference.ops.tiles import load_tile
from rocm_reference.ops.varlen import attend_context_chunk, attend_varlen


@dataclass(frozen=True)
class Rows:
    """Keys of every sequence, up-projected.

    ``latent``: [K, RANK + ROPE]; ``projected``: [K, H, P + V], from the latent columns. With
    ``chunk`` = 0 the rows are the new tokens, packed like the queries. Otherwise rows ``s * chunk``
    to ``(s + 1) * chunk`` are the context of sequence ``s`` from position ``first`` on.
    """

    latent: torch.Tensor
    projected: torch.Tensor
    first: int = 0
    chunk: int = 0


class AttendRows(Protocol):
    """Attention of all queries over :class:`Rows`; ``geometry`` is that of :func:`per_head`."""

    def __call__(
        self,
        query: torch.Tensor,
        rows: Rows,
        batch: Batch,
        geometry: Geometry,
        scores: Scores,
        out: torch.Tensor,
        lse: torch.Tensor | None,
    ) -> str: ...


def per_head(geometry: Geometry, query: torch.Tensor, out: torch.Tensor) -> Geometry:
    """The geometry of the multi-head form, in which every head has its own key and value."""
    return replace(
        geometry,
        num_kv_heads=geometry.num_heads,
        head_size=query.shape[2],
        v_head_size=out.shape[2],
        cache_dtype=geometry.dtype,
    )


def prefill(
    attend_rows: AttendRows,
    query: torch.Tensor,
    key: torch.Tensor,
    weight: torch.Tensor,
    view: torch.Tensor,
    batch: Batch,
    geometry: Geometry,
    scores: Scores,
    scales: Scales,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    workspace_tokens: int,
) -> Dispatch:
    """See :meth:`.cache.LatentCache.prefill`; ``view``: the cache as [N, 1, D, B].

    The longest context is read back from the device, so that no pass is made over a context that
    no sequence has. (vLLM's scheduler knows it on the host.)
    """
    rank = geometry.v_head_size
    heads = per_head(geometry, query, out)
    new = Rows(key, project(key[:, :rank], weight))
    query_lens = batch.query_start_loc.diff()
    contexts = (batch.seq_lens - query_lens).where(query_lens > 0, 0)
    longest = int(contexts.max()) if contexts.numel() else 0
    if longest <= 0:
        return (attend_rows(query, new, batch, heads, scores, out, lse),)
    # Rows of padding attend nothing and are merged as rows that see no key.
    merged = torch.zeros(out.shape, dtype=torch.float32, device=out.device)
    merged_lse = torch.full(out.shape[:2], float("-inf"), device=out.device)
    ran = attend_rows(query, new, batch, heads, scores, merged, merged_lse)
    chunk = min(max(workspace_tokens // batch.seq_lens.shape[0], 1), longest)
    whole = replace(scores, causal=False)
    for first in range(0, longest, chunk):
        gathered = key.new_empty((batch.seq_lens.shape[0], chunk, 1, geometry.head_size))
        gather_context(view, gathered, batch, first, scales.k, geometry)
        latent = gathered.flatten(0, 2)
        context = Rows(latent, project(latent[:, :rank], weight), first, chunk)
        partial = torch.zeros_like(merged)
        partial_lse = torch.full_like(merged_lse, float("-inf"))
        attend_rows(query, context, batch, heads, whole, partial, partial_lse)
        merge(merged, merged_lse, partial, partial_lse)
    store_merged(merged, merged_lse, batch, out, lse)
    return (ran, "gather_context", f"{ran}_context", "merge")


def project(latent: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """[K, RANK] times the weight [H, RANK, P + V]: a view [K, H, P + V]."""
    return torch.matmul(latent, weight).transpose(0, 1)


def attend_joined(
    query: torch.Tensor,
    rows: Rows,
    batch: Batch,
    geometry: Geometry,
    scores: Scores,
    out: torch.Tensor,
    lse: torch.Tensor | None,
) -> str:
    """Packed attention over joined keys: the rope part is copied to every head."""
    nope = rows.projected.shape[2] - geometry.v_head_size
    keys = rows.latent.new_empty((len(rows.latent), geometry.num_heads, geometry.head_size))
    keys[..., :nope] = rows.projected[..., :nope]
    keys[..., nope:] = rows.latent[:, None, nope - geometry.head_size :]
    values = rows.projected[..., nope:]
    if rows.chunk:
        assert lse is not None  # chunks are merged by it
        shape = (-1, rows.chunk)
        attend_context_chunk(
            query,
            keys.unflatten(0, shape),
            values.unflatten(0, shape),
            rows.first,
            batch,
            geometry,
            scores,
            out,
            lse,
        )
        return "varlen"
    attend_varlen(
        query,
        keys,
        values,
        batch.query_start_loc,
        batch.query_start_loc,
        batch.max_query_len,
        batch.max_query_len,
        geometry,
        scores,
        out,
        lse,
    )
    return "varlen"


@triton.jit
def attend_split_tiles(
    acc,
    maximum,
    total,
    query,
    query_rope,
    query_pos,
    first,
    last,
    key_ptr,
    key_row,
    rope_ptr,
    rope_row,
    scale,
    NOPE: tl.constexpr,
    NOPE_PAD: tl.constexpr,
    ROPE: tl.constexpr,
    ROPE_PAD: tl.constexpr,
    V: tl.constexpr,
    V_PAD: tl.constexpr,
    TILE: tl.constexpr,
    MASKED: tl.constexpr,
    CAUSAL: tl.constexpr,
):
    """Adds key rows [first, last) to the state; ``last`` is a multiple of TILE unless ``MASKED``.

    A row at ``key_ptr`` holds the head's key without its rope part, followed by its value.
    """
    lanes = tl.arange(0, TILE)
    columns = tl.arange(0, NOPE_PAD)[None, :]
    rope_columns = tl.arange(0, ROPE_PAD)[None, :]
    value_columns = tl.arange(0, V_PAD)[None, :]
    for start in range(first, last, TILE):
        row = start + lanes
        stored = (row < last)[:, None]
        rows = row.to(tl.int64)[:, None]
        keys = key_ptr + rows * key_row
        key = load_tile(keys + columns, stored, columns, NOPE, NOPE_PAD, MASKED)
        value = load_tile(keys + NOPE + value_columns, stored, value_columns, V, V_PAD, MASKED)
        ropes = rope_ptr + rows * rope_row + rope_columns
        rope = load_tile(ropes, stored, rope_columns, ROPE, ROPE_PAD, MASKED)
        dot = tl.dot(query, tl.trans(key), input_precision="ieee")
        dot = tl.dot(query_rope, tl.trans(rope), dot, input_precision="ieee")
        logits = make_logits(dot, scale, 0.0, 0, 0, False, 0)
        if MASKED:
            seen = (row < last)[None, :]
            if CAUSAL:
                seen = seen & (row[None, :] <= query_pos[:, None])
            logits = tl.where(seen, logits, float("-inf"))
        acc, maximum, total = update(acc, maximum, total, logits, value)
    return acc, maximum, total


@triton.jit(do_not_specialize=["num_seqs", "chunk_first"])
def split_kernel(
    query_ptr,
    latent_ptr,
    projected_ptr,
    out_ptr,
    lse_ptr,
    query_start_ptr,
    seq_lens_ptr,
    sinks_ptr,
    num_seqs,
    chunk_first,
    scale,
    value_scale,
    query_token,
    query_head,
    latent_row,
    projected_row,
    projected_head,
    out_token,
    out_head,
    lse_token,
    lse_head,
    RANK: tl.constexpr,
    NOPE: tl.constexpr,
    NOPE_PAD: tl.constexpr,
    ROPE: tl.constexpr,
    ROPE_PAD: tl.constexpr,
    V: tl.constexpr,
    V_PAD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    TILE: tl.constexpr,
    CHUNK: tl.constexpr,
    CAUSAL: tl.constexpr,
    SINKS: tl.constexpr,
):
    """Program (query block, head) over its sequence's :class:`Rows`, latent and projected."""
    head = tl.program_id(1)
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    seq = find_sequence(query_start_ptr, block, num_seqs, BLOCK_M)
    start = tl.load(query_start_ptr + seq)
    query_len = tl.load(query_start_ptr + seq + 1) - start
    block_in_seq = block - (start // BLOCK_M + seq)
    if block_in_seq * BLOCK_M >= query_len:
        return
    key_row = start.to(tl.int64)
    num_keys = query_len
    if CHUNK > 0:
        key_row = seq.to(tl.int64) * CHUNK
        context = tl.load(seq_lens_ptr + seq) - query_len
        num_keys = tl.minimum(tl.maximum(context - chunk_first, 0), CHUNK)
    token, heads, exists = block_rows(block_in_seq, query_len, head, 1, BLOCK_M, BLOCK_M)
    rows = start + token
    query = load_query(query_ptr, rows, heads, exists, query_token, query_head, NOPE, NOPE_PAD)
    query_rope = load_query(
        query_ptr + NOPE, rows, heads, exists, query_token, query_head, ROPE, ROPE_PAD
    )
    _, _, full_last, last = key_ranges(
        block_in_seq * BLOCK_M,
        tl.minimum((block_in_seq + 1) * BLOCK_M, query_len) - 1,
        num_keys,
        -1,
        -1,
        CAUSAL,
        False,
        False,
        0,
        TILE,
    )
    acc, maximum, total = start_state(BLOCK_M, V_PAD)
    for phase in tl.static_range(2):
        acc, maximum, total = attend_split_tiles(
            acc,
            maximum,
            total,
            query,
            query_rope,
            token,
            0 if phase == 0 else full_last,
            full_last if phase == 0 else last,
            projected_ptr + key_row * projected_row + head.to(tl.int64) * projected_head,
            projected_row,
            latent_ptr + key_row * latent_row + RANK,
            latent_row,
            scale,
            NOPE,
            NOPE_PAD,
            ROPE,
            ROPE_PAD,
            V,
            V_PAD,
            TILE,
            phase == 1,
            CAUSAL,
        )
    output, lse = finish(acc, maximum, total, 0.0, SINKS)
    output = output * value_scale
    store_output(out_ptr, output, rows, heads, exists, out_token, out_head, V, V_PAD)
    if lse_ptr is not None:
        tl.store(lse_ptr + rows * lse_token + heads * lse_head, lse, mask=exists)


def attend_split(
    query: torch.Tensor,
    rows: Rows,
    batch: Batch,
    geometry: Geometry,
    scores: Scores,
    out: torch.Tensor,
    lse: torch.Tensor | None,
) -> str:
    """Attention over keys in two parts, neither copied together nor padded to 256 columns.

    The kernel behind aiter's Triton ``flash_attn_varlen_func`` does so for 128 + 64 columns
    (https://github.com/ROCm/aiter/blob/main/aiter/ops/triton/attention/mha.py).
    """
    nope = rows.projected.shape[2] - geometry.v_head_size
    rope = geometry.head_size - nope
    sequences = batch.seq_lens.shape[0]
    launch = choose(query, 1, batch.max_query_len, nope, "both")
    if is_rdna3(family()):
        # Both parts of a row have 192 columns together: see without_spills.
        launch = replace(launch, block_m=16, num_warps=8, num_stages=2)
    split_kernel[(query.shape[0] // launch.block_m + sequences, geometry.num_heads)](
        query,
        rows.latent,
        rows.projected,
        query_start_ptr=batch.query_start_loc,
        seq_lens_ptr=batch.seq_lens,
        num_seqs=sequences,
        chunk_first=rows.first,
        scale=scores.scale,
        query_token=query.stride(0),
        query_head=query.stride(1),
        latent_row=rows.latent.stride(0),
        projected_row=rows.projected.stride(0),
        projected_head=rows.projected.stride(1),
        RANK=rows.latent.shape[1] - rope,
        NOPE=nope,
        NOPE_PAD=padded(nope),
        ROPE=rope,
        ROPE_PAD=padded(rope),
        V=geometry.v_head_size,
        V_PAD=padded(geometry.v_head_size),
        BLOCK_M=launch.block_m,
        TILE=launch.tile,
        CHUNK=rows.chunk,
        CAUSAL=scores.causal,
        **result_arguments(scores, 1.0, out, lse),
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
    )
    return "split_varlen"
