"""What a backend supports: its capabilities, and features of its implementation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Literal

from packaging.specifiers import SpecifierSet

from conformance.errors import UsageError
from conformance.matrix.toml_rows import read_rows
from conformance.problems.cache_dtypes import DS_MLA_CACHES, HEAD_SCALED_CACHES, PACKED_CACHES
from conformance.problems.problem import Kind
from vllm_editions import DEFAULT_EDITION, Backend, editions, load_edition

HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256)
PER_TOKEN_HEAD = "_per_token_head"  # how vLLM's names of such caches end
BLOCK_SIZES = (1, 16, 32, 48, 64, 128, 544, 784, 1056)


@dataclass(frozen=True)
class Features:
    """A row of ``features.toml``, which explains its columns."""

    name: str
    kinds: tuple[Kind, ...]
    source: str
    window: bool = False
    soft_cap: bool = False
    alibi: bool = False
    alibi_sqrt: bool = False
    encoder_window: bool = False
    ordered: bool = False
    query_lens: Literal["any", "one", "uniform"] = "any"
    query_heads: tuple[int, ...] = ()
    new_tokens: Literal["cache", "computed"] = "cache"
    continued_from_cache: int = 0
    dtypes: tuple[str, ...] = ()
    head_sizes: tuple[int, ...] = ()
    value_head_sizes: tuple[int, ...] = ()
    most_group: int = 0
    groups: tuple[int, ...] = ()
    hip: bool = False
    e4m3: tuple[str, ...] = ("fp8_e4m3fnuz", "fp8_e4m3fn")
    shown: str = ""
    interleaved: str = ""
    trees: str = ""
    shown_for: Mapping[str, str] = field(default_factory=dict)
    triton_from: str = ""

    def shown_to(self, kind: str) -> str:
        """The target that a vLLM is shown for problems of a kind; "" for the usual one."""
        return self.shown_for.get(kind, self.shown)


@dataclass(frozen=True)
class Given:
    """A row of ``engine.toml``, which explains its columns."""

    name: str
    holds: str
    source: str

    def in_edition(self, edition: str) -> bool:
        return SpecifierSet(self.holds).contains(edition)


@dataclass(frozen=True)
class Admitted:
    """The values that problems of a backend may have.

    ``head_scaled``: caches with a scale per token and head, which problems of their own have.
    ``interleaved``: values of a cache may lie in packs of slots.
    ``trees``: draft tokens may be a tree.
    ``prompts``: the first keys of a sequence may be seen whatever the window (R-SWA).
    ``long_prefixes``: prefix ranges may be longer than the window; ``cut_prefixes``: they may end
    past a sequence's keys.
    """

    features: Features
    dtypes: tuple[str, ...]
    caches: tuple[str, ...]
    head_sizes: tuple[int, ...]
    block_sizes: tuple[int, ...]
    sinks: bool
    mm_prefix: bool
    cross: bool
    encoder: bool
    non_causal: bool = False
    head_scaled: tuple[str, ...] = ()
    prompts: bool = False
    interleaved: bool = False
    trees: bool = False
    long_prefixes: bool = True
    cut_prefixes: bool = True

    @property
    def packed(self) -> bool:
        """Whether its caches pack a key and a value into one row of bytes."""
        return self.caches[0] in PACKED_CACHES

    @property
    def windowed(self) -> bool:
        """Whether keys are in two caches: those of a window, and chosen ones."""
        return self.caches[0] in DS_MLA_CACHES


@cache
def engine() -> dict[str, Given]:
    """The table of what vLLM's engine gives its backends."""
    text = resources.files(__package__).joinpath("engine.toml").read_text(encoding="utf-8")
    return read_rows(text, "problems/engine.toml", Given)


@cache
def features() -> dict[str, Features]:
    """The table of features, by backend."""
    text = resources.files(__package__).joinpath("features.toml").read_text(encoding="utf-8")
    return read_rows(text, "problems/features.toml", Features)


@cache
def admitted(backend: str, edition: str = DEFAULT_EDITION) -> Admitted:
    """What an edition and the implementation admit of a backend.

    Of a backend that the edition does not have, :func:`specified` says which edition decides.

    Raises:
        UsageError: there are no problems for a backend of that name, or no edition has it.
    """
    row = features().get(backend)
    if row is None:
        known = ", ".join(features())
        raise UsageError(f"no problems are made for {backend!r}: expected one of {known}")
    table = specified(backend, edition)
    if table is None and not row.dtypes:
        raise UsageError(f"no edition says what {backend} supports")
    if table is None:
        return Admitted(
            row, row.dtypes, ("auto",), row.head_sizes, (16,), False, False, False, True
        )
    sizes = table.block_sizes
    return Admitted(
        features=row,
        dtypes=tuple(d for d in ("float16", "bfloat16", "float32") if d in table.dtypes),
        caches=caches_of(row, table),
        head_sizes=tuple(
            d
            for d in HEAD_SIZES
            if (not table.head_sizes or d in table.head_sizes) and d >= table.min_head_size
        ),
        block_sizes=tuple(b for b in BLOCK_SIZES if not sizes or any(b % m == 0 for m in sizes)),
        sinks=bool(table.sinks),
        mm_prefix=table.mm_prefix,
        cross="encoder_decoder" in table.attn_types,
        encoder="encoder_only" in table.attn_types,
        non_causal=bool(table.non_causal),
        head_scaled=head_scaled_of(row, table),
        prompts=row.window and bool(table.rswa),
        interleaved=may_interleave(row, edition),
        trees=may_branch(row, edition),
        long_prefixes=engine()["prefix_longer_than_window"].in_edition(edition),
        cut_prefixes=engine()["prefix_past_the_keys"].in_edition(edition),
    )


def caches_of(row: Features, table: Backend) -> tuple[str, ...]:
    """The caches whose problems are made: a backend that packs them has no others."""
    if packed := tuple(name for name in PACKED_CACHES if name in table.kv_cache_dtypes):
        return packed
    if "fp8_ds_mla" in table.kv_cache_dtypes:
        return tuple(f"{encoding}_ds_mla" for encoding in row.e4m3)
    e4m3 = row.e4m3 if "fp8_e4m3" in table.kv_cache_dtypes else ()
    return ("auto", *e4m3, *(["fp8_e5m2"] if "fp8_e5m2" in table.kv_cache_dtypes else []))


def head_scaled_of(row: Features, table: Backend) -> tuple[str, ...]:
    """The caches with a scale per token and head; vLLM's fp8 ones are in its target's encoding."""
    named = [name for name in table.kv_cache_dtypes if name.endswith(PER_TOKEN_HEAD)]
    encoded = [f"{e4m3}{PER_TOKEN_HEAD}" for e4m3 in row.e4m3 if f"fp8{PER_TOKEN_HEAD}" in named]
    return tuple(name for name in HEAD_SCALED_CACHES if name in (*named, *encoded))


def may_interleave(row: Features, edition: str) -> bool:
    """Whether a backend of an edition can be told that values of its cache are interleaved."""
    return bool(row.interleaved) and SpecifierSet(row.interleaved).contains(edition)


def may_branch(row: Features, edition: str) -> bool:
    """Whether the draft tokens of a backend of an edition may be a tree."""
    return bool(row.trees) and SpecifierSet(row.trees).contains(edition)


def specified(backend: str, edition: str) -> Backend | None:
    """What an edition says of a backend.

    Of one that came later, what the first edition says that has it; of one that had left, the last.
    """
    names = editions()
    at = names.index(edition)
    tables = (load_edition(name).backends.get(backend) for name in (*names[at:], *names[at::-1]))
    return next((table for table in tables if table is not None), None)
