"""What of the space of problems a tier must reach for a backend, and what it reaches.

A value is admitted if the backend's table of features (:mod:`.features`) and the tier allow it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from conformance.problems.axes import AXES, is_power_of_2, values_of
from conformance.problems.families import problems_for
from conformance.problems.features import Admitted, admitted
from conformance.problems.problem import Problem
from conformance.problems.tiers import tier_named
from vllm_editions import DEFAULT_EDITION

Value = tuple[str, str]  # an axis and a value on it

# Axes whose values must meet in a problem, for every pair of values that a backend admits.
MEETING = (("kind", "order"), ("kind", "rows"), ("kind", "block stride"), ("kind", "dtype"))
# Backends whose kernels combine more pieces than one load takes.
MANY_PIECES = ("TRITON_ATTN", "TRITON_MLA", "ROCM_AITER_MLA", "ROCM_AITER_TRITON_MLA")
INDEXED = ("fp8_e4m3fnuz", "fp8_e4m3fn")  # encodings of an indexer's queries and keys


@dataclass(frozen=True)
class Coverage:
    """What the problems of a backend in a tier reach.

    ``reached``: how many problems have each value of each axis. ``missing``: admitted values that
    none has. ``pairs``: how many pairs of values of two axes meet in a problem. ``apart``: those of
    ``MEETING`` that are admitted and do not.
    """

    backend: str
    tier: str
    edition: str
    problems: int
    reached: dict[str, dict[str, int]]
    missing: dict[str, tuple[str, ...]]
    pairs: int
    apart: tuple[tuple[Value, Value], ...]

    @property
    def values(self) -> int:
        return sum(len(by_value) for by_value in self.reached.values())

    def to_json(self) -> dict[str, Any]:
        """The coverage as JSON values."""
        return {
            "backend": self.backend,
            "tier": self.tier,
            "edition": self.edition,
            "problems": self.problems,
            "values": self.values,
            "pairs": self.pairs,
            "axes": self.reached,
            "missing": {axis: list(values) for axis, values in self.missing.items()},
            "apart": [[list(value) for value in pair] for pair in self.apart],
        }


def coverage_of(backend: str, tier: str, seed: int = 0, edition: str = DEFAULT_EDITION) -> Coverage:
    """The coverage of a backend's problems in a tier."""
    return covered(problems_for(backend, tier, seed, edition), backend, tier, edition)


def covered(problems: Iterable[Problem], backend: str, tier: str, edition: str) -> Coverage:
    """The coverage of some of a backend's problems."""
    found = [values_of(problem) for problem in problems]
    reached: dict[str, Counter[str]] = {axis.name: Counter() for axis in AXES}
    for values in found:
        for axis, value in values.items():
            reached[axis][value] += 1
    wanted = admitted_values(backend, tier, edition)
    missing = {
        axis: tuple(value for value in values if not reached[axis][value])
        for axis, values in wanted.items()
    }
    pairs = {pair for values in found for pair in combinations(sorted(values.items()), 2)}
    apart = [
        ((a, x), (b, y))
        for a, b in MEETING
        for x in wanted[a]
        for y in wanted.get(b, ())
        if can_meet((a, x), (b, y)) and tuple(sorted(((a, x), (b, y)))) not in pairs
    ]
    return Coverage(
        backend,
        tier,
        edition,
        len(found),
        {axis: dict(sorted(counts.items())) for axis, counts in reached.items() if counts},
        {axis: values for axis, values in missing.items() if values},
        len(pairs),
        tuple(apart),
    )


def can_meet(one: Value, other: Value) -> bool:
    """Whether a problem can have both values."""
    kinds = [value for axis, value in (one, other) if axis == "kind"]
    if not kinds:
        return True
    axis, value = other if one[0] == "kind" else one
    if axis == "block stride":
        return kinds[0] != "varlen"
    # Of encoders and indexers the tiers have too few problems for every dtype.
    return axis != "dtype" or kinds[0] not in ("varlen", "indexer") or value == "bfloat16"


def admitted_values(
    backend: str, tier: str, edition: str = DEFAULT_EDITION
) -> dict[str, tuple[str, ...]]:
    """The values of each axis that problems of the backend may have, by axis; without the empty."""
    takes = admitted(backend, edition)
    kinds = tuple(k for k in takes.features.kinds if k != "varlen" or takes.encoder)
    small = tier_named(tier).small
    found: dict[str, tuple[str, ...]] = {
        "kind": kinds,
        "batch": _batches(takes, kinds),
        "dtype": takes.dtypes,
        "rows": ("dense", "padded"),
        "poison": ("nan", "inf", "huge"),
        "order": ("backwards", "shuffled", *(() if small else ("forwards",))),
    }
    if "varlen" in kinds or "paged" in kinds:
        found |= _of_dense(takes, kinds)
    if "paged" in kinds:
        found |= _of_paged(takes)
    if kinds != ("varlen",):
        found |= _of_cache(takes, kinds, backend)
    if takes.packed:
        found |= _of_packed(small, takes.features.hip)
    if takes.windowed:
        found |= _of_windowed(small)
    return {axis: values for axis, values in found.items() if values}


def _of_packed(small: bool, hip: bool) -> dict[str, tuple[str, ...]]:
    """What belongs to caches of packed rows, of which batches are short: see `packed_edges`."""
    return {
        "longest": ("to 16", "to 64", "to 256", *(() if small else ("to 512",))),
        "head size": ("over 128",) if hip else ("a power of 2", "no power of 2", "over 128"),
        "values": (),
        "cache scale": (),
    }


def _of_windowed(small: bool) -> dict[str, tuple[str, ...]]:
    """What belongs to two caches, of a window and of chosen keys: their scales are their own."""
    return {
        "latent rank": ("448",),
        "chosen keys": ("some", "all", *(() if small else ("over 256",))),
        "cache scale": (),
    }


def _batches(takes: Admitted, kinds: tuple[str, ...]) -> tuple[str, ...]:
    batches: list[str] = []
    if {"mla", "paged", "mla_sparse"} & {*kinds}:
        batches.append("decodes")
    if kinds != ("mla",):
        batches.append("prefills")
    if kinds != ("varlen",):
        batches += ["decodes and prefills", "prefills after a context"]
    batches += ["cross attention"] if takes.cross and "paged" in kinds else []
    return (*batches, *(("keys of their own",) if "varlen" in kinds else ()))


def _of_dense(takes: Admitted, kinds: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    row, sizes = takes.features, takes.head_sizes
    heads = {
        "a power of 2": any(is_power_of_2(size) and size <= 128 for size in sizes),
        "no power of 2": any(not is_power_of_2(size) and size <= 128 for size in sizes),
        "over 128": max(sizes) > 128,
    }
    windows = {
        "none": True,
        "to the left": row.window,
        "the key itself": row.window,
        "to both sides": row.encoder_window,
    }
    return {
        "group": ("1", "a power of 2", *(("no power of 2",) if "paged" in kinds else ())),
        "head size": tuple(name for name, has in heads.items() if has),
        "window": tuple(name for name, has in windows.items() if has),
    }


def _of_paged(takes: Admitted) -> dict[str, tuple[str, ...]]:
    row, fp8 = takes.features, len(takes.caches) > 1
    prefixes = ("none", *(("with a window",) if row.window else ()), "across tiles")
    return {
        "value head size": ("smaller", "larger") if row.value_head_sizes else ("that of keys",),
        "longest": ("to 16", "to 64", "to 256", "to 512", "over 512"),
        "later keys": ("hidden", *(("seen",) if takes.non_causal else ())),
        "values": ("usual", "fp8's edges") if fp8 else (),
        "before the window": ("given up",) if row.window else (),
        "prompt": ("seen",) if takes.prompts else (),
        "tree": ("a chain", "a star", "branches") if takes.trees else (),
        "place of values": ("interleaved",) if takes.interleaved else (),
        "soft cap": ("none", *(("usual", "far below the logits") if row.soft_cap else ())),
        "alibi": (
            "none",
            *(("linear",) if row.alibi else ()),
            *(("sqrt",) if row.alibi_sqrt else ()),
        ),
        "sinks": sinks_of(takes),
        "prefix": prefixes if takes.mm_prefix else ("none",),
    }


def sinks_of(takes: Admitted) -> tuple[str, ...]:
    return ("no", "yes") if takes.sinks else ("no",)


def _of_cache(takes: Admitted, kinds: tuple[str, ...], backend: str) -> dict[str, tuple[str, ...]]:
    """What belongs to caches; of an indexer's the encoding is that of its queries, too."""
    fp8 = len(takes.caches) > 1 and kinds != ("mla_sparse", "indexer")
    blocks = {
        "1": 1 in takes.block_sizes,
        "a power of 2": True,
        "no power of 2": any(not is_power_of_2(size) for size in takes.block_sizes),
    }
    latent = "mla" in kinds or "mla_sparse" in kinds
    chunked = "mla_prefill" in kinds or "indexer" in kinds or backend == "ROCM_AITER_FA"
    split = "paged" in kinds or "mla" in kinds
    own = ("the backend's own",) if split else ()
    return {
        "cache": tuple(
            dict.fromkeys(
                (*takes.caches, *takes.head_scaled, *(INDEXED if "indexer" in kinds else ()))
            )
        ),
        "cache scale": ("any", "a power of 2") if fp8 else (),
        "logits": ("usual", "beyond exp"),
        "block size": tuple(name for name, has in blocks.items() if has),
        "block stride": ("dense", "padded"),
        "padding": ("none", "without slots", "some without slots"),
        "skipped writes": ("none", "some"),
        **({"sinks": sinks_of(takes)} if "mla_sparse" in kinds else {}),
        "latent heads": ("to 16", "over 16") if latent else (),
        "latent rank": ("512", *(("256",) if backend == "TRITON_MLA" else ())) if latent else (),
        "chosen keys": ("some", "all", "over 256") if "mla_sparse" in kinds else (),
        "chunks": ("one", "several") if chunked else (),
        "pieces": (*own, *(("over 16",) if backend in MANY_PIECES else ())),
    }
