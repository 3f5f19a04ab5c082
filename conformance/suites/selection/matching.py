"""Which edition comes nearest to a build that does not say which release it is of.

A quick sweep: a few hundred requests on two platforms, answered by the build and by the reference
selector of every edition. The edition with the fewest differences is the nearest; of several the
one whose requests have the build's fields, and of those the newest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from conformance.matrix.requests import (
    AITER,
    CONTEXT,
    MHA,
    Ask,
    Platform,
    Request,
    Selection,
)
from conformance.subjects.base import Subject
from conformance.subjects.reference import answer, edition_table, selector_on
from conformance.suites.selection.sampling import requests
from vllm_editions import Edition, editions

ASKS = 300
SEED = "the nearest edition"
# Where most of what releases changed shows: aiter counts on the first and not on the second.
PLATFORMS = (
    Platform.make("gfx942", aiter=True, env={AITER: "1", MHA: "1"}),
    Platform.make("gfx1201", aiter=True, env={AITER: "1", MHA: "1"}),
)
UNKNOWN_BACKEND = "unknown_backend"
_OFF = Request()


@dataclass(frozen=True)
class Match:
    """The nearest edition, and how many of the requests that were asked end differently in it."""

    edition: str
    asked: int
    differing: int

    @property
    def note(self) -> str:
        return (
            f"judged by edition {self.edition}, which comes nearest to it: {self.differing} of "
            f"{self.asked} requests of a quick sweep differ"
        )


def nearest_by_answers(subject: Subject) -> Match:
    """The edition whose answers are most like a build's.

    Raises:
        InfrastructureError: the build cannot be asked.
    """
    known = subject.info().fields
    newest = edition_table(editions()[-1])
    differing: Counter[str] = Counter()
    for platform in PLATFORMS:
        asks = [_without(ask, known) for ask in requests(f"{SEED} {platform}", ASKS, newest)]
        answers = list(subject.reopen(platform).ask(asks))
        for name in editions():
            differing[name] += _differences(edition_table(name), platform, asks, answers)
    asked = ASKS * len(PLATFORMS)
    best = min(editions()[::-1], key=lambda name: (differing[name], _other_fields(name, known)))
    return Match(best, asked, differing[best])


def _without(ask: Ask, known: Sequence[str]) -> Ask:
    """The question without the fields that a build does not have."""
    assert isinstance(ask.question, Request)
    names = [f.name for f in fields(Request) if f.name not in (*known, *CONTEXT)]
    off = {name: getattr(_OFF, name) for name in names} if known else {}
    return Ask(replace(ask.question, **off), ask.backend)


def _differences(
    edition: Edition, platform: Platform, asks: Sequence[Ask], answers: Sequence[Selection]
) -> int:
    selector = selector_on(edition, platform)

    def differs(ask: Ask, got: Selection) -> bool:
        if ask.backend is None or ask.backend in edition.backends:
            return answer(selector, ask) != got
        return got.error != UNKNOWN_BACKEND

    return sum(map(differs, asks, answers))


def _other_fields(name: str, known: Sequence[str]) -> int:
    return len(set(edition_table(name).asked.fields) ^ set(known))
