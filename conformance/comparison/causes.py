"""Why two sides answer a question differently.

Between two editions the cause is found by trial: of the rows that turn one into the other, the
fewest that turn the one answer into the other. Where a build answers otherwise than its release's
edition, or both sides have one edition, the reasons and the candidates of both answers say it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError

from conformance.comparison.sides import UNKNOWN_BACKEND, UNKNOWN_DTYPE, Words, label
from conformance.comparison.words import NEW_WORD, WORD_ONLY, described, entry_at
from conformance.matrix.requests import Ask, PagedAttention, Platform, Request, Selection
from conformance.requirements.attribution import family
from conformance.subjects.reference import answer, selector_on
from rocm_reference.selector import Selector
from vllm_editions import Edition, edition_rows, editions
from vllm_editions.changes import Edit, apply
from vllm_editions.comparison import edits, sources

# Candidates that come or go, for all that both answers say: a variable may decide, or nothing.
CANDIDATES = "candidates"


@dataclass(frozen=True, order=True)
class Cause:
    """One thing that changed; ``sources`` are the lines of releases that say so."""

    kind: str
    text: str
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class Observed:
    """A candidate's reasons, which no edition explains; words are told apart at the end."""

    backend: str
    lost: tuple[str, ...]
    gained: tuple[str, ...]
    moved: bool

    def causes(self, said_before: set[str], said_after: set[str]) -> tuple[Cause, ...]:
        """``said_before`` and ``said_after`` are all reasons that either side gave at all."""
        lost_words = not said_after.intersection(self.lost)
        new_words = not said_before.intersection(self.gained)
        if len(self.lost) == len(self.gained) and lost_words and new_words and not self.moved:
            pairs = zip(self.lost, self.gained, strict=True)
            return tuple(Cause(WORD_ONLY, f"{was!r} is now {is_!r}") for was, is_ in pairs)
        found = [Cause("capability", f"{self.backend} no longer says {r!r}") for r in self.lost]
        for reason in self.gained:
            kind = "capability" if reason in said_before else "new check"
            found.append(Cause(kind, f"{self.backend} now says {reason!r}"))
        return tuple(found)


Why = tuple[Cause | Observed, ...]


class Explainer:
    """Says why two sides' answers differ."""

    def __init__(self, between: Between) -> None:
        self._between = between
        self._known: dict[Any, Why] = {}

    def why(
        self,
        platform: Platform,
        ask: Ask,
        answers: tuple[Selection, Selection],
        words: tuple[Words, Words],
    ) -> Why:
        """The causes of one difference; of a selection that moved they are needed together.

        ``words`` are what each side knows.
        """
        machine = (platform.target, platform.aiter, platform.flash_attn)
        kind = family(ask.question) if isinstance(ask.question, Request) else type(ask.question)
        unknown = _unknown(ask, answers, words)
        key = (machine, kind, ask.backend, _difference(ask, *answers), unknown)
        if key not in self._known:
            self._known[key] = unknown or self._found(platform, ask, *answers)
        return self._known[key]

    def _found(self, platform: Platform, ask: Ask, before: Selection, after: Selection) -> Why:
        rows = self._between.rows(platform, ask, before, after)
        if rows is None:
            return tuple(_observed(ask, before, after))
        return tuple(sorted(self._between.cause(row) for row in rows))


def _unknown(ask: Ask, answers: tuple[Selection, Selection], words: tuple[Words, Words]) -> Why:
    """The words of a question that one side does not know."""
    found = []
    for side, said in enumerate(answers):
        when, mine, others = ("is gone" if side else "is new"), words[side], words[1 - side]
        if said.error == UNKNOWN_BACKEND:
            found.append(Cause(NEW_WORD, f"backend {ask.backend} {when}"))
        elif said.error == UNKNOWN_DTYPE and isinstance(ask.question, Request):
            named = (ask.question.kv_cache_dtype, ask.question.run_kv_cache_dtype)
            for name in dict.fromkeys(filter(None, named)):
                if name in others.dtypes - mine.dtypes:
                    found.append(Cause(NEW_WORD, f"KV-cache dtype {name} {when}"))
    return tuple(found)


def _difference(ask: Ask, before: Selection, after: Selection) -> tuple[Any, ...]:
    """What a cause depends on: of answers that select the same, the reasons that differ."""
    if label(ask, before) != label(ask, after):
        return (before, after)
    was = {c.backend: c.rejected for c in before.candidates}
    now = {c.backend: c.rejected for c in after.candidates}
    reasons = tuple((b, was[b], now[b]) for b in was if b in now and was[b] != now[b])
    return (tuple(was), tuple(now), reasons)


def _observed(ask: Ask, before: Selection, after: Selection) -> Iterable[Cause | Observed]:
    """What both answers themselves say: of one that moved, about the two backends that matter."""
    moved = label(ask, before) != label(ask, after)
    if not isinstance(ask.question, Request):
        kind = "decode kernel" if isinstance(ask.question, PagedAttention) else "vision rules"
        yield Cause(kind, f"{label(ask, before)} is now {label(ask, after)}")
        return
    was = {c.backend: c.rejected for c in before.candidates}
    now = {c.backend: c.rejected for c in after.candidates}
    if after.error != before.error and "crash" in (after.error, before.error):
        yield Cause("crash", (after if after.error == "crash" else before).message)
        return
    decisive = {before.selected, after.selected} - {None} if moved else set(was) | set(now)
    found = [
        Observed(
            backend,
            _without(was[backend], now[backend]),
            _without(now[backend], was[backend]),
            moved,
        )
        for backend in was
        if backend in now and was[backend] != now[backend] and (backend in decisive or not decisive)
    ]
    yield from (o for o in found if o.lost or o.gained)
    for o in found:
        if not o.lost and not o.gained:
            yield Cause(WORD_ONLY, f"{o.backend}'s reasons come in another order")
    if list(was) != list(now):
        yield Cause(*_order(ask, list(was), list(now)))
    elif not found:
        yield Cause("order", f"{label(ask, before)} is now {label(ask, after)}")


def _without(some: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    return tuple(reason for reason in some if reason not in others)


def _order(ask: Ask, was: list[str], now: list[str]) -> tuple[str, str]:
    if ask.backend is not None:
        gives_way = "gives way" if len(now) > len(was) else "does not give way"
        return "fall-through", f"{ask.backend}, asked for, {gives_way}"
    assert isinstance(ask.question, Request)
    of = f"{family(ask.question)} candidates"
    new = [name for name in now if name not in was]
    gone = [name for name in was if name not in now]
    if not new and not gone:
        return "order", f"{of}: {', '.join(now)}, were {', '.join(was)}"
    parts = [f"{', '.join(new)} new" if new else "", f"{', '.join(gone)} gone" if gone else ""]
    return CANDIDATES, f"{of}: {'; '.join(filter(None, parts))}"


# ---- the rows between two editions -----------------------------------------------------------


class Between:
    """The rows that turn one edition's table into another's, and selectors that go by some."""

    def __init__(
        self,
        before: dict[str, Any],
        after: dict[str, Any],
        lines: Callable[[Edit], tuple[str, ...]] = lambda _row: (),
    ) -> None:
        """``lines`` are the lines of releases behind a row."""
        self._table = deepcopy(before)
        self._lines = lines
        self._rows = self._counted(edits(before, after))
        self._causes: dict[int, Cause] = {}
        self._editions: dict[frozenset[int], Edition | None] = {}
        self._selectors: dict[tuple[frozenset[int], Platform], Selector | None] = {}

    @classmethod
    def editions(cls, before: str, after: str) -> Between:
        """Between two editions; the lines are those of the deltas from one to the other."""
        older, newer = sorted((before, after), key=editions().index)
        lines = partial(sources, older=older, newer=newer)
        return cls(edition_rows(before), edition_rows(after), lines)

    def _counted(self, rows: Iterable[Edit]) -> tuple[Edit, ...]:
        """The rows that can be causes: a name that is new, or gone, matters by what uses it."""
        left = []
        for row in rows:
            names = row.path.startswith(("classes.", "flags."))
            is_new = row.value is not None and entry_at(row.path, self._table) is None
            if names and is_new:
                apply(row, self._table)
            elif not (names and row.drop):
                left.append(row)
        return tuple(left)

    def rows(
        self, platform: Platform, ask: Ask, before: Selection, after: Selection
    ) -> tuple[int, ...] | None:
        """The rows behind a difference; None: the editions do not give these answers."""
        everything = frozenset(range(len(self._rows)))

        def with_rows(some: Iterable[int]) -> Selection | None:
            return self._answer(frozenset(some), platform, ask)

        if with_rows(()) != before or with_rows(everything) != after:
            return None
        near = [at for at in everything if self._is_near(self._rows[at], ask, before, after)]
        touching = [
            at
            for at in near
            if with_rows((at,)) not in (before, None)
            or with_rows(everything - {at}) not in (after, None)
        ]
        if label(ask, before) == label(ask, after):
            return tuple(touching)

        def suffices(some: Iterable[int]) -> bool:
            got = with_rows(some)
            return got is not None and label(ask, got) == label(ask, after)

        for at in touching:
            if suffices((at,)):
                return (at,)
        left = touching if suffices(touching) else near
        for at in tuple(left):
            if suffices(rest := [other for other in left if other != at]):
                left = rest
        return tuple(left)

    def cause(self, at: int) -> Cause:
        """A row in words, with its sources."""
        if at not in self._causes:
            row = self._rows[at]
            self._causes[at] = Cause(*described(row, self._table), self._lines(row))
        return self._causes[at]

    def _is_near(self, row: Edit, ask: Ask, before: Selection, after: Selection) -> bool:
        """Whether a row could matter to a question at all."""
        top, _, rest = row.path.partition(".")
        if top in ("vit", "paged_attention"):
            return not isinstance(ask.question, Request)
        if top == "candidates":
            return isinstance(ask.question, Request) and rest.startswith(family(ask.question))
        if top == "backends":
            named = {c.backend for c in (*before.candidates, *after.candidates)}
            return rest.partition(".")[0] in {*named, ask.backend, before.selected, after.selected}
        return top != "asked"

    def _answer(self, rows: frozenset[int], platform: Platform, ask: Ask) -> Selection | None:
        """None: these rows alone are no edition, or not one that can be asked this."""
        key = (rows, platform)
        if key not in self._selectors:
            self._selectors[key] = self._selector(rows, platform)
        selector = self._selectors[key]
        try:
            return None if selector is None else answer(selector, ask)
        except (
            AttributeError,
            KeyError,
            ValueError,
        ):  # it asks for a field or a backend that comes with a row
            return None

    def _selector(self, rows: frozenset[int], platform: Platform) -> Selector | None:
        edition = self._edition(rows)
        try:
            return None if edition is None else selector_on(edition, platform)
        except (KeyError, ValueError):  # it names a flag or a class that comes with another row
            return None

    def _edition(self, rows: frozenset[int]) -> Edition | None:
        if rows not in self._editions:
            self._editions[rows] = self._made(rows)
        return self._editions[rows]

    def _made(self, rows: frozenset[int]) -> Edition | None:
        table = deepcopy(self._table)
        try:
            for at in sorted(rows):
                apply(self._rows[at], table)
            return Edition.model_validate(table)
        except (KeyError, ValueError, TypeError, ValidationError):
            return None
