"""Which fields of a problem do not fit together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from conformance.problems import trees
from conformance.problems.cache_dtypes import BLOCK_OF_WINDOW, FP8_CACHES

if TYPE_CHECKING:
    from conformance.problems.problem import Problem


def mistakes(problem: Problem) -> Iterator[str]:
    """What does not fit, in words with what is allowed; of lengths that differ, that alone."""
    count = problem.num_sequences
    for name in ("context_lens", "key_lens"):
        lens = getattr(problem, name)
        if lens is not None and len(lens) != count:
            yield f"{name} and query_lens differ in length"
            return
    yield from (text for text, wrong in _questions(problem) if wrong)


def _questions(problem: Problem) -> list[tuple[str, bool]]:
    count, lens = problem.num_sequences, problem.seq_lens
    ends = [(s, p) for s, p in problem.dominant if not (s < count and 0 <= p < lens[s])]
    return [
        (
            "num_heads: query heads are no multiple of KV heads; allowed: multiples of "
            f"{problem.num_kv_heads}",
            problem.num_heads % problem.num_kv_heads != 0,
        ),
        (
            "num_kv_heads: MLA has one KV head; allowed: 1",
            problem.is_latent and problem.num_kv_heads != 1,
        ),
        (
            f"mm_prefix: is not one entry per sequence; allowed: none, or {count}",
            len(problem.mm_prefix) not in (0, count),
        ),
        (
            f"prompts: is not one number per sequence; allowed: none, or {count}",
            len(problem.prompts) not in (0, count),
        ),
        (
            "prompts: are seen beyond a causal window; allowed: none without one, or with "
            "mm_prefix",
            bool(problem.prompts)
            and (problem.window[0] < 0 or not problem.causal or bool(problem.mm_prefix)),
        ),
        ("tree: " + trees.mistake(problem.tree), bool(trees.mistake(problem.tree))),
        (
            "tree: hides keys that are cached of a decoder's branches; allowed: none without a "
            "plain cache, and none with a window, ALiBi, prefix ranges, or no causal mask",
            bool(problem.tree) and not _may_branch(problem),
        ),
        (
            "query_lens: sequences that a tree verifies come first; allowed: longer ones last",
            problem.verified != tuple(sorted(problem.verified, reverse=True)),
        ),
        (
            f"dominant: keys that no sequence has: {ends}; allowed: (sequence, position) of "
            f"one of {count} sequences, below its keys",
            bool(ends),
        ),
        (
            "topk: belongs to sparse problems; allowed: 0 for dense ones, above 0 for sparse",
            (problem.topk > 0) != problem.is_sparse,
        ),
        (
            "k_scale, v_scale: a cache in fp8 has a scale above zero",
            min(problem.k_scale, problem.v_scale) <= 0,
        ),
        (
            "evicted: blocks are given up before a window only; allowed: false without one",
            problem.evicted and not problem.slides,
        ),
        (
            "head_size: a scale lies behind whole words of codes; allowed: multiples of 8",
            problem.is_head_scaled and problem.head_size % 8 != 0,
        ),
        (
            "kv_cache_dtype: keys of two caches are DeepSeek-V4's; allowed: kind mla_sparse in "
            "bfloat16 with head_size and v_head_size 512, latent_rank 448 and block_size "
            f"{BLOCK_OF_WINDOW}, and no other kind",
            problem.is_ds_mla and not _fits_ds_mla(problem),
        ),
        (
            "window: of two caches the first has the keys of a window; allowed: a power of two "
            "of keys to 128",
            problem.is_ds_mla and problem.window not in [(2**n - 1, 0) for n in range(8)],
        ),
        (
            "interleaved: belongs to paged caches; allowed: false elsewhere",
            problem.interleaved and problem.kind != "paged",
        ),
        (
            "dtype: caches in int4 are asked in bfloat16 alone, to which releases round on "
            "their way to one; allowed: bfloat16",
            problem.turns_heads and problem.dtype != "bfloat16",
        ),
        (
            "fp8_edges: belongs to dense fp8 caches; allowed: false elsewhere",
            problem.fp8_edges and not _stores_fp8(problem),
        ),
    ]


def _may_branch(problem: Problem) -> bool:
    """Whether every mask has a meaning for tokens that are no line."""
    by_distance = max(problem.window) >= 0 or problem.alibi != "none" or bool(problem.mm_prefix)
    plain = problem.kind == "paged" and not problem.is_packed and not problem.is_head_scaled
    return plain and problem.has_new_keys and problem.causal and not by_distance


def _fits_ds_mla(problem: Problem) -> bool:
    sizes = (
        problem.head_size,
        problem.v_head_size,
        problem.latent_rank,
        problem.rope_size,
        problem.block_size,
    )
    kind = problem.kind == "mla_sparse" and problem.dtype == "bfloat16"
    return kind and sizes == (512, 512, 448, 64, BLOCK_OF_WINDOW)


def _stores_fp8(problem: Problem) -> bool:
    return problem.kind == "paged" and problem.kv_cache_dtype in FP8_CACHES
