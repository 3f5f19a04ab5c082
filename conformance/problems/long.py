"""Long contexts and large caches, for GPUs: faults that show only at that size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from conformance.problems.making import Maker
from conformance.problems.problem import Problem

LONGEST = 131_072
PREFILL = 16_384


def long_problems(maker: Maker, kind: str) -> list[Problem]:
    """A kind's problems at full length, with dominant keys at both ends and in the middle.

    Without a dominant key, an average over 131,072 keys is hardly larger than its error bound.
    """
    made = []
    for number, (label, fields) in enumerate(_lengths(kind)):
        keys = fields.get("key_lens") or [
            q + c for q, c in zip(fields["query_lens"], fields["context_lens"], strict=True)
        ]
        spots = (keys[0] - 1, 0, keys[0] // 2)
        problem = maker.base(kind=kind, **_heads(maker, kind), **fields)
        if kind != "indexer":
            problem = replace(problem, dominant=tuple((0, spot) for spot in spots))
        made.append(maker.named(replace(problem, tags=("long",)), label, number))
    return made


def huge_cache(maker: Maker) -> Problem:
    """A cache of more than 2**31 elements, of which the last blocks are used.

    Offsets that are computed in 32 bits overflow. Only the blocks in use need memory, as long as
    nothing touches the others.
    """
    problem = maker.base(
        kind="paged", query_lens=(1, 5), context_lens=(40, 20), **_heads(maker, "paged")
    )
    block = problem.block_size * problem.num_kv_heads * problem.head_size
    spare = 2**31 // block + 1
    problem = replace(problem, spare_blocks=spare, high_blocks=True, tags=("huge_cache",))
    return maker.named(problem, "huge-cache", 0)


def _lengths(kind: str) -> list[tuple[str, dict[str, Any]]]:
    """Labels, lengths and options of the long problems of a kind."""
    longest = {"query_lens": (1,), "context_lens": (LONGEST - 1,)}
    batch = {"query_lens": (1,) * 8, "context_lens": (8191, 8000, 4096, 1, 700, 8191, 2048, 300)}
    prefill = {"query_lens": (PREFILL,), "context_lens": (0,)}
    # In the order in which every backend takes them.
    extend = {"query_lens": (1, 2048), "context_lens": (9000, 30_000)}
    if kind == "varlen":
        none = {"context_lens": (0,), "causal": False}
        many = {"query_lens": (4096, 1, 5000, 63), "context_lens": (0,) * 4, "causal": False}
        return [("prefill-16k", {"query_lens": (PREFILL,), **none}), ("packed-4k", many)]
    if kind in ("mla", "mla_sparse"):
        return [("decode-131k", longest), ("decode-8x8k", batch)]
    if kind == "mla_prefill":
        return [
            ("prefill-4k", {"query_lens": (4096,), "context_lens": (0,)}),
            ("extend-1k", {"query_lens": (1024,), "context_lens": (15_000,)}),
        ]
    if kind == "indexer":
        return [
            ("decode-131k", longest),
            ("extend-512", {"query_lens": (512,), "context_lens": (8000,)}),
        ]
    return [
        ("decode-131k", longest),
        ("decode-131k-window", {**longest, "window": (1023, 0)}),
        ("decode-8x8k", batch),
        ("prefill-16k", prefill),
        ("prefill-16k-window", {**prefill, "window": (1023, 0)}),
        ("extend-2k", extend),
    ]


def _heads(maker: Maker, kind: str) -> dict[str, Any]:
    """Heads and sizes of a medium-sized model."""
    if kind == "mla_prefill":
        return {"num_heads": 16, "num_kv_heads": 1, "head_size": 192, "v_head_size": 128}
    heads: dict[str, Any] = {"num_heads": 16, "num_kv_heads": 1}
    if kind == "indexer":
        heads |= {"num_heads": 64, "head_size": 128, "v_head_size": 128, "topk": 2048}
        return {**heads, "dtype": "bfloat16", "kv_cache_dtype": "fp8_e4m3fn"}
    if kind in ("mla", "mla_sparse"):
        heads |= {"head_size": 576, "v_head_size": 512, "dtype": "bfloat16"}
        return {**heads, **({"topk": 2048} if kind == "mla_sparse" else {})}
    dtype = maker.draw.choice(["float16", "bfloat16"])
    return {"num_heads": 8, "num_kv_heads": 2, "head_size": 128, "v_head_size": 128, "dtype": dtype}
