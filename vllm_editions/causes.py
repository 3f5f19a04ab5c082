"""Which rows of an edition's delta are behind something that it does differently."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from vllm_editions import Edition, edition_file, edition_rows
from vllm_editions.changes import Change, applied, changes_of


@cache
def _base(edition: str) -> dict[str, Any]:
    return edition_rows(edition_file(edition)["base"])


def rows_behind(edition: str, answer: Callable[[Edition], object], now: object) -> list[Change]:
    """The fewest rows that make the answer what it is: without any one of them it is another.

    Where several sets would do, the rows that the table has first. An edition that is no delta has
    none.
    """
    table = edition_file(edition)
    if "base" not in table:
        return []
    kept = list(table["change"])
    for row in reversed(table["change"]):
        left = [other for other in kept if other is not row]
        if _same(edition, left, answer, now):
            kept = left
    return list(changes_of({"change": kept}))


def _same(
    edition: str, rows: Sequence[Any], answer: Callable[[Edition], object], now: object
) -> bool:
    """Whether the edition with these rows alone answers the same."""
    try:
        made = applied(
            {**edition_file(edition), "change": list(rows)}, copy.deepcopy(_base(edition))
        )
        return answer(Edition.model_validate(made)) == now
    except (ValueError, KeyError):  # the other rows build on the one that was left out
        return False
