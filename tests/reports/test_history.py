"""The trend over builds: which are builds, what it says of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.cli import run_cli
from conformance.errors import UsageError
from conformance.reports.collect import collect
from conformance.reports.history import NOW, Trend, trend
from conformance.requirements import all_requirements
from conformance.results import CaseResult, Outcome
from tests.support.results import CASE, A, B, write_run
from tests.support.schemas import valid

P, F, U = Outcome.PASSED, Outcome.FAILED, Outcome.UNSUPPORTED


def case(requirement: str, outcome: Outcome, **changed: object) -> CaseResult:
    name = f"{requirement} rows"
    return replace(CASE, name=name, requirement=requirement, outcome=outcome, **changed)  # type: ignore[arg-type] # fields by name


def trend_of(tmp_path: Path, requirements: dict[str, list[Outcome]]) -> Trend:
    """The trend of builds, the last of which is this one, by the outcomes of requirements."""
    number = len(next(iter(requirements.values())))
    for build in range(number):
        cases = [case(key, outcomes[build]) for key, outcomes in requirements.items()]
        where = tmp_path / "now" if build == number - 1 else tmp_path / "builds" / f"b{build}"
        write_run(where, cases, started=f"2027-01-{build + 1:02}T00:00:00+00:00")
    found = trend(collect(tmp_path / "now"), (str(tmp_path / "builds"),), all_requirements())
    assert found is not None
    return found


def test_it_says_of_each_requirement_since_when(tmp_path: Path) -> None:
    found = trend_of(
        tmp_path,
        {
            "SEL-001": [P, P, P, P],
            "SEL-002": [F, F, F, F],
            "SEL-003": [P, P, F, F],
            "SEL-004": [F, F, P, P],
            "SEL-005": [P, F, P, F],
            "SEL-006": [F, F, F, U],
        },
    )
    assert [build.name for build in found.builds] == ["b0", "b1", "b2", NOW]
    assert {row.requirement: row.in_words for row in found.rows} == {
        "SEL-002": "failing throughout",
        "SEL-003": "failing since b2",
        "SEL-004": "fixed",
        "SEL-005": "turned 3 times",
        "SEL-006": "no longer asked",
    }
    # What fails now comes first.
    assert [row.requirement[-1] for row in found.rows] == ["2", "3", "5", "4", "6"]
    assert found.sentence == (
        "4 builds since 2027-01-01 00:00 UTC: 3 failed results in the first, 3 in this one; "
        "came and went: SEL-005"
    )


def test_results_count_in_every_cell(tmp_path: Path) -> None:
    write_run(tmp_path / "old", [case("SEL-004", F, cells=(A, B))])
    write_run(tmp_path / "new", [case("SEL-004", F, cells=(A,))])
    found = trend(collect(tmp_path / "new"), (str(tmp_path / "old"),), {})
    assert found is not None
    assert found.rows[0].failed == (2, 1)


def test_a_build_is_a_folder_of_jobs_a_file_or_a_folder_in_a_folder(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / "builds" / str(number) / "job 1", [case("SEL-004", P)])
        write_run(tmp_path / "builds" / str(number) / "job 2", [case("SEL-005", P)])
    (tmp_path / "builds" / "lost").mkdir()
    file = write_run(tmp_path / "one", [case("SEL-004", F)])
    write_run(tmp_path / "now", [case("SEL-004", P)])
    found = trend(collect(tmp_path / "now"), (str(tmp_path / "builds"), str(file)), {})
    assert found is not None
    assert (len(found.builds), found.empty) == (4, 1)
    assert "(1 more left no results)" in found.sentence


def test_the_largest_error_over_its_bound_is_kept_by_backend(tmp_path: Path) -> None:
    for folder, ratio in (("old", 0.5), ("now", 0.25)):
        measured = {"backend": "TRITON_MLA", "measures": {"error_over_bound": ratio}}
        small = {"backend": "TRITON_MLA", "measures": {"error_over_bound": 0.1}}
        write_run(tmp_path / folder, [case("PAR-001", P, **measured), case("PAR-002", P, **small)])
    found = trend(collect(tmp_path / "now"), (str(tmp_path / "old"),), {})
    assert found is not None
    assert [build.worst for build in found.builds] == [{"TRITON_MLA": 0.5}, {"TRITON_MLA": 0.25}]


def test_folders_without_any_build(tmp_path: Path) -> None:
    write_run(tmp_path / "now", [case("SEL-004", P)])
    (tmp_path / "builds").mkdir()
    with pytest.raises(UsageError, match="builds: holds no results"):
        trend(collect(tmp_path / "now"), (str(tmp_path / "builds"),), {})
    with pytest.raises(UsageError, match="--history no-such: no such folder"):
        trend(collect(tmp_path / "now"), ("no-such",), {})


def test_the_command_tells_it_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trend_of(tmp_path, {"SEL-004": [P, F]})
    words = ["report", str(tmp_path / "now"), "--history", str(tmp_path / "builds")]
    assert run_cli([*words, "--format", "json"]) == 1
    told = json.loads(capsys.readouterr().out)["history"]
    valid(told, "history")
    assert [build["outcomes"]["failed"] for build in told["builds"]] == [0, 1]
    assert told["requirements"][0]["in_words"] == f"failing since {NOW}"
    assert run_cli(words) == 1
    assert capsys.readouterr().out.startswith("Trend: 2 builds since 2027-01-01")
    report = tmp_path / "now" / "report"
    assert "Trend: 2 builds" in (report / "annotation.md").read_text(encoding="utf-8")
    assert 'id="trend"' in (report / "report.html").read_text(encoding="utf-8")
