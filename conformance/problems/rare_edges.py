"""Problems about kinds of fault that once slipped through: each family asks about one of them."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from conformance.problems.layouts import Decks
from conformance.problems.lines import Line, Tagged, plain_problem, with_lines
from conformance.problems.making import Maker


def _split_behind_a_prefill(maker: Maker, kind: str) -> Tagged:
    """A sequence that is long enough to be split, in a batch with a short prefill."""
    lines: list[Line] = [(2, 0, 0), (1, 289, (0, 255, 256, 289))]
    plain = plain_problem(maker, kind, head_size=64, kv_cache_dtype="auto")
    yield "split_behind_a_prefill", with_lines(maker, plain, lines)


def _many_segments(maker: Maker, kind: str) -> Tagged:
    """More segments than are combined at a time, by rows so long that tiles are small; and what
    vLLM splits into 16, few enough keys for its cache write."""
    if kind == "mla":
        plain = plain_problem(
            maker, kind, heads=maker.values(kind)["heads"][0], kv_cache_dtype="auto"
        )
        lines: list[Line] = [(1, 529, (0, 15, 16, 31, 32, 511, 512, 529))]
        yield "segments", replace(with_lines(maker, plain, lines), pieces=40)
    if maker.backend != "TRITON_ATTN":
        return
    sizes: dict[str, Any] = {"head_size": 192, "v_head_size": 192, "dtype": "float32"}
    plain = plain_problem(maker, kind, kv_cache_dtype="auto", group=1)
    lines = [(1, 289, (15, 16, 255, 256, 271, 272, 289)), (1, 3, -1)]
    yield "segments", replace(with_lines(maker, plain, lines, **sizes), pieces=20)
    plain = plain_problem(maker, kind, kv_cache_dtype="auto", group=3, head_size=80, sinks=True)
    lines = [(1, 289, (15, 16, 31, 32, 159, 160, 289)), (1, 70, (63, 64)), (1, 0, -1)]
    yield "segments", with_lines(maker, plain, lines)


def _heads(maker: Maker, kind: str) -> Tagged:
    """More heads than a tile of rows has; and the latent rank that some models have."""
    row = maker.admitted.features
    lines: list[Line] = [(1, 40, (0, 40)), (1, 16, 15)]
    if row.query_lens == "one":
        yield "heads", with_lines(maker, plain_problem(maker, kind), lines, num_heads=17)
        smaller: dict[str, Any] = {"latent_rank": 256, "head_size": 320, "v_head_size": 256}
        yield "heads", with_lines(maker, plain_problem(maker, kind), lines, num_heads=40, **smaller)
    elif row.query_lens == "uniform":
        two: list[Line] = [(2, 40, (40, 41)), (2, 15, 15)]
        yield "heads", with_lines(maker, plain_problem(maker, kind), two, num_heads=32)
    else:
        yield (
            "heads",
            replace(with_lines(maker, plain_problem(maker, kind), lines, num_heads=32), topk=48),
        )


def _chunks(maker: Maker, kind: str) -> Tagged:
    """A context that does not fit the workspace: keys dominate on both sides of chunks' edges.

    Chunks begin at multiples of 32: the workspace is shared by three sequences, of which vLLM
    counts those with a context. The smaller rank is TRITON_MLA's.
    """
    plain = plain_problem(maker, kind, group=3, heads=4)
    # ROCM_AITER_FA gathers no context for a batch of a few tokens each.
    most = 9 if kind == "paged" else 3
    lines: list[Line] = [(most, 70, (31, 32, 63, 64)), (4, 40, (32, 39)), (5, 0, 2)]
    made = replace(with_lines(maker, plain, lines), at_once=3 * 32)
    if kind == "mla_prefill" and maker.backend == "TRITON_MLA":
        made = replace(made, latent_rank=256)
    if kind == "paged" and maker.backend != "ROCM_AITER_FA":
        return
    yield "chunks", made


def _capped(maker: Maker, kind: str) -> Tagged:
    """Scores of a hundred times the soft cap, in both directions: tanh is 1 or -1."""
    if maker.admitted.features.soft_cap:
        plain = replace(plain_problem(maker, kind, kv_cache_dtype="auto"), large_logits=True)
        bias = {"alibi": "sqrt"} if maker.admitted.features.alibi_sqrt else {}
        yield "soft_cap", with_lines(maker, plain, [(1, 20, 3), (5, 3, 6)], soft_cap=1.2, **bias)


def _long_prefixes(maker: Maker, kind: str) -> Tagged:
    """Prefix ranges without a window, across the end of a tile and of a block of queries."""
    if maker.admitted.mm_prefix:
        plain = plain_problem(maker, kind, group=1, head_size=64)
        made = with_lines(maker, plain, [(80, 0, 75), (1, 30, -1)], window=(-1, -1))
        yield "prefix_edge", replace(made, mm_prefix=(((30, 75),), ()))


def _narrow_windows(maker: Maker, kind: str) -> Tagged:
    """A window of the query's own key, whose tile begins in blocks that were given up."""
    if maker.admitted.features.window and kind == "paged":
        plain = plain_problem(maker, kind)
        lines: list[Line] = [(1, 58, 58), (3, 62, 63), (6, 0, 4)]
        yield "window_edge", with_lines(maker, plain, lines, window=(0, 0), evicted=True)


def _many_chosen(maker: Maker, kind: str) -> Tagged:
    """More chosen keys than are translated at a time, and more places for them than keys."""
    if kind == "mla_sparse":
        page = 48 if 48 in maker.admitted.block_sizes else 16
        plain = replace(plain_problem(maker, kind), block_size=page)
        made = with_lines(maker, plain, [(1, 299, -1), (2, 20, -1)])
        yield "many_chosen", replace(made, topk=512)


def _fp8_values(maker: Maker, kind: str) -> Tagged:
    """Every number of an encoding and the ties between them, each in a key that dominates."""
    own = () if maker.backend == "TRITON_ATTN" else maker.admitted.caches[1:2]
    for cache in own or maker.admitted.caches[1:]:
        plain = plain_problem(maker, kind, kv_cache_dtype=cache, group=1)
        lines: list[Line] = [(1, 20, p) for p in (0, 1, 2, 3, 4)] + [(1, 40, (12, 13))]
        scale = 0.5 if cache == "fp8_e5m2" else 2.0
        fields: dict[str, Any] = {"k_scale": 0.0625, "v_scale": scale, "fp8_edges": True}
        yield "fp8_values", with_lines(maker, plain, lines, **fields)


def _long_sparse_prefills(maker: Maker, kind: str) -> Tagged:
    """Prefills of more keys than are chosen, of which whole loads of 128 are, in bfloat16 alone;
    decodes with sinks, in float16, of few chosen keys and of many, which are split. vLLM has Triton
    kernels of its own for them."""
    if kind == "mla_sparse":
        page = 16 if 16 in maker.admitted.block_sizes else 1
        fields: dict[str, Any] = {"kv_cache_dtype": "auto", "dtype": "bfloat16", "heads": 16}
        plain = replace(plain_problem(maker, kind, **fields), block_size=page)
        made = with_lines(maker, plain, [(3, 140, 131), (4, 127, -1)])
        yield "long_prefill", replace(made, topk=128)
        if maker.admitted.sinks:
            plain = replace(plain, dtype="float16")
            lines: list[Line] = [(1, 299, (131, 250)), (1, 90, 3), (1, 0, -1)]
            made = with_lines(maker, plain, lines, sinks=True, num_heads=32)
            yield "sparse_sinks", replace(made, topk=128)
            lines = [(1, 539, (131, 400)), (1, 20, -1)]
            made = with_lines(maker, plain, lines, sinks=True)
            yield "sparse_split", replace(made, topk=512)


def _some_loads(maker: Maker, kind: str) -> Tagged:
    """The shortest of which vLLM's kernels look up a whole load of chosen keys."""
    fields: dict[str, Any] = {"kv_cache_dtype": "auto", "dtype": "bfloat16", "heads": 16}
    plain = plain_problem(maker, kind, **fields)
    yield "long_prefill", replace(with_lines(maker, plain, [(2, 139, 131)]), topk=128)
    if maker.admitted.sinks:
        plain = replace(plain, dtype="float16")
        lines: list[Line] = [(1, 139, (3, 131)), (1, 0, -1)]
        yield "sparse_sinks", replace(with_lines(maker, plain, lines, sinks=True), topk=128)


def _a_ragged(maker: Maker, kind: str) -> Tagged:
    """The shortest of them: a few tokens of more keys than are chosen."""
    plain = plain_problem(maker, kind, kv_cache_dtype="auto", dtype="bfloat16", heads=16)
    yield "ragged", replace(with_lines(maker, plain, [(2, 9, 3)]), topk=8)


def _indexed(maker: Maker, kind: str) -> Tagged:
    """A decode and a prefill of an indexer over a block and more of 64 tokens, as models have."""
    plain = plain_problem(maker, kind)
    page = 64 if 64 in maker.admitted.block_sizes else 1
    fields: dict[str, Any] = {"kv_cache_dtype": "fp8_e4m3fn", "block_size": page, "topk": 8}
    made = with_lines(maker, plain, [(1, 79, -1), (5, 66, -1), (1, 3, -1)], **fields)
    yield "indexed", made


def _not_causal(maker: Maker, kind: str) -> Tagged:
    """Query tokens that see one another, as those of a block that is drafted at once do.

    Keys dominate behind the queries that see them, at the last key and across a tile's edge. A head
    that ROCM_ATTN's HIP kernel does not take lets vLLM's Triton kernels run without a GPU.
    """
    if kind == "paged" and maker.admitted.non_causal:
        head = {"head_size": 80} if maker.backend == "ROCM_ATTN" else {}
        plain = plain_problem(maker, kind, kv_cache_dtype="auto", **head)
        lines: list[Line] = [(6, 20, 25), (20, 0, 19), (1, 15, 15), (18, 30, (31, 47))]
        own: dict[str, Any] = {}
        if maker.backend == "ROCM_ATTN":
            own = {"head_size": 80, "v_head_size": 80}
        yield "not_causal", with_lines(maker, plain, lines, causal=False, **own)


def _split_tokens(maker: Maker, kind: str) -> Tagged:
    """A few tokens of a sequence, to be verified, over keys that are split into segments."""
    if kind == "paged" and maker.backend in ("TRITON_ATTN", "TRITON_ATTN_DIFFKV"):
        plain = plain_problem(maker, kind, kv_cache_dtype="auto", group=1, head_size=64)
        lines: list[Line] = [(3, 287, (0, 255, 256, 288, 289)), (3, 20, 21)]
        yield "split_tokens", with_lines(maker, plain, lines)


def _split_masks(maker: Maker, kind: str) -> Tagged:
    """Keys that are split into segments, with each mask and bias that a decode can have.

    A window with a soft cap and a slope for the distance, whose last tile has one key; and a range
    in which tokens see one another, past a window, where an engine has such. Drawn apart, like the
    next.
    """
    if kind == "paged" and maker.backend == "TRITON_ATTN":
        own = _apart(maker)
        plain = plain_problem(own, kind, kv_cache_dtype="auto", head_size=64, group=1)
        lines: list[Line] = [(1, 64, (23, 24, 25, 64)), (1, 20, 0)]
        biased: dict[str, Any] = {"window": (40, 0), "soft_cap": 30.0, "alibi": "linear"}
        yield "split_masks", with_lines(own, plain, lines, **biased)
        if maker.admitted.mm_prefix and maker.admitted.long_prefixes:
            made = with_lines(own, plain, [(1, 70, (19, 20, 61)), (1, 3, -1)], window=(8, 0))
            yield "split_masks", replace(made, mm_prefix=(((20, 70), (2, 5)), ()))


def _apart(maker: Maker) -> Maker:
    """A maker with chances of its own, so that no other problem depends on what it makes."""
    draw = random.Random(0)
    return replace(maker, draw=draw, decks=Decks(draw))


def _exact_tables(maker: Maker, kind: str) -> Tagged:
    """A block table without a column to spare, whose last row ends within a tile of two blocks.

    vLLM's engine has such a row where the last request of a full batch has as many tokens as the
    model takes. Context and all keys end there. Drawn apart, so that no other problem depends on
    it; a small tier has it for the backends whose kernels it once found.
    """
    found = ("TRITON_ATTN", "ROCM_ATTN")
    if kind == "paged" and (maker.backend in found or not maker.tier.small):
        own = _apart(maker)
        plain = plain_problem(own, kind, kv_cache_dtype="auto", head_size=64, group=1)
        lines: list[Line] = [(2, 4, 4), (3, 34, (0, 35))]
        fields: dict[str, Any] = {"block_size": 16, "dtype": "float16", "table_spare": 0}
        yield "exact_table", with_lines(own, plain, lines, **fields)


def _prompts(maker: Maker, kind: str) -> Tagged:
    """A prompt that is seen beyond the window (R-SWA): its last key and the first one after it
    dominate, far before the window; a prompt of which there are more keys to come. Drawn apart."""
    if kind != "paged" or not maker.admitted.prompts:
        return
    draw = random.Random(1)
    own = replace(maker, draw=draw, decks=Decks(draw))
    fields: dict[str, Any] = {"window": (6, 0)}
    plain = plain_problem(own, kind, kv_cache_dtype="auto", group=4, head_size=64)
    lines: list[Line] = [(1, 44, (15, 16, 37)), (1, 40, (16, 33)), (1, 5, 0)]
    yield "prompts", with_lines(own, plain, lines, prompts=(16, 16, 9), **fields)
    plain = plain_problem(own, kind, kv_cache_dtype="auto", group=3)
    lines = [(5, 30, (9, 10, 26)), (20, 0, (0, 12)), (18, 20, (0, 14))]
    yield "prompts", with_lines(own, plain, lines, prompts=(10, 30, 15), **fields)


def _interleaved(maker: Maker, kind: str) -> Tagged:
    """Values in packs of slots, which each of a release's kernels must find: context prefills with
    ALiBi and without, decodes, and the cache write. Drawn apart."""
    if kind != "paged" or not maker.admitted.interleaved:
        return
    draw = random.Random(2)
    own = replace(maker, draw=draw, decks=Decks(draw))
    lines: list[Line] = [(1, 49, (15, 16, 47, 48)), (5, 20, (7, 8, 19)), (9, 0, 4)]
    for cache, alibi in (("fp8_e4m3fnuz", "none"), ("auto", "linear")):
        fields = {"group": 3, "head_size": 80 if alibi == "none" else 64, "alibi": alibi}
        plain = plain_problem(own, kind, kv_cache_dtype=cache, **fields)
        yield "interleaved", with_lines(own, plain, lines, block_size=48, interleaved=True)


# The backends whose kernels keep a maximum for each query row, and did not all keep that of no key.
_UNIFIED = ("TRITON_ATTN", "TREE_ATTN", "TRITON_ATTN_DIFFKV", "ROCM_SEGMENTED_ATTN")


def _hidden_tiles(maker: Maker, kind: str) -> Tagged:
    """Windows that begin behind the first tile of a block of queries, for the last rows alone, and
    logits so far below 0 that a maximum of 0 would leave none of their weights. Drawn apart."""
    if kind == "paged" and maker.backend in _UNIFIED:
        own = _apart(maker)
        plain = plain_problem(own, kind, kv_cache_dtype="auto", group=1, head_size=64)
        lines: list[Line] = [(5, 29, 31), (4, 62, 64), (2, 15, 15)]
        made = with_lines(own, plain, lines, window=(1, 0))
        yield "hidden_tile", replace(made, large_logits=True)


BRANCHES = (0, 0, 1, 1, 2, 2)
DEEP = (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 5, 6, 6, 7, 8, 9, 10, 11, 12)


def _trees(maker: Maker, kind: str) -> Tagged:
    """Trees of drafts in which a branch hides a key that dominates, after contexts that end at a
    block's edge and beside it; a part of a tree, and prefills that are longer. Drawn apart.

    The second fills vLLM's blocks of queries, so that no row pads them, and is longer than a block
    of the reference's, whose last rows hide keys of a tile that lies before all of them.
    """
    if kind != "paged" or not maker.admitted.trees:
        return
    own = _apart(maker)
    plain = plain_problem(own, kind, kv_cache_dtype="auto", group=4, head_size=64)
    lines: list[Line] = [(7, 13, 14), (7, 16, 18), (7, 15, (15, 19)), (3, 17, 18), (1, 9, 9)]
    more: list[Line] = [(9, 5, 10), (20, 0, 7)]
    yield "tree", with_lines(own, plain, [*lines, *more], tree=BRANCHES)
    plain = plain_problem(own, kind, kv_cache_dtype="auto", group=4, head_size=64)
    lines = [(24, 55, (58, 64)), (8, 40, (42, 47)), (4, 12, 13), (24, 183, (192, 199))]
    yield "tree", with_lines(own, plain, lines, tree=DEEP)
    # TREE_ATTN does not take 80, of which other problems are.
    odd = next(size for size in (80, 96) if size in maker.admitted.head_sizes)
    plain = plain_problem(own, kind, kv_cache_dtype="auto", group=1, head_size=odd)
    lines = [(5, 31, 33), (5, 32, (31, 36)), (2, 0, 0), (6, 20, 24)]
    yield "tree", with_lines(own, plain, lines, tree=(0, 0, 0, 0))
    plain = plain_problem(own, kind, kv_cache_dtype="auto", group=3)
    lines = [(4, 14, 15), (4, 29, 30), (2, 47, 47), (1, 15, 15), (4, 0, 1)]
    yield "tree", with_lines(own, plain, lines, tree=(0, 1, 2))


def _a_tree(maker: Maker, kind: str) -> Tagged:
    """A tree that fills vLLM's blocks of queries: an emulated launch ends where its rows do not,
    with a read past the end of the bias."""
    if kind == "paged" and maker.admitted.trees:
        own = _apart(maker)
        plain = plain_problem(own, kind, kv_cache_dtype="auto", group=4, head_size=64)
        lines: list[Line] = [(8, 13, 15), (8, 16, (18, 21)), (4, 15, 16), (9, 5, 10)]
        yield "tree", with_lines(own, plain, lines, tree=(0, 0, 1, 1, 2, 3, 3))


FAMILIES = (
    *(_split_behind_a_prefill, _many_segments, _heads, _chunks, _capped, _long_prefixes),
    *(_narrow_windows, _many_chosen, _fp8_values, _not_causal, _split_tokens, _exact_tables),
    *(
        _long_sparse_prefills,
        _split_masks,
        _prompts,
        _interleaved,
        _a_ragged,
        _some_loads,
        _indexed,
        _trees,
        _a_tree,
        _hidden_tiles,
    ),
)
