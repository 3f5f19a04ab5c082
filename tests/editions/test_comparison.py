"""The rows between two editions: they turn the one into the other, and are small."""

from __future__ import annotations

from copy import deepcopy
from itertools import permutations
from typing import Any

import pytest

from vllm_editions import edition_file, edition_rows, editions
from vllm_editions.changes import apply, changes_of
from vllm_editions.comparison import edits, sources

ABOUT_THE_FILE = ("edition", "source", "release_bound")


def plain(table: dict[str, Any]) -> Any:
    """A table without its header; lists of words and numbers without their order."""
    return {key: _unordered(value) for key, value in table.items() if key not in ABOUT_THE_FILE}


def _unordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unordered(entry) for key, entry in value.items()}
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        return [_unordered(entry) for entry in value]
    return sorted(value) if isinstance(value, list) else value


@pytest.mark.parametrize("name", editions())
def test_the_rows_between_any_two_editions_turn_one_into_the_other(name: str) -> None:
    for other in editions():
        made, wanted = edition_rows(name), edition_rows(other)
        for edit in edits(made, wanted):
            apply(edit, made)
        assert plain(made) == plain(wanted)
        assert (edits(made, wanted) == ()) is True


@pytest.mark.parametrize("name", editions()[2:])
def test_between_neighbours_every_row_has_the_lines_of_the_delta(name: str) -> None:
    delta = edition_file(name)
    rows = edits(edition_rows(delta["base"]), edition_rows(name))
    lines = {change.source for change in changes_of(delta)}
    found = {line for row in rows for line in sources(row, delta["base"], name)}
    assert found == lines


def test_where_no_delta_leads_a_row_has_the_editions_page() -> None:
    (row, *_) = edits(edition_rows("0.18"), edition_rows("0.19"))
    assert sources(row, "0.18", "0.19") == (edition_file("0.19")["source"],)


LISTED = [{"backend": name} for name in "ABCD"]


@pytest.mark.parametrize("order", [*permutations(range(4)), (), (2,), (3, 0), (1, 2)])
def test_any_order_of_a_list_is_reached(order: tuple[int, ...]) -> None:
    old = {"candidates": {"dense": deepcopy(LISTED)}}
    extra = [{"backend": "E", "when": ["aiter"]}]
    for put_at in range(len(order) + 1):
        listed = [LISTED[at] for at in order]
        wanted = {"candidates": {"dense": [*listed[:put_at], *extra, *listed[put_at:]]}}
        made = deepcopy(old)
        for edit in edits(made, wanted):
            apply(edit, made)
        assert made == wanted


def test_a_list_in_another_order_is_one_row_for_each_entry_that_moved() -> None:
    old = {"candidates": {"dense": LISTED}}
    new = {"candidates": {"dense": [LISTED[3], *LISTED[:3]]}}
    (row,) = edits(old, new)
    assert (row.path, row.before) == ("candidates.dense", "A")
    assert row.add == row.remove == ({"backend": "D"},)


def test_a_name_that_is_there_twice_is_changed_where_it_stands() -> None:
    old = {"candidates": {"dense": [{"backend": "A", "when": ["x"]}, {"backend": "A"}]}}
    new = {"candidates": {"dense": [{"backend": "A", "when": ["x"]}, {"backend": "A", "when": []}]}}
    made = deepcopy(old)
    for edit in edits(old, new):
        apply(edit, made)
    assert made == new
