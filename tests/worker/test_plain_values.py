"""What a request leaves the fields at that the suite does not know."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from conformance.worker.errors import WorkerError
from conformance.worker.vllm.selection import plain_values


class Newer(NamedTuple):
    """A selector's class with fields of many types."""

    head_size: int
    use_a: bool
    window: int
    share: float
    name: str
    kinds: tuple[str, ...]
    maybe: int | None
    either: int | str
    given: bool = True


class Unclear(NamedTuple):
    """A selector's class with a field of which no value means nothing."""

    what: object


def test_each_field_is_left_at_what_asks_for_nothing() -> None:
    assert plain_values(Newer, [name for name in Newer._fields if name != "head_size"]) == {
        "use_a": False,
        "window": 0,
        "share": 0.0,
        "name": "",
        "kinds": (),
        "maybe": None,
        "either": 0,
    }


def test_a_default_of_the_class_is_its_own() -> None:
    assert plain_values(Newer, ["given"]) == {}
    made = Newer(64, **plain_values(Newer, list(Newer._fields[1:])))  # type: ignore[arg-type] # the values are of these types
    assert made.given is True


def test_a_type_without_such_a_value_stops_and_is_named() -> None:
    with pytest.raises(WorkerError, match="asks for 'what', which this suite does not know"):
        plain_values(Unclear, ["what"])
