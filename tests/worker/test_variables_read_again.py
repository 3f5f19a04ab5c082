"""One process of a vLLM that goes from one setting of AITER's variables to the next.

A session that is told of other variables must answer like a process that was started with them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import pytest

from conformance.matrix.requests import AITER, MHA, Ask, Platform, Selection
from conformance.subjects.base import Options, Session
from conformance.subjects.reference import edition_table
from conformance.subjects.spellings import parse_subject
from conformance.subjects.workers import WorkerSession, WorkerSubject
from conformance.suites.selection import sampling
from vllm_editions import editions, nearest_edition

pytestmark = pytest.mark.vllm

MLA, UNIFIED = "VLLM_ROCM_USE_AITER_MLA", "VLLM_ROCM_USE_AITER_UNIFIED_ATTENTION"
FLAGS = (AITER, MHA, MLA, UNIFIED)
NEWEST = f"{editions()[-1]}.0"
ASKS = 60

Env = dict[str, str]
ALL: list[Env] = [
    {},
    *(dict(zip(FLAGS, v, strict=True)) for v in itertools.product("10", repeat=4)),
]


def answers(session: Session, release: str) -> list[Selection]:
    """What a session says to requests of every kind."""
    edition = edition_table(nearest_edition(release))
    asked: list[Iterable[Ask]] = [
        sampling.requests("read again", ASKS, edition),
        sampling.paged_attention("read again", ASKS // 4),
        sampling.vit("read again", ASKS // 4, edition.vit.explicit),
    ]
    return [answer for asks in asked for answer in session.ask(list(asks))]


def subject(release: str) -> WorkerSubject:
    made = parse_subject(f"vllm=={release}", Options(nearest_edition(release), timeout=300))
    assert isinstance(made, WorkerSubject)
    return made


def told_and_fresh(
    release: str, machine: Platform, settings: Iterable[Env]
) -> Iterator[tuple[list[Selection], list[Selection]]]:
    """For each setting the answers of a process that goes on, and those of one just started."""
    going_on, anew = subject(release), subject(release)
    try:
        first = going_on.open(machine.with_env({AITER: "0", UNIFIED: "1"}))
        for env in settings:
            platform = machine.with_env(env)
            session = going_on.reopen(platform)
            assert session is first, "another process was started"
            yield answers(session, release), answers(anew.open(platform), release)
    finally:
        going_on.close()
        anew.close()


def check(release: str, machine: Platform, settings: list[Env]) -> None:
    outcomes = []
    for env, (told, fresh) in zip(
        settings, told_and_fresh(release, machine, settings), strict=True
    ):
        assert told == fresh, env
        outcomes.append(tuple(fresh))
    assert len(set(outcomes)) > 1, "these variables change nothing here: the test shows nothing"


# Where variables were not read again, the conformance of 0.19.0 and 0.33.0 fails, which CI runs.
@pytest.mark.slow
def test_a_process_that_goes_on_answers_like_one_just_started() -> None:
    machine = Platform.make("gfx942", aiter=True)
    off, on = machine.with_env({AITER: "0"}), machine.with_env({AITER: "1", MHA: "1"})
    going_on, anew = subject(NEWEST), subject(NEWEST)
    try:
        first = going_on.open(off)
        before = answers(first, NEWEST)
        assert going_on.reopen(on) is first
        told = answers(first, NEWEST)
        assert told == answers(anew.open(on), NEWEST)
        assert told != before, "the comparison shows nothing"
    finally:
        going_on.close()
        anew.close()


@pytest.mark.slow
@pytest.mark.parametrize("release", ["0.19.0", NEWEST])
def test_so_does_one_that_shares_an_import_with_another_session(release: str) -> None:
    """Where variables that no import looked at differ too."""
    machine = Platform.make("gfx942", aiter=True, env={AITER: "1", MHA: "1"})
    settings: list[Env] = [
        {AITER: "0", "VLLM_ROCM_CONFORMANCE_UNRELATED": "1", "VLLM_ROCM_USE_AITER_MOE": "0"},
        {MHA: "0", "VLLM_ROCM_CUSTOM_PAGED_ATTN": "1"},
        {"VLLM_ROCM_CUSTOM_PAGED_ATTN": "0"},
    ]
    going_on, anew = subject(release), subject(release)
    try:
        told = [answers(going_on.open(machine), release)]
        for env in settings:
            platform = machine.with_env(env)
            told.append(answers(going_on.reopen(platform), release))
            assert told[-1] == answers(anew.open(platform), release), env
        assert told[1] != told[0], "the comparison shows nothing"
    finally:
        going_on.close()
        anew.close()


@pytest.mark.slow
@pytest.mark.parametrize("release", ["0.18.1", "0.19.0", "0.25.1", "0.28.0", NEWEST])
@pytest.mark.parametrize("target", ["gfx950", "gfx1201"])
def test_so_it_does_for_every_setting(release: str, target: str) -> None:
    if target == "gfx1201" and nearest_edition(release) in ("0.19", "0.25"):
        pytest.skip("no variable changes anything on RDNA in these releases")
    check(release, Platform.make(target, aiter=True), ALL)


@pytest.mark.slow
def test_variables_that_were_not_read_again_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison bites: a session that is told nothing answers otherwise."""
    monkeypatch.setattr(WorkerSession, "reread", lambda *_: None)
    with pytest.raises(AssertionError):
        check(NEWEST, Platform.make("gfx942", aiter=True), ALL[:3])
