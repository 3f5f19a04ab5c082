"""A delta between two editions: what a release changed, a row at a time.

A row is ``path`` (dotted; in a list of tables an entry's ``backend``, ``supports`` or ``reason``),
the ``source`` line that says so, and one of

- ``value``: the entry is new, or is something else now;
- ``add``, ``remove``: elements of a list; ``at`` (an index) or ``before`` (a name) say where they
  are put, at the end unless they do;
- ``drop``: the entry is gone.

A row that changes nothing is an error: it would say of a release what its base says already.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

NAMED_BY = ("backend", "supports", "reason")
_HEADER = ("edition", "source")


class Edit(BaseModel):
    """What a row does to a table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    value: Any = None
    add: tuple[Any, ...] = ()
    remove: tuple[Any, ...] = ()
    at: int | None = None
    before: str = ""
    drop: Literal[True] | None = None

    @model_validator(mode="after")
    def _does_one_thing(self) -> Edit:
        done = (self.value is not None, bool(self.add or self.remove), self.drop is not None)
        if sum(done) != 1:
            raise ValueError(f"{self.path}: expected one of value, add or remove, drop")
        return self


class Change(Edit):
    """One row of a delta."""

    source: str = Field(pattern=r"^https://\S+#L\d+$")


def changes_of(table: dict[str, Any]) -> tuple[Change, ...]:
    """The rows of a delta's table."""
    return tuple(Change.model_validate(row) for row in table.get("change", ()))


def applied(delta: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """``base`` after the rows of ``delta``; ``base`` itself is changed too.

    Raises:
        ValueError: a row names an entry that is not there, or changes nothing.
    """
    if unknown := delta.keys() - {*_HEADER, "base", "change"}:
        raise ValueError(f"edition {delta['edition']}: unknown key {min(unknown)!r} in a delta")
    base.update({key: delta[key] for key in _HEADER})
    for change in changes_of(delta):
        try:
            apply(change, base)
        except (KeyError, ValueError) as error:
            raise ValueError(f"edition {delta['edition']}, {change.path}: {error}") from None
    return base


def apply(change: Edit, table: dict[str, Any]) -> None:
    """Does to ``table`` what one row says.

    Raises:
        KeyError, ValueError: the row names an entry that is not there, or changes nothing.
    """
    *parents, last = change.path.split(".")
    holder: Any = table
    for name in parents:
        holder = holder[_place(holder, name)]
    if change.drop:
        del holder[_place(holder, last)]
    elif change.value is not None:
        key = last if isinstance(holder, dict) else _place(holder, last)
        if isinstance(holder, dict) and key in holder and holder[key] == change.value:
            raise ValueError("the row changes nothing")
        holder[key] = change.value
    else:
        holder[last] = _edited(change, holder.get(last, []))


def _edited(change: Edit, listed: list[Any]) -> list[Any]:
    left = list(listed)
    for element in change.remove:
        left.remove(element)
    if again := [element for element in change.add if element in left]:
        raise ValueError(f"{again[0]!r} is there already")
    at = len(left) if change.at is None else change.at
    if change.before:
        at = _place(left, change.before)
    left[at:at] = change.add
    return left


def _place(holder: Any, name: str) -> Any:
    """The key or index of an entry that is there."""
    if isinstance(holder, dict):
        if name not in holder:
            raise ValueError(f"there is no {name!r}")
        return name
    for index, entry in enumerate(holder):
        named = [entry.get(key) for key in NAMED_BY] if isinstance(entry, dict) else [entry]
        if name in named:
            return index
    raise ValueError(f"there is no {name!r}")
