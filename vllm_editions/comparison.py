"""What turns one edition's table into another's: the rows of a delta, worked out from both.

The rows are as small as the tables allow: one for each list and each value of a backend, one for
each entry of a list whose order counts. :func:`vllm_editions.changes.apply` does what a row says.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from vllm_editions import edition_file, editions
from vllm_editions.changes import NAMED_BY, Change, Edit, changes_of

_ABOUT_THE_FILE = ("edition", "source", "base", "release_bound")


def edits(old: dict[str, Any], new: dict[str, Any]) -> tuple[Edit, ...]:
    """The rows that turn the table ``old`` into ``new``, in an order in which they apply."""
    found: list[Edit] = []
    for key in dict.fromkeys((*old, *new)):
        if key not in _ABOUT_THE_FILE:
            found += _of_key(key, old, new, key)
    return tuple(found)


def sources(edit: Edit, older: str, newer: str) -> tuple[str, ...]:
    """The lines of releases behind a row between two editions.

    Where neither is a descendant of the other, the page that the newer one is written from.
    """
    found = dict.fromkeys(c.source for c in changes_between(older, newer) if _about(c, edit))
    return tuple(found) or (edition_file(newer)["source"],)


@cache
def changes_between(older: str, newer: str) -> tuple[Change, ...]:
    """The rows of every edition after ``older``, up to ``newer``; oldest first."""
    known = editions()
    between = known[known.index(older) + 1 : known.index(newer) + 1]
    return tuple(change for name in between for change in changes_of(edition_file(name)))


def _of_key(path: str, old: dict[str, Any], new: dict[str, Any], key: str) -> Iterator[Edit]:
    if key not in new:
        yield Edit(path=path, drop=True)
    elif key not in old and not _named(new[key]):
        yield Edit(path=path, value=new[key])
    else:
        yield from _of_values(path, old.get(key, []), new[key])


def _of_values(path: str, old: Any, new: Any) -> Iterator[Edit]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            yield from _of_key(f"{path}.{key}", old, new, key)
    elif isinstance(old, list) and _named(new) and (_named(old) or not old):
        yield from _Lists(path, old, new).edits()
    elif isinstance(old, list) and isinstance(new, list) and not _holds_tables((*old, *new)):
        yield from _of_sets(path, old, new)
    else:
        yield Edit(path=path, value=new)


def _of_sets(path: str, old: list[Any], new: list[Any]) -> Iterator[Edit]:
    """Lists of words or numbers, whose order says nothing."""
    added = tuple(element for element in new if element not in old)
    removed = tuple(element for element in old if element not in new)
    if added or removed:
        yield Edit(path=path, add=added, remove=removed)


def _holds_tables(listed: Sequence[Any]) -> bool:
    return any(isinstance(entry, dict) for entry in listed)


def _named(value: Any) -> bool:
    """Whether a value is a list of tables with names: candidates or checks, in their order."""
    named = isinstance(value, list) and all(isinstance(e, dict) and _name(e) for e in value)
    return named and bool(value)


def _name(entry: dict[str, Any]) -> str:
    """The name by which a row's path finds an entry; "" if it has none of its own.

    A shared layout has a backend and a reason, and is found by neither.
    """
    if "run" in entry or "layer" in entry or "only_on" in entry:
        return ""
    return next((str(entry[key]) for key in NAMED_BY if key in entry), "")


class _Lists:
    """Two lists of named tables: entries that went, moved, changed and came, in this order."""

    def __init__(self, path: str, old: list[Any], new: list[Any]) -> None:
        self._path = path
        self._old = old
        self._new = new
        self._pair = self._pairs()
        # The places in ``old`` of what is there so far; those of new entries are negative.
        self._there = [at for at in range(len(old)) if at in self._pair.values()]

    def edits(self) -> Iterator[Edit]:
        kept = set(self._there)
        for at, entry in enumerate(self._old):
            if at not in kept:
                yield Edit(path=self._path, remove=(entry,))
        yield from self._moves()
        yield from self._changes()
        yield from self._additions()

    def _pairs(self) -> dict[int, int]:
        """For places in ``new`` the place in ``old`` of the same entry, or of that name."""
        left = list(range(len(self._old)))
        pair: dict[int, int] = {}
        for same in (lambda a, b: a == b, lambda a, b: _name(a) == _name(b)):
            for at, entry in enumerate(self._new):
                there = (i for i in left if at not in pair and same(self._old[i], entry))
                if (found := next(there, None)) is not None:
                    pair[at] = found
                    left.remove(found)
        return pair

    def _moves(self) -> Iterator[Edit]:
        order = [self._pair[at] for at in range(len(self._new)) if at in self._pair]
        placed = _longest_rising(order)
        for number, at in enumerate(order):
            if at not in placed:
                self._there.remove(at)
                after = next((other for other in order[number:] if other in placed), None)
                yield self._put(at, after, self._old[at], moved=True)

    def _changes(self) -> Iterator[Edit]:
        for new_at, old_at in self._pair.items():
            entry, other = self._old[old_at], self._new[new_at]
            if entry != other:
                if self._is_first(old_at):
                    yield from _of_values(f"{self._path}.{_name(entry)}", entry, other)
                else:
                    at = self._there.index(old_at)
                    yield Edit(path=self._path, remove=(entry,), add=(other,), at=at)

    def _additions(self) -> Iterator[Edit]:
        """Each before an entry that was there: it can be added without the other ones."""
        for at in range(len(self._new)):
            if at not in self._pair:
                kept = (self._pair[n] for n in range(at, len(self._new)) if n in self._pair)
                yield self._put(-at - 1, next(kept, None), self._new[at])

    def _put(self, key: int, after: int | None, entry: Any, moved: bool = False) -> Edit:
        """The row that puts an entry before another one, or at the end."""
        place = len(self._there) if after is None else self._there.index(after)
        where: dict[str, Any] = {}
        if after is not None:
            by_name = self._is_first(after)
            where = {"before": _name(self._entry(after))} if by_name else {"at": place}
        self._there.insert(place, key)
        return Edit(path=self._path, add=(entry,), remove=(entry,) if moved else (), **where)

    def _entry(self, key: int) -> Any:
        return self._old[key] if key >= 0 else self._new[-key - 1]

    def _is_first(self, key: int) -> bool:
        """Whether a path that names the entry finds this one."""
        name = _name(self._entry(key))
        return next(k for k in self._there if _name(self._entry(k)) == name) == key


def _longest_rising(numbers: Sequence[int]) -> set[int]:
    """The most of some different numbers that are in rising order."""
    ends: list[int] = []
    before: dict[int, int | None] = {}
    for number in numbers:
        at = bisect_left(ends, number)
        before[number] = ends[at - 1] if at else None
        ends[at : at + 1] = [number]
    found = set()
    last = ends[-1] if ends else None
    while last is not None:
        found.add(last)
        last = before[last]
    return found


def _about(change: Change, edit: Edit) -> bool:
    """Whether a release's row is about the entry that a row between two editions is about."""
    if change.path == edit.path:
        named = _elements(change)
        return not named or not _elements(edit) or not named.isdisjoint(_elements(edit))
    outer, inner = (change, edit) if _within(edit.path, change.path) else (edit, change)
    if not _within(inner.path, outer.path):
        return False
    entry = inner.path.removeprefix(f"{outer.path}.").partition(".")[0]
    return not _elements(outer) or entry in _elements(outer)


def _elements(edit: Edit) -> set[str]:
    return {_spelled(element) for element in (*edit.add, *edit.remove)}


def _spelled(element: Any) -> str:
    return _name(element) if isinstance(element, dict) else str(element)


def _within(path: str, of: str) -> bool:
    return path.startswith(f"{of}.")
