"""What stands in a run's folder is that run's."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.cli import run_cli
from conformance.errors import InfrastructureError
from conformance.reports.ci_jobs import Job, job_of, read_job, write_job
from conformance.results.folder import cleared

JOB = "0193f1a2-0000-4000-8000-000000000001"
IN_BUILDKITE = {
    "BUILDKITE_JOB_ID": JOB,
    "BUILDKITE_BUILD_URL": "https://buildkite.com/team/pipeline/builds/7",
    "BUILDKITE_LABEL": ':amd: "cell"',
}


def test_an_earlier_run_leaves_nothing_to_mix_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in IN_BUILDKITE:
        monkeypatch.delenv(name, raising=False)
    for name in ("junit-rocm70-aiter-mha.xml", "junit-rocm70-aiter-mha-2.xml", "job.json", "mine"):
        (tmp_path / name).write_text("an earlier run's")
    (tmp_path / "other-run").mkdir()
    (tmp_path / "other-run" / "junit-x.xml").touch()
    arguments = ["--cell", "rocm62-noaiter", "--suite", "selection", "--sweep", "0", "-n", "1"]
    assert run_cli(["run", *arguments, "--results", str(tmp_path)]) == 0
    capsys.readouterr()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("junit-rocm62-noaiter-mha.xml", "mine", "other-run", "pytest.log", "results.jsonl")
    ]
    assert (tmp_path / "other-run" / "junit-x.xml").exists()


def test_a_folder_that_cannot_be_made_is_infrastructure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for action in (cleared, lambda folder: write_job(folder, None)):
        with pytest.raises(InfrastructureError, match="give a folder that can be written"):
            action(tmp_path / "file" / "results")


def test_a_run_in_buildkite_notes_its_job(tmp_path: Path) -> None:
    write_job(tmp_path / "results", job_of(IN_BUILDKITE))
    job = read_job(tmp_path / "results" / "job.json")
    assert job == Job(JOB, f"{IN_BUILDKITE['BUILDKITE_BUILD_URL']}#{JOB}", ':amd: "cell"')


def test_what_cannot_be_a_link_is_left_out() -> None:
    assert job_of({}) is None
    assert job_of({**IN_BUILDKITE, "BUILDKITE_JOB_ID": "../../x"}) is None
    hostile = job_of({**IN_BUILDKITE, "BUILDKITE_BUILD_URL": "javascript:alert(1)"})
    assert hostile == Job(JOB, "", IN_BUILDKITE["BUILDKITE_LABEL"])
