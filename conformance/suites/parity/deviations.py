"""What vLLM's and aiter's kernels are known to compute instead of the attention asked for.

A wrong answer that agrees with one of these, within the bound, is that deviation and nothing else:
a waiver can name it. One that agrees with none, nor with several together, is a new fault. So a
second fault under a known one shows.

Where it is known what is computed, a deviation is another *reading* of the problem (a window one
key short, an option ignored), which the oracle solves. Where it depends on what happens to lie in
memory, it is a set of elements: those that may be anything, or that poison in the cache's unused
slots may reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import torch

from conformance.oracle.arithmetic import Arithmetic
from conformance.oracle.attention import Reading
from conformance.oracle.judgement import judge, solve
from conformance.problems.problem import Problem
from conformance.problems.tensors import Tensors
from conformance.suites.parity import readings
from conformance.suites.parity.aiter_deviations import of_aiter
from conformance.suites.parity.deviation import Deviation


@dataclass(frozen=True)
class Given:
    """A wrong answer [>= T, H, V], and what it is the answer to.

    ``poison``: whether the cache's unused slots held any. ``kernels``: those that ran.
    """

    backend: str
    target: str
    problem: Problem
    tensors: Tensors
    output: torch.Tensor
    arithmetic: Arithmetic
    poison: bool
    kernels: tuple[str, ...] = ()


def explanation(given: Given) -> tuple[Deviation, ...]:
    """The fewest known deviations that explain an answer together; none: they do not."""
    known = _known(given)
    for size in range(1, len(known) + 1):
        for chosen in combinations(known, size):
            if _agrees(given, chosen):
                return chosen
    return ()


def reached_by_poison(
    given: Given, explained: tuple[Deviation, ...]
) -> tuple[Deviation, ...] | None:
    """What lets poison into an answer that is ``explained`` with zeros in unused slots.

    None: poison reaches elements that it is not known to reach.
    """
    known = [each for each in _known(given) if each.poisoned]
    for size in range(len(known) + 1):
        for chosen in combinations(known, size):
            if _agrees(given, (*explained, *chosen)):
                return chosen
    return None


def _known(given: Given) -> list[Deviation]:
    """The deviations that can show in an answer."""
    return [
        each
        for each in DEVIATIONS
        if each.backend == given.backend
        and each.shows(given.problem)
        and (given.poison or not each.poisoned)
        and (not each.kernel or any(name.startswith(each.kernel) for name in given.kernels))
    ]


def _agrees(given: Given, deviations: Iterable[Deviation]) -> bool:
    """Whether an answer is what a kernel with these deviations computes."""
    problem, tensors, reading = given.problem, given.tensors, Reading()
    for each in deviations:
        reading = each.reading(reading, given.target)
    truth = solve(problem, tensors, given.arithmetic, with_torch=False, reading=reading)
    for each in deviations:
        truth = each.truth(problem, tensors, truth) if each.truth else truth
    # Where the deviation gives NaN, as of e4m3's largest bytes read as e5m2, devices differ.
    undefined = ~truth.output.isfinite()
    right = truth.output.masked_fill(undefined, 0.0)
    truth = replace(truth, output=right, bound=truth.bound.masked_fill(undefined, 0.0))
    got = given.output[: problem.num_tokens].to(right.device).double()
    got = torch.where(undefined, right, got)
    for each in deviations:
        if each.free:
            got = torch.where(each.free(problem).to(right.device)[..., None], right, got)
        if not_finite := each.poisoned or each.overflows:
            reached = not_finite(problem).to(right.device)[..., None] & ~got.isfinite()
            got = torch.where(reached, right, got)
    return judge(problem, truth, got).passed


def _table() -> Iterator[Deviation]:
    rocm, triton, latent = "ROCM_ATTN", "TRITON_ATTN", "TRITON_MLA"
    own_values, segmented = "TRITON_ATTN_DIFFKV", "ROCM_SEGMENTED_ATTN"
    in_decodes = Deviation(
        "unused-slots-decode",
        rocm,
        "a decode multiplies values of slots past the sequence's end by 0",
        shows=lambda p: p.kind == "paged" and bool(readings.decodes_with_unused_slots(p).any()),
        poisoned=readings.decodes_with_unused_slots,
    )
    yield in_decodes
    before_windows = Deviation(
        "blocks-before-window",
        rocm,
        "values of blocks before the window, which may be given up, are multiplied by 0",
        shows=lambda p: bool(readings.with_blocks_given_up(p).any()),
        poisoned=readings.with_blocks_given_up,
    )
    yield before_windows
    yield Deviation(
        "window-one-short",
        rocm,
        "queries see one key too few to the left, and a window of the token itself is none",
        shows=lambda p: p.kind == "paged" and p.window[0] >= 0,
        reading=readings.reading_as(readings.one_key_short),
        free=readings.blocks_given_up_seen,
    )
    yield Deviation(
        "alibi-no-window",
        rocm,
        "a prefill with ALiBi has no window",
        shows=lambda p: p.kind == "paged" and p.alibi != "none" and p.window[0] >= 0,
        reading=readings.reading_as(readings.no_window_in_prefills),
    )
    without_prefixes = Deviation(
        "prefix-ignored",
        rocm,
        "prefix ranges are not read",
        shows=lambda p: bool(p.mm_prefix),
        reading=readings.reading_as(readings.no_prefix),
    )
    yield without_prefixes
    yield Deviation(
        "e4m3-read-as-e5m2",
        rocm,
        "the cache holds e4m3 and is read as e5m2",
        shows=lambda p: p.has_cache and p.kv_cache_dtype == "fp8_e5m2",
        reading=readings.e4m3_read_as_e5m2,
    )
    yield Deviation(
        "fp8-rounded-twice",
        rocm,
        "keys and values are rounded to 16 bits after the division by the scale, and then to fp8",
        shows=lambda p: (
            p.has_cache and p.dtype == "float16" and p.kv_cache_dtype not in ("auto", "fp8_e5m2")
        ),
        reading=readings.rounded_twice,
    )
    yield Deviation(
        "heads-not-stored",
        rocm,
        "the cache write leaves the last KV heads out",
        shows=lambda p: p.has_cache and bool(readings.heads_not_stored(p).any()),
        free=readings.heads_not_stored,
    )
    yield Deviation(
        "unused-slots-query-block",
        triton,
        "with prefix ranges, values are multiplied by 0 as far as a query block filled up reaches",
        shows=lambda p: bool(p.mm_prefix) and bool(readings.blocks_past_the_end(p).any()),
        poisoned=readings.blocks_past_the_end,
    )
    yield Deviation(
        "unused-slots-not-causal",
        triton,
        "where attention is not causal, values past the sequence's end are multiplied by 0",
        shows=lambda p: p.key_lens is not None or not p.causal,
        poisoned=readings.all_rows,
    )
    yield Deviation(
        "no-keys-divided",
        triton,
        "where attention is not causal, queries without a key weigh a tile of none: 0 divided by 0",
        shows=lambda p: p.key_lens is not None and bool(readings.without_keys(p).any()),
        overflows=readings.without_keys,
    )
    yield Deviation(
        "stored-as-e4m3",
        triton,
        "the cache holds e4m3 where e5m2 is asked for",
        shows=lambda p: p.has_cache and p.kv_cache_dtype == "fp8_e5m2",
        reading=readings.stored_as_e4m3,
    )
    yield Deviation(
        "int8-cut-off",
        triton,
        "int8 codes with a scale per token and head are cut off towards zero, not rounded",
        shows=lambda p: p.kv_cache_dtype == "int8_per_token_head",
        reading=readings.cut_off_codes,
    )
    yield Deviation(
        "value-outside-window-zero",
        triton,
        "values outside of the window count as 0, although a prefix range shows them",
        shows=lambda p: bool(p.mm_prefix) and p.window[0] >= 0,
        reading=readings.values_outside_are_zero,
    )
    yield Deviation(
        "masked-causally",
        triton,
        "attention of a decoder to an encoder is masked causally",
        shows=lambda p: p.key_lens is not None,
        reading=readings.reading_as(readings.causal),
        free=readings.before_the_first_key,
    )
    from_first_query = Deviation(
        "alibi-from-first-query",
        triton,
        "ALiBi is measured from a sequence's first query, which a sink shows",
        shows=lambda p: p.alibi == "linear" and p.sinks,
        reading=readings.from_first_query,
    )
    yield from_first_query
    yield Deviation(
        "window-0-is-none",
        triton,
        "an encoder's window of the token itself is none",
        shows=lambda p: p.kind == "varlen" and 0 in p.window,
        reading=readings.reading_as(readings.zero_is_no_window),
    )
    yield Deviation(
        "prefix-past-the-keys",
        triton,
        "queries in a prefix range that ends past the keys weigh unused slots",
        shows=lambda p: bool(p.mm_prefix) and bool(readings.in_ranges_past_the_keys(p).any()),
        free=readings.in_ranges_past_the_keys,
    )
    overflowing = Deviation(
        "soft-cap-overflows",
        triton,
        "of scores of more than 88 times the soft cap, tanh is infinity by infinity",
        shows=lambda p: bool(readings.capped_beyond_exp(p).any()),
        overflows=readings.capped_beyond_exp,
    )
    yield overflowing
    yield replace(overflowing, name="tree-soft-cap-overflows", backend="TREE_ATTN")
    hidden = Deviation(
        "hidden-tile-counts-as-0",
        triton,
        "of a tile without a key that a query sees the largest logit counts as 0, next to which "
        "those far below 0 weigh nothing: 0 divided by 0",
        shows=lambda p: bool(readings.behind_a_hidden_tile(p).any()),
        overflows=readings.behind_a_hidden_tile,
    )
    yield hidden
    yield replace(
        hidden,
        name="segmented-hidden-tile-counts-as-0",
        backend=segmented,
        says="of a tile without a key that a query sees the largest logit counts as 0, next to "
        "which those far below 0 weigh nothing: the output is 0",
        overflows=None,
        free=readings.behind_any_hidden_tile,
        shows=lambda p: bool(readings.behind_any_hidden_tile(p).any()),
    )
    yield replace(hidden, name="tree-hidden-tile-counts-as-0", backend="TREE_ATTN")
    yield replace(hidden, name="diffkv-hidden-tile-counts-as-0", backend=own_values)
    yield replace(
        before_windows,
        name="segmented-before-window",
        backend=segmented,
        says="values of a tile that a window begins in, which may be given up, are multiplied by 0",
    )
    yield replace(without_prefixes, name="diffkv-prefix-ignored", backend=own_values)
    yield Deviation(
        "diffkv-model-window-ignored",
        own_values,
        "the model's window beyond prompts is not read: every key is seen",
        shows=lambda p: any(p.prompts),
        reading=readings.reading_as(readings.no_model_window),
    )
    yield replace(from_first_query, name="diffkv-alibi-from-first-query", backend=own_values)
    yield Deviation(
        "diffkv-masked-causally",
        own_values,
        "attention that is not causal is masked causally",
        shows=lambda p: not p.causal,
        reading=readings.reading_as(readings.causal),
    )
    yield replace(overflowing, name="diffkv-soft-cap-overflows", backend=own_values)
    yield Deviation(
        "empty-chunks-merged",
        latent,
        "two chunks of a context that a sequence does not have are merged to NaN",
        shows=lambda p: p.kind == "mla_prefill" and bool(readings.without_a_context(p).any()),
        overflows=readings.without_a_context,
    )
    yield Deviation(
        "suffix-at-prefix-stride",
        latent,
        "after several chunks the new tokens' rows are read at the stride of the chunks' rows",
        shows=lambda p: (
            p.kind == "mla_prefill" and p.v_head_size < p.head_size and readings.in_chunks(p)
        ),
        truth=readings.suffix_at_prefix_stride,
    )
    yield Deviation(
        "latent-scaled-by-values",
        latent,
        "a decode multiplies latent values by the values' scale",
        shows=lambda p: p.kind == "mla" and p.k_scale != p.v_scale,
        truth=readings.scaled_by_values,
    )
    yield Deviation(
        "one-head-in-16-bits",
        latent,
        "with one query head, products of queries and keys are added in 16 bits",
        shows=lambda p: p.kind == "mla" and p.num_heads == 1,
        truth=readings.added_in_16_bits,
    )

    yield Deviation(
        "unused-slots-octave",
        "ROCM_OCTAVE",
        "a decode multiplies the scales of slots past the sequence's end by weights of 0",
        shows=lambda p: bool(readings.octave_tiles_with_unused_slots(p).any()),
        poisoned=readings.octave_tiles_with_unused_slots,
        kernel="octave_mfma::decode_mfma",
    )
    yield Deviation(
        "causal-from-the-first-key",
        "ULTRAQUANT",
        "without flash-attn, query i of a long prefill sees the first i + 1 keys, not its context",
        shows=readings.is_long_after_a_context,
        truth=readings.causal_from_the_first_key,
    )


DEVIATIONS = (*_table(), *of_aiter())
