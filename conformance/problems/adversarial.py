"""Problems that test one edge each, with a key that dominates just inside or just outside of it.

A dominant key has most of the weight: dropping it changes the result, and so does seeing it where
it is masked. Each sequence of a batch has its own position, so one problem tests an edge from both
sides.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from conformance.problems import assembly_decodes, rare_edges
from conformance.problems.lines import Line, Tagged, decodes, plain_problem, with_lines
from conformance.problems.making import Maker
from conformance.problems.problem import Problem
from conformance.problems.shapes import PARTITION_EDGES, TILE_EDGES


def adversarial(maker: Maker, kind: str) -> list[Problem]:
    """The problems about edges that the tier has for a kind, each tagged with its family."""
    problems: list[Problem] = []
    for name in maker.tier.edges.get(kind, ()):
        for tag, problem in FAMILIES[name](maker, kind):
            made = replace(problem, tags=(tag, *problem.tags))
            problems.append(maker.named(made, tag, len(problems)))
    return problems


def _ends(maker: Maker, kind: str) -> Tagged:
    """The first and the last key, in sequences of one key, of one block, and off by one."""
    lines = [line for n in (1, 2, 15, 16, 17, 33) for line in decodes(n, 0, n - 1)]
    yield "first_and_last", with_lines(maker, plain_problem(maker, kind), lines)


def _blocks(maker: Maker, kind: str) -> Tagged:
    """Both sides of a block's edge, for every block size, and lengths that end there."""
    for page in maker.tier.edge_block_sizes:
        if page in maker.admitted.block_sizes:
            plain = plain_problem(maker, kind, block_size=page)
            lines: list[Line] = [(1, page + 2, (page - 1, page, page + 2)), (1, page - 1, page - 1)]
            if not maker.tier.small:
                lines += [(1, page, page), (1, max(0, page - 2), max(0, page - 2))]
            yield "block_edge", with_lines(maker, plain, lines, block_size=page)


def _partitions(maker: Maker, kind: str) -> Tagged:
    """Both sides of a partition's edge, and sequences that end at it."""
    for edge in PARTITION_EDGES:
        plain = plain_problem(maker, kind)
        lines = [*decodes(edge, edge - 1), *decodes(edge + 1, edge - 1, edge)]
        yield (
            "partition_edge",
            with_lines(maker, plain, [*lines, *decodes(edge + 40, edge, edge + 39)]),
        )


def _tiles(maker: Maker, kind: str) -> Tagged:
    """Both sides of every tile's edge."""
    lines = [line for edge in TILE_EDGES for line in decodes(140, edge - 1, edge)]
    yield "tile_edge", with_lines(maker, plain_problem(maker, kind), lines)


def _segments(maker: Maker, kind: str) -> Tagged:
    """The first, a middle and the last segment of a sequence that is split into sixteen."""
    plain = plain_problem(maker, kind)
    keys = 600 if maker.tier.small else 1100
    step = -(-keys // 16)
    positions = (step - 1, step, 8 * step, 15 * step - 1, 15 * step, keys - 1)
    yield "segment_edge", with_lines(maker, plain, decodes(keys, *positions))


def _many(maker: Maker, kind: str) -> Tagged:
    """More sequences than a split decode is made for, one key longer each."""
    lines: list[Line] = [(1, n, n) for n in range(maker.tier.many_sequences)]
    yield "many_sequences", with_lines(maker, plain_problem(maker, kind), lines)


def _causal(maker: Maker, kind: str) -> Tagged:
    """A key that dominates from its own row on but not one row earlier; then after a context."""
    if maker.admitted.features.query_lens == "uniform" and kind == "mla":
        lines = [(3, 30, 30 + i) for i in range(3)] + [(3, 0, 1), (3, 14, 16)]
        yield "causal_edge", with_lines(maker, plain_problem(maker, kind), lines)
    elif kind == "mla" and maker.admitted.features.query_lens == "one":
        return
    else:
        plain = plain_problem(maker, kind)
        lines = [(40, 0, 15), (34, 0, 16), (33, 0, 32), (17, 0, 1)]
        yield "causal_edge", with_lines(maker, plain, lines)
        plain = plain_problem(maker, kind)
        lines = [(20, 30, 29), (20, 30, 30), (20, 30, 31), (18, 13, 16), (5, 43, 47)]
        yield "causal_edge_after_context", with_lines(maker, plain, lines)


def _contexts(maker: Maker, kind: str) -> Tagged:
    """The last key of a context and the first after it, for contexts around chunk edges."""
    if kind == "mla":
        return
    for edge in (64, 128, 256) if not maker.tier.small else (64,):
        plain = plain_problem(maker, kind)
        lines = [(3, edge + off, edge + off + at) for off in (-1, 0, 1) for at in (-1, 0)]
        yield "context_edge", with_lines(maker, plain, lines)


def _windows(maker: Maker, kind: str) -> Tagged:
    """The window's last key and the one beyond it, in decodes and prefills."""
    if not maker.admitted.features.window or kind != "paged":
        return
    for left in (0, 15, 16, 40) if not maker.tier.small else (maker.draw.choice([15, 16, 40]),):
        for keys in (90, 300) if not maker.tier.small else (90,):
            plain, last = plain_problem(maker, kind), keys - 1
            lines = decodes(keys, last - left - 1, last - left, min(last, last - left + 1))
            lines += [(40, 0, 9), (20, 40, 38 - left if left < 38 else 0), (1, left, 0)]
            # The first query's window begins in an earlier tile than the last query's.
            lines += [(1, left + 1, 0), (12, left + 59, 59)]
            yield "window_edge", with_lines(maker, plain, lines, window=(left, 0), evicted=True)


def _prefixes(maker: Maker, kind: str) -> Tagged:
    """Both ends of a prefix range, inside and outside; with a window; over a context."""
    if not maker.admitted.mm_prefix:
        return
    ranges = ((10, 20), (28, 33))
    lines = [(40, 0, p) for p in (9, 10, 20, 21)] + [(12, 14, 20), (14, 20, 33)]
    window = 4 if maker.admitted.long_prefixes else ranges[0][1] - ranges[0][0]
    windows = ((window, 0), (-1, -1)) if maker.admitted.features.window else ((-1, -1),)
    for chosen in windows if not maker.tier.small else windows[:1]:
        plain = plain_problem(maker, kind)
        made = with_lines(maker, plain, lines, window=chosen)
        yield "prefix_edge", replace(made, mm_prefix=(ranges,) * len(lines))


def _large(maker: Maker, kind: str) -> Tagged:
    """Logits beyond exp's range in either direction, with every option that changes logits."""
    row, lines = maker.admitted.features, [(1, 70, 20), (1, 15, -1)]
    lines += [] if kind == "mla" and row.query_lens != "any" else [(35, 0, 30), (6, 29, 33)]
    options: list[dict[str, Any]] = [{}]
    options += [{"window": (20, 0)}] if row.window else []
    options += [{"soft_cap": 30.0}] if row.soft_cap else []
    options += [{"alibi": "linear"}] if row.alibi else []
    options += [{"sinks": True}] if maker.admitted.sinks else []
    for option in options if not maker.tier.small else options[-1:]:
        plain = replace(plain_problem(maker, kind, kv_cache_dtype="auto"), large_logits=True)
        yield "large_logits", with_lines(maker, plain, lines, **option)


def _sinks(maker: Maker, kind: str) -> Tagged:
    """A sink for each head, with several heads per KV head, in decodes and prefills."""
    if maker.admitted.sinks:
        heads: dict[str, Any] = {"num_heads": 8, "num_kv_heads": 2, "sinks": True}
        lines = [(1, 0, -1), (1, 40, -1), (9, 0, -1), (5, 20, -1), (1, 300, -1)]
        yield "sinks", with_lines(maker, plain_problem(maker, kind), lines, **heads)


def _scales(maker: Maker, kind: str) -> Tagged:
    """Every fp8 encoding, with scales that saturate some values or make most of them subnormal."""
    lines = [(1, 40, 11), (1, 16, -1)]
    if not (kind == "mla" and maker.admitted.features.query_lens != "any"):
        lines += [(20, 0, -1), (7, 21, 3)]
    for cache in maker.admitted.caches[1:]:
        small = 2.0**15 if cache == "fp8_e5m2" else 2.0**7
        for k, v in ((0.0061, 0.0123), (0.0078125, 0.00390625), (small, small / 2)):
            plain = plain_problem(maker, kind, kv_cache_dtype=cache)
            yield "fp8_scales", with_lines(maker, plain, lines, k_scale=k, v_scale=v)


def _cross(maker: Maker, kind: str) -> Tagged:
    """Cross attention: all keys are in the cache, more or fewer than the queries, or none."""
    if maker.admitted.cross:
        for cache in maker.admitted.caches[:2]:
            plain = plain_problem(maker, kind, kv_cache_dtype=cache)
            lens: dict[str, Any] = {"query_lens": (1, 5, 20, 3, 1), "context_lens": (0,) * 5}
            keys: dict[str, Any] = {
                "key_lens": (40, 17, 6, 0, 0),
                "dominant": ((0, 39), (1, 16), (2, 0)),
            }
            yield "cross_attention", replace(plain, **lens, **keys, causal=False)


def _packed(maker: Maker, kind: str) -> Tagged:
    """Packed sequences: first and last keys, lengths around tiles, many short ones, windows."""
    for at in ("first", "last"):
        yield f"{at}_key", _ends_of_packed(plain_problem(maker, kind), at)
    count = 30 if maker.tier.small else 100
    tiny: dict[str, Any] = {"query_lens": (4,) * count, "context_lens": (0,) * count}
    yield "many_sequences", replace(plain_problem(maker, kind), **tiny)
    yield "no_keys", _without_keys(plain_problem(maker, kind))
    if maker.admitted.features.encoder_window:
        for width in (0, 9, 16, 70):
            yield "window_edge", _seen_to_both_sides(plain_problem(maker, kind), width)


def _ends_of_packed(plain: Problem, at: str) -> Problem:
    """Lengths around tiles; the first or the last key of each sequence dominates."""
    lengths = (1, 15, 16, 17, 33, 64, 65, 130)
    zero: dict[str, Any] = {"query_lens": lengths, "context_lens": (0,) * len(lengths)}
    dominant = tuple((s, 0 if at == "first" else n - 1) for s, n in enumerate(lengths))
    return replace(plain, **zero, dominant=dominant)


def _without_keys(plain: Problem) -> Problem:
    """Fewer keys than queries, or more, or none."""
    lens: dict[str, Any] = {
        "query_lens": (3, 20, 1, 40),
        "context_lens": (0,) * 4,
        "key_lens": (0, 7, 33, 40),
    }
    return replace(plain, **lens, dominant=((1, 6), (2, 32)))


def _seen_to_both_sides(plain: Problem, width: int) -> Problem:
    """Keys that dominate up to either side of a window; one of 70 is wider than a tile."""
    long = 150 if width == 70 else 50
    lens: dict[str, Any] = {"query_lens": (50, long, 50), "context_lens": (0,) * 3}
    window: dict[str, Any] = {
        "window": (width, width),
        "dominant": ((0, 0), (1, 25), (1, long - 25), (2, 49)),
    }
    return replace(plain, **lens, **window)


def _topk(maker: Maker, kind: str) -> Tagged:
    """About as many keys as are chosen; the dominant one is chosen last, or is not chosen."""
    for topk in (8,) if maker.tier.small else (1, 8, 16, 64, 128):
        plain = replace(plain_problem(maker, kind), topk=topk)
        lines = [(1, n - 1, max(0, n - 2)) for n in (topk, topk + 1, 3 * topk)]
        lines += [(topk + 6, 0, 0), (4, topk + 5, topk + 2), (1, 0, -1)]
        if kind == "indexer":
            lines = [(q, c, -1) for q, c, _ in lines]
        # Of the indexer's logits a few rows' at a time.
        at_once = 4 * 3 * topk if kind == "indexer" else 0
        yield "topk_edge", with_lines(maker, plain, lines, at_once=at_once)


def _decode_edges(maker: Maker, kind: str) -> Tagged:
    """All edges of a decode in one batch: blocks, tiles, partitions, segments."""
    lines: list[Line] = [(1, 0, 0), (1, 15, 15), (1, 16, (15, 16)), (1, 32, (0, 32))]
    lines += [(1, 139, (31, 32, 63, 64, 127, 128)), (1, 256, (255, 256))]
    lines += [(1, 529, (255, 256, 511, 512, 529))]
    yield "decode_edges", with_lines(maker, plain_problem(maker, kind), lines)


def _prefill_edges(maker: Maker, kind: str) -> Tagged:
    """The causal edge, the context's end and its chunks' edges in one batch."""
    fewest = {"heads": maker.values(kind)["heads"][0]} if kind == "mla_prefill" else {}
    lines: list[Line] = [(34, 0, (15, 17, 33)), (18, 0, 16), (20, 30, (29, 31, 40)), (4, 30, 30)]
    lines += [(3, 64, (63, 64)), (2, 63, 63), (3, 65, 64), (1, 40, 40)]
    yield "prefill_edges", with_lines(maker, plain_problem(maker, kind, **fewest), lines)


def _some_scales(maker: Maker, kind: str) -> Tagged:
    """One fp8 encoding, with values that saturate; MLA's also with subnormal ones.

    ROCM_ATTN's Triton kernels have ways of their own for ALiBi, which vLLM asks where its HIP
    kernel does not take the heads.
    """
    own: dict[str, Any] = {}
    if maker.backend == "ROCM_ATTN":
        own = {"alibi": "linear", "head_size": 80, "v_head_size": 80}
    for tag, problem in list(_scales(maker, kind))[: 1 if kind == "paged" else 3 : 2]:
        yield tag, replace(problem, **own)


def _a_block(maker: Maker, kind: str) -> Tagged:
    """The edge of one block size; a latent decode in parts, which vLLM has of long contexts."""
    for tag, problem in list(_blocks(maker, kind))[:1]:
        divided = kind == "mla" and maker.backend == "TRITON_MLA"
        yield tag, replace(problem, pieces=4) if divided else problem


def _some_packed(maker: Maker, kind: str) -> Tagged:
    """Packed sequences: last keys, no keys, and a window that is wider than a tile."""
    yield "last_key", _ends_of_packed(plain_problem(maker, kind), "last")
    yield "no_keys", _without_keys(plain_problem(maker, kind))
    if maker.admitted.features.encoder_window:
        yield "window_edge", _seen_to_both_sides(plain_problem(maker, kind), 70)


def _a_cross(maker: Maker, kind: str) -> Tagged:
    """Cross attention once."""
    yield from list(_cross(maker, kind))[:1]


def _a_scale(maker: Maker, kind: str) -> Tagged:
    """An fp8 cache with values that saturate.

    TRITON_ATTN has both encodings of e4m3, because vLLM uses the target's own.
    ROCM_AITER_TRITON_MLA is left out: it decodes with the kernels of ROCM_AITER_MLA.
    """
    if maker.backend != "ROCM_AITER_TRITON_MLA":
        encodings = 2 if maker.backend == "TRITON_ATTN" else 1
        yield from list(_scales(maker, kind))[: 3 * encodings : 3]


def _short(maker: Maker, kind: str) -> Tagged:
    """Contexts too short to be split; AITER's decode is one kernel for all lengths."""
    if maker.admitted.features.query_lens == "one":
        yield "short", with_lines(maker, plain_problem(maker, kind), [(1, 40, 11), (1, 16, -1)])


def _power_of_two_edges(maker: Maker, kind: str) -> Tagged:
    """The edges of a decode, with a head size that is a power of two."""
    size = maker.draw.choice([d for d in (64, 128) if d in maker.values(kind)["head_size"]])
    for tag, problem in _decode_edges(maker, kind):
        own = problem.v_head_size != problem.head_size
        values = problem.v_head_size if own else size
        yield tag, replace(problem, head_size=size, v_head_size=values)


def _everything(maker: Maker, kind: str) -> Tagged:
    """All options of the backend at once, over its last kind of cache; all lengths are short."""
    row = maker.admitted.features
    options: dict[str, Any] = {
        "window": (16, 0) if row.window else (-1, -1),
        "soft_cap": 4.0 if row.soft_cap else 0.0,
        "alibi": "linear" if row.alibi else "none",
        "sinks": maker.admitted.sinks,
    }
    lines: list[Line] = [(1, 0, -1), (1, 40, 25), (9, 0, 3), (5, 20, -1), (34, 5, -1)]
    plain = plain_problem(maker, kind, kv_cache_dtype=maker.admitted.caches[-1])
    yield "everything", with_lines(maker, plain, lines, **options)


def _large_pages(maker: Maker, kind: str) -> Tagged:
    """Blocks too large for ROCM_ATTN's partitioned decode and for vLLM's HIP kernels.

    So its Triton kernels run, of which prefills with ALiBi have their own; that one is given a
    window too where nothing has to be compiled.
    """
    if maker.backend == "ROCM_ATTN":
        lines: list[Line] = [(1, 40, 25), (9, 30, 3), (1, 0, -1)]
        for alibi in ("none", "linear"):
            plain = plain_problem(maker, kind, alibi=alibi, kv_cache_dtype="auto")
            yield "large_pages", with_lines(maker, plain, lines, block_size=64)
        if not maker.tier.emulated:
            plain = plain_problem(maker, kind, alibi="linear", kv_cache_dtype="auto")
            yield "large_pages", with_lines(maker, plain, lines, block_size=64, window=(16, 0))


# Of vLLM's HIP decode, what chooses its kernel: query heads per KV head (up to 4 they have one of
# their own), head size, block size, dtype and cache.
_HIP_KERNELS: tuple[dict[str, Any], ...] = (
    {"group": 8, "head_size": 128, "block_size": 16, "dtype": "float16"},
    {"group": 16, "head_size": 64, "block_size": 32, "dtype": "bfloat16"},
    {"group": 2, "head_size": 128, "block_size": 32, "dtype": "bfloat16"},
    {"group": 5, "head_size": 128, "block_size": 16, "kv_cache_dtype": "fp8_e4m3fnuz"},
    {"group": 4, "head_size": 64, "block_size": 16, "kv_cache_dtype": "fp8_e4m3fn"},
)


def _hip_decode(maker: Maker, kind: str) -> Tagged:
    """Decodes by each of ROCM_ATTN's HIP kernels: edges of a block and of a partition."""
    if maker.backend == "ROCM_ATTN":
        own = replace(maker, draw=random.Random(0))
        lines = [line for n in (1, 17, 256, 257, 513) for line in decodes(n, n - 1)]
        for fields in _HIP_KERNELS:
            row = {"kv_cache_dtype": "auto", "dtype": "bfloat16", **fields}
            if row["kv_cache_dtype"] in maker.admitted.caches:
                yield "hip_decode", with_lines(own, plain_problem(own, kind, **row), lines)


def _a_hip_decode(maker: Maker, kind: str) -> Tagged:
    """A decode by one of them."""
    if maker.backend == "ROCM_ATTN":
        own = replace(maker, draw=random.Random(0))
        row = {"kv_cache_dtype": "auto", **_HIP_KERNELS[0]}
        lines = [line for n in (1, 17, 257) for line in decodes(n, n - 1)]
        yield "hip_decode", with_lines(own, plain_problem(own, kind, **row), lines)


def _many_kv_heads(maker: Maker, kind: str) -> Tagged:
    """More KV heads than the HIP cache write has lanes for.

    Each of its lanes writes 8 elements of a head, and a workgroup has at most 512.
    """
    if maker.backend == "ROCM_ATTN":
        own = replace(maker, draw=random.Random(0))
        row = {"kv_cache_dtype": "auto", **_HIP_KERNELS[0], "group": 1}
        plain = plain_problem(own, kind, **row)
        yield "many_kv_heads", with_lines(own, plain, decodes(3, 1), num_heads=40, num_kv_heads=40)


Family = Callable[[Maker, str], Tagged]
# By the names that the table of tiers uses.
FAMILIES: dict[str, Family] = {
    family.__name__.removeprefix("_"): family
    for family in (
        *(_ends, _blocks, _partitions, _tiles, _segments, _many, _causal, _contexts, _windows),
        *(_prefixes, _large, _sinks, _scales, _cross, _packed, _topk, _decode_edges),
        *(_prefill_edges, _some_scales, _a_block, _some_packed, _a_cross, _a_scale, _short),
        *(_power_of_two_edges, _everything, _large_pages, _hip_decode, _a_hip_decode),
        *(_many_kv_heads, *assembly_decodes.FAMILIES, *rare_edges.FAMILIES),
    )
}
