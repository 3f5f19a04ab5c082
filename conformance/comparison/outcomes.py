"""What fails in one build and not in another, by what the findings are.

Findings of the same case are the same if they have the same kind, deviations and requirement, and
in compiled code the same kernel: names of kernels that only ran are no part of what went wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from conformance.requirements.waivers import SUITE as WAIVERS
from conformance.results import CaseResult, Identity, Outcome, markdown
from conformance.results.codegen_table import table_of

CODEGEN = "codegen"
# What a build's compiled kernels should not have more of than the one before.
WORSE_IF_MORE = ("spills",)
_JUDGED = (Outcome.PASSED, Outcome.FAILED, Outcome.WAIVED)
_EXAMPLE = 300
# A case, whatever requirement its findings break: suite, target, and the rest of its name.
_Case = tuple[str, str, str]


@dataclass(frozen=True)
class Fault:
    """What a finding is, and the waiver that accepts it ("": none does)."""

    requirement: str
    kind: str
    deviations: tuple[str, ...]
    kernels: tuple[str, ...]
    waiver: str


@dataclass(frozen=True)
class Faults:
    """One fault in some cases of one side; ``example`` is the shortest text of it."""

    fault: Fault
    cases: int
    targets: tuple[str, ...]
    first: str
    example: str

    def __str__(self) -> str:
        fault = self.fault
        what = " ".join(filter(None, (fault.requirement, fault.kind or "finding")))
        where = f" in {', '.join(fault.kernels)}" if fault.kernels else ""
        on = f" on {', '.join(self.targets)}" if any(self.targets) else ""
        known = f", waived by {fault.waiver}" if fault.waiver else ""
        return f"{what}{where}{on}: {_cases(self.cases)}{known}"


@dataclass(frozen=True)
class Grown:
    """A resource of a kernel of which the second build uses more."""

    target: str
    configuration: str
    kernel: str
    resource: str
    before: int
    after: int

    def __str__(self) -> str:
        return (
            f"{self.kernel} of {self.configuration} on {self.target}: {self.resource} "
            f"{self.before:,} -> {self.after:,}"
        )


@dataclass(frozen=True)
class Differences:
    """What differs between two subjects' results.

    ``only``: faults of each side that the other, asked the same, does not have. ``unasked``: faults
    in cases of which the other has no verdict. ``both``: how many cases have a fault in common.
    """

    subjects: tuple[str, str]
    suite: str
    compared: int
    only: tuple[tuple[Faults, ...], tuple[Faults, ...]]
    unasked: tuple[tuple[Faults, ...], tuple[Faults, ...]]
    both: int
    grown: tuple[Grown, ...]
    errored: tuple[int, int]

    @property
    def differ(self) -> bool:
        """Whether a fault is one side's alone, or a resource grew."""
        return bool(any(self.only) or self.grown)

    def as_json(self) -> dict[str, Any]:
        sides = ("a", "b")
        return {
            "subjects": list(self.subjects),
            "suite": self.suite,
            "compared": self.compared,
            "in_both": self.both,
            "only": {s: _as_json(found) for s, found in zip(sides, self.only, strict=True)},
            "other_not_asked": {
                s: _as_json(found) for s, found in zip(sides, self.unasked, strict=True)
            },
            "grown": [asdict(each) for each in self.grown],
            "errored": dict(zip(sides, self.errored, strict=True)),
        }

    def in_words(self) -> str:
        lines = [self._sentence()]
        for title, found in self._sections():
            lines += ["", title, *(f"  {line}" for each in found for line in _told(each))]
        if self.grown:
            lines += ["", self._grown_title(), *(f"  {each}" for each in self.grown)]
        return "\n".join(lines)

    def as_markdown(self) -> str:
        lines = [self._sentence()]
        for title, found in self._sections():
            rows = [(str(each), each.first, each.example) for each in found]
            lines += ["", f"### {title}", "", markdown.table(("fault", "such as", "says"), rows)]
        if self.grown:
            lines += ["", f"### {self._grown_title()}", "", *(f"- {each}" for each in self.grown)]
        return "\n".join(lines)

    def _sentence(self) -> str:
        a, b = self.subjects
        errored = sum(self.errored)
        lost = f"; {_cases(errored)} without a verdict" if errored else ""
        return (
            f"{self.suite} of {a} and {b}: {_cases(self.compared)} judged in both, {self.both:,} "
            f"with a fault in common{lost}"
        )

    def _sections(self) -> Iterator[tuple[str, list[Faults]]]:
        """Each part of a report with its faults: new ones before known ones."""
        a, b = self.subjects
        for own, other, only, unasked in zip(
            (b, a), (a, b), self.only[::-1], self.unasked[::-1], strict=True
        ):
            for title, faults in (
                (f"Fails in {own}, not in {other}", only),
                (f"Fails in {own}, not asked of {other}", unasked),
            ):
                for word, known in (("", False), (" (known, waived)", True)):
                    found = [each for each in faults if bool(each.fault.waiver) == known]
                    if found:
                        yield f"{title}{word}", found

    def _grown_title(self) -> str:
        return f"{self.subjects[1]} uses more than {self.subjects[0]}"


def _cases(number: int) -> str:
    return f"{number:,} case{'' if number == 1 else 's'}"


def _told(found: Faults) -> Iterator[str]:
    yield str(found)
    yield f"    {found.first}: {found.example}"


def _as_json(found: Iterable[Faults]) -> list[dict[str, Any]]:
    return [{**asdict(each.fault), **asdict(each), "fault": str(each)} for each in found]


# ---- comparing ---------------------------------------------------------------------------------


def compare(cases: Iterable[CaseResult], subjects: tuple[str, str], suite: str) -> Differences:
    """What differs between the results of two subjects in one run."""
    own: list[list[CaseResult]] = [[], []]
    for case in cases:
        if case.subject in subjects and case.suite != WAIVERS:
            own[subjects.index(case.subject)].append(case)
    sides = [_Side(found) for found in own]
    only, unasked = [], []
    for side, other in (sides, sides[::-1]):
        alone = {
            key: [each for each in found if each.same not in other.same_in(key)]
            for key, found in side.faults.items()
        }
        only.append(_grouped(alone, (key for key in alone if key in other.judged)))
        unasked.append(_grouped(alone, (key for key in alone if key not in other.judged)))
    both = sides[0].judged & sides[1].judged
    common = sum(bool(sides[0].same_in(key) & sides[1].same_in(key)) for key in both)
    grown = tuple(_grown(*own)) if suite == CODEGEN else ()
    errored = (sides[0].errored, sides[1].errored)
    return Differences(
        subjects=subjects,
        suite=suite,
        compared=len(both),
        only=(only[0], only[1]),
        unasked=(unasked[0], unasked[1]),
        both=common,
        grown=grown,
        errored=errored,
    )


@dataclass(frozen=True)
class _Found:
    fault: Fault
    same: tuple[Any, ...]
    case: CaseResult
    text: str


class _Side:
    """One subject's faults by case, and the cases it has a verdict on."""

    def __init__(self, cases: Sequence[CaseResult]) -> None:
        self.judged = {_key(case) for case in cases if case.outcome in _JUDGED}
        self.errored = len({_key(case) for case in cases if case.outcome is Outcome.ERRORED})
        self.faults: dict[_Case, list[_Found]] = defaultdict(list)
        for case in cases:
            if case.outcome in (Outcome.FAILED, Outcome.WAIVED):
                self.faults[_key(case)] += _found(case)

    def same_in(self, key: _Case) -> set[tuple[Any, ...]]:
        return {each.same for each in self.faults.get(key, ())}


def _key(case: CaseResult) -> _Case:
    return case.suite, case.target, case.name.partition(" ")[2]


def _found(case: CaseResult) -> Iterator[_Found]:
    for text, identity in case.found:
        requirement = identity.requirement or case.requirement
        kernels = identity.kernels if case.suite == CODEGEN else ()
        fault = Fault(requirement, identity.kind, identity.deviations, kernels, case.waiver)
        same = (requirement, identity.kind, identity.deviations, kernels)
        # What a suite does not identify is known by its text.
        yield _Found(fault, same if identity != Identity() else (*same, text), case, text)


def _grouped(found: Mapping[_Case, Sequence[_Found]], keys: Iterable[_Case]) -> tuple[Faults, ...]:
    """The faults of some cases, each with how often it is there, the most frequent first."""
    groups: dict[Fault, list[_Found]] = defaultdict(list)
    for key in keys:
        for each in found[key]:
            groups[each.fault].append(each)
    made = []
    for fault, own in groups.items():
        shown = min(own, key=lambda each: (len(each.text), each.text, each.case.name))
        targets = tuple(sorted({each.case.target for each in own} - {""}))
        names = {_key(each.case) for each in own}
        made.append(Faults(fault, len(names), targets, shown.case.name, shown.text[:_EXAMPLE]))
    return tuple(sorted(made, key=lambda each: (-each.cases, str(each))))


def _grown(before: Sequence[CaseResult], after: Sequence[CaseResult]) -> Iterator[Grown]:
    """Kernels of the same configuration that spill more, or use more LDS, than before."""
    old, new = (
        {key: numbers for rows in table_of(cases).values() for key, numbers in rows.items()}
        for cases in (before, after)
    )
    for key in sorted(old.keys() & new.keys()):
        target, configuration, kernel = key.split(" | ")
        for resource in WORSE_IF_MORE:
            was, now = (numbers[key].get(resource, 0) for numbers in (old, new))
            if now > was:
                yield Grown(target, configuration, kernel, resource, was, now)
