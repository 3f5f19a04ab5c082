"""A delta's rows: what each does, and what it may not do."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from pydantic import ValidationError

from vllm_editions.changes import applied, changes_of

LINE = "https://example.org/selector.py#L1"
BASE: dict[str, Any] = {
    "edition": "1.0",
    "source": "https://example.org/1.0",
    "backends": {"A": {"dtypes": ["half", "single"], "sinks": False}},
    "candidates": {"dense": [{"backend": "A"}, {"backend": "B", "when": ["on mi3xx"]}]},
}


def delta(*rows: dict[str, Any]) -> dict[str, Any]:
    listed = [{"source": LINE, **row} for row in rows]
    return {"edition": "1.1", "source": "https://example.org/1.1", "base": "1.0", "change": listed}


def after(*rows: dict[str, Any]) -> dict[str, Any]:
    return applied(delta(*rows), deepcopy(BASE))


def test_without_rows_only_the_header_is_another() -> None:
    assert after() == {**BASE, "edition": "1.1", "source": "https://example.org/1.1"}


@pytest.mark.parametrize(
    ("row", "path", "expected"),
    [
        ({"path": "backends.A.sinks", "value": True}, ("backends", "A", "sinks"), True),
        ({"path": "backends.C", "value": {"sinks": True}}, ("backends", "C"), {"sinks": True}),
        (
            {"path": "backends.A.dtypes", "add": ["double"], "remove": ["half"]},
            ("backends", "A", "dtypes"),
            ["single", "double"],
        ),
        ({"path": "backends.A.heads", "add": [64]}, ("backends", "A", "heads"), [64]),
        ({"path": "backends.A", "drop": True}, ("backends",), {}),
        (
            {"path": "candidates.dense.B.when", "add": ["!use_mla"]},
            ("candidates", "dense", 1, "when"),
            ["on mi3xx", "!use_mla"],
        ),
    ],
)
def test_a_row_changes_the_entry_that_it_names(
    row: dict[str, Any], path: tuple[Any, ...], expected: Any
) -> None:
    found: Any = after(row)
    for key in path:
        found = found[key]
    assert found == expected


@pytest.mark.parametrize(
    ("where", "order"),
    [({}, ["A", "B", "C"]), ({"at": 0}, ["C", "A", "B"]), ({"before": "B"}, ["A", "C", "B"])],
)
def test_an_element_is_added_where_the_row_says(where: dict[str, Any], order: list[str]) -> None:
    made = after({"path": "candidates.dense", "add": [{"backend": "C"}], **where})
    assert [entry["backend"] for entry in made["candidates"]["dense"]] == order


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"path": "backends.A.sinks", "value": False}, "changes nothing"),
        ({"path": "backends.A.dtypes", "add": ["half"]}, "'half' is there already"),
        ({"path": "backends.A.dtypes", "remove": ["double"]}, "x not in list"),
        ({"path": "backends.C", "drop": True}, "there is no 'C'"),
        ({"path": "backends.C.sinks", "value": True}, "there is no 'C'"),
        ({"path": "candidates.dense", "add": [{"backend": "D"}], "before": "C"}, "no 'C'"),
    ],
)
def test_a_row_that_does_not_fit_its_base_is_an_error(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as failed:
        after(row)
    assert str(failed.value).startswith(f"edition 1.1, {row['path']}: ")


@pytest.mark.parametrize(
    "row",
    [
        {"path": "a"},
        {"path": "a", "value": 1, "drop": True},
        {"path": "a", "value": 1, "add": [2]},
        {"path": "a", "value": 1, "source": "https://example.org/selector.py"},
        {"path": "a", "value": 1, "reason": "unknown key"},
    ],
)
def test_a_row_does_one_thing_and_names_a_line(row: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        changes_of(delta(row))


def test_a_delta_holds_rows_and_no_table_of_its_own() -> None:
    with pytest.raises(ValueError, match="unknown key 'backends'"):
        applied({**delta(), "backends": {}}, deepcopy(BASE))
