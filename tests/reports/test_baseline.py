"""A report that compares with an earlier build: every kind of change, wherever the build is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.cli import run_cli
from conformance.reports.baseline import IN_WORDS, Comparison, compare
from conformance.reports.collect import collect
from conformance.requirements import all_requirements
from conformance.results import CaseResult, JudgedSubject, Outcome
from tests.support.results import CASE, A, write_run
from tests.support.schemas import valid

# What becomes of a case: its outcome before (None: not asked), and now.
FATES = {
    "new": (Outcome.PASSED, Outcome.FAILED),
    "new, never asked": (None, Outcome.FAILED),
    "fixed": (Outcome.FAILED, Outcome.PASSED),
    "still failing": (Outcome.FAILED, Outcome.FAILED),
    "still failing, in more ways": (Outcome.FAILED, Outcome.FAILED),
    "no longer asked": (Outcome.PASSED, None),
    "failed, no longer asked": (Outcome.FAILED, None),
    "now unsupported": (Outcome.PASSED, Outcome.UNSUPPORTED),
    "without verdict": (Outcome.PASSED, Outcome.ERRORED),
    "waived": (Outcome.FAILED, Outcome.WAIVED),
    "waived as before": (Outcome.WAIVED, Outcome.WAIVED),
    "never judged": (Outcome.UNSUPPORTED, None),
    "as bad": (Outcome.ERRORED, Outcome.ERRORED),
}


def case(name: str, outcome: Outcome, **changed: object) -> CaseResult:
    return replace(CASE, name=f"SEL-004 {name} [gfx942]", outcome=outcome, **changed)  # type: ignore[arg-type] # fields by name


def wrong(result: CaseResult, *findings: str) -> CaseResult:
    failed = result.outcome is Outcome.FAILED
    return replace(result, findings=findings if failed else ())


@pytest.fixture
def builds(tmp_path: Path) -> tuple[Path, Path]:
    """The folders of an earlier build and of this one, of another release."""
    old = [case(name, before) for name, (before, _) in FATES.items() if before]
    new = [case(name, now) for name, (_, now) in FATES.items() if now]
    old = [wrong(each, "x:10 is unread") for each in old]
    more = [
        ("x:12 is unread", "y:12 is unread") if "more" in c.name else ("x:12 is unread",)
        for c in new
    ]
    new = [wrong(each, *texts) for each, texts in zip(new, more, strict=True)]
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
        "worse": 1,
        "flaky": 0,
        "without verdict": 1,
        "still failing": 1,
        "newly waived": 1,
        "fixed": 1,
        "no longer asked": 3,
    }
    assert found.compared == 9
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


# ---- which results are compared with which ---------------------------------------------------


def of(subject: str, version: str, outcome: Outcome, **changed: object) -> CaseResult:
    return case("x", outcome, subject=subject, subject_version=version, **changed)


def test_two_releases_in_one_build_are_not_one_that_is_flaky(tmp_path: Path) -> None:
    """`make conformance` judges two releases of vLLM: cases of the same names."""
    both = [of("vllm==0.19.0", "0.19.0", Outcome.PASSED, edition="0.19")]
    both += [of("vllm==0.33.0", "0.33.0", Outcome.FAILED, edition="0.33")]
    write_run(tmp_path / "old", both)
    write_run(tmp_path / "new", both)
    found = compared(tmp_path / "old", tmp_path / "new")
    assert [(each.change, each.subject) for each in found.changes] == [
        ("still failing", "vllm==0.33.0")
    ]


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (("vllm==0.33.0", "0.33.0", "0.33"), ("vllm==0.33.1", "0.33.1", "0.33")),
        (("vllm==0.32.0", "0.32.0", "0.32"), ("vllm==0.33.0", "0.33.0", "0.33")),
        (("vllm", "0.33.1.dev1", "0.33"), ("vllm", "0.33.1.dev2", "0.33")),
        (("/base/vllm", "0.33.0", "0.33"), ("/checkout", "", "0.33")),
        (("/opt/python", "0.32.0", "0.32"), ("vllm", "0.33.0", "0.33")),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_the_next_build_continues_a_subject_by_whatever_name(
    before: tuple[str, str, str], now: tuple[str, str, str], beside: bool, tmp_path: Path
) -> None:
    other = [of("reference", "0.19", Outcome.PASSED)] if beside else []
    for folder, (name, version, edition), outcome in (
        ("old", before, Outcome.PASSED),
        ("new", now, Outcome.FAILED),
    ):
        write_run(tmp_path / folder, [of(name, version, outcome, edition=edition), *other])
    found = compared(tmp_path / "old", tmp_path / "new")
    assert [each.change for each in found.changes] == ["new"]
    assert found.compared == 1 + beside


def test_the_same_case_on_a_gpu_and_simulated_is_not_flaky(tmp_path: Path) -> None:
    here = of("vllm", "0.33.0", Outcome.FAILED, simulated=False, gpu="gfx942")
    write_run(tmp_path / "1", [here])
    write_run(tmp_path / "2", [of("vllm", "0.33.0", Outcome.PASSED)])
    found = compared(tmp_path, tmp_path)
    assert [each.change for each in found.changes] == ["still failing"]


def test_a_reference_is_no_build_of_vllm(tmp_path: Path) -> None:
    write_run(tmp_path / "old", [of("reference", "0.19", Outcome.PASSED)])
    write_run(tmp_path / "new", [of("vllm==0.19.0", "0.19.0", Outcome.FAILED)])
    found = compared(tmp_path / "old", tmp_path / "new")
    assert found.compared == 0
    assert {each.change for each in found.changes} == {"new", "no longer asked"}


def test_a_baseline_that_is_not_whole_says_so(builds: tuple[Path, Path]) -> None:
    path = builds[0] / "results.jsonl"
    path.write_bytes(path.read_bytes().rpartition(b"\n{")[0])
    assert "that record is not whole: " in compared(*builds).sentence


# ---- the command -----------------------------------------------------------------------------


def test_changes_come_first_everywhere(
    builds: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = builds
    assert run_cli(["report", str(new), "--baseline", str(old)]) == 1
    out = capsys.readouterr().out
    sentence = f"Against {old}: 2 new, 1 worse, 0 flaky, 1 without verdict, 1 still failing"
    assert out.startswith(sentence)
    assert "  new: SEL-004  " in out
    note = (new / "report" / "annotation.md").read_text(encoding="utf-8")
    assert note.startswith("**Against ")
    assert note.index("New failures") < note.index("NOT CONFORMANT") < note.index("| cells")
    page = (new / "report" / "report.html").read_text(encoding="utf-8")
    assert page.index('id="changes"') < page.index('id="matrix"')
    assert "2 new, 1 worse, 0 flaky" in page


def test_json_has_the_comparison(
    builds: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = builds
    run_cli(["report", str(new), "--baseline", str(old), "--format", "json"])
    told = json.loads(capsys.readouterr().out)
    valid(told["baseline"], "baseline")
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
