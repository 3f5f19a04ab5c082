"""The tensors of a call of one of vLLM's ops, made from its seed and laid out for the op."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..contract import Call
from .objects import current_platform

# Of the ops whose values have another head size than keys.
VALUE_SIZES = {"mla_decode": 512, "diffkv_2d": 128, "diffkv_3d": 128}


@dataclass
class Inputs:
    """Tensors of a call before they are laid out for an op."""

    query: torch.Tensor
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    query_start: torch.Tensor
    seq_lens: torch.Tensor
    block_table: torch.Tensor
    num_blocks: int
    sinks: torch.Tensor | None
    scale: float
    max_query: int
    max_seq: int


def make_inputs(call: Call) -> Inputs:
    """Queries, keys and values of a call, and a block table in a shuffled order."""
    generator = torch.Generator().manual_seed(call.seed)
    dtype = getattr(torch, call.dtype)
    v_size = VALUE_SIZES.get(call.op, call.head_size)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    query_lens = [q for q, _ in call.sequences]
    query = normal(sum(query_lens), call.heads, call.head_size)
    keys = [normal(n, call.kv_heads, call.head_size) for _, n in call.sequences]
    values = [normal(n, call.kv_heads, v_size) for _, n in call.sequences]
    if call.op == "mla_decode":
        values = [k[..., :v_size].clone() for k in keys]
    blocks = [math.ceil(n / call.block_size) for _, n in call.sequences]
    order = torch.randperm(sum(blocks) + 2, generator=generator).to(torch.int32)
    table = torch.zeros(len(blocks), max(blocks), dtype=torch.int32)
    at = 0
    for row, count in enumerate(blocks):
        table[row, :count] = order[at : at + count]
        at += count
    starts = torch.tensor([0, *query_lens], dtype=torch.int32).cumsum(0).to(torch.int32)
    return Inputs(
        query=query,
        keys=keys,
        values=values,
        query_start=starts,
        seq_lens=torch.tensor([n for _, n in call.sequences], dtype=torch.int32),
        block_table=table,
        num_blocks=sum(blocks) + 2,
        sinks=torch.randn(call.heads, generator=generator).to(dtype) if call.sinks else None,
        scale=call.head_size**-0.5,
        max_query=max(query_lens),
        max_seq=max(n for _, n in call.sequences),
    )


def store_dtype(call: Call) -> torch.dtype:
    """The dtype of the call's cache."""
    if call.kv_dtype == "auto":
        dtype: torch.dtype = getattr(torch, call.dtype)
        return dtype
    return current_platform().fp8_dtype()


def paged(call: Call, given: Inputs, rows: list[torch.Tensor]) -> torch.Tensor:
    """The rows of every sequence in a cache [blocks, block size, G, D]; other slots hold NaN.

    vLLM 0.19.0's ``kernel_paged_attention_2d`` multiplies the values of slots past a sequence's end
    by a weight of 0 instead of not reading them, so that NaN there reaches the output; it gets a
    finite number.
    """
    dtype = store_dtype(call)
    shape = (given.num_blocks, call.block_size, call.kv_heads, rows[0].shape[-1])
    cache = torch.full(shape, 77.0 if call.op == "paged_2d" else float("nan")).to(dtype)
    if call.kv_dtype != "auto":
        cache = torch.zeros(shape).to(dtype)
    for sequence, values in enumerate(rows):
        for position in range(values.shape[0]):
            block = int(given.block_table[sequence, position // call.block_size])
            cache[block, position % call.block_size] = values[position].float().to(dtype)
    return cache


def head_major(call: Call, given: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """ROCM_ATTN's layout: keys [blocks, G, D/x, block size, x], values [blocks, G, D, size]."""
    keys = paged(call, given, given.keys)
    values = paged(call, given, given.values)
    x = 16 // keys.element_size()
    blocks, size, heads, width = keys.shape
    keys = keys.view(blocks, size, heads, width // x, x).permute(0, 2, 3, 1, 4).contiguous()
    return keys, values.permute(0, 2, 3, 1).contiguous()


def query_rows(rows: list[torch.Tensor], call: Call) -> torch.Tensor:
    """The rows of the query tokens themselves, packed as [T, G, D]."""
    lengths = [q for q, _ in call.sequences]
    return torch.cat([r[r.shape[0] - q :] for r, q in zip(rows, lengths, strict=True)])
