"""A report that compares with an earlier build: every kind of change, wherever the build is."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from conformance.cli import run_cli
from conformance.errors import UsageError
from conformance.reports.baseline import IN_WORDS, Comparison, compare, opened
from conformance.reports.collect import collect
from conformance.requirements import all_requirements
from conformance.results import CaseResult, JudgedSubject, Outcome
from tests.support.results import CASE, A, write_run

# What becomes of a case: its outcome before (None: not asked), and now.
FATES = {
    "new": (Outcome.PASSED, Outcome.FAILED),
    "new, never asked": (None, Outcome.FAILED),
    "fixed": (Outcome.FAILED, Outcome.PASSED),
    "still failing": (Outcome.FAILED, Outcome.FAILED),
    "no longer asked": (Outcome.PASSED, None),
    "without verdict": (Outcome.PASSED, Outcome.ERRORED),
    "as good": (Outcome.PASSED, Outcome.WAIVED),
    "as bad": (Outcome.ERRORED, Outcome.ERRORED),
}


def case(name: str, outcome: Outcome, **changed: object) -> CaseResult:
    return replace(CASE, name=f"SEL-004 {name} [gfx942]", outcome=outcome, **changed)  # type: ignore[arg-type] # fields by name


@pytest.fixture
def builds(tmp_path: Path) -> tuple[Path, Path]:
    """The folders of an earlier build and of this one, of another release."""
    old = [case(name, before) for name, (before, _) in FATES.items() if before]
    new = [case(name, now) for name, (_, now) in FATES.items() if now]
    later = JudgedSubject("vllm==0.20.0", "0.20.0", True)
    new = [replace(each, subject=later.name, subject_version=later.version) for each in new]
    write_run(tmp_path / "old", old)
    write_run(tmp_path / "new", new)
    return tmp_path / "old", tmp_path / "new"


def compared(old: Path, new: Path) -> Comparison:
    return compare(collect(new), collect(old), "old", all_requirements())


def test_every_change_is_told_and_nothing_else(builds: tuple[Path, Path]) -> None:
    found = compared(*builds)
    assert {change: found.count(change) for change in IN_WORDS} == {
        "new": 2,
        "flaky": 0,
        "without verdict": 1,
        "still failing": 1,
        "fixed": 1,
        "no longer asked": 1,
    }
    assert found.compared == 6
    (new,) = [each for each in found.changes if each.change == "new"]
    assert new.requirement == "SEL-004"
    assert new.title == all_requirements()["SEL-004"].title
    assert new.cells == (A,)
    assert new.first.startswith("SEL-004 new")


def test_a_build_has_not_changed_against_itself(builds: tuple[Path, Path]) -> None:
    found = compared(builds[0], builds[0])
    assert {each.change for each in found.changes} == {"still failing"}


def test_what_failed_and_passed_in_one_build_is_flaky(tmp_path: Path) -> None:
    write_run(tmp_path / "old", [case("x", Outcome.PASSED)])
    write_run(tmp_path / "new" / "1", [case("x", Outcome.FAILED)])
    write_run(tmp_path / "new" / "2", [case("x", Outcome.PASSED)])
    found = compared(tmp_path / "old", tmp_path / "new")
    assert [(each.change, each.cases) for each in found.changes] == [("flaky", 1)]


# ---- the command -----------------------------------------------------------------------------


def test_changes_come_first_everywhere(
    builds: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = builds
    assert run_cli(["report", str(new), "--baseline", str(old)]) == 1
    out = capsys.readouterr().out
    sentence = f"Against {old}: 2 new, 0 flaky, 1 without verdict, 1 still failing, 1 fixed, 1 no"
    assert out.startswith(sentence)
    assert "  new: SEL-004  " in out
    note = (new / "report" / "annotation.md").read_text(encoding="utf-8")
    assert note.index("New failures") < note.index("| cells")
    page = (new / "report" / "report.html").read_text(encoding="utf-8")
    assert page.index('id="changes"') < page.index('id="matrix"')
    assert "2 new, 0 flaky" in page


def test_json_has_the_comparison(
    builds: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = builds
    run_cli(["report", str(new), "--baseline", str(old), "--format", "json"])
    told = json.loads(capsys.readouterr().out)
    assert told["baseline"]["counts"]["new"] == 2
    assert told["exit"] == 1


@pytest.mark.parametrize(
    ("before", "now", "code"),
    [
        (Outcome.FAILED, Outcome.FAILED, 0),
        (Outcome.PASSED, Outcome.FAILED, 1),
        (Outcome.PASSED, Outcome.PASSED, 0),
        (Outcome.FAILED, Outcome.ERRORED, 75),
    ],
)
def test_new_failures_alone_decide(
    before: Outcome, now: Outcome, code: int, tmp_path: Path
) -> None:
    write_run(tmp_path / "old", [case("x", before)])
    write_run(tmp_path / "new", [case("x", now), case("y", Outcome.PASSED)])
    arguments = ["report", str(tmp_path / "new"), "--baseline", str(tmp_path / "old")]
    assert run_cli([*arguments, "--new-only"]) == code


def test_nothing_in_common_is_no_verdict(tmp_path: Path) -> None:
    write_run(tmp_path / "old", [case("x", Outcome.PASSED)])
    write_run(tmp_path / "new", [case("y", Outcome.FAILED)])
    arguments = ["report", str(tmp_path / "new"), "--baseline", str(tmp_path / "old")]
    assert run_cli([*arguments, "--new-only"]) == 75


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--baseline", "no-such"], "no such folder or file"),
        (["--new-only"], "--baseline"),
        (["--baseline", "{empty}"], "holds no results"),
    ],
)
def test_a_baseline_that_is_none(
    arguments: list[str],
    says: str,
    builds: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    words = [word.format(empty=tmp_path / "empty") for word in arguments]
    assert run_cli(["report", str(builds[1]), *words]) == 2
    assert says in capsys.readouterr().err


# ---- where a baseline is ---------------------------------------------------------------------


def test_a_file_and_an_archive_are_baselines_too(builds: tuple[Path, Path], tmp_path: Path) -> None:
    old = builds[0] / "results.jsonl"
    archive = tmp_path / "artifact.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(old, "../../outside/results.jsonl")
        packed.writestr("notes.txt", "not read")
    for origin in (old, archive):
        with opened(str(origin)) as found:
            assert sum(len(each.run.cases) for each in found.inputs) == 7
    assert not (tmp_path.parent / "outside").exists()


def test_an_archive_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK and nothing more")
    with pytest.raises(UsageError, match="no sound archive"), opened(str(tmp_path / "x.zip")):
        pass


def test_an_address_that_does_not_answer_is_no_verdict(
    builds: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def away(*_: object, **__: object) -> None:
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(requests, "get", away)
    address = "https://example.org/results.jsonl"
    assert run_cli(["report", str(builds[1]), "--baseline", address]) == 75
    assert "cannot be fetched: no route" in capsys.readouterr().err
