"""What Buildkite's Test Engine is sent: results with tags, a job's in files of their own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.cli import run_cli
from conformance.reports import test_engine
from conformance.reports.ci_jobs import Job
from conformance.reports.merge import Entry
from conformance.reports.test_engine import write_test_engine
from conformance.results import Outcome
from tests.support.results import CASE, FAILED, JOB, A, B, write_run


def written(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in folder.iterdir()}


def entry(job: str = "", **changed: Any) -> Entry:
    return Entry(replace(CASE, **changed), "results.jsonl", Job(job) if job else None)


def test_a_result_has_what_test_engine_needs_in_each_cell(tmp_path: Path) -> None:
    case = replace(FAILED, cells=(A, B), backend="ROCM_ATTN", seconds=0.5, detail="more")
    write_test_engine([Entry(case, "f", Job(f"{JOB}1"))], tmp_path)
    (results,) = written(tmp_path).values()
    assert [result["tags"]["cell"] for result in results] == [A, B]
    first = results[0]
    tags = {"target": "gfx950", "cell": A, "backend": "ROCM_ATTN", "suite": "selection"}
    assert tags.items() <= first["tags"].items()
    assert len(first["tags"]) <= 10
    assert (first["name"], first["result"]) == (case.name, "failed")
    assert first["scope"] == f"{A}.vllm-0_19_0.selection"
    assert first["history"] == {"start_at": 0.0, "end_at": 0.5, "duration": 0.5}
    assert "expected ROCM_ATTN" in first["failure_reason"]
    (expanded,) = first["failure_expanded"]
    assert any(A in line and "rocm-conformance select" in line for line in expanded["expanded"])
    assert "more" in expanded["expanded"]


@pytest.mark.parametrize(
    ("outcome", "result"),
    [
        (Outcome.PASSED, "passed"),
        (Outcome.FAILED, "failed"),
        (Outcome.WAIVED, "skipped"),
        (Outcome.UNSUPPORTED, "skipped"),
        (Outcome.ERRORED, "unknown"),
    ],
)
def test_every_outcome_is_one_of_its_own(outcome: Outcome, result: str, tmp_path: Path) -> None:
    write_test_engine([entry(outcome=outcome)], tmp_path)
    ((found,),) = written(tmp_path).values()
    assert found["result"] == result


def test_a_job_has_files_of_its_own_of_limited_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_engine, "RESULTS_PER_FILE", 2)
    (tmp_path / "earlier.1.json").write_text("[]")
    jobs = [f"{JOB}1"] * 3 + [f"{JOB}2", ""]
    write_test_engine([entry(job, name=str(i)) for i, job in enumerate(jobs)], tmp_path)
    assert {name: len(results) for name, results in written(tmp_path).items()} == {
        f"{JOB}1.1.json": 2,
        f"{JOB}1.2.json": 1,
        f"{JOB}2.1.json": 1,
        "no-job.1.json": 1,
    }


def test_tags_are_neither_blank_nor_too_long(tmp_path: Path) -> None:
    write_test_engine([entry(suite="é" * 200, target="  ", backend="")], tmp_path)
    ((found,),) = written(tmp_path).values()
    assert {"target", "backend", "gpu"}.isdisjoint(found["tags"])
    assert all(0 < len(value.encode()) < 128 for value in found["tags"].values())


def test_the_command_writes_them(tmp_path: Path) -> None:
    write_run(tmp_path / f"{JOB}1", [CASE])
    words = ["report", str(tmp_path), "--test-engine", str(tmp_path / "engine")]
    assert run_cli(words) == 0
    assert list(written(tmp_path / "engine")) == [f"{JOB}1.1.json"]
