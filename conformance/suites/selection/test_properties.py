"""Relations between answers that must hold whatever the answers are.

Examples depend on the edition and the run's seed, and not on a platform: they are made once, and
each platform is asked all of them together. Where one is wrong, hypothesis searches with that
platform's answers, and makes it smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cache
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
Example = dict[str, Any]
# Asks the subject about some examples; raises Nonconformance for the first that is wrong.
Judge = Callable[[Sequence[Example]], None]


def cases(context: Context) -> Iterator[Case]:
    return cases_per_platform(context, SUITE.name, "property", [MONOTONIC, EXPLICIT])


def test_property(case: Case, context: Context, sessions: SessionPool) -> dict[str, int]:
    session = sessions.session(case.subject, case.asked_on)
    prove = {MONOTONIC: _more_demands, EXPLICIT: _explicit}[case.requirement]
    return {"compared": prove(case, context, session)}


def _more_demands(case: Case, context: Context, session: Session) -> int:
    """A request that asks for more keeps every reason: no rejected backend becomes valid."""
    edition = context.asked_edition(case.subject)

    def judge(examples: Sequence[Example]) -> None:
        judged = [each for each in examples if not _may_give_way(each["request"], edition)]
        asks = [ask for each in judged for ask in _less_and_more(**each)]
        answers = list(session.ask(asks))
        for each, ask, less, more in zip(
            judged, asks[1::2], answers[::2], answers[1::2], strict=True
        ):
            before, after = (set(_reasons(answer)) for answer in (less, more))
            if not before <= after:
                lost = ", ".join(sorted(before - after))
                raise Nonconformance(
                    f"expected {ask.backend} to stay rejected when {each['demand']} is asked for "
                    f"too, but it lost the reason {lost}, {show(more)}; {show_ask(ask)}",
                    reproduce(case, context.edition(case.subject), ask),
                )

    return _for_all(context, judge, Space.of(edition, tuple(edition.backends)))


def _less_and_more(request: Request, backend: str, demand: str) -> list[Ask]:
    """A request without and with something that it asks for in addition."""
    fields = asdict(request)
    return [Ask(Request(**{**fields, demand: asked}), backend) for asked in (False, True)]


def _explicit(case: Case, context: Context, session: Session) -> int:
    """An explicit backend is accepted exactly if the automatic choice does not reject it.

    Layers whose KV-cache dtype makes a rejected backend give way to that choice are left out.
    """
    edition = context.asked_edition(case.subject)

    def judge(examples: Sequence[Example]) -> None:
        requests = [each["request"] for each in examples]
        requests = [request for request in requests if not _may_give_way(request, edition)]
        chosen = list(session.ask([Ask(request) for request in requests]))
        asks = [
            Ask(request, candidate.backend)
            for request, automatic in zip(requests, chosen, strict=True)
            for candidate in automatic.candidates
        ]
        candidates = [candidate for automatic in chosen for candidate in automatic.candidates]
        for candidate, ask, answer in zip(candidates, asks, session.ask(asks), strict=True):
            expected = None if candidate.rejected else candidate.backend
            if answer.selected != expected or _reasons(answer) != candidate.rejected:
                verdict = ", ".join(candidate.rejected) or "valid"
                raise Nonconformance(
                    f"expected explicit {candidate.backend} to end as it does when chosen "
                    f"automatically ({verdict}), {show(answer)}; {show_ask(ask)}",
                    reproduce(case, context.edition(case.subject), ask),
                )

    return _for_all(context, judge, Space.of(edition))


def _may_give_way(request: Request, edition: Edition) -> bool:
    """Whether some release lets a rejected explicit backend give way for such a layer (0.28 on)."""
    layers = [rule.layer for rule in edition.selection.falls_through if rule.layer]
    return any(fnmatchcase(request.kv_cache_dtype or "", layer) for layer in layers)


@dataclass(frozen=True)
class Space:
    """What examples are drawn from: requests, and with ``backends`` one of them and a demand."""

    fields: tuple[str, ...]
    kv_cache_dtypes: tuple[str, ...]
    backends: tuple[str, ...] = ()

    @classmethod
    def of(cls, edition: Edition, backends: tuple[str, ...] = ()) -> Space:
        return cls(tuple(edition.asked.fields), tuple(edition.asked.kv_cache_dtypes), backends)

    def strategies(self) -> dict[str, st.SearchStrategy[Any]]:
        """For hypothesis: simple values first, so that counterexamples are readable."""
        later = {name: st.booleans() for name in LATER_FIELDS if name in self.fields}
        request = st.builds(
            Request,
            head_size=st.sampled_from((128, 64, *HEAD_SIZES[2:], *MLA_HEAD_SIZES)),
            dtype=st.sampled_from(DTYPES),
            kv_cache_dtype=st.sampled_from((*self.kv_cache_dtypes, None)),
            block_size=st.sampled_from(BLOCK_SIZES),
            use_mla=st.booleans(),
            has_sink=st.booleans(),
            use_sparse=st.booleans(),
            use_mm_prefix=st.booleans(),
            use_per_head_quant_scales=st.booleans(),
            attn_type=st.sampled_from(ATTN_TYPES),
            **later,
        )
        if not self.backends:
            return {"request": request}
        backend, demand = st.sampled_from(self.backends), st.sampled_from(DEMANDS)
        return {"request": request, "backend": backend, "demand": demand}


def _for_all(context: Context, judge: Judge, space: Space) -> int:
    """Checks seeded examples; a counterexample is made smaller before it is reported.

    Raises:
        Nonconformance: the smallest that was found.
        InfrastructureError: a worker that died is no counterexample: it ends the search.
    """
    number, count = context.config.seed, context.config.examples
    broken: list[InfrastructureError] = []

    def judge_one(example: Example) -> None:
        if not broken:
            try:
                judge([example])
            except InfrastructureError as error:
                broken.append(error)

    try:
        judge(_examples(space, number, count))
    except Nonconformance:
        _search(space, number, count, judge_one)
        if broken:
            raise broken[0] from None
        raise
    return count


@cache
def _examples(space: Space, number: int, count: int) -> tuple[Example, ...]:
    """The examples that hypothesis tries while all of them are right."""
    found: list[Example] = []
    _search(space, number, count, found.append)
    return tuple(found)


def _search(space: Space, number: int, count: int, check: Callable[[Example], None]) -> None:
    """Calls ``check`` for ``count`` examples by seed, and for smaller ones where it raises."""

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        report_multiple_bugs=False,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(**space.strategies())
    def prove(**values: Any) -> None:
        check(values)

    prove()


def _reasons(answer: Selection) -> tuple[str, ...]:
    return answer.candidates[0].rejected if answer.candidates else ()
