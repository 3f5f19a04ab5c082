"""Which mutants a campaign judges."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from conformance.mutation.mutant import Mutant


@dataclass(frozen=True)
class Drawn:
    """A mutant, and the seeds that drew it."""

    mutant: Mutant
    seeds: tuple[int, ...]


def drawn_by(mutants: Sequence[Mutant], count: int, seeds: Sequence[int]) -> list[Drawn]:
    """``count`` mutants of each seed, each once; the seeds take turns."""
    found: dict[str, Mutant] = {}
    by: dict[str, list[int]] = defaultdict(list)
    draws = [drawn(mutants, count, seed) for seed in seeds]
    for turn in zip_longest(*draws):
        for mutant, seed in zip(turn, seeds, strict=True):
            if mutant is not None:
                found[mutant.id] = mutant
                by[mutant.id].append(seed)
    return [Drawn(mutant, tuple(sorted(by[name]))) for name, mutant in found.items()]


def drawn(mutants: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """``count`` of the mutants, or all, in the order of drawing: the first of more are the same.

    Each is of an operator that is drawn with the square root of how many mutants it makes, so that
    those which fit everywhere (constants) do not crowd out those which fit seldom (masks).
    """
    draw = random.Random(f"mutants {seed}")
    left: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in mutants:
        left[mutant.operator].append(mutant)
    for of_one in left.values():
        draw.shuffle(of_one)
    weights = {operator: math.sqrt(len(of_one)) for operator, of_one in left.items()}
    chosen: list[Mutant] = []
    while left and len(chosen) < count:
        names = list(left)
        (name,) = draw.choices(names, [weights[one] for one in names])
        chosen.append(left[name].pop())
        if not left[name]:
            del left[name]
    return chosen
