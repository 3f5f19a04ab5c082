"""The problems of a backend in a tier: covering, random and adversarial ones."""

from __future__ import annotations

import random
from dataclasses import replace

from conformance.problems.adversarial import adversarial
from conformance.problems.cache_dtypes import OCTAVE_CACHES
from conformance.problems.covering import Row, pairwise
from conformance.problems.features import admitted, features
from conformance.problems.head_scaled_edges import head_scaled_problems
from conformance.problems.layouts import Decks, laid_out
from conformance.problems.long import huge_cache, long_problems
from conformance.problems.making import Maker
from conformance.problems.octave_edges import octave_problems
from conformance.problems.packed_edges import packed_problems
from conformance.problems.problem import Problem
from conformance.problems.tiers import tier_named
from conformance.problems.windowed_edges import windowed_problems
from vllm_editions import DEFAULT_EDITION

# Backends that return no log-sum-exp in vLLM.
NO_LSE = frozenset({"TORCH_SDPA"})
# Kinds that a backend computes without a Triton kernel: there is nothing to emulate.
NOT_TRITON = frozenset({("TORCH_SDPA", "varlen"), ("FLEX_ATTENTION", "varlen")})


def backends() -> list[str]:
    """The backends that problems are made for."""
    return list(features())


def problems_for(
    backend: str, tier: str, seed: int = 0, edition: str = DEFAULT_EDITION
) -> list[Problem]:
    """The problems of a backend: the same for the same seed, with distinct ids.

    Raises:
        UsageError: an unknown backend or tier.
    """
    row, draw = tier_named(tier), random.Random(f"{backend}/{tier}/{seed}")
    maker = Maker(admitted(backend, edition), row, draw, Decks(draw))
    problems: list[Problem] = []
    for kind in maker.admitted.features.kinds:
        if row.emulated and (backend, kind) in NOT_TRITON:
            continue
        if kind != "varlen" or maker.admitted.encoder:
            problems += _of_kind(maker, kind)
    own = f"{backend}/{tier}/{seed}/heads"
    scaled = head_scaled_problems(maker, own) if maker.admitted.head_scaled else []
    laid = (*laid_out(problems, row, draw), *laid_out(scaled, row, random.Random(own)))
    made = [replace(p, id=f"{p.id}-s{seed}") for p in laid]
    for problem in made:
        problem.check()
    return made


def _of_kind(maker: Maker, kind: str) -> list[Problem]:
    tier = maker.tier
    if maker.admitted.caches[0] in OCTAVE_CACHES:
        return octave_problems(maker)
    if maker.admitted.packed:
        return packed_problems(maker)
    if maker.admitted.windowed:
        return windowed_problems(maker)
    values = maker.values(kind)
    rows = pairwise(values, maker.draw, maker.allowed)
    edges = adversarial(maker, kind)
    if tier.most_rows is not None:
        rows = _spanning(rows, tier.most_rows.get(kind, 0), edges)
    for _ in range(tier.random_rows):
        row = {name: maker.draw.choice(choices) for name, choices in values.items()}
        if maker.allowed(row):
            rows.append(row)
    covering: list[Problem] = []
    for row in rows:
        for repeat in range(tier.repeats):
            other = {**row, "shape": maker.draw.choice(values["shape"])} if repeat else row
            if maker.allowed(other):
                covering.append(maker.problem(kind, other, other["shape"], len(covering)))
    if tier.long:
        edges += long_problems(maker, kind)
        edges += [huge_cache(maker)] if kind == "paged" else []
    return covering + edges


def _spanning(rows: list[Row], count: int, edges: list[Problem]) -> list[Row]:
    """``count`` rows, each chosen for the values that neither ``edges`` nor earlier rows have.

    A shape that is new counts for more than other values, most of all one that no edge has.
    """
    chosen: list[Row] = []
    seen: set[tuple[str, object]] = {
        (name, getattr(problem, _FIELDS.get(name, name)))
        for problem in edges
        for name in rows[0]
        if name not in _NO_FIELDS
    }
    for _ in range(min(count, len(rows))):
        left = [row for row in rows if row not in chosen]
        best = max(left, key=lambda row: _new_in(row, seen))
        chosen.append(best)
        # One key each: no mask shows.
        hidden = _MASKS if best["shape"] == "single" else ()
        seen |= {(name, value) for name, value in best.items() if name not in hidden}
    return chosen


# A row's names that are not those of a problem's fields, or that mean something else there.
_FIELDS = {"heads": "num_heads"}
_MASKS = ("window", "soft_cap", "alibi", "mm_prefix")
_NO_FIELDS = ("shape", "window", "mm_prefix")


_RARE = ("prefill", "single", "extend")


def _new_in(row: Row, seen: set[tuple[str, object]]) -> int:
    weights = {"shape": 8 if row["shape"] in _RARE else 4}
    return sum(weights.get(name, 1) for name, _ in set(row.items()) - seen)


def huge_cache_problem(backend: str, seed: int = 0, edition: str = DEFAULT_EDITION) -> Problem:
    """The problem whose cache has more than 2**31 elements, for a backend with a dense cache."""
    maker = Maker(admitted(backend, edition), tier_named("standard"), random.Random(seed))
    return huge_cache(maker)
