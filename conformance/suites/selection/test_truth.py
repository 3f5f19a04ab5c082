"""The hand-written truth tables, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from conformance.matrix.requests import AITER, MHA, Request, Selection
from conformance.requirements import Expect, TruthRow, truth_rows
from conformance.requirements.attribution import unnamed_part
from conformance.results import Identity
from conformance.suites.case import (
    Case,
    Context,
    Nonconformance,
    SessionPool,
    Unsupported,
    reproduce,
    show,
    show_ask,
)
from conformance.suites.selection import SUITE


def cases(context: Context) -> Iterator[Case]:
    """A case for each requirement and each platform that one of its rows is about.

    The rows say nothing of platforms where the user set a flag that no cell sets: there only the
    model knows the answer.
    """
    for subject in context.config.subjects:
        flags = context.asked_edition(subject).flags
        if any(name in flags and name not in (AITER, MHA) for name in context.config.env):
            continue
        for requirement in context.requirements(subject).values():
            if requirement.binds == "build" and context.is_model(subject):
                continue
            for platform, cells in context.platforms.items():
                asked_on = dict.fromkeys(
                    row.on.platform(platform)
                    for row in requirement.row
                    if row.on.includes(platform) and row.in_edition(context.edition(subject))
                )
                for asked in asked_on:
                    yield Case(SUITE.name, "rows", subject, requirement.id, platform, cells, asked)


def test_rows(case: Case, context: Context, sessions: SessionPool) -> dict[str, int]:
    requirement = context.requirements(case.subject)[case.requirement]
    if reason := requirement.not_judged_because(context.release(case.subject)):
        raise Unsupported(reason)
    rows = [
        row
        for row in truth_rows(requirement, context.edition(case.subject))
        if row.on.includes(case.platform) and row.on.platform(case.platform) == case.asked_on
    ]
    if fields := _missing(rows, context.config.missing.get(case.subject, ())):
        raise Unsupported(f"the build's selector is not asked about {', '.join(fields)}")
    before = _without(rows, case, sessions)
    session = sessions.session(case.subject, case.asked_on)
    answers = list(session.ask([row.ask for row in rows]))
    wrong = [
        Wrong(row, answer, *problem)
        for row, answer, other in zip(rows, answers, before, strict=True)
        if (problem := mismatch(row.expect, answer, other))
    ]
    if wrong:
        raise _nonconformance(case, context, wrong, len(rows))
    return {"compared": len(rows)}


@dataclass(frozen=True)
class Wrong:
    """A row and the answer that differs from it: what kind of difference it is, and in words."""

    row: TruthRow
    answer: Selection
    kind: str
    problem: str

    def __str__(self) -> str:
        return f"{self.problem}, {show(self.answer)}; {show_ask(self.row.ask)}"


def _without(rows: Sequence[TruthRow], case: Case, sessions: SessionPool) -> list[Selection | None]:
    """The answers that rows with ``as_without`` compare theirs with; None for other rows."""
    found: list[Selection | None] = []
    for row in rows:
        left_out = row.expect.as_without
        if not left_out:
            found.append(None)
            continue
        kept = {k: v for k, v in case.asked_on.variables.items() if k not in left_out}
        kept |= {k: v for k, v in case.platform.variables.items() if k in left_out}
        session = sessions.session(
            case.subject, replace(case.asked_on, env=tuple(sorted(kept.items())))
        )
        question, plain = row.ask.question, type(row.ask.question)()
        fields = {name: getattr(plain, name) for name in left_out if hasattr(plain, name)}
        found += session.ask([replace(row.ask, question=replace(question, **fields))])
    return found


def _missing(rows: Sequence[TruthRow], lacking: Iterable[str]) -> list[str]:
    """The fields that some row sets and the build's selector lacks."""
    plain = Request()
    asked = [row.ask.question for row in rows if isinstance(row.ask.question, Request)]
    return [
        name
        for name in lacking
        if any(getattr(question, name) != getattr(plain, name) for question in asked)
    ]


def mismatch(
    expect: Expect, got: Selection, without: Selection | None = None
) -> tuple[str, str] | None:
    """How an answer differs from the expectation: what kind it is, and in words; None: it does not.

    ``without``: the answer to the same without what ``expect.as_without`` names.
    """
    if expect.as_without and got != without:
        assert without is not None
        names = ", ".join(expect.as_without)
        return "changed", f"expected what is answered without {names} ({show(without)})"
    if expect.error is not None and got.error != expect.error:
        return "error", f"expected error {expect.error}"
    if expect.selected is not None and got.selected != expect.selected:
        return "selected", f"expected {expect.selected}"
    valid = [c.backend for c in got.candidates if not c.rejected]
    if expect.first_valid and got.selected != next(iter(valid), None):
        return "selected", f"expected {next(iter(valid), 'no backend')}, the first valid one"
    if wrong := _wrong_candidates(expect, tuple(c.backend for c in got.candidates)):
        return wrong
    return _wrong_reasons(expect, got)


def _wrong_candidates(expect: Expect, order: tuple[str, ...]) -> tuple[str, str] | None:
    """How candidates differ from the expected ones."""
    wanted = expect.candidates
    if wanted is not None and order != wanted:
        kind = "order" if sorted(order) == sorted(wanted) else "candidates"
        return kind, f"expected the candidates {', '.join(wanted)} in this order"
    if expect.in_order != tuple(name for name in order if name in expect.in_order):
        missing = set(expect.in_order) - set(order)
        kind = "candidates" if missing else "order"
        return kind, f"expected {', '.join(expect.in_order)} among the candidates in this order"
    if unwanted := [name for name in order if name in expect.absent]:
        return "candidates", f"expected no candidate {', '.join(unwanted)}"
    return None


def _wrong_reasons(expect: Expect, got: Selection) -> tuple[str, str] | None:
    """How reasons differ from the expected ones, or a message from what stands behind it."""
    reasons = {c.backend: c.rejected for c in got.candidates}
    for backend, wanted in expect.rejected.items():
        if reasons.get(backend) != wanted:
            return "reason", f"expected {backend} {_verdict(wanted)}"
    if unnamed := unnamed_part(got):
        said = f"expected the error message to name {unnamed!r}, it reads {got.message!r}"
        return "message", said
    return None


def _verdict(reasons: tuple[str, ...]) -> str:
    return f"to be rejected with: {', '.join(reasons)}" if reasons else "to be valid"


def _nonconformance(case: Case, context: Context, wrong: list[Wrong], total: int) -> Nonconformance:
    counted = f" ({len(wrong)} of {total} rows are wrong)" if total > 1 else ""
    return Nonconformance(
        f"{wrong[0]}{counted}",
        reproduce(case, context.edition(case.subject), wrong[0].row.ask),
        findings=[str(each) for each in wrong],
        identities=[Identity(each.kind) for each in wrong],
    )
