"""The problems of backends whose cache packs a key and a value into one row of bytes.

A release's decode runs a program for each query head and part of a sequence, and its write one for
each token and head, so batches are few and short: what they ask is how rows are packed and read,
for each cache's name, and which tokens a prefill reads from where.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from conformance.problems.lines import Line, Row, of_rows
from conformance.problems.making import Maker
from conformance.problems.problem import Problem

# Batches by name: what a quick run asks, of one cache each where there are fewer than caches.
_DECODES: tuple[Line, ...] = ((1, 0, -1), (1, 15, 15), (1, 36, (15, 16, 31)))
_MIXED: tuple[Line, ...] = ((1, 18, 2), (5, 16, (15, 17)), (3, 0, 1), (7, 0, -1))
_PREFILLS: tuple[Line, ...] = ((9, 0, 4), (1, 0, -1), (16, 0, (0, 15)))
_CONTINUED: tuple[Line, ...] = ((129, 17, (16, 17)),)
_SPLIT: tuple[Line, ...] = ((1, 69, (0, 15, 16, 63, 69)),)
_EXTENDS: tuple[Line, ...] = ((2, 14, 15), (4, 17, (3, 19)))
_EDGES: tuple[Line, ...] = tuple((1, n, (0, n)) for n in (1, 14, 16, 31, 32, 47, 63, 64, 65))
_LONG: tuple[Line, ...] = ((1, 299, (0, 255, 256, 298)), (1, 128, (127, 128)))


def packed_problems(maker: Maker) -> list[Problem]:
    """The problems of a tier, tagged with their batch."""
    rows = _small(maker) if maker.tier.small else _large(maker)
    rows = _emulated(maker) if maker.tier.emulated else rows
    return of_rows(maker, rows, _plain)


def _small(maker: Maker) -> Iterator[Row]:
    """One decode for each cache, and one batch of each other kind.

    A release cuts each decode into 32 parts, most of them empty here: these into 8 or 3. Few have
    two KV heads, because a release's write runs a program for each.
    """
    caches = maker.admitted.caches
    sizes = (80, 64, 128, 64)
    for number, cache in enumerate(caches):
        size = 256 if len(caches) == 1 else sizes[number]
        fields: dict[str, Any] = {"kv_cache_dtype": cache, "head_size": size}
        pieces = 8 if len(caches) > 1 else 3
        fields |= {"pieces": 3, "kv_heads": 2} if number % 2 else {"pieces": pieces, "kv_heads": 1}
        yield "packed_decode", _DECODES, fields
    for number, (tag, lines) in enumerate(
        (("packed_mixed", _MIXED), ("packed_prefill", _PREFILLS), ("packed_extend", _EXTENDS))
    ):
        cache = caches[-1 - number % len(caches)]
        fields = {"kv_cache_dtype": cache, "head_size": 64, "pieces": 3, "kv_heads": 1}
        yield tag, lines, fields
    one = {"group": 1, "kv_heads": 1, "head_size": 64, "pieces": 3}
    large = {**one, "large_logits": True, "block_size": 48}
    yield "packed_large", ((1, 20, 3), (4, 3, 5)), {**large, "kv_cache_dtype": caches[-1]}
    yield "packed_continued", _CONTINUED, {**one, "kv_cache_dtype": caches[len(caches) // 2]}
    split = {"group": 3, "kv_heads": 1, "head_size": 256, "pieces": 4, "block_size": 32}
    yield "packed_split", _SPLIT, {**split, "kv_cache_dtype": caches[0]}
    if len(caches) == 1:
        # Last, because a release raises an error: then the next problem has a new process.
        odd = {"kv_cache_dtype": caches[-1], "head_size": 96, "group": 1, "kv_heads": 1}
        yield "packed_odd", ((1, 20, (7, 19)),), odd


def _emulated(maker: Maker) -> Iterator[Row]:
    """A decode for each cache, or some, and a batch of all kinds: what changes the code."""
    caches, quick = maker.admitted.caches, maker.tier.name == "isa-quick"
    one = {"group": 4, "kv_heads": 1, "head_size": 64, "pieces": 2}
    for cache in caches[::3] if quick else caches:
        yield "packed_decode", ((1, 69, (15, 64)), (1, 0, -1)), {**one, "kv_cache_dtype": cache}
    yield "packed_mixed", _MIXED, {**one, "kv_cache_dtype": caches[-1]}


def _large(maker: Maker) -> Iterator[Row]:
    """Every batch for each cache, with sizes, groups and blocks dealt to them."""
    for cache in maker.admitted.caches:
        for tag, lines in (
            *(("packed_decode", _DECODES), ("packed_mixed", _MIXED), ("packed_extend", _EXTENDS)),
            *(("packed_prefill", _PREFILLS), ("packed_edges", _EDGES)),
        ):
            yield tag, lines, {"kv_cache_dtype": cache}
        one = {"group": 1, "kv_heads": 1, "kv_cache_dtype": cache}
        yield "packed_continued", ((1, 9, 4), *_CONTINUED, (128, 9, 8)), {**one, "head_size": 128}
        heads = {"group": 3, "kv_heads": 2, "kv_cache_dtype": cache, "head_size": 32}
        yield "packed_continued", _CONTINUED, heads
        yield "packed_long", _LONG, {**one, "head_size": 64}
        yield "packed_split", _SPLIT, {**one, "pieces": 5, "head_size": 256}
        yield "packed_large", ((1, 20, 3), (4, 3, 5)), {**one, "large_logits": True}
        for size in (32, 64, 80, 96, 128, 160, 256):
            yield "packed_sizes", _DECODES, {"kv_cache_dtype": cache, "head_size": size}


def _plain(maker: Maker, fields: dict[str, Any]) -> Problem:
    return maker.dealt(
        {"continued_from_cache": maker.admitted.features.continued_from_cache, **fields},
        "packed ",
        groups=(1, 3, 4, 2, 8),
        sizes=(64, 128, 32, 256),
        dtypes=maker.admitted.dtypes,
        blocks=(16, 32, 48, 64, 128),
    )
