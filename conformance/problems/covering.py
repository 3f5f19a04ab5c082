"""Rows that cover every possible pair of values: most faults need no more than two to show.

D. M. Cohen, S. R. Dalal, M. L. Fredman, G. C. Patton, "The AETG System: An Approach to Testing
Based on Combinatorial Design", IEEE Transactions on Software Engineering 23(7), 1997.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

Row = dict[str, Any]
Allowed = Callable[[Row], bool]


def pairwise(
    values: Mapping[str, Sequence[Any]], draw: random.Random, allowed: Allowed = lambda _: True
) -> list[Row]:
    """Rows with a value for every name that together cover every pair of values a row can have.

    ``allowed`` is called with complete and partial rows: it must allow every part of a row that it
    allows. Rows are made greedily: each starts with an uncovered pair and takes the values that
    cover the most others. If these lead nowhere, all other values are tried.
    """
    names = sorted(values, key=lambda name: (-len(values[name]), name))
    # A list, because the order of a set differs between processes.
    pairs = [
        ((a, x), (b, y)) for a, b in combinations(names, 2) for x in values[a] for y in values[b]
    ]
    draw.shuffle(pairs)
    open_pairs = set(pairs)
    rows = []
    for pair in pairs:
        if pair not in open_pairs:
            continue
        rest = [name for name in names if name not in dict(pair)]
        draw.shuffle(rest)
        row = _complete(dict(pair), rest, values, open_pairs, draw, allowed)
        if row is None:
            open_pairs.discard(pair)
            continue
        open_pairs -= set(combinations(((name, row[name]) for name in names), 2))
        rows.append({name: row[name] for name in values})
    return rows


def _complete(
    row: Row,
    rest: list[str],
    values: Mapping[str, Sequence[Any]],
    open_pairs: set[tuple[tuple[str, Any], tuple[str, Any]]],
    draw: random.Random,
    allowed: Allowed,
) -> Row | None:
    """The row with values for ``rest``, or None if no values are allowed."""
    if not allowed(row):
        return None
    if not rest:
        return row
    name, *later = rest

    def closes(value: Any) -> int:
        new = (name, value)
        return sum((new, old) in open_pairs or (old, new) in open_pairs for old in row.items())

    ranked = sorted(values[name], key=lambda value: (-closes(value), draw.random()))
    for value in ranked:
        complete = _complete({**row, name: value}, later, values, open_pairs, draw, allowed)
        if complete is not None:
            return complete
    return None
