"""Absorbed latent attention over a list of pages for each query token, of any length.

A program has one token, a tile of its heads and a part of its list, and loads the rows of the cache
that the list names. A long list is cut into equal parts, which are attended apart and weighed by
their log-sum-exps. Sources: the ragged kernels of
https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/v1/attention/ops/rocm_aiter_mla_sparse.py;
for the split FlashDecoding (https://pytorch.org/blog/flash-decoding/).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rocm_reference.attention import Batch, Dispatch, Geometry, Scales, Scores
from rocm_reference.ops.launch import power_of_2, segments_for
from rocm_reference.ops.mla.common import (
    attend_latent,
    choose_latent,
    heads_per_tile,
    latent_arguments,
    load_rows,
)
from rocm_reference.ops.mla.pages import Pages
from rocm_reference.ops.rows import load_per_head, store_output
from rocm_reference.ops.scores import result_arguments
from rocm_reference.ops.segmented import reduce_kernel
from rocm_reference.ops.softmax import finish, start_state


@triton.jit(do_not_specialize=["num_seqs", "lse_token", "lse_head"])
def ragged_kernel(
    query_ptr,
    cache_ptr,
    out_ptr,
    lse_ptr,
    indices_ptr,
    pages_start_ptr,
    lens_ptr,
    query_start_ptr,
    sinks_ptr,
    num_seqs,
    scale,
    value_scale,
    query_token,
    query_head,
    page_stride,
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
    BLOCK_M: tl.constexpr,
    TILE: tl.constexpr,
    PARTS: tl.constexpr,
    FORMAT: tl.constexpr,
    CHUNK: tl.constexpr,
    TOGETHER: tl.constexpr,
    SINKS: tl.constexpr,
):
    """Program (token, tile of heads, part): one part of the token's pages.

    ``out``: [T, PARTS, H, RANK] and ``lse``: [T, PARTS, H], in float32, or with one part the
    results themselves. The first part has the sink. Rows of padding are not written.
    """
    token = tl.program_id(0).to(tl.int64)
    head_tile = tl.program_id(1)
    part = tl.program_id(2)
    if token >= tl.load(query_start_ptr + num_seqs):
        return
    num_keys = tl.load(lens_ptr + token)
    size = tl.cdiv(tl.cdiv(num_keys, TILE), PARTS) * TILE
    first = part * size
    last = tl.minimum(first + size, num_keys)
    _, head, exists, query, query_rope = load_rows(
        query_ptr,
        token,
        0,
        1,
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
        1,
        CHUNK,
    )
    acc, maximum, total = start_state(BLOCK_M, RANK_PAD)
    acc, maximum, total = attend_latent(
        acc,
        maximum,
        total,
        query,
        query_rope,
        head,
        first,
        last // TILE * TILE,
        last,
        indices_ptr + tl.load(pages_start_ptr + token),
        cache_ptr,
        page_stride,
        0,
        scale,
        RANK,
        RANK_PAD,
        ROPE,
        ROPE_PAD,
        1,
        TILE,
        FORMAT,
        CHUNK,
        False,
        TOGETHER,
    )
    sinks = load_per_head(sinks_ptr, head, exists, SINKS)
    if SINKS:
        sinks = tl.where(part == 0, sinks, float("-inf"))
    output, lse = finish(acc, maximum, total, sinks, SINKS)
    row = token * PARTS + part + tl.zeros([BLOCK_M], dtype=tl.int64)
    store_output(
        out_ptr, output * value_scale, row, head, exists, out_token, out_head, RANK, RANK_PAD
    )
    if lse_ptr is not None:
        tl.store(lse_ptr + row * lse_token + head * lse_head, lse, mask=exists)


def attend_ragged(
    query: torch.Tensor,
    cache: torch.Tensor,
    pages: Pages,
    batch: Batch,
    geometry: Geometry,
    scores: Scores,
    scales: Scales,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    most: int,
    parts: int | None = None,
) -> Dispatch:
    """Every query token attends its own pages, all of them; see ``PagedBackend.attend``.

    ``most``: pages of the longest list, or more. ``parts``: into how many a list is cut, rounded up
    to a power of two; None: as many as fill the device.
    """
    tokens, heads = query.shape[0], geometry.num_heads
    launch = choose_latent(query, heads, 1, cache.dtype.itemsize)
    group = heads_per_tile(heads, launch.block_m)
    head_tiles = -(-heads // group)
    parts = power_of_2(parts) if parts else 0
    parts = parts or segments_for(tokens * head_tiles, most, launch.tile, query.device)
    results = result_arguments(scores, scales.k, out, lse)
    stored = results
    if parts > 1:
        shape = (tokens, parts, heads, geometry.v_head_size)
        partial = torch.empty(shape, dtype=torch.float32, device=query.device)
        sums = torch.empty(shape[:-1], dtype=torch.float32, device=query.device)
        stored = {
            **results,
            "out_ptr": partial,
            "out_token": partial.stride(1),
            "out_head": partial.stride(2),
            "lse_ptr": sums,
            "lse_token": sums.stride(1),
            "lse_head": sums.stride(2),
        }
    latent = latent_arguments(cache, geometry)
    ragged_kernel[(tokens, head_tiles, parts)](
        query,
        indices_ptr=pages.indices,
        pages_start_ptr=pages.start,
        lens_ptr=pages.lens,
        query_start_ptr=batch.query_start_loc,
        num_seqs=batch.seq_lens.shape[0],
        scale=scores.scale * scales.k,
        query_token=query.stride(0),
        query_head=query.stride(1),
        page_stride=pages.stride,
        GROUP=group,
        BLOCK_M=launch.block_m,
        TILE=launch.tile,
        PARTS=parts,
        CHUNK=launch.chunk,
        TOGETHER=launch.together,
        **latent,
        **stored,
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
    )
    if parts == 1:
        return ("ragged",)
    for name in ("sinks_ptr", "SINKS", "value_scale"):
        results.pop(name)
    reduce_kernel[(tokens, heads)](
        partial,
        sums,
        query_start_ptr=batch.query_start_loc,
        num_seqs=batch.seq_lens.shape[0],
        V=latent["RANK"],
        V_PAD=latent["RANK_PAD"],
        PARTS=parts,
        **results,
    )
    return ("ragged", "combine_ragged")
