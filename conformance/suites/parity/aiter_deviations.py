"""What aiter's kernels are known to compute instead: rows of the one table, ``deviations``."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.suites.parity import readings
from conformance.suites.parity.deviation import Deviation

DENSE, UNIFIED, LATENT = "ROCM_AITER_FA", "ROCM_AITER_UNIFIED_ATTN", "ROCM_AITER_MLA"
# Its code object for 3 and 4 query tokens over an fp8 cache.
_OF_FOUR = "mla/mla_a8w8_qh16_qseqlen4"


def of_aiter() -> Iterator[Deviation]:
    """Those of the paged decodes, of unified attention and of the latent decodes."""
    yield Deviation(
        "unused-slots-assembly",
        DENSE,
        "a decode of aiter's multiplies values of slots past the sequence's end by 0",
        shows=lambda p: p.kind == "paged" and bool(readings.decodes_with_unused_slots(p).any()),
        poisoned=readings.decodes_with_unused_slots,
    )
    yield Deviation(
        "unused-blocks-assembly",
        DENSE,
        "a decode in assembly multiplies values of blocks past the sequence's last by 0",
        shows=lambda p: p.kind == "paged" and p.dtype == "float16",
        poisoned=readings.decodes_with_unused_blocks,
    )
    yield Deviation(
        "unused-slots-whole-tiles",
        UNIFIED,
        "where a tile is a block of the cache, values past the sequence's end are multiplied by 0",
        shows=lambda p: bool(readings.in_whole_tiles(p).any()),
        poisoned=readings.in_whole_tiles,
    )
    yield Deviation(
        "unified-before-window",
        UNIFIED,
        "values of a tile that a window begins in, which may be given up, are multiplied by 0",
        shows=lambda p: bool(readings.with_a_tile_given_up(p).any()),
        poisoned=readings.with_a_tile_given_up,
    )
    yield Deviation(
        "unified-alibi-from-first-query",
        UNIFIED,
        "ALiBi is measured from a sequence's first query, which a sink shows",
        shows=lambda p: p.alibi == "linear" and p.sinks,
        reading=readings.from_first_query,
    )
    yield Deviation(
        "unified-soft-cap-overflows",
        UNIFIED,
        "of scores of more than 88 times the soft cap, tanh is infinity by infinity",
        shows=lambda p: bool(readings.capped_beyond_exp(p).any()),
        overflows=readings.capped_beyond_exp,
    )
    yield Deviation(
        "piece-without-keys",
        LATENT,
        "a query that sees no key of the last piece of its sequence's planned work sees all of it",
        shows=lambda p: p.kind == "mla" and readings.has_pieces_without_keys(p),
        reading=readings.sees_a_piece_without_keys,
    )
    yield Deviation(
        "latent-values-unscaled",
        LATENT,
        "values are not multiplied by the cache's scale, which logits are",
        shows=lambda p: p.kind == "mla" and p.k_scale != 1,
        truth=readings.values_unscaled,
        kernel=_OF_FOUR,
    )
    yield Deviation(
        "rows-past-the-pages",
        LATENT,
        "values of rows that entries past a sequence's pages name are multiplied by 0",
        shows=lambda p: p.kind == "mla",
        poisoned=readings.all_rows,
        kernel=_OF_FOUR,
    )
