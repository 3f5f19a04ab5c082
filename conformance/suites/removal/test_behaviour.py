"""The removed variable changes nothing, and neither does an unrelated one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from conformance.requests import REMOVED_VARIABLE, Selection
from conformance.sampling import paged_attention, requests
from conformance.subjects.protocol import Ask
from conformance.subjects.reference import edition_table
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

SUITE = "removal"
SELECTION = "REM-004"
KERNEL = "REM-005"
UNRELATED = "REM-009"
# Every spelling of a boolean that the variable's reader knew, one it did not know, and nothing.
VALUES = ("0", "false", "1", "", "no such value")
UNRELATED_VARIABLES = {"VLLM_ROCM_CONFORMANCE_UNRELATED": "1", "VLLM_ROCM_USE_AITER_MOE": "0"}
ASKS = 400


def cases(context: Context) -> Iterator[Case]:
    """Each platform with the variable set to 0, one in each target with every other value."""
    spelled: set[tuple[str, str]] = set()
    for case in cases_per_platform(context, SUITE, "variable", [SELECTION, KERNEL, UNRELATED]):
        if case.requirement == UNRELATED:
            yield replace(case, asked_on=case.platform.with_env(UNRELATED_VARIABLES))
            continue
        target = (case.requirement, f"{case.subject} {case.platform.target}")
        values = VALUES[:1] if target in spelled else VALUES
        spelled.add(target)
        for value in values:
            yield replace(case, asked_on=case.platform.with_env({REMOVED_VARIABLE: value}))


def test_variable(case: Case, context: Context, sessions: SessionPool) -> dict[str, int]:
    """A fresh process with the variable set answers like one without it."""
    asks = _asks(case, context)
    key = (case.subject, case.platform, case.requirement == KERNEL)
    if key not in _ANSWERS:
        _ANSWERS[key] = list(sessions.session(case.subject, case.platform).ask(asks))
    without = _ANSWERS[key]
    with_it = list(sessions.session(case.subject, case.asked_on).ask(asks))
    changed = [
        (ask, before, after)
        for ask, before, after in zip(asks, without, with_it, strict=True)
        if before != after
    ]
    if changed:
        ask, before, after = changed[0]
        added = dict(case.asked_on.env).items() - dict(case.platform.env).items()
        setting = " ".join(f"{name}={value}" for name, value in sorted(added))
        raise Nonconformance(
            f"expected {setting} to change nothing, but {len(changed)} of {len(asks)} answers "
            f"change: without it {before.selected or before.error}, with it {show(after)}; "
            f"{show_ask(ask)}",
            reproduce(case, context.config.edition, ask),
        )
    return {"compared": len(asks)}


_ANSWERS: dict[tuple[str, object, bool], Sequence[Selection]] = {}


def _asks(case: Case, context: Context) -> list[Ask]:
    if case.requirement == KERNEL:
        return list(paged_attention(context.config.seed, ASKS))
    backends = list(edition_table(context.config.edition).backends)
    return list(requests(context.config.seed, ASKS, backends))
