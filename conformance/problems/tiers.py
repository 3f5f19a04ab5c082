"""The tiers: how many problems of which kind a run gives each backend, all in one table.

``quick`` is for every change, and ``standard`` for a verdict, both in Triton's interpreter;
``gpu`` is for hardware; ``isa`` and ``isa-quick`` are for emulated machine code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from conformance.errors import one_of
from conformance.problems.features import BLOCK_SIZES, HEAD_SIZES

Edges = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Tier:
    """A row of the table. Mappings are by a problem's kind; a kind that is missing has none.

    ``head_sizes``, ``block_sizes``, ``groups``, ``mla_block_sizes``
        What rows choose from, where the backend admits it; groups are query heads per KV head. On
        a GPU each combination is a kernel to compile, and lengths vary instead.
    ``most_heads``
        Of MLA's queries.
    ``most_rows``
        How many of the covering rows are kept; None: all, so that every pair of values is in one.
    ``random_rows``, ``repeats``
        Rows that are drawn freely beside the covering ones; how many problems each row becomes,
        from the second on with another shape.
    ``small``
        Whether problems are to be few and cheap.
    ``emulated``
        Whether problems are for emulation: every kernel and what changes its code, on few tokens.
    ``length_scale``
        What lengths that are no edges are multiplied by.
    ``varied_kv_heads``
        Whether the number of KV heads is drawn; else it is 1 or 2, by the group.
    ``edges``
        The families of ``adversarial.py`` that a kind has, by name.
    ``edge_block_sizes``, ``edge_groups``, ``edge_head_sizes``
        Block sizes whose edges are tested; groups of problems about edges, and how many of the
        common head sizes these choose from.
    ``many_sequences``
        Sequences of the batch that is larger than a split decode is made for.
    ``long``
        Whether there are long contexts, and a cache of more than 2**31 elements.
    ``most_interpreted_keys``
        Keys of the largest problem that a vLLM is given in the interpreter; None: no limit. Its
        cache write takes a launch's time for each of them, twice.
    ``one_target``
        Whether one GPU is shown to a vLLM, not one of each fp8 encoding: each start takes seconds.
    """

    name: str
    head_sizes: tuple[int, ...]
    block_sizes: tuple[int, ...]
    groups: tuple[int, ...]
    mla_block_sizes: tuple[int, ...]
    most_heads: int
    edges: Edges
    edge_block_sizes: tuple[int, ...]
    most_rows: Mapping[str, int] | None = None
    random_rows: int = 0
    repeats: int = 1
    small: bool = False
    emulated: bool = False
    length_scale: int = 1
    varied_kv_heads: bool = False
    edge_groups: tuple[int, ...] = (1, 3, 4)
    edge_head_sizes: int = 3
    many_sequences: int = 20
    long: bool = False
    most_interpreted_keys: int | None = None
    one_target: bool = False


_DECODE = ("ends", "blocks", "partitions", "tiles", "segments", "many")
_ALL: Edges = {
    "paged": (
        *_DECODE,
        *("causal", "contexts", "windows", "prefixes", "large", "sinks", "scales", "cross"),
        *("split_behind_a_prefill", "many_segments", "chunks", "capped", "long_prefixes"),
        *("narrow_windows", "fp8_values", "not_causal", "split_tokens", "exact_tables"),
        *("split_masks", "prompts", "interleaved", "trees", "hidden_tiles"),
    ),
    "varlen": ("packed",),
    "mla": (*_DECODE, "causal", "large", "scales", "heads", "many_segments"),
    "mla_prefill": ("causal", "contexts", "large", "scales", "chunks"),
    "mla_sparse": (
        *("topk", "ends", "blocks", "large", "heads", "many_chosen", "long_sparse_prefills"),
    ),
    "indexer": ("topk", "indexed"),
}
_QUICK: Edges = {
    "paged": (
        *("decode_edges", "a_block", "prefill_edges", "windows", "prefixes", "large", "sinks"),
        *("some_scales", "a_cross", "large_pages"),
        *("split_behind_a_prefill", "many_segments", "chunks", "capped", "long_prefixes"),
        *("narrow_windows", "fp8_values", "not_causal", "split_tokens", "exact_tables"),
        *("split_masks", "prompts", "interleaved", "trees", "hidden_tiles"),
    ),
    "varlen": ("some_packed",),
    "mla": ("decode_edges", "a_block", "some_scales", "causal", "heads", "many_segments"),
    "mla_prefill": ("prefill_edges", "chunks"),
    "mla_sparse": ("topk", "decode_edges", "heads", "many_chosen", "long_sparse_prefills"),
    "indexer": ("topk", "indexed"),
}
# What decides which code runs, in as few compilations as that takes.
_ISA: Edges = {
    "paged": (
        *("decode_edges", "prefill_edges", "windows", "large", "everything", "a_scale"),
        *("large_pages", "hip_decode", "many_kv_heads", "assembly_decodes", "assembly_prefills"),
        *("exact_tables", "a_tree"),
    ),
    "varlen": ("some_packed",),
    "mla": ("decode_edges", "a_scale", "causal", "assembly_decodes"),
    "mla_prefill": ("prefill_edges", "assembly_prefills"),
    "mla_sparse": ("topk", "a_ragged", "some_loads"),
    "indexer": ("topk",),
}
_ISA_QUICK: Edges = {
    "paged": (
        *("power_of_two_edges", "everything", "large_pages", "a_hip_decode", "many_kv_heads"),
        *("an_assembly_decode", "exact_tables", "a_tree"),
    ),
    "mla": ("decode_edges", "short", "an_assembly_decode"),
    "mla_prefill": ("prefill_edges",),
    "mla_sparse": ("a_ragged", "some_loads"),
    "indexer": ("indexed",),
}

TIERS = {
    tier.name: tier
    for tier in (
        Tier(
            "quick",  # to take less than a minute in all
            small=True,
            head_sizes=(64, 80, 256),
            block_sizes=(1, 16, 32, 48),
            groups=(1, 3, 4),
            mla_block_sizes=(1, 16, 64),
            most_heads=8,
            most_rows={
                **{"paged": 5, "varlen": 2, "mla": 3},
                **{"mla_prefill": 3, "mla_sparse": 4, "indexer": 3},
            },
            edges=_QUICK,
            edge_block_sizes=(48,),
            most_interpreted_keys=400,
            one_target=True,
        ),
        Tier(
            "standard",
            head_sizes=HEAD_SIZES,
            block_sizes=BLOCK_SIZES,
            groups=(1, 2, 3, 4, 5, 7, 8, 16),
            mla_block_sizes=BLOCK_SIZES,
            most_heads=16,
            random_rows=8,
            edges=_ALL,
            edge_block_sizes=BLOCK_SIZES,
            many_sequences=40,
        ),
        Tier(
            "gpu",
            head_sizes=(64, 96, 128, 160, 256),
            block_sizes=(1, 16, 64, 784),
            groups=(1, 3, 4, 8, 16),
            mla_block_sizes=(1, 16, 64, 544),
            most_heads=64,
            random_rows=16,
            repeats=4,
            length_scale=6,
            varied_kv_heads=True,
            edges=_ALL,
            edge_block_sizes=(1, 16, 64, 544, 1056),
            edge_groups=(1, 4),
            edge_head_sizes=2,
            many_sequences=300,
            long=True,
        ),
        Tier(
            "isa",
            small=True,
            emulated=True,
            head_sizes=(64, 80, 128),
            block_sizes=(16, 32),
            groups=(1, 4),
            mla_block_sizes=(1, 16),
            most_heads=8,
            most_rows={
                **{"paged": 5, "varlen": 3, "mla": 3},
                **{"mla_prefill": 2, "mla_sparse": 2, "indexer": 2},
            },
            edges=_ISA,
            edge_block_sizes=(544,),
        ),
        Tier(
            "isa-quick",
            small=True,
            emulated=True,
            head_sizes=(64, 80, 128),
            block_sizes=(16,),
            groups=(1, 4),
            mla_block_sizes=(16,),
            most_heads=8,
            most_rows={"varlen": 1, "mla_sparse": 1, "indexer": 1},
            edges=_ISA_QUICK,
            edge_block_sizes=(544,),
        ),
    )
}


def tier_named(name: str) -> Tier:
    """The tier of a name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in TIERS:
        raise one_of("tier", name, list(TIERS))
    return TIERS[name]


def default_tier(device: str, *, quick: bool = False) -> str:
    """The tier of a run that names none, on a device that is known."""
    if device.startswith("isa:"):
        return "isa-quick" if quick else "isa"
    if quick:
        return "quick"
    return "gpu" if device == "gpu" else "standard"
