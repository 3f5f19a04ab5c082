"""Mutants of requirements: rows of truth tables that expect something else.

A wrong row blames builds that are right, so the reference is what must show it: in some edition of
the requirement, on some platform of the matrix, the row must fail. A row that asks for less than it
should blames nobody and is not looked for here; planted selectors show those
(``tests/suites/faults``).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from time import monotonic

from conformance.config import RunConfig
from conformance.matrix.requests import Platform
from conformance.mutation.mutant import Mutant, numbered
from conformance.mutation.verdict import Fate, Judge, Verdict
from conformance.requirements import Expect, Requirement, all_requirements, truth_rows
from conformance.subjects.base import Session
from conformance.subjects.reference import REFERENCE, ReferenceSubject
from conformance.suites.case import Context, Nonconformance, SessionPool, Unsupported
from conformance.suites.selection import test_truth
from vllm_editions import editions

# What stands in for a backend, an error or a reason that a row expects.
OTHER_BACKENDS = ("TRITON_ATTN", "ROCM_ATTN")
OTHER_ERRORS = ("no_valid_backend", "invalid_selected_backend")
OTHER_REASON = "head_size not supported"

Found = tuple[str, str, str, Requirement]


class RequirementPart:
    """Rows of truth tables with another expectation, and requirements that hold too long."""

    name = "requirements"
    says = "a row of a truth table that expects something else, or holds for more releases"

    def mutants(self) -> list[Mutant]:
        return [mutant for mutant, _ in _all()]

    def prepare(self, workers: int) -> None:
        pass

    def judge(self) -> Judge:
        return RequirementJudge()

    def close(self) -> None:
        pass


class RequirementJudge:
    """Asks the reference what a mutant's requirement asks, in every edition that it holds for."""

    def judge(self, mutant: Mutant) -> Verdict:
        began = monotonic()
        try:
            wrong = first_wrong(_by_id()[mutant.id])
            fate = Fate.CAUGHT if wrong else Fate.SURVIVED
        except LookupError as error:  # it asks about what an edition does not have
            wrong, fate = f"{type(error).__name__}: {error}", Fate.RAISED
        return Verdict(fate, "quick", mutant.function, wrong, seconds=round(monotonic() - began, 3))

    def close(self) -> None:
        pass


def first_wrong(requirement: Requirement) -> str:
    """What the reference does not meet first; "" if it meets all: the suite's own judge says so."""
    for edition in editions():
        if requirement.in_edition(edition):
            context = _AskedOne(requirement, edition)
            for case in test_truth.cases(context):
                try:
                    test_truth.test_rows(case, context, context.sessions)
                except Nonconformance as error:
                    return f"edition {edition} on {case.asked_on}: {error}"[:200]
                except Unsupported:
                    continue
    return ""


class _AskedOne(Context):
    """The reference under an edition that has one requirement."""

    def __init__(self, requirement: Requirement, edition: str) -> None:
        config = RunConfig(
            subjects=(REFERENCE,), cells=("*",), edition=edition, releases={REFERENCE: edition}
        )
        super().__init__(config, subjects={REFERENCE: _reference(edition)})
        self.sessions = _sessions(edition)
        self._requirement = requirement

    def requirements(self, spec: str) -> dict[str, Requirement]:
        assert spec == REFERENCE
        return {self._requirement.id: self._requirement}


class _Sessions(SessionPool):
    """Keeps a session for each platform: the reference has no state."""

    def __init__(self, subject: ReferenceSubject) -> None:
        self._subject = subject
        self._known: dict[Platform, Session] = {}

    def session(self, spec: str, platform: Platform) -> Session:
        assert spec == REFERENCE
        if platform not in self._known:
            self._known[platform] = self._subject.open(platform)
        return self._known[platform]


@cache
def _reference(edition: str) -> ReferenceSubject:
    return ReferenceSubject(edition)


@cache
def _sessions(edition: str) -> _Sessions:
    return _Sessions(_reference(edition))


@cache
def _by_id() -> dict[str, Requirement]:
    return {mutant.id: requirement for mutant, requirement in _all()}


def _all() -> Iterator[tuple[Mutant, Requirement]]:
    found = [
        (requirement.id, *change)
        for requirement in all_requirements().values()
        if requirement.row and requirement.binds != "build"
        for change in _changes(requirement)
    ]
    mutants = numbered(
        Mutant("requirements", "requirements", where, operator, before, after)
        for where, operator, before, after, _ in found
    )
    return zip(mutants, (change[-1] for change in found), strict=True)


def _changes(requirement: Requirement) -> Iterator[Found]:
    yield from _held_longer(requirement)
    for at, row in enumerate(requirement.row):
        for operator, expect in _expectations(row.expect):
            rows = list(requirement.row)
            rows[at] = row.model_copy(update={"expect": expect})
            before, after = (_text(one) for one in (row.expect, expect))
            yield operator, f"row {at}: {before}", after, _with(requirement, row=tuple(rows))


def _held_longer(requirement: Requirement) -> Iterator[Found]:
    """Without the bound above or below, where that asks a row of an edition beyond it; what has
    that bound alone holds for all."""
    bounds = requirement.holds.split(",")
    for bound in bounds:
        others = [other for other in bounds if other != bound]
        longer = _with(requirement, holds=",".join(others) or f">={editions()[0]}")
        beyond = [n for n in editions() if longer.in_edition(n) != requirement.in_edition(n)]
        if any(row for name in beyond for row in truth_rows(longer, name)):
            yield "held longer", requirement.holds, longer.holds, longer


def _expectations(expect: Expect) -> Iterator[tuple[str, Expect]]:
    """Other expectations, each false of a build that meets this one."""
    if expect.selected is not None:
        other = next(name for name in OTHER_BACKENDS if name != expect.selected)
        yield "selected", expect.model_copy(update={"selected": other})
    if expect.error is not None:
        other = next(name for name in OTHER_ERRORS if name != expect.error)
        yield "error", expect.model_copy(update={"error": other})
    if expect.candidates:
        for at in range(len(expect.candidates)):
            left = expect.candidates[:at] + expect.candidates[at + 1 :]
            yield "candidates", expect.model_copy(update={"candidates": left})
            pair = reversed(expect.candidates[at : at + 2])
            turned = (*expect.candidates[:at], *pair, *expect.candidates[at + 2 :])
            if turned != expect.candidates:
                yield "order", expect.model_copy(update={"candidates": turned})
    if len(expect.in_order) > 1:
        turned = tuple(reversed(expect.in_order))
        yield "order", expect.model_copy(update={"in_order": turned})
    for backend in expect.in_order:
        yield "absent", expect.model_copy(update={"absent": (*expect.absent, backend)})
    for backend, reasons in expect.rejected.items():
        for others in (reasons[1:], (*reasons, OTHER_REASON)):
            if others != reasons:
                rejected = {**expect.rejected, backend: others}
                yield "reasons", expect.model_copy(update={"rejected": rejected})


def _with(requirement: Requirement, **changes: object) -> Requirement:
    return requirement.model_copy(update=changes)


def _text(expect: Expect) -> str:
    return str(expect.model_dump(exclude_defaults=True))
