"""A sweep that asks little concludes little, and one that asks nothing has no cases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conformance.config import RunConfig
from conformance.mutation.wrong_builds import Build
from conformance.subjects.reference import edition_table, selector_on
from conformance.suites.case import Case, Context, SessionPool, Unsupported
from conformance.suites.selection.test_sweep import cases
from conformance.suites.selection.test_sweep import test_sweep as judge

EDITION = "0.19"


def swept(sweep: int) -> Iterator[tuple[Case, dict[str, int] | str]]:
    """Every case of a sweep of a right build, with its counts or why it says nothing."""
    right = edition_table(EDITION)
    build = Build(f"worker:right {sweep}", "0.19.0", lambda on: selector_on(right, on))
    config = RunConfig(
        (build.spec,),
        ("rocm72-aiter-mha",),
        edition=EDITION,
        sweep=sweep,
        releases={build.spec: build.release},
        targets=("gfx942",),
    )
    context = Context(config, subjects={build.spec: build})
    for case in cases(context):
        try:
            yield case, judge(case, context, SessionPool(context))
        except Unsupported as error:
            yield case, str(error)


def test_a_long_one_checks_every_requirement() -> None:
    ended = list(swept(2_000))
    assert len(ended) > 20
    for case, counts in ended:
        assert isinstance(counts, dict), case
        assert counts["checked"] > 0, case


@pytest.mark.parametrize("sweep", [1, 9])
def test_what_a_short_one_asks_nothing_about_is_not_passed(sweep: int) -> None:
    """Ten requests bring one about ROCM_ATTN's decode kernel, a hundred one about vision."""
    ended = {case.requirement: found for case, found in swept(sweep)}
    unasked = {name for name, found in ended.items() if isinstance(found, str)}
    assert unasked
    assert len(unasked) < len(ended)
    assert f"none of a sweep of {sweep} requests" in str(ended[min(unasked)])


def test_no_sweep_has_no_cases() -> None:
    assert not list(swept(0))
