"""The sweep: thousands of seeded requests; each answer and reason is compared with the model's.

The model is the reference selector, which the truth tables judge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from conformance.errors import InfrastructureError
from conformance.matrix.requests import Ask, Platform, Request, Selection
from conformance.requirements.attribution import (
    Facet,
    FacetKind,
    Rule,
    facets,
    family,
    requirement_of,
    rules_on,
)
from conformance.results import Identity
from conformance.subjects.base import Session
from conformance.subjects.reference import answer, selector_on
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
from conformance.suites.selection import SUITE, sampling
from rocm_reference.selector import Selector
from vllm_editions import Edition

# Differences that no rule matches count against this requirement.
LAST_RESORT = "SEL-010"
# The kind of finding of each facet.
_KINDS: dict[FacetKind, str] = {
    "crash": "crash",
    "candidates": "candidates",
    "reason": "reason",
    "reason_order": "reason",
    "selected": "selected",
    "message": "message",
    "paged_attention": "selected",
    "vit": "selected",
}
# A backend of every release that serves no vision attention.
NOT_FOR_VISION = "FLEX_ATTENTION"


@dataclass
class Sweep:
    """The differences that a sweep of one platform found, by requirement; the first of each."""

    compared: Counter[tuple[FacetKind, str]] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    first: dict[str, tuple[Ask, Selection, Selection, Facet]] = field(default_factory=dict)


def cases(context: Context) -> Iterator[Case]:
    """A case for each platform and each requirement to which a rule can assign a difference."""
    if not context.config.sweep:
        return
    for spec in context.config.subjects:
        if context.is_model(spec):
            continue
        for platform, cells in context.platforms.items():
            for identifier in _judged(context, spec, platform):
                yield Case(SUITE.name, "sweep", spec, identifier, platform, cells, platform)


def test_sweep(case: Case, context: Context, sessions: SessionPool) -> dict[str, int]:
    rules = rules_on(
        case.platform, context.requirements(case.subject), context.release(case.subject)
    )
    made_here = (case.subject, case.platform) not in _SWEEPS
    sweep = _sweep_of(case, context, sessions, rules)
    if count := sweep.wrong[case.requirement]:
        ask, expected, got, facet = sweep.first[case.requirement]
        wanted = expected.selected or f"error {expected.error}"
        raise Nonconformance(
            f"expected {wanted}, {show(got)}{_about(facet, expected)}; {show_ask(ask)} "
            f"({count} of {context.config.sweep} requests differ)",
            reproduce(case, context.edition(case.subject), ask),
            identities=[Identity("order" if facet.reordered else _KINDS[facet.kind])],
        )
    own = {(r.facet, r.family) for r in rules if r.requirement == case.requirement}
    checked = max(_compared(sweep, kind, of) for kind, of in own)
    if not checked:
        raise Unsupported(
            f"none of a sweep of {context.config.sweep} requests could show it: --sweep asks more"
        )
    asked = {"compared": sum(sweep.compared.values())} if made_here else {}
    return {"checked": checked, **asked}


_SWEEPS: dict[tuple[str, Platform], Sweep] = {}
# A sweep that ended in an error is not repeated for each requirement: the error counts for all.
_BROKEN: dict[tuple[str, Platform], InfrastructureError] = {}


def _sweep_of(case: Case, context: Context, sessions: SessionPool, rules: Sequence[Rule]) -> Sweep:
    """The platform's sweep, which the first of its cases runs."""
    key = (case.subject, case.platform)
    if key in _BROKEN:
        raise _BROKEN[key]
    if key not in _SWEEPS:
        try:
            _SWEEPS[key] = _make_sweep(case, context, sessions, rules)
        except InfrastructureError as error:
            _BROKEN[key] = error
            raise
    return _SWEEPS[key]


def _make_sweep(
    case: Case, context: Context, sessions: SessionPool, rules: Sequence[Rule]
) -> Sweep:
    edition = context.asked_edition(case.subject)
    model = selector_on(edition, case.platform)
    session = sessions.session(case.subject, case.platform)
    sweep = Sweep()
    for asks in _questions(context, case.platform, edition):
        compare(asks, model, session, rules, sweep)
    return sweep


def compare(
    asks: Sequence[Ask], model: Selector, session: Session, rules: Sequence[Rule], into: Sweep
) -> None:
    """Asks the model and the subject the same, and counts differences by requirement."""
    for ask, got in zip(asks, session.ask(asks), strict=True):
        expected = answer(model, ask)
        question = ask.question
        kind_of = family(question) if isinstance(question, Request) else type(question).__name__
        into.compared["selected" if ask.backend else "candidates", kind_of] += 1
        for facet in facets(ask, expected, got):
            broken = requirement_of(facet, rules) or LAST_RESORT
            into.wrong[broken] += 1
            into.first.setdefault(broken, (ask, expected, got, facet))


def _questions(context: Context, platform: Platform, edition: Edition) -> Iterator[list[Ask]]:
    """A list for each kind of question, seeded by the run's seed and the platform."""
    config = context.config
    seed = f"{config.seed} {platform}"
    yield list(sampling.requests(seed, config.sweep, edition))
    yield list(sampling.paged_attention(seed, config.sweep // 10))
    yield list(sampling.vit(seed, config.sweep // 100, [*edition.vit.explicit, NOT_FOR_VISION]))


def _judged(context: Context, spec: str, platform: Platform) -> list[str]:
    rules = rules_on(platform, context.requirements(spec), context.release(spec))
    return list(dict.fromkeys(rule.requirement for rule in rules))


def _compared(sweep: Sweep, kind: FacetKind, of: str | None) -> int:
    """The number of answers in which a rule's facet could have shown."""
    by_family = of is not None
    special = {"paged_attention": "PagedAttention", "vit": "Vit"}.get(kind)
    return sum(
        count
        for (counted, name), count in sweep.compared.items()
        if (name == special if special else name not in ("PagedAttention", "Vit"))
        and (not by_family or name == of)
        and (kind not in ("candidates", "selected") or counted == kind)
    )


def _about(facet: Facet, expected: Selection) -> str:
    """What the facet adds to "expected X, got Y"."""
    if facet.kind == "reason":
        had = {c.backend: c.rejected for c in expected.candidates}.get(facet.backend, ())
        sign = "lacks" if facet.reason in had else "has"
        return f"; {facet.backend} {sign} the reason {facet.reason!r}"
    if facet.kind == "candidates":
        order = ", ".join(c.backend for c in expected.candidates)
        return f"; expected the candidates {order} in this order"
    if facet.kind == "message":
        return f"; the error message does not name {facet.reason!r}"
    return ""
