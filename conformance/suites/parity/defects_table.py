"""The table of known defects, made of what releases answered; needs no torch, as judging does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from packaging.version import Version

from conformance.problems.defects import KnownDefect
from conformance.requirements.waivers import Waiver

COLUMNS = ("backend", "what it does wrong", "smallest problem", "first", "last", "right in", "see")
WRONG, RIGHT = "wrong", "right"
# Something is wrong that is not what the problem is about: that it is right is not said.
HIDDEN = "wrong, otherwise"


@dataclass(frozen=True)
class Seen:
    """How one release answered one problem: wrong, right, hidden, or why there is no answer."""

    defect: KnownDefect
    release: Version
    answer: str


def rows(seen: Sequence[Seen], waivers: Sequence[Waiver]) -> Iterator[tuple[str, ...]]:
    """The table under ``COLUMNS``: a row for each defect that some release shows.

    ``right in`` is the first later release without it; "not asked" if no engine gives it to a
    backend any more, and empty if the newest release has it.
    """
    of_id = {waiver.id: waiver for waiver in waivers}
    newest = max(one.release for one in seen)
    for defect in dict.fromkeys(one.defect for one in seen):
        own = sorted((one for one in seen if one.defect == defect), key=lambda one: one.release)
        wrong = [one.release for one in own if one.answer == WRONG]
        if not wrong:
            continue
        later = [one for one in own if one.release > wrong[-1] and one.answer != WRONG]
        right = next((str(one.release) for one in later if one.answer == RIGHT), "")
        unasked = [one for one in later if one.answer != HIDDEN]
        refused = next((f"{one.release}: not claimed" for one in unasked), "")
        asked = own[-1].release == newest
        waiver = of_id[defect.waiver]
        yield (
            defect.problem.backend,
            waiver.reason.strip(),
            defect.shown,
            str(wrong[0]),
            str(wrong[-1]),
            right or refused or ("" if asked else "later: not asked"),
            waiver.url,
        )
