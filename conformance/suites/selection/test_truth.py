"""The hand-written truth tables, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from conformance.matrix.requests import Request, Selection
from conformance.requirements import Expect, TruthRow, truth_rows
from conformance.requirements.attribution import unnamed_part
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
    """A case for each requirement and each platform that one of its rows is about."""
    for subject in context.config.subjects:
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
    session = sessions.session(case.subject, case.asked_on)
    answers = list(session.ask([row.ask for row in rows]))
    wrong = [
        (row, answer, problem)
        for row, answer in zip(rows, answers, strict=True)
        if (problem := mismatch(row.expect, answer))
    ]
    if wrong:
        raise _nonconformance(case, context, wrong, len(rows))
    return {"compared": len(rows)}


def _missing(rows: Sequence[TruthRow], lacking: Iterable[str]) -> list[str]:
    """The fields that some row sets and the build's selector lacks."""
    plain = Request()
    asked = [row.ask.question for row in rows if isinstance(row.ask.question, Request)]
    return [
        name
        for name in lacking
        if any(getattr(question, name) != getattr(plain, name) for question in asked)
    ]


def mismatch(expect: Expect, got: Selection) -> str:
    """How an answer differs from the expectation; "" if it does not."""
    if expect.error is not None and got.error != expect.error:
        return f"expected error {expect.error}"
    if expect.selected is not None and got.selected != expect.selected:
        return f"expected {expect.selected}"
    order = tuple(c.backend for c in got.candidates)
    if expect.candidates is not None and order != expect.candidates:
        return f"expected the candidates {', '.join(expect.candidates)} in this order"
    reasons = {c.backend: c.rejected for c in got.candidates}
    for backend, wanted in expect.rejected.items():
        if reasons.get(backend) != wanted:
            return f"expected {backend} {_verdict(wanted)}"
    if unnamed := unnamed_part(got):
        return f"expected the error message to name {unnamed!r}, it reads {got.message!r}"
    return ""


def _verdict(reasons: tuple[str, ...]) -> str:
    return f"to be rejected with: {', '.join(reasons)}" if reasons else "to be valid"


def _nonconformance(
    case: Case, context: Context, wrong: list[tuple[TruthRow, Selection, str]], total: int
) -> Nonconformance:
    row, answer, problem = wrong[0]
    counted = f" ({len(wrong)} of {total} rows are wrong)" if total > 1 else ""
    return Nonconformance(
        f"{problem}, {show(answer)}; {show_ask(row.ask)}{counted}",
        reproduce(case, context.edition(case.subject), row.ask),
    )
