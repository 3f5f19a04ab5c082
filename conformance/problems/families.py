"""Which problems a backend is asked, by tier: covering, random and adversarial ones."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import cast, get_args

from conformance.errors import UsageError
from conformance.problems.adversarial import adversarial
from conformance.problems.covering import Row, pairwise
from conformance.problems.features import admitted, features
from conformance.problems.long import huge_cache, long_problems
from conformance.problems.making import EMULATED, Maker, Tier
from conformance.problems.problem import Problem

TIERS = get_args(Tier)
# Backends whose real counterpart gives no log-sum-exp.
NO_LSE = frozenset({"TORCH_SDPA"})
# Rows that are drawn freely, a kind, beside the covering ones.
RANDOM = {"quick": 0, "standard": 8, "gpu": 16, "isa": 0, "isa-quick": 0}
# How many problems each row becomes; from the second on, of another shape.
REPEATS = {"quick": 1, "standard": 1, "gpu": 4, "isa": 1, "isa-quick": 1}
# The most rows of a kind in the small tiers: the quick one is to take less than a minute in all.
MOST_ROWS = {
    "quick": {"paged": 6, "varlen": 1, "mla": 3, "mla_prefill": 2, "mla_sparse": 4, "indexer": 3},
    "isa": {"paged": 5, "varlen": 2, "mla": 3, "mla_prefill": 2, "mla_sparse": 2, "indexer": 2},
    "isa-quick": {"varlen": 1, "mla_sparse": 1, "indexer": 1},
}
# What a backend computes without a kernel of Triton's: there is nothing to emulate.
NOT_TRITON = frozenset({("TORCH_SDPA", "varlen"), ("FLEX_ATTENTION", "varlen")})


def backends() -> list[str]:
    """The backends that problems are made for."""
    return list(features())


def problems_for(backend: str, tier: str, seed: int = 0, edition: str = "0.19") -> list[Problem]:
    """The problems of a backend: the same for the same seed, with distinct ids.

    Raises:
        UsageError: an unknown backend or tier.
    """
    if tier not in TIERS:
        raise UsageError(f"no tier {tier!r}: expected one of {', '.join(TIERS)}")
    draw = random.Random(f"{backend}/{tier}/{seed}")
    maker = Maker(admitted(backend, edition), cast(Tier, tier), draw)
    found: list[Problem] = []
    for kind in maker.admitted.features.kinds:
        if tier in EMULATED and (backend, kind) in NOT_TRITON:
            continue
        if kind != "varlen" or maker.admitted.encoder:
            found += _of_kind(maker, kind, maker.tier)
    made = [replace(p, id=f"{p.id}-s{seed}") for p in found]
    for problem in made:
        problem.check()
    return made


def _of_kind(maker: Maker, kind: str, tier: Tier) -> list[Problem]:
    values = maker.values(kind)
    rows = pairwise(values, maker.draw, maker.allowed)
    edges = adversarial(maker, kind)
    if tier in MOST_ROWS:
        rows = _spanning(rows, MOST_ROWS[tier].get(kind, 0))
    for _ in range(RANDOM[tier]):
        row = {name: maker.draw.choice(choices) for name, choices in values.items()}
        if maker.allowed(row):
            rows.append(row)
    covering: list[Problem] = []
    for row in rows:
        for repeat in range(REPEATS[tier]):
            other = {**row, "shape": maker.draw.choice(values["shape"])} if repeat else row
            if maker.allowed(other):
                covering.append(maker.problem(kind, other, other["shape"], len(covering)))
    if tier == "gpu":
        edges += long_problems(maker, kind)
        edges += [huge_cache(maker)] if kind == "paged" else []
    return covering + edges


def _spanning(rows: list[Row], count: int) -> list[Row]:
    """So many rows, chosen for the values that the ones before them do not have."""
    chosen: list[Row] = []
    seen: set[tuple[str, object]] = set()
    for _ in range(min(count, len(rows))):
        left = [row for row in rows if row not in chosen]
        best = max(left, key=lambda row: len(set(row.items()) - seen))
        chosen.append(best)
        seen |= set(best.items())
    return chosen


def huge_cache_problem(backend: str, seed: int = 0, edition: str = "0.19") -> Problem:
    """The problem whose cache has more than 2**31 elements, for a backend with a dense cache."""
    return huge_cache(Maker(admitted(backend, edition), "standard", random.Random(seed)))
