"""The worker protocol: every wrong answer is an error that says what is wrong, with the stderr."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.config import RunConfig
from conformance.errors import InfrastructureError, UsageError
from conformance.matrix.requests import Ask, PagedAttention, Platform, Request, Selection, Vit
from conformance.results import CaseResult, read_results
from conformance.subjects.base import Options
from conformance.subjects.protocol import BATCH, Worker, ask_all, encode, start
from conformance.subjects.reference import ReferenceSubject
from conformance.subjects.workers import WorkerSubject
from conformance.suites.case import Context, SessionPool
from conformance.suites.failure_limit import PLATFORM_TRIES, SUBJECT_TRIES, FailureLimit
from tests.support.misbehaving_worker import LAST_WORDS

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests/support/misbehaving_worker.py"
PLATFORM = Platform.make("gfx942", aiter=True)
ASKS = [Ask(Request(head_size=16 * (i % 20 + 1), has_sink=i % 3 == 0)) for i in range(3 * BATCH)]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}
# What each mode's error must say.
WORDS = {
    "die": r"died \(killed by SIGKILL\)",
    "hang": r"gave no answer within 2 s",
    "rubbish": r"printed something that is no answer: 'Loading weights: 100%'",
    "wrong-id": r"answered message \d+ where \d+ was due",
    "too-few": rf"malformed: ValueError: {BATCH - 1} answers to {BATCH} questions",
    "out-of-range": r"malformed: IndexError",
    "negative": r"malformed: IndexError: outcome -1",
    "bad-outcome": r"malformed: TypeError",
    "malformed": r"printed something that is no answer: '{\"id\"",
    "no-object": r"printed something that is no answer: '\[\d+\]'",
    "neither": r"neither 'ok' nor 'error'",
    "close-stdout": r"died \(it closed its stdout\)",
    "refuse": r"cannot do it",
}


@pytest.fixture
def expected() -> list[Selection]:
    session = ReferenceSubject("0.19").open(PLATFORM)
    return list(session.ask(ASKS))


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(PROGRAM), *arguments]


def worker(*arguments: str, timeout: float = 30) -> Worker:
    return Worker(command(*arguments), ENV, timeout)


def collect(answers: Iterator[Selection], into: list[Selection]) -> None:
    for selection in answers:
        into.append(selection)


def test_a_good_worker_answers_every_batch_in_order(expected: list[Selection]) -> None:
    good = worker("good")
    try:
        assert start(good, PLATFORM, "auto", [])["version"] == "0.19.0"
        assert list(ask_all(good, ASKS)) == expected
    finally:
        good.close()
    assert not good.alive


@pytest.mark.parametrize("mode", [mode for mode in WORDS if mode not in ("hang", "close-stdout")])
def test_what_a_worker_does_wrong_is_named_and_nothing_before_it_is_lost(
    mode: str, expected: list[Selection]
) -> None:
    bad = worker(mode, "1")
    got: list[Selection] = []
    try:
        start(bad, PLATFORM, "auto", [])
        with pytest.raises(InfrastructureError, match=WORDS[mode]) as raised:
            collect(ask_all(bad, ASKS), got)
    finally:
        bad.close()
    assert LAST_WORDS in raised.value.stderr
    assert LAST_WORDS in str(raised.value)
    assert got == expected[:BATCH]


@pytest.mark.parametrize("mode", ["hang", "close-stdout"])
def test_a_worker_that_stays_silent_is_killed(
    mode: str, expected: list[Selection], monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = worker(mode, "1")
    # Two batches: a third would fill the pipe of a worker that has stopped reading.
    got: list[Selection] = []
    try:
        start(silent, PLATFORM, "auto", [])
        monkeypatch.setattr(silent, "timeout", 2)  # starting may take longer
        with pytest.raises(InfrastructureError, match=WORDS[mode]) as raised:
            collect(ask_all(silent, ASKS[: 2 * BATCH]), got)
        assert not silent.alive
    finally:
        silent.close()
    assert LAST_WORDS in raised.value.stderr
    assert got == expected[:BATCH]


def test_answers_given_before_a_death_are_not_lost_when_the_next_question_cannot_be_sent(
    expected: list[Selection],
) -> None:
    """The worker answers two batches and dies before the third is sent."""
    dying = worker("answer-and-die", "1")
    got: list[Selection] = []
    try:
        start(dying, PLATFORM, "auto", [])
        answers = ask_all(dying, ASKS)
        got.append(next(answers))
        wait_for_death(dying)
        with pytest.raises(InfrastructureError, match="SIGKILL"):
            collect(answers, got)
    finally:
        dying.close()
    assert got == expected[: 2 * BATCH]


def wait_for_death(dying: Worker) -> None:
    deadline = time.monotonic() + 20
    while dying.alive and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not dying.alive


class StillWaiting(Exception):  # noqa: N818 - it ends a wait
    """The suite did not give up on a worker when its time had run out."""


def test_a_worker_that_stops_reading_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = worker("deaf")
    start(deaf, PLATFORM, "auto", [])
    monkeypatch.setattr(deaf, "timeout", 0.5)  # starting may take longer

    def alarm(*_: object) -> None:
        raise StillWaiting

    before = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 2)
    try:
        with pytest.raises(InfrastructureError, match=r"read nothing for 0\.5 s"):
            list(ask_all(deaf, ASKS))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        deaf.close()


def test_a_crash_at_start_shows_status_and_traceback() -> None:
    crashing = worker("crash")
    with pytest.raises(InfrastructureError, match=r"died \(exit status 3\)") as raised:
        start(crashing, PLATFORM, "auto", [])
    assert "Traceback" in raised.value.stderr
    assert LAST_WORDS in str(raised.value)
    crashing.close()


def test_a_program_that_does_not_exist_is_named() -> None:
    with pytest.raises(InfrastructureError, match="cannot start /no/such/program"):
        Worker(["/no/such/program"], ENV, 1)


def test_an_answer_that_is_an_error_leaves_the_worker_alive() -> None:
    refusing = worker("refuse")
    try:
        start(refusing, PLATFORM, "auto", [])
        with pytest.raises(InfrastructureError, match="cannot do it") as raised:
            list(ask_all(refusing, ASKS[:BATCH]))
        assert "at line 9" in raised.value.stderr
        assert refusing.alive
        assert len(list(ask_all(refusing, ASKS[:3]))) == 3
    finally:
        refusing.close()


def test_a_batch_holds_one_kind_of_question() -> None:
    op, fields, rows = encode([Ask(Request(), "ROCM_ATTN"), Ask(Request(head_size=64))])
    assert (op, fields[0], fields[-1]) == ("attention", "head_size", "backend")
    assert [(row[0], row[-1]) for row in rows] == [(128, "ROCM_ATTN"), (64, None)]
    assert encode([Ask(PagedAttention())])[0] == "paged_attention"
    assert encode([Ask(Vit())])[0] == "vit"
    with pytest.raises(ValueError, match="one kind"):
        encode([Ask(Request()), Ask(Vit())])


def test_a_session_after_a_death_has_a_new_worker(tmp_path: Path) -> None:
    once = tmp_path / "died"
    spec = spec_of("die", "0", str(once))
    subject = WorkerSubject.from_command(spec, Options("0.19", timeout=30))
    try:
        assert subject.release == "0.19.0"
        with pytest.raises(InfrastructureError, match="SIGKILL"):
            list(subject.open(PLATFORM).ask(ASKS))
        platform = Platform.make("gfx90a")
        expected = list(ReferenceSubject("0.19").open(platform).ask(ASKS))
        assert list(subject.open(platform).ask(ASKS)) == expected
    finally:
        subject.close()


def test_the_next_case_on_the_platform_of_a_death_has_a_new_session(tmp_path: Path) -> None:
    spec = spec_of("die", "0", str(tmp_path / "died"))
    context = Context(RunConfig((spec,), ("*",)))
    pool = SessionPool(context)
    try:
        with pytest.raises(InfrastructureError, match="SIGKILL"):
            list(pool.session(spec, PLATFORM).ask(ASKS))
        context.subject(spec).close()  # what the plugin does after an errored case
        assert len(list(pool.session(spec, PLATFORM).ask(ASKS[:5]))) == 5
    finally:
        context.close()


def test_a_worker_subject_needs_a_command() -> None:
    with pytest.raises(UsageError, match="needs a command"):
        WorkerSubject.from_command("worker:", Options("0.19"))


# ---- end to end ------------------------------------------------------------------------------


def run_suite(
    folder: Path, *arguments: str, timeout: str = "30", beside: tuple[str, ...] = ()
) -> tuple[int, str]:
    """Runs the suite on a misbehaving worker and other subjects: the exit code and the output."""
    options = ["--cell", "rocm62-noaiter", "-n", "1", "--sweep", "1030", "--suite", "selection"]
    options += ["--timeout", timeout, "--results", str(folder)]
    for spec in (*beside, spec_of(*arguments)):
        options += ["--subject", spec]
    done = subprocess.run(
        [sys.executable, "-m", "conformance", "run", *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=110,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def spec_of(*arguments: str) -> str:
    return "worker:" + shlex.join(command(*arguments))


def cases_of(folder: Path) -> dict[str, list[CaseResult]]:
    """The results by outcome, from a complete results file."""
    run = read_results(folder / "results.jsonl")
    assert run.complete
    found: dict[str, list[CaseResult]] = {}
    for case in run.cases:
        found.setdefault(case.outcome.value, []).append(case)
    return found


def test_a_worker_that_dies_in_a_sweep_costs_no_verdict_of_other_platforms(tmp_path: Path) -> None:
    code, output = run_suite(tmp_path, "die", "1", str(tmp_path / "once"))
    found = cases_of(tmp_path)
    assert code == 75, output
    assert set(found) <= {"passed", "errored", "unsupported"}
    first, *rest = found["errored"]
    assert first.name.split()[1] == "sweep"
    assert "SIGKILL" in first.message
    assert LAST_WORDS in first.detail

    # The next platform starts a new worker; the results before it are kept.
    assert {case.platform for case in rest} <= {first.platform}
    kinds = Counter(c.name.split()[1] for c in found["passed"] if c.platform != first.platform)
    assert min(kinds["sweep"], kinds["rows"]) > 20
    assert any(c.platform == first.platform for c in found["passed"])

    reports = list(tmp_path.glob("junit-*.xml"))
    errors = [error for file in reports for error in ET.parse(file).findall(".//error")]
    assert len(errors) == len(found["errored"])
    assert any(LAST_WORDS in file.read_text(encoding="utf-8") for file in reports)


def errors_of(folder: Path) -> dict[str, list[str]]:
    """What each JUnit file says about errored cases."""
    return {
        file.name: [error.text or "" for error in ET.parse(file).findall(".//error")]
        for file in folder.glob("junit-*.xml")
    }


def test_a_crash_at_start_is_a_result_and_costs_no_other_subject_anything(tmp_path: Path) -> None:
    code, output = run_suite(tmp_path, "crash", beside=("reference",))
    assert code == 75
    assert "CONFORMANT: reference" in output
    assert "NO VERDICT: worker:" in output
    found = cases_of(tmp_path)
    (errored,) = found["errored"]
    assert errored.subject == spec_of("crash")
    assert errored.cells == ("rocm62-noaiter-mha",)
    assert "exit status 3" in errored.message
    assert LAST_WORDS in errored.detail
    assert len(found["passed"]) > 200
    assert {case.subject for case in found["passed"]} == {"reference"}
    ((name, (text,)),) = errors_of(tmp_path).items()
    assert name == "junit-rocm62-noaiter-mha.xml"
    assert LAST_WORDS in text
    assert LAST_WORDS in output


def test_where_no_subject_starts_there_are_results_all_the_same(tmp_path: Path) -> None:
    code, output = run_suite(tmp_path, "crash")
    assert code == 75, output
    assert cases_of(tmp_path).keys() == {"errored"}
    assert [len(errors) for errors in errors_of(tmp_path).values()] == [1]


def test_a_worker_that_never_starts_again_is_given_up_soon(tmp_path: Path) -> None:
    crashes = tmp_path / "crashes"
    code, output = run_suite(tmp_path / "results", "crash-later", "0", str(crashes))
    assert code == 75, output
    found = cases_of(tmp_path / "results")
    assert found.keys() == {"errored"}
    assert len(found["errored"]) > 200
    assert all(LAST_WORDS in case.detail for case in found["errored"])
    assert len(crashes.read_text().splitlines()) == SUBJECT_TRIES
    reason = "given up after 9 failures in a row on several platforms: the worker"
    assert sum(reason in case.message for case in found["errored"]) > 100


# ---- when a subject is given up on --------------------------------------------------------------

A, B = "gfx90a", "gfx942"


def given_up(failures: FailureLimit, platform: str) -> bool:
    try:
        failures.check("build", platform)
    except InfrastructureError:
        return True
    return False


def fail(failures: FailureLimit, platform: str, times: int = PLATFORM_TRIES) -> None:
    for _ in range(times):
        failures.failed("build", platform, InfrastructureError("died", "its stderr"))


def test_a_platform_is_given_up_after_failures_in_a_row() -> None:
    failures = FailureLimit()
    fail(failures, A, PLATFORM_TRIES - 1)
    failures.answered("build", A)
    fail(failures, A, PLATFORM_TRIES - 1)
    assert not given_up(failures, A)
    fail(failures, A, 1)
    assert given_up(failures, A)
    assert not given_up(failures, B)
    failures.check("another build", A)
    with pytest.raises(
        InfrastructureError, match="3 failures in a row on this platform: died"
    ) as e:
        failures.check("build", A)
    assert e.value.stderr == "its stderr"


def test_one_error_that_ends_several_cases_is_one_failure() -> None:
    failures = FailureLimit()
    error = InfrastructureError("died")
    for _ in range(5 * SUBJECT_TRIES):
        failures.failed("build", A, error)
    assert not given_up(failures, A)


def test_a_build_is_given_up_after_failures_in_a_row_anywhere() -> None:
    failures = FailureLimit()
    for number in range(SUBJECT_TRIES - 1):
        fail(failures, f"gfx{number}", 1)
    failures.answered("build", A)
    for number in range(SUBJECT_TRIES - 1):
        fail(failures, f"gfx{number}", 1)
    assert not given_up(failures, B)
    fail(failures, A, 1)
    assert given_up(failures, B)


# ---- ended from outside ---------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_was_answered(number: signal.Signals, tmp_path: Path) -> None:
    options = ["--subject", spec_of("hang", "4"), "--cell", "rocm62-noaiter", "-n", "1"]
    options += ["--suite", "selection", "--sweep", "1030", "--results", str(tmp_path)]
    run = subprocess.Popen(
        [sys.executable, "-m", "conformance", "run", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for_cases(tmp_path / "results.jsonl", 20)
        run.send_signal(number)
        output, _ = run.communicate(timeout=30)
    finally:
        run.kill()
    assert run.returncode == 130, output
    assert "finished cases are in the results folder" in output
    found = read_results(tmp_path / "results.jsonl")
    assert not found.complete
    assert "cut short" in " ".join(found.problems)
    assert len(found.cases) >= 20


def wait_for_cases(file: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if file.is_file() and len(file.read_bytes().splitlines()) > count:
            return
        time.sleep(0.05)
    raise AssertionError("the run wrote no cases")
