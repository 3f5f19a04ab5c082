"""The removed variable changes nothing, and neither does an unrelated one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from conformance.matrix.requests import AITER, MHA, REMOVED_VARIABLE, Ask, Platform, Selection
from conformance.subjects.workers import started_as
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
from conformance.suites.removal import SUITE
from conformance.suites.selection.sampling import paged_attention, requests

SELECTION = "REM-004"
KERNEL = "REM-005"
UNRELATED = "REM-009"
# Every spelling of a boolean that vLLM accepted for the variable, one it did not, and "".
VALUES = ("0", "false", "1", "", "no such value")
UNRELATED_VARIABLES = {"VLLM_ROCM_CONFORMANCE_UNRELATED": "1", "VLLM_ROCM_USE_AITER_MOE": "0"}
# Targets on which every setting is tried: one of each class whose ROCM_ATTN chooses a kernel by
# rules of its own; both are in every stack.
OFTEN_ON = ("gfx942", "gfx1100")
ASKS = 400


def cases(context: Context) -> Iterator[Case]:
    """The variable set to 0 on every target, and to every value on two of them.

    Of a cell's two platforms, only the one whose VLLM_ROCM_USE_AITER agrees with the cell's aiter
    is asked: the truth tables and the sweep judge how the two differ.
    """
    for case in cases_per_platform(context, SUITE.name, "variable", [SELECTION, KERNEL, UNRELATED]):
        if not _is_asked(case.platform):
            continue
        for extra in _settings(case):
            yield replace(case, asked_on=case.platform.with_env(extra))


def _settings(case: Case) -> list[dict[str, str]]:
    """The variables to set; each setting has a process of its own."""
    often = case.platform.target in OFTEN_ON
    if case.requirement == UNRELATED:
        return [UNRELATED_VARIABLES] if often else []
    values = VALUES if often and case.platform.variables[MHA] == "1" else VALUES[:1]
    return [{REMOVED_VARIABLE: value} for value in values]


def test_variable(case: Case, context: Context, sessions: SessionPool) -> dict[str, int]:
    """A process with the variable set answers like one without it.

    It is fresh, or the fork of one whose import of the subject did not look at the variable.
    """
    asks = _asks(case, context)
    without = _answers_without(case, context, sessions)[case.requirement == KERNEL]
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
            reproduce(case, context.edition(case.subject), ask),
        )
    return {"compared": len(asks)}


_ANSWERS: dict[tuple[str, Platform], tuple[list[Selection], list[Selection]]] = {}


def _answers_without(
    case: Case, context: Context, sessions: SessionPool
) -> tuple[list[Selection], list[Selection]]:
    """The platform's answers without the variable, from one session: selections and kernels."""
    key = (case.subject, case.platform)
    if key not in _ANSWERS:
        # Of all platforms that one process answers for, before another one is started.
        for platform in _answered_by_one_process(case.platform, context):
            session = sessions.session(case.subject, platform)
            selections, kernels = (
                list(session.ask(_asks(replace(case, requirement=requirement), context)))
                for requirement in (SELECTION, KERNEL)
            )
            _ANSWERS[case.subject, platform] = (selections, kernels)
    return _ANSWERS[key]


def _answered_by_one_process(platform: Platform, context: Context) -> list[Platform]:
    """The platforms that are asked and whose sessions one process can go through; this one too."""
    own = started_as(platform)
    return [p for p in context.platforms if started_as(p) == own and _is_asked(p)]


def _is_asked(platform: Platform) -> bool:
    return platform.variables[AITER] == ("1" if platform.aiter else "0")


def _asks(case: Case, context: Context) -> list[Ask]:
    if case.requirement == KERNEL:
        return list(paged_attention(context.config.seed, ASKS))
    return list(requests(context.config.seed, ASKS, context.asked_edition(case.subject)))
