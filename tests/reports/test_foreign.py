"""Another program's JUnit files: subjects of their own, and never told as lost cases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.cli import run_cli
from conformance.reports.junit_reader import is_foreign, read_junit
from conformance.reports.junit_writer import write_junit
from tests.support.results import CASE, write_run

PASSING = """<?xml version="1.0"?><testsuites><testsuite name="pytest" tests="2">
<testcase classname="tests.test_a" name="t1" time="0.1"><properties>
<property name="seed" value="any"/></properties></testcase>
<testcase classname="tests.test_a" name="t2" time="0.1"/></testsuite></testsuites>"""
FAILING = PASSING.replace(
    'name="t2" time="0.1"/>', 'name="t2"><failure message="boom"/></testcase>'
)


def reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, str]]:
    """The report's exit code, and each subject's sentence."""
    code = run_cli(["report", str(folder), "--format", "json"])
    told = json.loads(capsys.readouterr().out)
    assert told["problems"] == []
    return code, {subject["label"]: subject["sentence"] for subject in told["subjects"]}


def test_they_are_a_subject_beside_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, [CASE])
    (tmp_path / "junit-tests.xml").write_text(PASSING, encoding="utf-8")
    code, sentences = reported(tmp_path, capsys)
    assert code == 0
    assert sentences["pytest in junit-tests.xml"] == (
        "CONFORMANT: pytest in junit-tests.xml has 2 tests: 2 passed"
    )
    assert sentences["vllm==0.19.0"].startswith("CONFORMANT: vllm==0.19.0 meets edition 0.19")


def test_their_failures_count_and_are_told_as_theirs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, [CASE])
    (tmp_path / "junit-tests.xml").write_text(FAILING, encoding="utf-8")
    code, sentences = reported(tmp_path, capsys)
    assert code == 1
    assert sentences["pytest in junit-tests.xml"].endswith("has 2 tests: 1 passed, 1 failed")
    assert sentences["vllm==0.19.0"].startswith("CONFORMANT")


def test_the_same_tests_on_two_platforms_are_no_contradiction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for target, text in (("gfx942", PASSING), ("gfx950", FAILING)):
        (tmp_path / target).mkdir()
        (tmp_path / target / "junit-tests.xml").write_text(text, encoding="utf-8")
    code, sentences = reported(tmp_path, capsys)
    assert code == 1
    assert set(sentences) == {f"pytest in {t}/junit-tests.xml" for t in ("gfx942", "gfx950")}


def test_the_suite_s_own_files_are_not_foreign(tmp_path: Path) -> None:
    (path,) = write_junit([CASE], tmp_path)
    assert [case.subject for case in read_junit(path).cases] == [CASE.subject]
    assert not is_foreign(CASE.subject)


def test_a_case_lost_with_its_process_is_still_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_junit([replace(CASE, subject="", subject_version="", edition="", cells=())], tmp_path)
    assert run_cli(["report", str(tmp_path)]) == 75
    assert "1 case lost with the process that ran them" in capsys.readouterr().out
