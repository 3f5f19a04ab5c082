"""The jobs' scripts, run with stand-ins that record how they were called."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from buildkite.complete import problems
from conformance.config import RunConfig
from conformance.results import JudgedSubject, ResultsWriter, RunHeader

ROOT = Path(__file__).resolve().parents[1]
RECORDER = """#!/bin/sh
echo "$(basename "$0") $*" >> "$RECORD"
case "$(basename "$0") $*" in
    *"meta-data get image-rocm72-aiter "*) echo registry/rocm-conformance@sha256:1 ;;
    *"meta-data get image-rocm62-noaiter "*) echo rocm-conformance:rocm62-noaiter-1 ;;
    *"images build rocm72"*)
        echo "rocm-conformance:rocm72-aiter-1 sha256:1"
        echo "rocm-conformance:rocm72-noaiter-2 sha256:2" ;;
    "docker image inspect"*) echo registry/rocm-conformance@sha256:1 ;;
    "rocm-conformance run"*)
        folder=$(echo "$*" | sed 's/.*--results \\([^ ]*\\).*/\\1/')
        mkdir -p "$folder" && echo "<x/>" > "$folder/junit-cell.xml"
        exit "${RUN_EXIT:-0}" ;;
    "rocm-conformance report"*)
        [ -z "$NO_REPORT" ] || exit 70
        echo words > report/annotation.md && echo "<testsuites/>" > report/junit.xml ;;
    "python -m buildkite.complete"*) exit "${COMPLETE_EXIT:-0}" ;;
esac
"""


@dataclass
class Checkout:
    """A copy of the scripts, among stand-ins."""

    root: Path

    def run(self, script: str, *arguments: str, **env: str) -> tuple[int, list[str]]:
        record = self.root / "record"
        record.write_text("", encoding="utf-8")
        path = f"{self.root}/bin{os.pathsep}{os.defpath}"
        done = subprocess.run(
            [f"buildkite/{script}", *arguments],
            cwd=self.root,
            env={"PATH": path, "RECORD": str(record), **env},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, record.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    shutil.copytree(ROOT / "buildkite", tmp_path / "buildkite")
    for folder, names in (
        ("bin", ("buildkite-agent", "docker", "make", "curl")),
        (".venv/bin", ("rocm-conformance", "python")),
    ):
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            (tmp_path / folder / name).write_text(RECORDER, encoding="utf-8")
            (tmp_path / folder / name).chmod(0o755)
    return Checkout(tmp_path)


def test_an_image_that_stays_here_is_named_by_its_tag(checkout: Checkout) -> None:
    code, calls = checkout.run("build-image.sh", "rocm72")
    assert code == 0
    assert calls[-2:] == [
        "buildkite-agent meta-data set image-rocm72-aiter rocm-conformance:rocm72-aiter-1",
        "buildkite-agent meta-data set image-rocm72-noaiter rocm-conformance:rocm72-noaiter-2",
    ]


def test_a_pushed_image_is_named_by_its_digest(checkout: Checkout) -> None:
    code, calls = checkout.run("build-image.sh", "rocm72", CONFORMANCE_REGISTRY="registry")
    assert code == 0
    assert "docker push registry/rocm-conformance:rocm72-aiter-1" in calls
    assert (
        "buildkite-agent meta-data set image-rocm72-aiter registry/rocm-conformance@sha256:1"
        in calls
    )


def test_a_cell_runs_in_its_image_on_the_agent_s_card(checkout: Checkout) -> None:
    code, calls = checkout.run(
        "run-cell.sh",
        *("rocm72-aiter-mha", "gfx942", "--quick"),
        BUILDKITE_PARALLEL_JOB="1",
        BUILDKITE_PARALLEL_JOB_COUNT="3",
        BUILDKITE_JOB_ID="0192",
        BUILDKITE_AGENT_META_DATA_RENDER_DEVICES="--device /dev/dri/renderD129",
    )
    assert code == 0
    folder = "results/cell-rocm72-aiter-mha-gfx942/2"
    assert calls[-1] == (
        "rocm-conformance run --runner docker --image registry/rocm-conformance@sha256:1 "
        f"--cell rocm72-aiter-mha --shard 2/3 --results {folder} "
        "--render-device /dev/dri/renderD129 --quick"
    )
    assert (checkout.root / folder / "junit-0192.xml").is_file()


def test_a_stack_without_aiter_has_one_image(checkout: Checkout) -> None:
    _, calls = checkout.run("run-cell.sh", "rocm62-aiter-mha", "gfx90a")
    assert "--image rocm-conformance:rocm62-noaiter-1" in calls[-1]


@pytest.mark.parametrize("verdict", ["0", "1", "75"])
def test_a_cell_s_exit_code_is_the_job_s(checkout: Checkout, verdict: str) -> None:
    code, _ = checkout.run("run-cell.sh", "rocm72-aiter-mha", "gfx942", RUN_EXIT=verdict)
    assert code == int(verdict)


def test_no_image_is_infrastructure(checkout: Checkout) -> None:
    code, calls = checkout.run("run-cell.sh", "rocm71-aiter-mha", "gfx942")
    assert code == 75
    assert not any(call.startswith("rocm-conformance") for call in calls)


def test_the_report_annotates_and_uploads(checkout: Checkout) -> None:
    code, calls = checkout.run("report.sh", CONFORMANCE_TEST_TOKEN="token")
    assert code == 0
    assert "buildkite-agent artifact download results/**/* ." in calls
    assert "rocm-conformance report results --output report" in calls
    assert "buildkite-agent annotate --style success --context rocm-conformance" in calls
    assert sum(call.startswith("curl") for call in calls) == 1


def test_an_incomplete_record_fails_the_report_but_is_shown(checkout: Checkout) -> None:
    code, calls = checkout.run("report.sh", COMPLETE_EXIT="75")
    assert code == 75
    assert "buildkite-agent annotate --style error --context rocm-conformance" in calls


def test_a_report_that_was_not_made_is_no_success(checkout: Checkout) -> None:
    code, calls = checkout.run("report.sh", NO_REPORT="1")
    assert code == 75
    assert not any("annotate" in call for call in calls)


def record(folder: Path, shard: str) -> None:
    header = RunHeader.now(
        edition="0.19",
        subjects=(JudgedSubject("reference", "0.19", True),),
        cells=("rocm72-aiter-mha",),
        suites=RunConfig(subjects=(), cells=()).suites,
        seed=1,
        sweep=1,
        shard=shard,
    )
    with ResultsWriter(folder / "results.jsonl", header):
        pass


def test_missing_broken_and_repeated_parts_are_named(tmp_path: Path) -> None:
    expected = json.dumps({"steps": ["cell-a", "cell-b"], "shards": 2})
    record(tmp_path / "cell-a" / "1", "1/2")
    record(tmp_path / "cell-a" / "2", "2/2")
    record(tmp_path / "cell-b" / "1", "1/2")
    assert list(problems(tmp_path, expected)) == [
        "cell-b: part 2 of 2 left no results",
        "cell-b: rocm72-aiter-mha: part 2 of 2 is missing",
    ]
    record(tmp_path / "cell-b" / "2", "1/2")
    found = list(problems(tmp_path, expected))
    assert "cell-b: rocm72-aiter-mha: part 1 of 2 is there 2 times" in found
    whole = (tmp_path / "cell-a" / "2" / "results.jsonl").read_text().splitlines()
    (tmp_path / "cell-a" / "2" / "results.jsonl").write_text(whole[0] + "\n")
    assert any("cell-a, part 2" in sentence for sentence in problems(tmp_path, expected))
