"""The problems of backends that attend over two caches: keys of a window, and chosen ones.

A window of ``W`` keys has a second cache in which a key stands for ``2 W`` tokens
(``Problem.tokens_of_a_chosen_key``), so small windows make long lists of chosen keys of short
contexts, and large ones long windows. Kernels take 16 or 32 keys of either at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from conformance.problems.cache_dtypes import BLOCK_OF_WINDOW
from conformance.problems.lines import Line, Row, of_rows
from conformance.problems.making import Maker
from conformance.problems.problem import Problem

# No chosen key, one, and the window full or not; keys of the window up to the edges of tiles.
_WINDOWS: tuple[Line, ...] = (
    *((1, 0, -1), (1, 14, (0, 14)), (1, 15, 15), (1, 16, (0, 16)), (1, 31, 0), (1, 32, (0, 32))),
    *((1, 62, 62), (1, 63, (0, 63)), (1, 64, (0, 1, 64)), (1, 127, (0, 63, 64, 127))),
)
# With a window of one key and two tokens a chosen key: as many of these as edges of tiles.
_CHOSEN: tuple[Line, ...] = (
    *((1, 1, 1), (1, 2, (0, 2)), (1, 29, 14), (1, 31, 15), (1, 33, 16), (1, 63, 31)),
    *((1, 65, (32, 65)), (1, 129, (63, 64))),
)
# More than a block of 256, and more keys to choose from than are chosen.
_LONG: tuple[Line, ...] = ((1, 299, (0, 9, 255, 256, 299)), (1, 255, (7, 255)), (1, 256, 8))
_MIXED: tuple[Line, ...] = ((1, 69, (0, 69)), (1, 0, -1), (5, 40, (0, 1, 44)), (9, 0, 4))
_PREFILLS: tuple[Line, ...] = ((2, 15, (0, 16)), (17, 16, (0, 32)), (3, 0, 1), (7, 60, (2, 3, 66)))
_EXTENDS: tuple[Line, ...] = ((33, 250, (0, 5, 249, 255, 282)), (4, 31, (0, 33)))
_FEW: tuple[Line, ...] = ((1, 69, (0, 69)), (1, 15, 0), (1, 0, -1))


def windowed_problems(maker: Maker) -> list[Problem]:
    """The problems of a tier, tagged with their batch."""
    rows = _small(maker) if maker.tier.small else _large(maker)
    rows = _emulated(maker) if maker.tier.emulated else rows
    return of_rows(maker, rows, _plain)


def _small(maker: Maker) -> Iterator[Row]:
    caches = maker.admitted.caches
    first, last = caches[0], caches[-1]
    yield "windows", _WINDOWS, {"kv_cache_dtype": first, "keys": 64}
    yield "chosen", _CHOSEN, {"kv_cache_dtype": last, "keys": 1, "topk": 128}
    yield "chosen_few", _LONG, {"kv_cache_dtype": first, "keys": 8, "topk": 5, "num_heads": 32}
    # Four tokens a chosen key: of these a decode's lists are made by kernels of their own.
    large = {"kv_cache_dtype": last, "keys": 2, "topk": 16, "large_logits": True}
    yield "large", ((1, 20, (0, 20)), (1, 9, 1), (4, 12, (0, 15))), large
    yield "mixed", _MIXED, {"kv_cache_dtype": first, "keys": 8, "topk": 16, "num_heads": 8}
    yield "prefill", _PREFILLS, {"kv_cache_dtype": last, "keys": 16, "topk": 16}
    yield "extend", _EXTENDS, {"kv_cache_dtype": first, "keys": 4, "topk": 40}
    yield "prefill_all", ((9, 0, 4), (4, 0, (0, 3))), {"kv_cache_dtype": last, "keys": 2, "topk": 8}


def _emulated(maker: Maker) -> Iterator[Row]:
    """A decode of both caches, and a batch of all kinds, of which each kernel has a part.

    A device has one of the encodings, and kernels of its own for it.
    """
    for cache in maker.admitted.caches:
        one = {"kv_cache_dtype": cache, "topk": 16, "num_heads": 16}
        yield "decode", _FEW, {**one, "keys": 8, "sinks": maker.admitted.sinks}
        lines: tuple[Line, ...] = ((1, 41, (0, 41)), (3, 20, (0, 1, 22)))
        yield "mixed", lines, {**one, "keys": 2, "large_logits": True, "sinks": False}
        if maker.tier.name != "isa-quick":
            yield "prefill", ((17, 16, (0, 32)), (2, 0, 1)), {**one, "keys": 16}


def _large(maker: Maker) -> Iterator[Row]:
    """Every batch with windows, heads and numbers of chosen keys dealt to it."""
    deal = maker.decks.take
    for cache in maker.admitted.caches:
        for tag, lines in (
            *(("windows", _WINDOWS), ("chosen", _CHOSEN), ("chosen_few", _LONG)),
            *(("mixed", _MIXED), ("prefill", _PREFILLS), ("extend", _EXTENDS)),
        ):
            for large in (False, True):
                fields = {"kv_cache_dtype": cache, "large_logits": large}
                keys, topk = deal("keys", (1, 8, 64, 4, 128, 16, 32)), deal("topk", (16, 1, 128))
                yield tag, lines, {**fields, "keys": keys, "topk": topk}
        whole = {"kv_cache_dtype": cache, "keys": 1, "topk": 512}
        yield "chosen_all", ((1, 1029, (0, 511, 514)), (1, 517, (0, 258))), whole
        yield "heads", _FEW, {"kv_cache_dtype": cache, "keys": 8, "topk": 16, "num_heads": 128}


def _plain(maker: Maker, fields: dict[str, Any]) -> Problem:
    given = dict(fields)
    keys = given.pop("keys")
    sinks = maker.admitted.sinks
    heads = [h for h in maker.admitted.features.query_heads if h <= max(16, maker.tier.most_heads)]
    usual: dict[str, Any] = {
        "num_heads": maker.decks.take("heads", heads[:3]),
        "sinks": sinks and maker.decks.take("sinks", (True, True, False)),
        "topk": 8,
    }
    return maker.base(
        kind="mla_sparse",
        query_lens=(),
        context_lens=(),
        num_kv_heads=1,
        head_size=512,
        v_head_size=512,
        latent_rank=448,
        dtype="bfloat16",
        block_size=BLOCK_OF_WINDOW,
        window=(keys - 1, 0),
        **{**usual, **given},
    )
