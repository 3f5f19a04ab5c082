"""The problems of ROCM_OCTAVE, whose cache packs rows of bytes and whose kernels are HIP.

Its decode takes tiles of 16 keys, which are one block or a part of one, and at least 32 keys a part
of a sequence; four query tokens of a batch share a workgroup, whatever their sequences, and two of
its tiles of 16 rows where that many heads do. A batch in which a sequence has more than 128 query
tokens is prefilled: by tiles of 32 keys, of the context and of the query tokens' own, and 128 rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from conformance.problems.lines import Line, Row, of_rows
from conformance.problems.making import Maker
from conformance.problems.problem import Problem

# What lies at a tile's last key, at the next one's first, and where a part begins.
_DECODES: tuple[Line, ...] = ((1, 0, -1), (1, 15, 15), (1, 36, (15, 16, 31)))
_TILES: tuple[Line, ...] = tuple((1, n, (0, n)) for n in (1, 14, 16, 31, 32, 47))
_SPLIT: tuple[Line, ...] = ((1, 69, (0, 31, 32, 63, 69)),)
_LONG_SPLIT: tuple[Line, ...] = ((1, 130, (63, 64, 127, 130)), (1, 96, 95))
# Several query tokens: groups of four that begin in one sequence and end in another.
_VERIFY: tuple[Line, ...] = ((3, 14, (14, 16)), (2, 33, (31, 33)), (1, 18, 18))
_EXTENDS: tuple[Line, ...] = ((1, 18, 2), (5, 16, (15, 17)), (7, 0, -1))
_SHORT: tuple[Line, ...] = ((1, 3, 3), (1, 15, 15))
_AFTER: tuple[Line, ...] = ((2, 14, 15), (4, 17, (3, 19)))
_PREFILL: tuple[Line, ...] = ((129, 0, (0, 31, 127)),)
_CONTINUED: tuple[Line, ...] = ((1, 20, 3), (129, 33, (15, 31, 32, 33)))
_BESIDE: tuple[Line, ...] = ((2, 17, 16), (129, 0, 64))


def octave_problems(maker: Maker) -> list[Problem]:
    """The problems of a tier, tagged with their batch."""
    rows = _few(maker) if maker.tier.small else _many(maker)
    return of_rows(maker, rows, _plain)


def _plain(maker: Maker, fields: dict[str, Any]) -> Problem:
    return maker.dealt(
        {"head_size": 256, **fields},
        "octave ",
        groups=(4, 1, 2, 8, 6),
        sizes=(256,),
        dtypes=maker.admitted.dtypes,
        blocks=(16, 32, 48, 64, 128),
    )


def _few(maker: Maker) -> Iterator[Row]:
    """Each cache's decode, and each other batch of one cache: of all where kernels are emulated."""
    caches = maker.admitted.caches
    for number, cache in enumerate(caches):
        fields: dict[str, Any] = {"kv_cache_dtype": cache, "kv_heads": 1 + number % 2}
        yield "octave_decode", _DECODES, {**fields, "dtype": ("float16", "bfloat16")[number % 2]}
    one = {"group": 1, "kv_heads": 1, "block_size": 16}
    yield "octave_verify", _VERIFY, {"group": 6, "kv_heads": 1, "kv_cache_dtype": caches[0]}
    # Parts of 32 keys, and pages that lie apart.
    split = {"pieces": 4, "block_size": 32, "block_pad": 64, "kv_heads": 1}
    yield "octave_split", _SPLIT, {**split, "group": 8, "kv_cache_dtype": caches[1]}
    yield "octave_continued", _CONTINUED, {**one, "kv_cache_dtype": caches[2]}
    yield "octave_large", ((1, 20, 3),), {**one, "large_logits": True, "kv_cache_dtype": caches[0]}
    if maker.tier.name != "isa-quick":
        yield "octave_short", _SHORT, {**one, "block_size": 48, "kv_cache_dtype": caches[0]}
        yield "octave_after", _AFTER, {**one, "kv_cache_dtype": caches[1]}
        yield "octave_prefill", _PREFILL, {"kv_heads": 1, "group": 2, "kv_cache_dtype": caches[1]}
    if maker.tier.name == "isa":
        for number, cache in enumerate(caches):
            fields = {"kv_cache_dtype": cache, "kv_heads": 1, "group": 2}
            yield "octave_tiles", _TILES, fields
            yield "octave_extend", _EXTENDS, {**fields, "block_pad": 32}
            # Rows that are aligned to 8 bytes and no more are the portable kernel's.
            portable = {**fields, "block_pad": 8, "group": (1, 4, 6)[number]}
            yield "octave_portable", (*_DECODES, *_SPLIT), portable
            yield "octave_continued", _CONTINUED, fields


def _many(maker: Maker) -> Iterator[Row]:
    """Every batch for each cache, with groups and blocks dealt to them."""
    for cache in maker.admitted.caches:
        fields = {"kv_cache_dtype": cache}
        for tag, lines in (
            *(("octave_decode", _DECODES), ("octave_tiles", _TILES), ("octave_verify", _VERIFY)),
            *(("octave_split", _SPLIT), ("octave_split", _LONG_SPLIT)),
            *(("octave_extend", _EXTENDS), ("octave_prefill", _PREFILL)),
            *(("octave_continued", _CONTINUED), ("octave_beside", _BESIDE)),
        ):
            yield tag, lines, fields
            yield tag, lines, {**fields, "block_pad": 64}
        for group in (1, 2, 4, 6, 8):
            portable = {**fields, "block_pad": 8, "group": group, "kv_heads": 1}
            yield "octave_portable", (*_DECODES, *_SPLIT), portable
        large = {**fields, "large_logits": True, "group": 1, "kv_heads": 1}
        yield "octave_large", ((1, 20, 3), (4, 3, 5)), large
