"""What each release changed, and what standard requests select in it; from the editions alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from conformance.comparison.causes import Between, Cause, Explainer, Observed
from conformance.comparison.differential import Example, differ, move_of
from conformance.comparison.sides import Side, Words, answers, label
from conformance.comparison.words import described
from conformance.matrix.requests import AITER, Ask, Platform, Request, Vit
from conformance.matrix.targets import TARGETS
from conformance.matrix.toml_rows import read_rows
from conformance.subjects.base import Options
from vllm_editions import edition_rows, editions
from vllm_editions.comparison import edits, sources

TABLE = "standard_requests.toml"
# What a machine has: the words of readers, whether aiter is installed, and the variables.
SETTINGS: dict[str, tuple[bool, dict[str, str]]] = {
    "aiter is not installed": (False, {}),
    "aiter is installed": (True, {}),
    "aiter is installed, `VLLM_ROCM_USE_AITER=1`": (True, {AITER: "1"}),
}


@dataclass(frozen=True)
class StandardRequest:
    """One request of the page; ``fields`` are those that are not defaults ("none" is None)."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    title: Annotated[str, Field(min_length=1)]
    fields: dict[str, Any]
    vision: bool = False

    @property
    def ask(self) -> Ask:
        values: dict[str, Any] = {k: None if v == "none" else v for k, v in self.fields.items()}
        return Ask(Vit(**values) if self.vision else Request(**values))


@dataclass(frozen=True)
class Moved:
    """Standard requests that one cause moves from one selection to another."""

    old: str
    new: str
    causes: tuple[Cause, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Release:
    """A release series beside the one before; ``selected`` counts selections by target."""

    edition: str
    changes: tuple[Cause, ...]
    moved: tuple[Moved, ...]
    selected: dict[str, Counter[str]] = field(compare=False)

    @property
    def moves(self) -> int:
        """How many of the standard requests select otherwise than in the release before."""
        return sum(len(moved.examples) for moved in self.moved)


@cache
def standard_requests() -> tuple[StandardRequest, ...]:
    """The standard requests, in the order of the page."""
    text = resources.files(__package__).joinpath(TABLE).read_text(encoding="utf-8")
    return tuple(read_rows(text, f"conformance/commands/{TABLE}", StandardRequest).values())


def platforms() -> list[Platform]:
    """Every target in every setting."""
    return [
        Platform.make(target, aiter=aiter, env=env)
        for target in TARGETS
        for aiter, env in SETTINGS.values()
    ]


def asked() -> int:
    """How many questions each release is asked."""
    return len(standard_requests()) * len(platforms())


@cache
def releases() -> tuple[Release, ...]:
    """Every release series, the oldest first."""
    found: list[Release] = []
    before: dict[Platform, _Answers] = {}
    for name in editions():
        now = {platform: _Answers.of(name, platform) for platform in platforms()}
        selected = {target: Counter[str]() for target in TARGETS}
        for platform, given in now.items():
            asks = [(r.ask, s) for r, s in zip(standard_requests(), given.selections, strict=True)]
            dense = (label(ask, s) for ask, s in asks if isinstance(ask.question, Request))
            selected[platform.target].update(dense)
        previous = found[-1].edition if found else ""
        changes = _changes(previous, name) if previous else ()
        moved = tuple(_moved(previous, name, before, now)) if previous else ()
        found.append(Release(name, changes, moved, selected))
        before = now
    return tuple(found)


@dataclass(frozen=True)
class _Answers:
    """An edition's answers to the standard requests on one platform."""

    words: Words
    selections: tuple[Any, ...]

    @classmethod
    def of(cls, edition: str, platform: Platform) -> _Answers:
        side = Side(edition, edition, edition, edition, build=False)
        session = side.subject(Options(edition)).open(platform)
        words = Words.of(side, session)
        asks = [request.ask for request in standard_requests()]
        return cls(words, tuple(answers(session, words, asks)))


def _changes(previous: str, name: str) -> tuple[Cause, ...]:
    table = edition_rows(previous)
    rows = edits(table, edition_rows(name))
    return tuple(Cause(*described(row, table), sources(row, previous, name)) for row in rows)


def _moved(
    previous: str, name: str, before: dict[Platform, _Answers], now: dict[Platform, _Answers]
) -> list[Moved]:
    explainer = Explainer(Between.editions(previous, name))
    groups: dict[tuple[str, str, tuple[Cause, ...]], list[Example]] = {}
    for platform, given in now.items():
        old = before[platform]
        both = zip(standard_requests(), old.selections, given.selections, strict=True)
        for request, was, is_now in both:
            example = Example(platform, request.ask, was, is_now)
            move = move_of(example)
            if move is None or not differ(example):
                continue
            words = (old.words, given.words)
            why = explainer.why(platform, request.ask, (was, is_now), words)
            causes = tuple(c for c in why if not isinstance(c, Observed))
            groups.setdefault((*move, causes), []).append(example)
    found = [Moved(*key, tuple(examples)) for key, examples in groups.items()]
    return sorted(found, key=lambda moved: (-len(moved.examples), moved.old, moved.new))
