"""TRITON_ATTN: one unified kernel for prefill, decode and mixed batches.

Cache layout: ``[N, 2, B, G, D]``, keys at index 0 of the second dimension and values at index 1
(https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/backends/triton_attn.py).
A row of a program is a (token, query head) pair: the query heads that share a KV head share each
tile of keys. If there are few programs and long sequences, the keys are split into segments (3D),
whose partial states a second kernel combines exactly. Caches with a scale for each token and head
have kernels of their own (:mod:`rocm_reference.ops.head_scaled`).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rocm_reference.attention import Batch, Dispatch, Geometry, Scales, Scores
from rocm_reference.ops.cache import HalvedCache, key_and_value_views
from rocm_reference.ops.combine import combine_segments, segment_workspace, store_partial
from rocm_reference.ops.gathered import attend_whole, fits_whole, is_worth_gathering
from rocm_reference.ops.head_scaled import attend_head_scaled
from rocm_reference.ops.head_scaled_rows import is_head_scaled, row_bytes, write_head_scaled
from rocm_reference.ops.launch import choose, choose_decode, run_kernel, segments_for
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
    visible_keys,
)
from rocm_reference.ops.softmax import clip_ranges, finish, key_ranges, prefixes_of, start_state
from rocm_reference.ops.tiles import attend_paged
from rocm_reference.ops.varlen import PackedSequences


@triton.jit(do_not_specialize=UNSPECIALIZED)
def unified_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    out_ptr,
    lse_ptr,
    partial_ptr,
    table_ptr,
    query_start_ptr,
    seq_lens_ptr,
    slopes_ptr,
    sinks_ptr,
    prefix_ptr,
    prompts_ptr,
    bias_ptr,
    bias_row,
    bias_size,
    prefixes,
    group,
    num_seqs,
    scale,
    value_scale,
    soft_cap,
    left,
    right,
    query_token,
    query_head,
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
    ONE_TOKEN: tl.constexpr,
    FORMAT: tl.constexpr,
    CAUSAL: tl.constexpr,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    ALIBI: tl.constexpr,
    SINKS: tl.constexpr,
    PREFIXES: tl.constexpr,
):
    """Program (query block, KV head, segment): softmax(scale * q . k) @ v over its keys.

    ``ONE_TOKEN``: no sequence has more than one query token, so each sequence is one block.
    ``bias_ptr``: float32 [bias_size, bias_size] in rows of ``bias_row``, or None.

    The partial states of several segments go to a workspace [T, H, segments, V + STATE]; a second
    kernel finishes them.
    """
    kv_head = tl.program_id(1)
    segment = tl.program_id(2)
    block_q = BLOCK_M // group
    # The last blocks of a causal sequence have the most keys, so they start first.
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    seq = block
    if not ONE_TOKEN:
        seq = find_sequence(query_start_ptr, block, num_seqs, block_q)
    start = tl.load(query_start_ptr + seq)
    query_len = tl.load(query_start_ptr + seq + 1) - start
    block_in_seq = 0
    if not ONE_TOKEN:
        block_in_seq = block - (start // block_q + seq)
    if block_in_seq * block_q >= query_len:
        return
    seq_len = tl.load(seq_lens_ptr + seq)
    token, head, exists = block_rows(block_in_seq, query_len, kv_head, group, block_q, BLOCK_M)
    query = load_query(query_ptr, start + token, head, exists, query_token, query_head, D, D_PAD)
    slopes = load_per_head(slopes_ptr, head, exists, ALIBI > 0)
    prefix = prefixes_of(prefix_ptr, seq, prefixes, PREFIXES)
    PROMPTS: tl.constexpr = prompts_ptr is not None
    prompt = 0
    if PROMPTS:
        prompt = tl.load(prompts_ptr + seq)
    context = seq_len - query_len
    query_pos = context + token
    first, full_first, full_last, last = key_ranges(
        context + block_in_seq * block_q,
        context + tl.minimum((block_in_seq + 1) * block_q, query_len) - 1,
        seq_len,
        left,
        right,
        CAUSAL,
        LEFT,
        RIGHT,
        # Of all keys any may be seen, whether ranges show them or a prompt.
        PREFIXES or PROMPTS,
        TILE,
    )
    BIASED: tl.constexpr = bias_ptr is not None
    biased = 0
    if BIASED:
        biased = tl.where(query_len <= bias_size, bias_size, 0)
        unbiased = tl.where(biased > 0, context, seq_len) // TILE * TILE
        full_last = tl.minimum(full_last, tl.maximum(unbiased, full_first))
    if partial_ptr is not None:
        begin = first // TILE * TILE
        per_segment = tl.cdiv(tl.cdiv(last - begin, TILE), tl.num_programs(2)) * TILE
        low = begin + segment * per_segment
        first, full_first, full_last, last = clip_ranges(
            first, full_first, full_last, last, low, low + per_segment
        )
    acc, maximum, total = start_state(BLOCK_M, V_PAD)
    acc, _, maximum, total = attend_paged(
        acc,
        maximum,
        total,
        query,
        query_pos,
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
        PACK,
        BLOCK_SIZE,
        TILE,
        FORMAT,
        CAUSAL,
        LEFT,
        RIGHT,
        SOFT_CAP,
        ALIBI,
        PREFIXES,
        prompt,
        PROMPTS,
        bias_ptr,
        bias_row,
        context,
        biased,
        BIASED,
    )
    if partial_ptr is not None:
        heads = group * tl.num_programs(1)
        row = ((start + token).to(tl.int64) * heads + head) * tl.num_programs(2) + segment
        store_partial(partial_ptr, acc, maximum, total, row, exists, V, V_PAD)
    else:
        sinks = load_per_head(sinks_ptr, head, exists, SINKS)
        output, lse = finish(acc, maximum, total, sinks, SINKS)
        output = output * value_scale
        store_output(out_ptr, output, start + token, head, exists, out_token, out_head, V, V_PAD)
        if lse_ptr is not None:
            tl.store(lse_ptr + (start + token) * lse_token + head * lse_head, lse, mask=exists)


def is_gathered(query: torch.Tensor, batch: Batch, geometry: Geometry, scores: Scores) -> bool:
    """Whether all keys are gathered before they are attended.

    16k tokens of 32 heads of 128 columns take an H200 5,100 us page by page, gathered 4,340.
    """
    return fits_whole(batch, scores) and is_worth_gathering(query, batch, geometry, scores)


def unified_attention(
    query: torch.Tensor,
    views: tuple[torch.Tensor, torch.Tensor],
    batch: Batch,
    geometry: Geometry,
    scores: Scores,
    scales: Scales,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    segments: int | None = None,
) -> Dispatch:
    """Runs the unified kernel over key and value views [N, G, D, B] of a cache.

    ``segments`` of each sequence's keys; None: as many as fill the device. On NVIDIA GPUs keys that
    many blocks of query rows read are gathered first (:mod:`rocm_reference.ops.gathered`).
    """
    if is_gathered(query, batch, geometry, scores):
        return attend_whole(query, views, batch, geometry, scores, scales, out, lse)
    tokens, sequences = query.shape[0], batch.seq_lens.shape[0]
    group = geometry.num_heads // geometry.num_kv_heads
    decode = batch.max_query_len == 1
    widest = max(geometry.head_size, geometry.v_head_size)
    if decode:
        launch = choose_decode(query, group, widest, geometry.cache_dtype.itemsize)
    else:
        launch = choose(query, group, batch.max_query_len, widest, "paged", sequences)
    block_q = launch.block_q(group)
    segments = segments or segments_for(
        max(-(-tokens // block_q), sequences) * geometry.num_kv_heads,
        visible_keys(batch, scores),
        launch.tile,
        query.device,
    )
    results = result_arguments(scores, scales.v, out, lse)
    partial = None
    if segments > 1:
        partial = segment_workspace(tokens, geometry, segments, query.device)
    blocks = sequences if decode else tokens // block_q + sequences
    run_kernel(
        unified_kernel,
        (blocks, geometry.num_kv_heads, segments),
        launch,
        query_ptr=query,
        query_start_ptr=batch.query_start_loc,
        seq_lens_ptr=batch.seq_lens,
        num_seqs=sequences,
        scale=scores.scale * scales.k,
        query_token=query.stride(0),
        query_head=query.stride(1),
        BLOCK_M=launch.block_m,
        TILE=launch.tile,
        ONE_TOKEN=decode,
        **head_arguments(geometry),
        **cache_arguments(*views, batch, geometry),
        **score_arguments(scores),
        prompts_ptr=scores.prompt_lens,
        bias_ptr=scores.query_bias,
        bias_row=0 if scores.query_bias is None else scores.query_bias.stride(0),
        bias_size=0 if scores.query_bias is None else scores.query_bias.shape[0],
        partial_ptr=partial,
        **results,
    )
    if partial is None:
        return ("unified_2d",)
    combine_segments(partial, batch, **results)
    return ("unified_3d", "combine_segments")


class TritonAttention(HalvedCache, PackedSequences):
    """The backend TRITON_ATTN; ``segments`` are those of :func:`unified_attention`."""

    name = "TRITON_ATTN"
    _halves = 1

    def __init__(self, segments: int | None = None) -> None:
        self._segments = segments

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        if not is_head_scaled(geometry):
            return super().allocate(num_blocks, geometry, device)
        slots = (num_blocks, 2, geometry.block_size, geometry.num_kv_heads)
        return torch.empty((*slots, row_bytes(geometry)), dtype=geometry.cache_dtype, device=device)

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: torch.Tensor,
        slot_mapping: torch.Tensor,
        geometry: Geometry,
        scales: Scales,
    ) -> Dispatch:
        if not is_head_scaled(geometry):
            return super().write(key, value, cache, slot_mapping, geometry, scales)
        for rows, half in zip((key, value), cache.unbind(1), strict=True):
            write_head_scaled(rows, half, slot_mapping, geometry)
        return ("heads_write",)

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
        if is_head_scaled(geometry):
            return attend_head_scaled(
                query, cache, batch, geometry, scores, out, lse, self._segments
            )
        views = key_and_value_views(cache, self._halves)
        return unified_attention(
            query, views, batch, geometry, scores, scales, out, lse, self._segments
        )
