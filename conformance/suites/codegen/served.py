"""What kernels are compiled for as served: the attention layers of published models.

The models are those of ``conformance/models/presets.toml``, each with the page of its shapes. A
layer is asked with one GPU's share of the heads, alone and of eight, with the cache blocks that
vLLM gives it, in the kinds of batch that an engine makes. Layers that no launch tells apart are
asked once: the id names the first model that has them, and the tags all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from conformance.errors import UsageError
from conformance.models.layers import Layers, Model
from conformance.models.presets import find_model, presets
from conformance.models.state import hybrid_block_size
from conformance.problems.admission import refusals
from conformance.problems.features import Features, features
from conformance.problems.problem import Problem
from conformance.problems.shipped import FP8, NO_KERNELS, TOPK
from vllm_editions import load_edition

GPUS = (1, 8)
# vLLM's own choice, and what backends with longer tiles ask for.
BLOCK_SIZES = (16, 64)
# Query tokens and context of each sequence. A prefill with many tokens, one that goes on after a
# long context (chunked prefill) beside decodes, decodes of long and short contexts, and tokens that
# are verified together (speculative decoding).
BATCHES: dict[str, tuple[tuple[int, int], ...]] = {
    "prefill": ((512, 0), (30, 0)),
    "chunked": ((1, 2047), (1, 40), (256, 1024)),
    "decode": ((1, 2047), (1, 40)),
    "short decode": ((1, 100),),
    "speculative": ((4, 1020), (4, 33)),
    "short prefill": ((24, 0),),
}
# Shapes of no model, for tiles that code has and no model makes it choose: head sizes by dtype.
BESIDE = {"bfloat16": (32, 96, 112, 160, 192, 224), "float32": (64, 128, 256)}
NO_MODEL = "every tile"
KINDS = {
    **dict.fromkeys(("full", "sliding", "chunked"), "paged"),
    **dict.fromkeys(("vision", "audio", "encoder"), "varlen"),
    "mla": "mla",
    "sparse MLA": "mla_sparse",
    "cross": "cross",
}
# What a soft cap is, where a model has one: kernels are compiled for whether there is one.
SOFT_CAP = 50.0
GEMMA_WINDOW = 1024


@dataclass(frozen=True)
class Shape:
    """A layer as one GPU has it, with the size of its cache's blocks."""

    kind: str
    heads: int
    kv_heads: int
    head_size: int
    dtype: str
    window: int
    sinks: bool
    alibi: bool
    soft_cap: bool
    block_size: int


@cache
def shapes() -> dict[Shape, tuple[str, ...]]:
    """Every distinct shape of the models' layers, with the models that have it."""
    found: dict[Shape, list[str]] = {}
    for name in presets():
        model = find_model(name)
        for gpus in GPUS:
            for layers in model.layers:
                for shape in _of_layers(model, layers, gpus):
                    found.setdefault(shape, []).append(name)
    for dtype, sizes in BESIDE.items():
        for size in sizes:
            shape = Shape("paged", 2, 2, size, dtype, 0, False, False, False, BLOCK_SIZES[0])
            found.setdefault(shape, []).append(NO_MODEL)
    return {shape: tuple(dict.fromkeys(names)) for shape, names in found.items()}


def _of_layers(model: Model, layers: Layers, gpus: int) -> Iterator[Shape]:
    if layers.kind not in KINDS or not layers.head_size:
        return
    try:
        share = layers.of_one_gpu(gpus)
    except UsageError:
        return  # its heads cannot be shared out among so many
    sizes: tuple[int, ...] = BLOCK_SIZES
    if model.hybrid:
        sizes = (hybrid_block_size(model.state_elements, share, gpus),)
    for block in sizes if KINDS[layers.kind] != "varlen" else BLOCK_SIZES[:1]:
        yield Shape(
            KINDS[layers.kind],
            share.num_heads,
            share.num_kv_heads,
            share.head_size,
            model.dtype,
            share.window,
            share.sinks,
            share.alibi,
            share.soft_cap,
            block,
        )


@cache
def served(fp8: str, edition: str) -> tuple[Problem, ...]:
    """Every backend's problems on a target whose fp8 encoding is ``fp8``, each once."""
    return tuple(_served(fp8, edition))


def _served(fp8: str, edition: str) -> Iterator[Problem]:
    for backend, row in features().items():
        known = row.dtypes or backend in load_edition(edition).backends
        # The models' values have as many columns as their keys.
        if backend in NO_KERNELS or not known or row.value_head_sizes:
            continue
        alike: dict[Problem, list[str]] = {}
        first: dict[Problem, Problem] = {}
        for shape, names in shapes().items():
            for problem in _problems(backend, row, shape, fp8):
                if not refusals(problem, edition):
                    same = as_launched(problem)
                    first.setdefault(same, problem)
                    alike.setdefault(same, []).extend(names)
        for same, models in alike.items():
            name = f"{first[same].id} {models[0].rpartition('/')[2]}"
            yield replace(first[same], id=name, tags=tuple(dict.fromkeys(models)))


def as_launched(problem: Problem) -> Problem:
    """What code depends on: one KV head or several, and not how many; a window, and not which.

    A window of 1,024 tokens has tiles of its own in vLLM
    (https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/ops/triton_unified_attention.py).
    """
    kv_heads = min(problem.num_kv_heads, 2)
    left = problem.window[0]
    return replace(
        problem,
        id="",
        num_kv_heads=kv_heads,
        num_heads=problem.group * kv_heads,
        window=problem.window if left < 0 or left + 1 == GEMMA_WINDOW else (1, 0),
    )


def _problems(backend: str, row: Features, shape: Shape, fp8: str) -> Iterator[Problem]:
    kind = "paged" if shape.kind == "cross" else shape.kind
    if kind not in row.kinds:
        return
    caches = ["auto"]
    if fp8 in FP8 and kind != "varlen" and shape.block_size == BLOCK_SIZES[0]:
        caches.append(FP8[fp8])
    for stored in caches:
        usual = stored == "auto" and shape.block_size == BLOCK_SIZES[0]
        for batch in BATCHES if usual else ("chunked", "decode"):
            if problem := _problem(backend, row, shape, batch, stored):
                yield problem
    if kind == "mla" and "mla_prefill" in row.kinds:
        for stored in caches:
            yield _latent_prefill(backend, row, shape, stored)


def _problem(backend: str, row: Features, shape: Shape, batch: str, stored: str) -> Problem | None:
    lengths = BATCHES[batch]
    latent = shape.kind in ("mla", "mla_sparse")
    if batch == "short prefill" and shape.heads != shape.kv_heads:
        return None  # with several query heads it is as any other
    if shape.kind == "varlen":
        if batch != "prefill":
            return None
    elif latent and batch not in ("decode", "speculative"):
        return None
    if shape.kind == "mla" and row.query_lens == "one" and batch == "speculative":
        return None
    crossed = shape.kind == "cross"
    left = -1 if not shape.window else shape.window - 1 if shape.kind != "varlen" else shape.window
    problem = _base(backend, row, shape, batch, stored)
    return replace(
        problem,
        kind="paged" if crossed else shape.kind,  # type: ignore[arg-type] # one of a problem's
        query_lens=tuple(q for q, _ in lengths),
        context_lens=tuple(0 if crossed else c for _, c in lengths),
        key_lens=tuple(1500 for _ in lengths) if crossed else None,
        v_head_size=shape.head_size - 64 if latent else shape.head_size,
        causal=not crossed and shape.kind != "varlen",
        window=(left, 0 if shape.kind != "varlen" else left) if left >= 0 else (-1, -1),
        topk=TOPK if shape.kind == "mla_sparse" else 0,
    )


def _latent_prefill(backend: str, row: Features, shape: Shape, stored: str) -> Problem:
    problem = _base(backend, row, shape, "prefill", stored)
    return replace(
        problem,
        kind="mla_prefill",
        query_lens=(256,),
        context_lens=(1024,),
        head_size=192,
        v_head_size=128,
        window=(-1, -1),
    )


def _base(backend: str, row: Features, shape: Shape, batch: str, stored: str) -> Problem:
    parts = [
        f"{backend} served",
        f"h{shape.heads}x{shape.kv_heads}",
        f"d{shape.head_size}",
        *([f"b{shape.block_size}"] if shape.kind != "varlen" else []),
        shape.dtype,
        *([stored] if stored != "auto" else []),
        *([f"win{shape.window}"] if shape.window else []),
        *(name for name in ("sinks", "alibi", "soft_cap") if getattr(shape, name)),
        *([shape.kind] if shape.kind != "paged" else []),
        batch.replace(" ", "-"),
    ]
    return Problem(
        kind="paged",
        backend=backend,
        id="-".join(parts),
        seed=0,
        query_lens=(1,),
        context_lens=(0,),
        num_heads=shape.heads,
        num_kv_heads=shape.kv_heads,
        head_size=shape.head_size,
        v_head_size=shape.head_size,
        dtype=shape.dtype,  # type: ignore[arg-type] # the models' are 16-bit
        kv_cache_dtype=stored,  # type: ignore[arg-type] # one of a problem's
        block_size=shape.block_size,
        soft_cap=SOFT_CAP if shape.soft_cap else 0.0,
        alibi="linear" if shape.alibi else "none",
        sinks=shape.sinks,
        new_tokens_from_cache=row.new_tokens != "computed",
    )
