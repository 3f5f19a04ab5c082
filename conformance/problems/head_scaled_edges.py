"""The problems of caches with a scale per token and head, beside a backend's other problems.

A release's write runs a program for each token and head, so batches are few and short: what they
ask is how rows are stored, with whose scale they are read, and that masks and splits are those of
other caches.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from conformance.problems.layouts import Decks
from conformance.problems.lines import Line, Row, of_rows
from conformance.problems.making import Maker
from conformance.problems.problem import Problem

_DECODES: tuple[Line, ...] = ((1, 69, (15, 16, 64)), (1, 17, 16), (1, 0, -1))
_FEW: tuple[Line, ...] = ((1, 33, (15, 16, 33)), (1, 0, -1))
_MIXED: tuple[Line, ...] = ((1, 18, 2), (5, 16, (15, 17)), (9, 0, 4))
_EDGES: tuple[Line, ...] = tuple((1, n, (0, n)) for n in (1, 14, 15, 16, 31, 32, 47, 63))
_LONG: tuple[Line, ...] = ((1, 299, (0, 255, 256, 298)), (3, 128, (127, 128)))
_EXTENDS: tuple[Line, ...] = ((33, 30, (29, 30, 62)), (17, 0, 15), (2, 47, 48))


def head_scaled_problems(maker: Maker, seed: str) -> list[Problem]:
    """The problems of a tier, tagged with their batch; drawn apart from the backend's others."""
    draw = random.Random(seed)
    own = replace(maker, draw=draw, decks=Decks(draw))
    rows = _small(own) if own.tier.small else _large(own)
    rows = _emulated(own) if own.tier.emulated else rows
    return of_rows(own, rows, _plain)


def _small(maker: Maker) -> Iterator[Row]:
    """A decode, which is split, and a batch of all kinds for each code; fp8's encodings, which
    differ in nothing else, have one each."""
    masks = ({"window": (9, 0), "sinks": True}, {"soft_cap": 4.0}, {"alibi": "linear"})
    for number, cache in enumerate(maker.admitted.head_scaled):
        fields = {"kv_cache_dtype": cache, "kv_heads": 1 + (number == 0)}
        if not cache.startswith("fp8_e4m3fn_"):
            size = 64 if number else 80
            yield "heads_decode", _FEW, {**fields, "head_size": size, "pieces": 3}
        if not cache.startswith("fp8_e4m3fnuz"):
            yield "heads_mixed", _MIXED, {**fields, **masks[number % len(masks)], "head_size": 64}


def _emulated(maker: Maker) -> Iterator[Row]:
    """Each kernel once for each code; a quick tier leaves out fp8, whose kernels are int8's."""
    caches, one = maker.admitted.head_scaled, {"group": 4, "kv_heads": 1, "head_size": 64}
    quick = maker.tier.name == "isa-quick"
    for cache in caches:
        if quick and cache.startswith("fp8"):
            continue
        yield "heads_decode", _DECODES[1:], {**one, "kv_cache_dtype": cache, "pieces": 2}
        yield "heads_mixed", _MIXED, {**one, "kv_cache_dtype": cache}


def _large(maker: Maker) -> Iterator[Row]:
    """Every batch for each cache, and every mask, with sizes, groups and blocks dealt to them."""
    for cache in maker.admitted.head_scaled:
        for tag, lines in (
            *(("heads_decode", _DECODES), ("heads_mixed", _MIXED), ("heads_edges", _EDGES)),
            *(("heads_long", _LONG), ("heads_extends", _EXTENDS)),
        ):
            yield tag, lines, {"kv_cache_dtype": cache}
        for masks in (
            *({"window": (15, 0)}, {"window": (0, 0)}, {"soft_cap": 4.0}, {"sinks": True}),
            *({"alibi": "linear"}, {"alibi": "sqrt"}),
        ):
            yield "heads_masks", _EXTENDS, {"kv_cache_dtype": cache, **masks}
        yield "heads_split", _DECODES, {"kv_cache_dtype": cache, "pieces": 5}
        for size in (32, 80, 96, 128, 256):
            one = {"group": 4, "kv_heads": 2, "head_size": size}
            yield "heads_sizes", _MIXED, {**one, "kv_cache_dtype": cache}


def _plain(maker: Maker, fields: dict[str, Any]) -> Problem:
    # Releases round what goes to a cache in int4 to bfloat16, if a GPU rotates it.
    rounded = fields["kv_cache_dtype"].startswith("int4")
    return maker.dealt(
        fields,
        groups=(4, 1, 3, 2, 8),
        sizes=(64, 128, 80, 256),
        dtypes=("bfloat16",) if rounded else ("bfloat16", "float16"),
        blocks=(16, 32, 48, 64),
    )
