"""Relations between answers that must hold whatever the answers are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from conformance.errors import InfrastructureError
from conformance.matrix.requests import ATTN_TYPES, DTYPES, Ask, Request, Selection
from conformance.subjects.base import Session
from conformance.suites.case import (
    Case,
    Context,
    Nonconformance,
    SessionPool,
    cases_per_platform,
    reproduce,
    show,
    show_ask,
)
from conformance.suites.selection import SUITE
from conformance.suites.selection.sampling import (
    BLOCK_SIZES,
    HEAD_SIZES,
    LATER_FIELDS,
    MLA_HEAD_SIZES,
)
from vllm_editions import Edition

MONOTONIC = "SEL-090"
EXPLICIT = "SEL-091"
# What a request can ask for in addition; none of it changes the family of backends.
DEMANDS = ("has_sink", "use_mm_prefix", "use_per_head_quant_scales")


def cases(context: Context) -> Iterator[Case]:
    return cases_per_platform(context, SUITE.name, "property", [MONOTONIC, EXPLICIT])


def test_property(case: Case, context: Context, sessions: SessionPool) -> dict[str, int]:
    session = sessions.session(case.subject, case.asked_on)
    prove = {MONOTONIC: _more_demands, EXPLICIT: _explicit}[case.requirement]
    return {"compared": prove(case, context, session)}


def _more_demands(case: Case, context: Context, session: Session) -> int:
    """A request that asks for more keeps every reason: no rejected backend becomes valid."""
    edition = _edition(case, context)
    backends = list(edition.backends)

    def check(request: Request, backend: str, demand: str) -> None:
        if _may_give_way(request, edition):
            return
        fields = asdict(request)
        asks = [Ask(Request(**{**fields, demand: asked}), backend) for asked in (False, True)]
        less, more = session.ask(asks)
        before, after = (set(_reasons(answer)) for answer in (less, more))
        if not before <= after:
            lost = ", ".join(sorted(before - after))
            raise Nonconformance(
                f"expected {backend} to stay rejected when {demand} is asked for too, but it lost "
                f"the reason {lost}, {show(more)}; {show_ask(asks[1])}",
                reproduce(case, context.edition(case.subject), asks[1]),
            )

    return _for_all(
        context,
        check,
        request=_any_request(edition),
        backend=st.sampled_from(backends),
        demand=st.sampled_from(DEMANDS),
    )


def _explicit(case: Case, context: Context, session: Session) -> int:
    """An explicit backend is accepted exactly if the automatic choice does not reject it.

    Layers whose KV-cache dtype makes a rejected backend give way to that choice are left out.
    """
    edition = _edition(case, context)

    def check(request: Request) -> None:
        if _may_give_way(request, edition):
            return
        (automatic,) = session.ask([Ask(request)])
        asks = [Ask(request, c.backend) for c in automatic.candidates]
        for candidate, ask, answer in zip(
            automatic.candidates, asks, session.ask(asks) if asks else [], strict=True
        ):
            expected = None if candidate.rejected else candidate.backend
            if answer.selected != expected or _reasons(answer) != candidate.rejected:
                verdict = ", ".join(candidate.rejected) or "valid"
                raise Nonconformance(
                    f"expected explicit {candidate.backend} to end as it does when chosen "
                    f"automatically ({verdict}), {show(answer)}; {show_ask(ask)}",
                    reproduce(case, context.edition(case.subject), ask),
                )

    return _for_all(context, check, request=_any_request(edition))


def _may_give_way(request: Request, edition: Edition) -> bool:
    """Whether some release lets a rejected explicit backend give way for such a layer (0.28 on)."""
    layers = [rule.layer for rule in edition.selection.falls_through if rule.layer]
    return any(fnmatchcase(request.kv_cache_dtype or "", layer) for layer in layers)


def _any_request(edition: Edition) -> st.SearchStrategy[Request]:
    """Requests for hypothesis: simple values first, so that counterexamples are readable."""
    later = {name: st.booleans() for name in LATER_FIELDS if name in edition.asked.fields}
    return st.builds(
        Request,
        head_size=st.sampled_from((128, 64, *HEAD_SIZES[2:], *MLA_HEAD_SIZES)),
        dtype=st.sampled_from(DTYPES),
        kv_cache_dtype=st.sampled_from((*edition.asked.kv_cache_dtypes, None)),
        block_size=st.sampled_from(BLOCK_SIZES),
        use_mla=st.booleans(),
        has_sink=st.booleans(),
        use_sparse=st.booleans(),
        use_mm_prefix=st.booleans(),
        use_per_head_quant_scales=st.booleans(),
        attn_type=st.sampled_from(ATTN_TYPES),
        **later,
    )


def _for_all(
    context: Context, check: Callable[..., None], **strategies: st.SearchStrategy[Any]
) -> int:
    """Checks seeded examples; a counterexample is made smaller before it is reported.

    A worker that died is no counterexample: it ends the search, not the example.
    """
    examples = context.config.examples
    broken: list[InfrastructureError] = []

    @seed(context.config.seed)
    @settings(
        max_examples=examples,
        database=None,
        report_multiple_bugs=False,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(**strategies)
    def prove(**values: Any) -> None:
        if not broken:
            try:
                check(**values)
            except InfrastructureError as error:
                broken.append(error)

    prove()
    if broken:
        raise broken[0]
    return examples


def _reasons(answer: Selection) -> tuple[str, ...]:
    return answer.candidates[0].rejected if answer.candidates else ()


def _edition(case: Case, context: Context) -> Edition:
    return context.asked_edition(case.subject)
