"""Which problems a backend is asked, by tier: covering, random and adversarial ones."""

from __future__ import annotations

import random
from dataclasses import replace

from conformance.problems.adversarial import adversarial
from conformance.problems.covering import pairwise
from conformance.problems.families import Maker, Tier
from conformance.problems.features import admitted, features
from conformance.problems.problem import Problem

# Problems beyond the covering and the adversarial ones, a kind: rows drawn freely.
RANDOM = {"quick": 0, "standard": 12, "gpu": 60}
# How many times each row of the covering is asked, with other lengths.
REPEATS = {"quick": 1, "standard": 1, "gpu": 4}
# The most rows and edges a kind in the quick tier, all backends together under a minute.
QUICK = {"paged": (9, 7), "varlen": (3, 1), "mla": (4, 3), "mla_prefill": (3, 1)}
QUICK_OTHER = (4, 2)


def backends() -> list[str]:
    """The backends that problems are made for."""
    return list(features())


def problems_for(backend: str, tier: Tier, seed: int = 0, edition: str = "0.19") -> list[Problem]:
    """The problems of a backend: the same for the same seed, with distinct ids."""
    draw = random.Random(f"{backend}/{tier}/{seed}")
    maker = Maker(admitted(backend, edition), tier, draw)
    found: list[Problem] = []
    for kind in maker.admitted.features.kinds:
        if kind != "varlen" or maker.admitted.encoder:
            found += _of_kind(maker, kind, tier)
    made = [replace(p, id=f"{p.id}-s{seed}") for p in found]
    for problem in made:
        problem.check()
    return made


def _of_kind(maker: Maker, kind: str, tier: Tier) -> list[Problem]:
    values = maker.values(kind)
    rows = pairwise(values, maker.draw, maker.allowed)
    edges = adversarial(maker, kind)
    if tier == "quick":
        most, most_edges = QUICK.get(kind, QUICK_OTHER)
        rows, edges = rows[:most], _spread(edges, most_edges)
    for _ in range(RANDOM[tier]):
        row = {name: maker.draw.choice(choices) for name, choices in values.items()}
        if maker.allowed(row):
            rows.append(row)
    covering = [
        maker.problem(kind, row, row["shape"], index * REPEATS[tier] + repeat)
        for index, row in enumerate(rows)
        for repeat in range(REPEATS[tier])
    ]
    return covering + edges


def _spread(edges: list[Problem], count: int) -> list[Problem]:
    """Some of the edges, evenly over the list, so that all families have a chance."""
    if len(edges) <= count:
        return edges
    return [edges[i * len(edges) // count] for i in range(count)]
