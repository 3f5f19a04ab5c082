"""The page of what releases' own tests came to: made of results, judged by the findings of now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conformance.cli import run_cli
from conformance.commands import upstream as module
from conformance.results import CaseResult, Outcome, RunHeader
from conformance.results.folder import RESULTS
from conformance.results.writing import ResultsWriter
from conformance.suites.upstream.page import PAGE
from conformance.suites.upstream.table import read_tables

FILE, OTHER = "tests/a/test_it.py", "tests/a/test_else.py"
TESTS = f"""
[[tests]]
files = ["{FILE}", "{OTHER}"]
sample = 2
limit = 7.5
cases = "small"
"""
FINDING = f"""
[[finding]]
id = "UPS-X"
file = "{FILE}"
cases = "%s"
ended = "violated"
says = "*past the end of table*"
fault = "vllm"
finding = "the table is read\\npast its end"
source = "https://example.org/kernel.py#L7"
"""
PASSED = CaseResult(
    suite="upstream",
    name=f"{FILE}::test_right on interpreter",
    outcome=Outcome.PASSED,
    cells=(),
    subject="vllm==0.19.0",
    subject_version="0.19.0",
    edition="0.19",
    requirement="",
    source="https://example.org/",
    target="gfx942",
    platform="gfx942 device interpreter",
    simulated=True,
    seed=1,
    counts={"passed": 1},
)
# As a run writes it that no finding explains.
VIOLATED = replace(
    PASSED,
    name=f"{FILE}::test_reads[a|b] on interpreter",
    outcome=Outcome.FAILED,
    message="violated: kernel reads 4 bytes past the end of table",
    findings=("kernel reads 4 bytes past the end of table",),
    counts={"violated": 1},
)
SLOW = replace(
    PASSED,
    name=f"{FILE}::test_slow on interpreter",
    outcome=Outcome.UNSUPPORTED,
    message="too-slow: took more than 7.5 s",
    counts={"too-slow": 1},
)
ON_ISA = replace(
    PASSED, name=f"{FILE}::test_right on isa:gfx942", platform="gfx942 device isa:gfx942"
)


def run_of(folder: Path, started: str, *cases: CaseResult, more: str = "") -> None:
    header = RunHeader.now(
        edition="auto", subjects=(), cells=(), suites=("upstream",), seed=1, sweep=None
    )
    words = f"/some/where/rocm-conformance upstream -n 1 --results {folder}{more}"
    folder.mkdir()
    with ResultsWriter(
        folder / RESULTS, replace(header, started=started, command_line=words)
    ) as writer:
        for case in cases:
            writer.write(case)


def written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, findings: str = ""
) -> tuple[int, list[str]]:
    tables = read_tables(TESTS, findings)
    monkeypatch.setattr(module, "tables", lambda: tables)
    code = run_cli(["upstream", "--results", str(tmp_path), "--page", str(tmp_path)])
    return code, (tmp_path / PAGE).read_text(encoding="utf-8").splitlines()


def test_what_no_finding_explains_is_said_and_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_of(tmp_path / "a", "2026-01-01", PASSED, VIOLATED, SLOW)
    code, lines = written(tmp_path, monkeypatch)
    assert code == 1
    assert "test_reads[a|b] violated: no finding explains it" in capsys.readouterr().err
    row = "| `a/test_it.py` | `-k 'small'`, 2 of each function | 7.5 | 1 |  | 1 | 1 |  |  |  |"
    assert row in lines
    assert "| `a/test_else.py` | not run | 7.5 |  |  |  |  |  |  |  |" in lines
    assert any(line.startswith("| violated |") and "**not explained**" in line for line in lines)
    assert "| too slow | `test_it.py::test_slow` | took more than 7.5 s |" in lines


def test_a_finding_that_is_known_now_explains_a_result_of_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of(tmp_path / "a", "2026-01-01", PASSED, VIOLATED)
    code, lines = written(tmp_path, monkeypatch, FINDING % "test_reads*")
    assert code == 0
    why = "the table is read past its end ([UPS-X](https://example.org/kernel.py#L7))"
    assert f"| violated | `test_it.py::test_reads[a\\|b]` | {why} |" in lines
    assert "| [0.19.0](#0190-interpreter) | interpreter | 1 |  | 1 |  |  |  |  | 1 |" in lines


def test_a_finding_whose_case_passes_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_of(tmp_path / "a", "2026-01-01", PASSED)
    assert written(tmp_path, monkeypatch, FINDING % "test_right")[0] == 1
    assert "UPS-X explains a case that passes" in capsys.readouterr().err


def test_the_last_result_of_a_case_counts_whatever_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = replace(VIOLATED, outcome=Outcome.PASSED, message="", findings=())
    run_of(tmp_path / "a", "2026-01-02", replace(again, counts={"passed": 1}))
    run_of(tmp_path / "b", "2026-01-01", VIOLATED)
    code, lines = written(tmp_path, monkeypatch)
    assert (code, "Every case passed." in lines) == (0, True)


def test_devices_are_apart_and_say_at_what_size_they_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of(tmp_path / "a", "2026-01-01", PASSED)
    run_of(tmp_path / "b", "2026-01-02", ON_ISA, more=" --sample 1 --limit 90")
    code, lines = written(tmp_path, monkeypatch)
    assert code == 0
    assert [line for line in lines if line.startswith("## ")] == [
        "## 0.19.0, interpreter",
        "## 0.19.0, isa:gfx942",
    ]
    assert "    rocm-conformance upstream --sample 1 --limit 90" in lines
    assert sum("`-k 'small'`, 1 of each function | 90 | 1 |" in line for line in lines) == 1


def test_a_case_without_a_verdict_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = replace(SLOW, outcome=Outcome.ERRORED, counts={"errored": 1}, message="errored: it died")
    run_of(tmp_path / "a", "2026-01-01", died)
    assert written(tmp_path, monkeypatch)[0] == 1


def test_no_results_are_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["upstream", "--results", str(tmp_path), "--page", str(tmp_path)]) == 2
    assert "no results of upstream tests are below it" in capsys.readouterr().err
