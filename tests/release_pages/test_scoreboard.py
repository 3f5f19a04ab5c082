"""``scoreboard``: verdicts, findings and what they mean, from results folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.cli import run_cli
from conformance.errors import UsageError
from conformance.release_pages.scoreboard_data import (
    COLUMNS,
    Entry,
    Finding,
    Scoreboard,
    scoreboard,
)
from conformance.release_pages.scoreboard_page import files, page, rows, verdict
from conformance.requirements import all_requirements
from conformance.requirements.waivers import load_waivers
from conformance.results import CaseResult, Outcome, ResultsWriter, RunHeader
from tests.support.results import CASE, FAILED, HEADER
from vllm_editions import editions

PAGES = Path(__file__).parents[2] / "docs" / "reference"


def written(folder: Path, *cases: CaseResult, header: RunHeader = HEADER) -> Path:
    """A results folder with these cases."""
    folder.mkdir(parents=True, exist_ok=True)
    with ResultsWriter(folder / "results.jsonl", header) as writer:
        for case in cases:
            writer.write(case)
    return folder


def test_a_release_is_conformant_or_its_findings_are_named(tmp_path: Path) -> None:
    board = scoreboard([written(tmp_path, CASE, FAILED)])
    (entry,) = board.entries
    assert (entry.release, entry.suite, entry.edition) == ("0.19.0", "selection", "0.19")
    assert (entry.passed, entry.failed) == (1, 1)
    (finding,) = entry.findings
    known = all_requirements()["SEL-004"]
    assert finding.requirement == "SEL-004"
    assert known.sentence.startswith(finding.means.rstrip("."))
    assert known.source in finding.links
    assert finding.targets == ("gfx950",)
    assert verdict(entry) == "1 not met: SEL-004"
    assert verdict(scoreboard([written(tmp_path / "good", CASE)]).entries[0]) == "conformant"


def test_a_waived_finding_says_what_its_waiver_says(tmp_path: Path) -> None:
    waiver = next(w for w in load_waivers().waivers if w.subject == "vllm==0.19.0")
    waived = replace(
        FAILED, outcome=Outcome.WAIVED, waiver=waiver.id, requirement=waiver.requirement
    )
    (entry,) = scoreboard([written(tmp_path, CASE, waived)]).entries
    (finding,) = entry.findings
    assert finding.waiver == waiver.id
    assert " ".join(waiver.reason.split()).startswith(finding.means.rstrip("."))
    assert waiver.url in finding.links
    assert verdict(entry) == f"known deviations: {waiver.requirement}"


def test_errors_are_no_verdict_and_no_results_are_not_run(tmp_path: Path) -> None:
    errored = replace(FAILED, outcome=Outcome.ERRORED)
    board = scoreboard([written(tmp_path, CASE, errored)])
    assert verdict(board.entries[0]) == "no verdict: 1 errored"
    table = {name: cells for name, *cells in rows(board)}
    assert table["0.33"] == ["not run"] * len(COLUMNS)
    assert "0.19" not in table
    assert set(editions()) - {"0.19"} < set(table)


def test_a_command_is_kept_without_its_machine(tmp_path: Path) -> None:
    line = "/home/me/.venv/bin/rocm-conformance run --quick --results /tmp/r -n 4 --suite removal"
    header = replace(HEADER, command_line=line)
    (entry,) = scoreboard([written(tmp_path, CASE, header=header)]).entries
    assert entry.command == "rocm-conformance run --quick --suite removal"


def test_an_interrupted_run_is_no_verdict(tmp_path: Path) -> None:
    results = written(tmp_path, CASE) / "results.jsonl"
    lines = results.read_text(encoding="utf-8").splitlines(keepends=True)
    results.write_text("".join(lines[:-1]), encoding="utf-8")
    (entry,) = scoreboard([tmp_path]).entries
    assert verdict(entry).startswith("no verdict")


def test_only_a_releases_own_edition_counts(tmp_path: Path) -> None:
    other = replace(CASE, subject="vllm==0.18.1", subject_version="0.18.1")
    reference = replace(CASE, subject="reference", subject_version="0.19")
    board = scoreboard([written(tmp_path, other, reference)])
    assert board.entries == ()
    assert "vllm==0.18.1 judged by edition 0.19, not by its own" in board.left_out


def test_emulated_parity_is_a_column_of_its_own(tmp_path: Path) -> None:
    emulated = replace(CASE, suite="parity", platform="device isa:gfx942", name="PAR-001 a")
    interpreted = replace(CASE, suite="parity", platform="device interpreter", name="PAR-001 b")
    board = scoreboard([written(tmp_path, emulated, interpreted)])
    assert [entry.suite for entry in board.entries] == ["isa", "parity"]


def test_the_newer_results_of_a_suite_count(tmp_path: Path) -> None:
    later = replace(HEADER, started="2027-02-02T03:04:05+00:00")
    old = scoreboard([written(tmp_path / "a", CASE, FAILED)])
    new = scoreboard([written(tmp_path / "b", CASE, header=later)])
    for board in (old.with_newer(new), new.with_newer(old)):
        (entry,) = board.entries
        assert verdict(entry) == "conformant"


def test_data_is_read_again_as_it_was_written(tmp_path: Path) -> None:
    board = scoreboard([written(tmp_path, CASE, FAILED)])
    assert Scoreboard.loads(board.dumps(), "here") == board
    with pytest.raises(UsageError, match="here is no scoreboard"):
        Scoreboard.loads('{"entries": [{}]}', "here")


def test_the_command_keeps_what_is_there_and_adds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    first = written(tmp_path / "a", CASE)
    removal = replace(FAILED, suite="removal", requirement="REM-001", name="REM-001")
    second = written(tmp_path / "b", removal)
    assert run_cli(["scoreboard", str(first), "--write", str(pages)]) == 0
    assert run_cli(["scoreboard", str(second), "--write", str(pages), "--format", "json"]) == 0
    data = json.loads((pages / "scoreboard.json").read_text(encoding="utf-8"))
    assert [entry["suite"] for entry in data["entries"]] == ["removal", "selection"]
    assert '"suite": "removal"' in capsys.readouterr().out
    text = (pages / "scoreboard.md").read_text(encoding="utf-8")
    assert "| [0.19.0](#vllm-0190) | conformant | 1 not met: [REM-001](https://" in text
    assert "### REM-001 in removal: not met" in text


@pytest.mark.parametrize("wrong", ["missing", "empty"])
def test_a_folder_without_results_is_a_usage_error(
    wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert run_cli(["scoreboard", str(tmp_path / wrong)]) == 2
    assert str(tmp_path / wrong) in capsys.readouterr().err
    assert run_cli(["scoreboard"]) == 2


def test_text_of_results_breaks_no_page() -> None:
    finding = Finding("SEL-004", "It <b>fails</b> | so.", (), 1, (), "> a\n# b | c <script>")
    entry = Entry("0.19.0", "selection", "0.19", "2027", "run", 0, 1, 0, 0, 0, (finding,))
    text = page(Scoreboard((entry,)))
    assert "<script>" not in text
    assert "\n# b" not in text


def test_the_committed_page_is_what_its_data_says() -> None:
    data = (PAGES / "scoreboard.json").read_text(encoding="utf-8")
    board = Scoreboard.loads(data, "docs/reference/scoreboard.json")
    assert board.entries
    for name, text in files(board).items():
        assert (PAGES / name).read_text(encoding="utf-8") == text
