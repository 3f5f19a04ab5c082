"""``upstream``: what a release's own tests say of it, and what counts against it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.cli import run_cli
from conformance.commands import upstream as module
from conformance.errors import UsageError
from conformance.matrix.requests import Platform
from conformance.reports.junit_reader import read_junit
from conformance.results import CaseResult, Outcome, read_results
from conformance.subjects.base import Options
from conformance.subjects.workers import WorkerSubject
from conformance.suites.upstream import machine
from conformance.suites.upstream.recorded import Recorded
from conformance.suites.upstream.running import Ran
from conformance.suites.upstream.table import Chosen, read_tables, tables

FILE = "tests/kernels/test_it.py"
TESTS = """
import os, pytest
class Violation(Exception): pass
def test_right(): pass
def test_wrong(): assert 1 == 2
@pytest.mark.parametrize("name", ["a[0]"])
def test_violates(name): raise Violation("4 bytes that reach 4 bytes past the end of block_tables")
def test_skips(): pytest.skip("no such GPU")
def test_endless():
    while True: pass
def test_lacks(): import no_such_package_at_all
def test_dies(): os._exit(9)
"""
ROW = f"""
[[tests]]
files = ["{FILE}"]
releases = ">=0.19"
limit = 0.2
cases = "%s"
"""
FINDING = f"""
[[finding]]
id = "F-%s"
releases = "%s"
file = "{FILE}"
cases = "%s"
ended = "%s"
says = "%s"
fault = "%s"
finding = "the block table is read past its end"
source = "https://example.org/"
"""
VIOLATES = ("==0.19.*", "test_violates[a[0]]", "violated", "*past the end of block_tables")


@pytest.fixture(autouse=True)
def _tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "vllm-0.19.0"
    (tree / FILE).parent.mkdir(parents=True)
    (tree / FILE).write_text(TESTS, encoding="utf-8")
    build = WorkerSubject(
        *("vllm==0.19.0", [sys.executable], Options("auto")),
        release="0.19.0",
        source_tree=lambda: tree,
    )
    monkeypatch.setattr(module, "parse_subject", lambda *_: build)
    monkeypatch.chdir(tmp_path)


def run(
    monkeypatch: pytest.MonkeyPatch, cases: str, findings: str = "", ended: str = ""
) -> tuple[int, dict[str, CaseResult]]:
    """The exit code, and the results by the name of the test's function.

    ``ended`` is how the case of VIOLATES, and one that passes, end without a process.
    """
    made = read_tables(ROW % cases, findings)
    monkeypatch.setattr(module, "tables", lambda: made)
    if ended:
        monkeypatch.setattr(module, "run_rows", lambda _, rows, *__: [_ran(rows[0], ended)])
    code = run_cli(["upstream", "--subject", "vllm==0.19.0"])
    found = read_results(Path("results/upstream/results.jsonl")).cases
    return code, {case.name.partition("::")[2].partition(" ")[0]: case for case in found}


def _ran(row: Chosen, ended: str) -> Ran:
    right = Recorded(f"{FILE}::test_right", "passed")
    other = Recorded(f"{FILE}::{VIOLATES[1]}", ended, "4 bytes past the end of block_tables")
    return Ran(row, Platform.make("gfx942"), (right, other))


@pytest.fixture(autouse=True)
def _no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of these tests need neither torch nor Triton."""
    real = machine.environment
    monkeypatch.setattr(
        machine, "environment", lambda build, platform, _, *more: real(build, platform, "", *more)
    )


def test_every_ending_has_its_outcome_and_joins_the_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, found = run(monkeypatch, "not dies")
    assert code == 1
    assert {name: case.outcome.value for name, case in found.items()} == {
        "test_right": "passed",
        "test_wrong": "failed",
        "test_violates[a[0]]": "failed",
        "test_skips": "unsupported",
        "test_endless": "unsupported",
        "test_lacks": "unsupported",
    }
    assert found["test_endless"].message == "too-slow: took more than 0.2 s"
    assert found["test_skips"].message == "skipped: no such GPU"
    assert found["test_wrong"].reproduce.startswith("rocm-conformance simulate --gpu gfx942")
    assert found["test_violates[a[0]]"].counts == {"violated": 1}
    (path,) = Path("results/upstream").glob("junit-*.xml")
    assert {case.suite for case in read_junit(path).cases} == {"upstream"}
    assert run_cli(["report", "results", "--output", "out"]) == 1
    assert "upstream" in Path("out/report.html").read_text(encoding="utf-8")


def test_a_process_that_dies_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    code, found = run(monkeypatch, "right or dies")
    assert (code, found["test_dies"].outcome) == (75, Outcome.ERRORED)


def test_nothing_that_runs_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "no_case_of_that_name")[0] == 75


def test_a_finding_explains_a_failure_of_its_own_kind_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = FINDING % ("1", *VIOLATES, "vllm")
    code, cases = run(monkeypatch, "", found, "violated")
    assert (code, cases[VIOLATES[1]].outcome) == (0, Outcome.WAIVED)
    assert cases[VIOLATES[1]].waiver == "F-1"
    assert run(monkeypatch, "", found, "failed")[0] == 1


def test_a_second_violation_is_not_hidden_by_an_explained_one() -> None:
    made = read_tables(ROW % "", FINDING % ("1", *VIOLATES, "vllm"))
    known, other = "8 bytes past the end of block_tables", "2 bytes past the end of qq_bias"
    one = Recorded(f"{FILE}::{VIOLATES[1]}", "violated", violations=(known,))
    assert [found.id for found in made.explanations("0.19.0", "interpreter", one)] == ["F-1"]
    both = replace(one, violations=(known, other))
    assert made.explanations("0.19.0", "interpreter", both) == ()


@pytest.mark.parametrize("ended", ["too-slow", "unsupported", "skipped"])
def test_what_could_not_run_counts_for_nothing(ended: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code, cases = run(monkeypatch, "", FINDING % ("1", *VIOLATES, "vllm"), ended)
    assert (code, cases[VIOLATES[1]].outcome) == (0, Outcome.UNSUPPORTED)


@pytest.mark.parametrize(
    "other",
    [
        ("==0.20.*", *VIOLATES[1:]),
        (VIOLATES[0], "test_other*", *VIOLATES[2:]),
        (*VIOLATES[:2], "failed", VIOLATES[3]),
        (*VIOLATES[:3], "*past the end of key_cache"),
    ],
)
def test_another_finding_explains_nothing(
    other: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, cases = run(monkeypatch, "", FINDING % ("1", *other, "vllm"), "violated")
    assert (code, cases[VIOLATES[1]].outcome) == (1, Outcome.FAILED)


def test_what_the_harness_cannot_is_never_held_against_a_release(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, cases = run(monkeypatch, "", FINDING % ("1", *VIOLATES, "harness"), "violated")
    assert (code, cases[VIOLATES[1]].outcome) == (0, Outcome.UNSUPPORTED)


def test_a_finding_whose_case_passes_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    code, found = run(monkeypatch, "", FINDING % ("1", *VIOLATES, "vllm"), "passed")
    assert code == 1
    (case,) = [case for case in found.values() if case.outcome is Outcome.FAILED]
    assert "explains by F-1 why" in case.message
    assert case.source == "https://example.org/"


def test_a_pattern_may_fit_cases_that_were_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    others = FINDING % ("1", VIOLATES[0], "test_violates*", *VIOLATES[2:], "vllm")
    assert run(monkeypatch, "", others, "passed")[0] == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--subject", "reference"], "only a vLLM has tests of its own"),
        (["--device", "gpu"], "isa:<gpu>"),
        (["--device", "aot:gfx942"], "isa:<gpu>"),
        (["--device", "isa:MI355X", "--device", "interpreter"], "name it with --gpu"),
        (["--file", "no-such-file"], "no file of the table fits"),
        (["--limit", "-1"], "--limit"),
        (["--sample", "0"], "--sample"),
    ],
)
def test_bad_input(options: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["upstream", *options]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tests", "findings", "says"),
    [
        ("[[tests]]\nfiles = ['a']\nlimit = 0", "", "limit"),
        ("[[tests]]\nfiles = ['a']\nreleases = 'newer'", "", "Invalid specifier"),
        ("[[tests]]\nfiles = ['a']\ncase = 'b'", "", "case"),
        ("", FINDING % ("1", *VIOLATES, "nobody"), "fault"),
        ("", (FINDING % ("1", *VIOLATES, "vllm")) * 2, "F-1"),
    ],
)
def test_a_table_that_is_wrong_says_what(tests: str, findings: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_tables(tests, findings)


def test_the_suite_s_own_tables_are_whole() -> None:
    """Each finding is about a file that some row runs for one of its releases."""
    own = tables()
    releases = ("0.19.0", "0.33.0")
    for finding in own.findings:
        places = [r for r in releases if finding.holds_for(r)]
        rows = [f for r in places for t in own.tests if t.holds_for(r) for f in t.files]
        assert finding.file in rows, finding.id
    for release in releases:
        assert len(own.of(release, "interpreter")) > 3, release
        assert len(own.of(release, "isa:gfx942")) > 1, release
