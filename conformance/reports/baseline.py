"""Compares a report's results with an earlier build's: what is new, fixed, flaky, no longer asked.

Results are compared stream by stream. A stream is one subject, judged one way in one cell; the next
build of a subject continues its stream. Two subjects of one build, such as two releases of vLLM,
are two streams, and never one that is flaky.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from conformance.reports.collect import Collected
from conformance.reports.junit_reader import is_foreign
from conformance.reports.junit_writer import cells_of, visible
from conformance.reports.safe_text import plain
from conformance.requirements import Requirement
from conformance.results import CaseResult, Outcome, subject_label

Change = Literal[
    "new",
    "worse",
    "flaky",
    "without verdict",
    "still failing",
    "newly waived",
    "fixed",
    "no longer asked",
]
# In the order of a report: what a reader has to act on first.
IN_WORDS: dict[Change, str] = {
    "new": "New failures",
    "worse": "Failed before, and fail in more ways now",
    "flaky": "Flaky: failed and passed in one build",
    "without verdict": "Without a verdict now",
    "still failing": "Still failing",
    "newly waived": "Newly waived",
    "fixed": "Fixed",
    "no longer asked": "No longer asked, or now unsupported",
}
_SHOWN = ("new", "worse", "flaky", "without verdict", "newly waived")
# What a build has that its baseline had not.
BROKEN: tuple[Change, ...] = ("new", "worse", "flaky")
_GOOD = frozenset({Outcome.PASSED, Outcome.WAIVED})
_JUDGED = _GOOD | {Outcome.FAILED}


@dataclass(frozen=True)
class Changed:
    """Cases of one requirement that changed in the same way; ``first`` is one of them."""

    change: Change
    requirement: str
    title: str
    subject: str
    cases: int
    cells: tuple[str, ...]
    first: str


@dataclass(frozen=True)
class Comparison:
    """What became of an earlier build's results; ``origin`` is what the user named it by.

    ``unsound`` is what is wrong with the earlier build's own record; "": nothing.
    """

    origin: str
    changes: tuple[Changed, ...]
    compared: int
    unsound: str = ""

    def count(self, change: Change) -> int:
        return sum(each.cases for each in self.changes if each.change == change)

    @property
    def sentence(self) -> str:
        """The numbers in one line."""
        broken = f"; that record is not whole: {self.unsound}" if self.unsound else ""
        if not self.compared:
            return f"Against {self.origin}: not one case is in both{broken}"
        counts = ", ".join(f"{self.count(change):,} {change}" for change in IN_WORDS)
        return f"Against {self.origin}: {counts} ({self.compared:,} results are in both){broken}"

    def in_lines(self) -> Iterator[str]:
        """What changed, for a terminal; what was fixed and what still fails is only counted."""
        yield self.sentence
        for each in self.changes:
            if each.change in _SHOWN:
                about = f"{each.requirement or 'no requirement'}  {each.title}"
                cells = f"{len(each.cells):,} cell{'s' * (len(each.cells) != 1)}"
                number = f"{each.cases:,} result{'s' * (each.cases != 1)}"
                yield f"  {each.change}: {about}, {number} in {cells}"
                yield f"      {each.first}"

    def as_json(self) -> dict[str, Any]:
        return {
            "origin": self.origin,
            "compared": self.compared,
            "unsound": self.unsound,
            "counts": {change: self.count(change) for change in IN_WORDS},
            "changes": [asdict(each) for each in self.changes],
        }


class _Stream(NamedTuple):
    """What results of two builds must have in common to be compared."""

    subject: str
    version: str
    edition: str
    gpu: str
    simulated: bool
    cell: str


_Results = dict[tuple[str, str], list[CaseResult]]  # by suite and name
_Streams = dict[_Stream, _Results]


def _release_of(subject: str) -> str:
    return subject.partition("==")[0]


def _kind(subject: str) -> str:
    """Every build of vLLM is of one kind: a release, a Python, a checkout wherever it lies."""
    own = subject == "reference" or subject.startswith("worker:") or is_foreign(subject)
    return subject if own else "build"


# A stream continues the one that is alone in having the same of these; the first that fits counts.
_LOOSER: tuple[Callable[[_Stream], Hashable], ...] = (
    lambda s: s,
    lambda s: s._replace(version=""),
    lambda s: s._replace(version="", edition=""),
    lambda s: s._replace(subject=_release_of(s.subject), version=""),
    lambda s: s._replace(subject=_release_of(s.subject), version="", edition=""),
    lambda s: (_kind(s.subject), s.cell, s.gpu, s.simulated),
    lambda s: (_kind(s.subject), s.cell),
)


def compare(
    now: Collected, before: Collected, origin: str, requirements: Mapping[str, Requirement]
) -> Comparison:
    """What changed between two builds' results, as they were collected: repeats included."""
    new, old = _streams(now), _streams(before)
    earlier = _continued(new, old)
    groups: dict[tuple[Change, str, str], dict[tuple[str, str, str], CaseResult]]
    groups = defaultdict(dict)
    compared = 0
    sides = [(stream, new[stream], old.get(earlier.get(stream, stream), {})) for stream in new]
    sides += [(stream, {}, old[stream]) for stream in old.keys() - set(earlier.values())]
    for stream, mine, theirs in sides:
        compared += len(mine.keys() & theirs.keys())
        for key in mine.keys() | theirs.keys():
            change = _change(mine.get(key, ()), theirs.get(key, ()))
            if change is not None:
                case = (mine.get(key) or theirs[key])[0]
                label = plain(subject_label(case.subject, case.subject_version))
                groups[change, case.requirement, label][(*key, stream.cell)] = case
    order = list(IN_WORDS)
    found = sorted(groups.items(), key=lambda item: (order.index(item[0][0]), item[0][1:]))
    return Comparison(
        origin,
        tuple(_changed(*group, cases, requirements) for group, cases in found),
        compared,
        plain(str(before.problems[0])[:300]) if before.problems else "",
    )


def _streams(collected: Collected) -> _Streams:
    """Every result of every case, in each cell."""
    found: _Streams = defaultdict(lambda: defaultdict(list))
    for each in collected.inputs:
        for case in each.run.cases:
            stream = _Stream(
                visible(case.subject),
                visible(case.subject_version),
                visible(case.edition),
                visible(case.gpu),
                case.simulated,
                "",
            )
            key = (visible(case.suite), visible(case.name))
            for cell in cells_of(case):
                found[stream._replace(cell=visible(cell))][key].append(case)
    return found


def _continued(new: Iterable[_Stream], old: Iterable[_Stream]) -> dict[_Stream, _Stream]:
    """For each of the new streams the earlier one that it continues, where there is one."""
    pairs: dict[_Stream, _Stream] = {}
    left, right = set(new), set(old)
    for loosened in _LOOSER:
        mine, theirs = _alone(left, loosened), _alone(right, loosened)
        for key in mine.keys() & theirs.keys():
            pairs[mine[key]] = theirs[key]
            left.discard(mine[key])
            right.discard(theirs[key])
    return pairs


def _alone(
    streams: Iterable[_Stream], loosened: Callable[[_Stream], Hashable]
) -> dict[Hashable, _Stream]:
    groups: dict[Hashable, list[_Stream]] = defaultdict(list)
    for stream in streams:
        groups[loosened(stream)].append(stream)
    return {key: found[0] for key, found in groups.items() if len(found) == 1}


def _changed(
    change: Change,
    identifier: str,
    subject: str,
    cases: Mapping[tuple[str, str, str], CaseResult],
    requirements: Mapping[str, Requirement],
) -> Changed:
    first = min(cases)
    case, cell = cases[first], first[2]
    about = requirements.get(identifier)
    message = f": {case.message}" if case.outcome is not Outcome.PASSED and case.message else ""
    return Changed(
        change,
        plain(identifier),
        about.title if about else "",
        subject,
        len(cases),
        tuple(plain(cell) for cell in sorted({key[2] for key in cases})),
        plain(f"{case.name} in {cell}{message}"[:500]),
    )


def _findings(results: Sequence[CaseResult]) -> Counter[str]:
    """What was wrong, without its numbers: lines move, and errors differ in their last digits."""
    texts = max((case.findings for case in results), key=len, default=())
    return Counter(re.sub(r"\d+", "0", text) for text in texts)


def _change(new: Sequence[CaseResult], old: Sequence[CaseResult]) -> Change | None:
    now, before = {case.outcome for case in new}, {case.outcome for case in old}
    if Outcome.FAILED in now:
        return _of_failed(new, old)
    if Outcome.WAIVED in now:
        return None if Outcome.WAIVED in before else "newly waived"
    if Outcome.PASSED in now:
        return "fixed" if before == {Outcome.FAILED} else None
    if not before & _JUDGED:
        return None
    return "without verdict" if Outcome.ERRORED in now else "no longer asked"


def _of_failed(new: Sequence[CaseResult], old: Sequence[CaseResult]) -> Change:
    if any(case.outcome in _GOOD for case in new):
        return "flaky"
    if not any(case.outcome is Outcome.FAILED for case in old):
        return "new"
    return "worse" if _findings(new) - _findings(old) else "still failing"
