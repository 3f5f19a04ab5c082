"""Small hand-made problems, a few for each backend: like the quick tier, but faster."""

from __future__ import annotations

from dataclasses import replace

from conformance.problems.problem import Problem

UNIFIED, TRITON, ROCM, FA = "ROCM_AITER_UNIFIED_ATTN", "TRITON_ATTN", "ROCM_ATTN", "ROCM_AITER_FA"
FLEX = "FLEX_ATTENTION"
MLA, AITER, SPARSE = "TRITON_MLA", "ROCM_AITER_MLA", "ROCM_AITER_MLA_SPARSE"
AITER_TRITON = "ROCM_AITER_TRITON_MLA"
COMPUTED = (ROCM, FA)


def decode(backend: str) -> Problem:
    """A sequence of one block and one of several (two partitions); the last key dominates."""
    partitions = backend in COMPUTED
    size, keys = (64, 290) if partitions else (80, 150)
    return Problem(
        kind="paged",
        backend=backend,
        id=f"decode on {backend}",
        seed=3,
        query_lens=(1, 1),
        context_lens=(9, keys - 1),
        num_heads=4,
        num_kv_heads=2,
        head_size=size,
        v_head_size=size,
        new_tokens_from_cache=not partitions,
        high_blocks=True,  # what is read at block 0 by mistake is poison
        dominant=((1, keys - 1),),
    )


def mixed(backend: str) -> Problem:
    """A prefill, an extend across a tile's edge, a decode; keys dominate at edges of the mask."""
    return replace(
        decode(backend),
        id=f"mixed on {backend}",
        query_lens=(1, 5, 20),
        context_lens=(40, 60, 0),
        head_size=64,
        v_head_size=64,
        dominant=((1, 59), (2, 9)),
        extra_rows=2,
    )


def table(backend: str) -> Problem:
    """Sequences of one length, so that any sequence's block table would be valid for the others."""
    return replace(
        decode(backend), id=f"table on {backend}", context_lens=(40, 40), dominant=((1, 40),)
    )


def window(backend: str) -> Problem:
    """Windows longer than a tile; one begins in another tile for the last query of its block."""
    return replace(
        decode(backend),
        id=f"window on {backend}",
        head_size=64,
        v_head_size=64,
        query_lens=(1, 12),
        context_lens=(210, 129),
        window=(70, 0),
        dominant=((0, 139), (1, 59)),
    )


def prefix(backend: str) -> Problem:
    """Two ranges behind and before the mask, in a sequence without a context and one with."""
    return replace(
        decode(backend),
        id=f"prefix on {backend}",
        head_size=64,
        v_head_size=64,
        query_lens=(34, 12),
        context_lens=(0, 14),
        window=(4, 0),
        mm_prefix=(((10, 20), (26, 31)),) * 2,
        dominant=((0, 20), (1, 10)),
    )


def capped(backend: str) -> Problem:
    """A soft cap, the root form of ALiBi and sinks at once, over a padded head size."""
    return replace(
        mixed(backend),
        id=f"capped on {backend}",
        query_lens=(1, 3, 7),
        head_size=80,
        v_head_size=80,
        soft_cap=4.0,
        alibi="sqrt" if backend == TRITON else "linear",
        sinks=True,
        dominant=((1, 29),),
    )


def sinks(backend: str) -> Problem:
    """Sinks where segments are combined, and rows of padding behind."""
    return replace(decode(backend), id=f"sinks on {backend}", sinks=True, extra_rows=2)


def encoder(backend: str) -> Problem:
    """Packed sequences without a cache; a window where the backend has one."""
    windowed = backend in (TRITON, FLEX)
    return replace(
        decode(backend),
        kind="varlen",
        id=f"encoder on {backend}",
        query_lens=(20, 33, 1),
        context_lens=(0, 0, 0),
        causal=False,
        scale=0.2,
        window=(9, 9) if windowed else (-1, -1),
        dominant=((0, 0), (1, 20), (2, 0)) if windowed else ((0, 19), (1, 32)),
    )


def fp8(backend: str, encoding: str) -> Problem:
    """A decode and an extend over an fp8 cache."""
    problem = replace(
        decode(backend),
        id=f"{encoding} on {backend}",
        query_lens=(1, 4),
        context_lens=(40, 17),
        head_size=64,
        v_head_size=64,
        k_scale=0.05,
        v_scale=0.03,
        dominant=(),
    )
    return Problem.from_json({**problem.to_json(), "kv_cache_dtype": encoding})


def latent(backend: str, tokens: int = 1) -> Problem:
    """MLA's decode; with more ``tokens`` a causal edge in it."""
    return replace(
        decode(backend),
        kind="mla",
        id=f"latent decode of {tokens} on {backend}",
        query_lens=(tokens,) * 2,
        context_lens=(9, 140),
        num_kv_heads=1,
        head_size=576,
        v_head_size=512,
        new_tokens_from_cache=False,
        dominant=((0, 8 + tokens), (1, 139 + tokens)),
    )


def latent_prefill(backend: str) -> Problem:
    """MLA's prefill: with a context and without."""
    return replace(
        latent(backend),
        kind="mla_prefill",
        id=f"latent prefill on {backend}",
        query_lens=(3, 18),
        context_lens=(40, 0),
        head_size=192,
        v_head_size=128,
        dominant=((0, 39), (1, 9)),
    )


def sparse(kind: str) -> Problem:
    """Fewer keys than are chosen, as many, and more; of the indexer or of its attention."""
    base = replace(
        latent(SPARSE),
        id=f"{kind} on {SPARSE}",
        query_lens=(2, 3, 1),
        context_lens=(3, 5, 20),
        new_tokens_from_cache=True,
        topk=8,
        dominant=(),
    )
    if kind == "mla_sparse":
        return replace(base, kind="mla_sparse", num_heads=16)
    # Many more than are chosen: half of the scores are below zero, whatever the scales.
    return replace(
        base,
        kind="indexer",
        context_lens=(3, 5, 60),
        head_size=128,
        v_head_size=128,
        kv_cache_dtype="fp8_e4m3fn",
    )


# Contexts of several chunks, once a chunk is as small as the faults' setting makes it.
CHUNKS = replace(
    mixed(FA),
    id="several chunks",
    query_lens=(9, 4, 5),
    context_lens=(70, 40, 0),
    alibi="linear",
    window=(60, 0),
    dominant=((0, 40), (1, 20)),
    extra_rows=0,
)
# The server takes this tag for a cache that reaches beyond 2**31 elements.
FAR = replace(
    fp8(TRITON, "fp8_e4m3fn"),
    id="blocks far apart",
    spare_blocks=1,
    tags=("far_apart",),
)
