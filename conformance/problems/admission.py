"""Whether an edition's backend admits a problem: what the user's own problems are held to.

A backend ignores what it does not have (a soft cap, say), and an answer to another question is no
fault of it. So such a problem is not given to it at all.
"""

from __future__ import annotations

from collections.abc import Iterator

from conformance.problems.features import (
    Features,
    caches_of,
    features,
    head_scaled_of,
    may_branch,
    may_interleave,
    specified,
)
from conformance.problems.problem import Problem
from conformance.problems.shapes import rank
from vllm_editions import Backend


def refusals(problem: Problem, edition: str) -> list[str]:
    """Why an edition's backend does not admit a problem: the field, what it is, what is allowed.

    Of a backend that came after the edition, the first edition that has it decides.
    """
    row, table = features()[problem.backend], specified(problem.backend, edition)
    rules = [*_of_implementation(problem, row)]
    packs = problem.interleaved and not may_interleave(row, edition)
    rules.append(("interleaved", packs, "is true; allowed: false"))
    branches = bool(problem.tree) and not may_branch(row, edition)
    rules.append(("tree", branches, "has drafts; allowed: none"))
    rules += _of_table(problem, row, table) if table else _of_tower(problem, row)
    who = f"{problem.backend} of edition {edition}"
    return [f"{field}: {text} for {who}" for field, wrong, text in rules if wrong]


Rule = tuple[str, bool, str]


def _among(field: str, value: object, allowed: tuple[object, ...]) -> Rule:
    return field, value not in allowed, f"is {value}; allowed: {', '.join(map(str, allowed))}"


def _of_implementation(p: Problem, row: Features) -> Iterator[Rule]:
    yield _among("kind", p.kind, row.kinds)
    if row.query_heads and p.kind != "indexer":
        yield _among("num_heads", p.num_heads, row.query_heads)
    dense = p.kind in ("paged", "varlen")
    if row.most_group:
        most = row.most_group * p.num_kv_heads
        yield "num_heads", p.num_heads > most, f"is {p.num_heads}; allowed: to {most}"
    if row.groups:
        yield _among("num_heads per KV head", p.group, row.groups)
    if dense:
        sizes = row.value_head_sizes if p.kind == "paged" else ()
        yield _among("v_head_size", p.v_head_size, sizes or (p.head_size,))
    left, right = p.window
    windowed = left >= 0 or right >= 0
    has_window = dense and (row.window if p.kind == "paged" else row.encoder_window)
    has_window = has_window or p.is_ds_mla
    yield "window", windowed and not has_window, f"is {p.window}; allowed: [-1, -1]"
    ahead = p.kind == "paged" and p.causal and right > 0
    yield "window", ahead, f"is {p.window}; allowed to the right of a causal mask: 0 or -1"
    capped = p.soft_cap != 0 and not (p.kind == "paged" and row.soft_cap)
    yield "soft_cap", capped, f"is {p.soft_cap}; allowed: 0"
    biases = ["none"] + ["linear"] * row.alibi + ["sqrt"] * row.alibi_sqrt
    yield _among("alibi", p.alibi, tuple(biases) if p.kind == "paged" else ("none",))
    if p.kind == "mla" and row.query_lens != "any":
        uneven = len(set(p.query_lens)) > 1
        yield "query_lens", uneven, f"is {p.query_lens}; allowed: the same length for all"
        none = min(p.query_lens) == 0
        yield "query_lens", none, f"is {p.query_lens}; allowed: 1 or more each"
        several = row.query_lens == "one" and max(p.query_lens) > 1
        yield "query_lens", several, f"is {p.query_lens}; allowed: 1 each"
    if row.ordered:
        ranks = [rank(q, c) for q, c in zip(p.query_lens, p.context_lens, strict=True)]
        yield (
            "query_lens",
            ranks != sorted(ranks),
            f"is {p.query_lens}; allowed: decodes, then prefills after a context, then others",
        )
    least = p.num_sequences * p.block_size
    chunked = p.kind == "mla_prefill" or (p.kind == "paged" and row.ordered)
    yield (
        "at_once",
        chunked and 0 < p.at_once < least,
        f"is {p.at_once}; allowed: 0, or from {least} up, a block for each sequence",
    )
    yield _among("continued_from_cache", p.continued_from_cache, (row.continued_from_cache,))
    computed = row.new_tokens == "computed"
    yield (
        "new_tokens_from_cache",
        p.has_cache and p.new_tokens_from_cache == computed,
        f"is {p.new_tokens_from_cache}; allowed: {not computed}",
    )


def _of_table(p: Problem, row: Features, table: Backend) -> Iterator[Rule]:
    """What the edition's capability table says."""
    yield _among("dtype", p.dtype, tuple(table.dtypes))
    if p.kind == "paged" or p.is_latent:
        yield _among("kv_cache_dtype", p.kv_cache_dtype, _caches(row, table))
    if p.has_cache and table.block_sizes:
        fits = any(p.block_size % size == 0 for size in table.block_sizes)
        of = ", ".join(map(str, table.block_sizes))
        yield "block_size", not fits, f"is {p.block_size}; allowed: a multiple of one of {of}"
    if p.kind in ("paged", "varlen"):
        if table.head_sizes:
            yield _among("head_size", p.head_size, tuple(table.head_sizes))
        low = table.min_head_size
        yield "head_size", p.head_size < low, f"is {p.head_size}; allowed: from {low} up"
    types = table.attn_types
    crossed = p.kind == "paged" and p.key_lens is not None and "encoder_decoder" not in types
    yield "key_lens", crossed, "is given; allowed: null, it has no cross attention"
    ahead = p.kind == "paged" and p.key_lens is None and not p.causal and not table.non_causal
    yield "causal", ahead, "is false; allowed: true"
    encoder = p.kind == "varlen" and "encoder_only" not in types
    yield "kind", encoder, "is varlen; allowed: paged, it has no encoder attention"
    sinks = p.sinks and not (table.sinks and p.kind in ("paged", "mla_sparse"))
    yield "sinks", sinks, "is true; allowed: false"
    prompts = any(p.prompts) and not (table.rswa and row.window and p.kind == "paged")
    yield "prompts", prompts, "has prompts; allowed: none"
    ranges = any(p.mm_prefix) and not (table.mm_prefix and p.kind == "paged")
    yield "mm_prefix", ranges, "has ranges; allowed: none"


def _caches(row: Features, table: Backend) -> tuple[str, ...]:
    return (*caches_of(row, table), *head_scaled_of(row, table))


def _of_tower(p: Problem, row: Features) -> Iterator[Rule]:
    """What a backend of vision towers takes, which no capability table is about."""
    yield _among("dtype", p.dtype, row.dtypes)
    yield _among("head_size", p.head_size, row.head_sizes)
    yield "sinks", p.sinks, "is true; allowed: false"
    yield "mm_prefix", any(p.mm_prefix), "has ranges; allowed: none"
