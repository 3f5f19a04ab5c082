"""Inputs and caches of a workload, in a device's memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from conformance.benchmarks.workloads import Workload
from rocm_reference.attention import Batch, Geometry, PagedBackend, Scales, Scores
from rocm_reference.backends.registry import backend

# The scales of an fp8 cache: normal numbers fill a good part of its range.
FP8_SCALES = Scales(0.02, 0.03)
# A latent vector is key and value: it has one scale.
LATENT_SCALES = Scales(0.02, 0.02)


@dataclass(frozen=True)
class Setup:
    """``keys`` and ``values`` [tokens of all sequences, context included, G, D], and their slots.

    ``new``: the rows of the new tokens among them. Values of MLA are the keys' first columns.
    """

    workload: Workload
    query: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    new: torch.Tensor
    slots: torch.Tensor
    batch: Batch
    geometry: Geometry
    scores: Scores
    scales: Scales
    num_blocks: int


def set_up(w: Workload, device: str = "cuda") -> Setup:
    """Seeded inputs; the blocks of every sequence are scattered over the cache."""
    torch.manual_seed(0)
    dtype, sequences = torch.bfloat16, len(w.lengths)
    totals = [query + context for query, context in w.lengths]
    most = -(-max(totals) // w.block_size)
    table = torch.randperm(sequences * most, device=device).int().view(sequences, most)
    slots = []
    for row, total in zip(table.long(), totals, strict=True):
        position = torch.arange(total, device=device)
        slots.append(row[position // w.block_size] * w.block_size + position % w.block_size)
    ends = list(accumulate(totals))
    new = [
        torch.arange(end - query, end, device=device)
        for end, (query, _) in zip(ends, w.lengths, strict=True)
    ]

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=dtype, device=device)

    def int32(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device=device)

    queries = [query for query, _ in w.lengths]
    cache_dtype = torch.float8_e4m3fn if w.fp8 else dtype
    size = w.key_size
    keys = normal(ends[-1], w.kv_heads, size)
    return Setup(
        w,
        query=normal(w.tokens, w.heads, size),
        keys=keys,
        values=keys[..., : w.head_size] if w.rope else normal(ends[-1], w.kv_heads, size),
        new=torch.cat(new),
        slots=torch.cat(slots),
        batch=Batch(
            int32([0, *accumulate(queries)]),
            int32(totals),
            table,
            max(queries),
            max(totals),
            max(context for _, context in w.lengths),
        ),
        geometry=Geometry(w.heads, w.kv_heads, size, w.head_size, dtype, cache_dtype, w.block_size),
        scores=Scores(
            size**-0.5,
            window=(w.window - 1, -1) if w.window else (-1, -1),
            sinks=torch.randn(w.heads, device=device) if w.sinks else None,
        ),
        scales=(LATENT_SCALES if w.rope else FP8_SCALES) if w.fp8 else Scales(),
        num_blocks=sequences * most,
    )


def filled(setup: Setup, kernel: PagedBackend) -> torch.Tensor:
    """A backend's cache with the workload's keys and values in it."""
    cache = kernel.allocate(setup.num_blocks, setup.geometry, setup.query.device)
    kernel.write(setup.keys, setup.values, cache, setup.slots, setup.geometry, setup.scales)
    return cache


def output(setup: Setup) -> torch.Tensor:
    """Uninitialised memory for a result [T, H, V]."""
    return torch.empty_like(setup.query[..., : setup.workload.head_size])


def reference_call(setup: Setup, name: str) -> Callable[[], object]:
    """A call of one of the reference's backends; its cache is filled now."""
    kernel: Any = backend(name)
    cache, out = filled(setup, kernel), output(setup)
    # The cache holds the new tokens' keys too; algorithms may also read them elsewhere.
    key, value = setup.keys[setup.new], setup.values[setup.new]
    return lambda: kernel.attend(
        setup.query,
        key,
        value,
        cache,
        setup.batch,
        setup.geometry,
        setup.scores,
        setup.scales,
        out,
    )
