"""The jobs' scripts, run with stand-ins that record how they were called."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from vllm_editions import editions, nearest_edition

ROOT = Path(__file__).resolve().parents[2]
RECORDER = """#!/bin/sh
echo "$(basename "$0") $*" >> "$RECORD"
case "$(basename "$0") $*" in
    "buildkite-agent meta-data get conformance-test-engine-"*) echo "$MARK" ;;
    "buildkite-agent annotate"*) exit "${ANNOTATE_EXIT:-0}" ;;
    curl*) cat >> "$RECORD"; exit "${CURL_EXIT:-0}" ;;
    make*) exit "${MAKE_EXIT:-0}" ;;
    "docker push"*) exit "${PUSH_EXIT:-0}" ;;
    *"meta-data get image-rocm72-aiter "*) echo registry/rocm-conformance@sha256:1 ;;
    *"meta-data get image-rocm62-noaiter "*) echo rocm-conformance:rocm62-noaiter-1 ;;
    *"images build rocm72"*)
        echo "rocm-conformance:rocm72-aiter-1 sha256:1"
        echo "rocm-conformance:rocm72-noaiter-2 sha256:2" ;;
    "docker image inspect"*) echo registry/rocm-conformance@sha256:1 ;;
    "rocm-conformance run --subject vllm=="*)
        release=${3#vllm==}
        case " $FAILING " in *" $release "*) exit 1 ;; esac
        case " $LOST " in *" $release "*) exit 75 ;; esac
        exit "${RUN_EXIT:-0}" ;;
    "rocm-conformance mutants"*)
        echo "| part |"
        exit "${RUN_EXIT:-0}" ;;
    "rocm-conformance run"*)
        folder=$(echo "$*" | sed 's/.*--results \\([^ ]*\\).*/\\1/')
        cell=$(echo "$*" | sed 's/.*--cell \\([^ ]*\\).*/\\1/')
        mkdir -p "$folder" && echo "<x/>" > "$folder/junit-$cell.xml"
        exit "${RUN_EXIT:-0}" ;;
    "rocm-conformance report"*)
        [ -z "$NO_REPORT" ] || exit 70
        echo words > report/annotation.md && mkdir -p report/test-engine
        for job in ${JOBS_JUDGED:-a-job}; do echo "[]" > "report/test-engine/$job.1.json"; done
        exit "${REPORT_EXIT:-0}" ;;
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
    return stood_in(tmp_path)


def stood_in(tmp_path: Path) -> Checkout:
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
    assert [path.name for path in (checkout.root / folder).iterdir()] == ["junit-0192.xml"]


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


STEPS = {"CONFORMANCE_STEPS": "cell-a cell-b", "CONFORMANCE_SHARDS": "2"}


def test_the_report_expects_every_job_annotates_and_uploads(checkout: Checkout) -> None:
    code, calls = checkout.run("report.sh", CONFORMANCE_TEST_TOKEN="token", **STEPS)
    assert code == 0
    assert "buildkite-agent artifact download results/**/* ." in calls
    assert (
        "rocm-conformance report results --output report --test-engine report/test-engine "
        "--expect-results cell-a/1 --expect-results cell-a/2 "
        "--expect-results cell-b/1 --expect-results cell-b/2"
    ) in calls
    assert "buildkite-agent annotate --style success --context rocm-conformance" in calls
    assert sum(call.startswith("curl") for call in calls) == 1


def upload(calls: list[str]) -> str:
    (call,) = [call for call in calls if call.startswith("curl")]
    return call


def test_the_upload_says_which_build_it_is_of_and_keeps_the_token_to_itself(
    checkout: Checkout, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("secret\n", encoding="utf-8")
    of = {"BUILDKITE_COMMIT": "abc", "BUILDKITE_BRANCH": "main", "BUILDKITE_BUILD_NUMBER": "7"}
    of |= {"JOBS_JUDGED": "job-1", "BUILDKITE_MESSAGE": "a message; $(touch x)"}
    _, calls = checkout.run(
        "report.sh", CONFORMANCE_TEST_TOKEN_FILE=str(tmp_path / "token"), **of, **STEPS
    )
    call = upload(calls)
    parts = ("[commit_sha]=abc", "[branch]=main", "[number]=7", "[job_id]=job-1", "a message;")
    for part in parts:
        assert part in call
    assert "secret" not in call
    assert 'header = "Authorization: Token token=\\"secret\\""' in calls
    assert "format=json" in call
    mark = "buildkite-agent meta-data set conformance-test-engine-job-1.1"
    assert [line for line in calls if line.startswith(mark)] == [f"{mark} sending", f"{mark} sent"]
    assert calls.index(f"{mark} sending") < calls.index(call) < calls.index(f"{mark} sent")


@pytest.mark.parametrize(("verdict", "code"), [("0", 75), ("1", 1), ("75", 75)])
def test_a_failed_upload_is_no_verdict_and_undoes_none(
    checkout: Checkout, verdict: str, code: int
) -> None:
    ended, calls = checkout.run(
        "report.sh",
        CONFORMANCE_TEST_TOKEN="t",
        CURL_EXIT="22",
        REPORT_EXIT=verdict,
        JOBS_JUDGED="a b c",
        **STEPS,
    )
    assert ended == code
    assert "buildkite-agent meta-data set conformance-test-engine-a.1 failed" in calls
    assert sum(call.startswith("curl") for call in calls) == 1  # it is away: no use to go on


@pytest.mark.parametrize(("mark", "times"), [("", 1), ("failed", 1), ("sent", 0), ("sending", 0)])
def test_a_job_s_results_are_sent_once_whatever_is_retried(
    checkout: Checkout, mark: str, times: int
) -> None:
    code, calls = checkout.run("report.sh", CONFORMANCE_TEST_TOKEN="t", MARK=mark, **STEPS)
    assert code == 0
    assert sum(call.startswith("curl") for call in calls) == times


def test_each_job_s_results_are_sent_under_its_own_id(checkout: Checkout) -> None:
    of = {"JOBS_JUDGED": "one two no-job", "BUILDKITE_JOB_ID": "report-job"}
    _, calls = checkout.run("report.sh", CONFORMANCE_TEST_TOKEN="t", **of, **STEPS)
    sent = [call.partition("[job_id]=")[2].split()[0] for call in calls if call.startswith("curl")]
    assert sorted(sent) == ["one", "report-job", "two"]


def test_a_token_file_that_is_not_there_is_told(checkout: Checkout) -> None:
    code, calls = checkout.run("report.sh", CONFORMANCE_TEST_TOKEN_FILE="no-such", **STEPS)
    assert code == 75
    assert not any(call.startswith("curl") for call in calls)


@pytest.mark.parametrize(("verdict", "code"), [("0", 75), ("1", 1)])
def test_an_annotation_that_is_lost_is_no_verdict_and_undoes_none(
    checkout: Checkout, verdict: str, code: int
) -> None:
    ended, _ = checkout.run("report.sh", ANNOTATE_EXIT="3", REPORT_EXIT=verdict, **STEPS)
    assert ended == code


def test_a_baseline_of_the_environment_is_compared_with(checkout: Checkout) -> None:
    _, calls = checkout.run("report.sh", CONFORMANCE_BASELINE="https://x/y z.zip", **STEPS)
    (call,) = [call for call in calls if call.startswith("rocm-conformance report")]
    assert call.endswith("--baseline https://x/y z.zip")


@pytest.mark.parametrize("broken", [{"MAKE_EXIT": "2"}, {"PUSH_EXIT": "1"}])
def test_an_image_that_cannot_be_built_or_pushed_is_infrastructure(
    checkout: Checkout, broken: dict[str, str]
) -> None:
    code, _ = checkout.run("build-image.sh", "rocm72", CONFORMANCE_REGISTRY="registry", **broken)
    assert code == 75


@pytest.mark.parametrize("verdict", ["1", "75"])
def test_the_merged_verdict_is_the_job_s_and_is_shown(checkout: Checkout, verdict: str) -> None:
    code, calls = checkout.run("report.sh", REPORT_EXIT=verdict, **STEPS)
    assert code == int(verdict)
    assert "buildkite-agent annotate --style error --context rocm-conformance" in calls


def test_a_report_that_was_not_made_is_no_success(checkout: Checkout) -> None:
    code, calls = checkout.run("report.sh", NO_REPORT="1", **STEPS)
    assert code == 75
    assert not any("annotate" in call for call in calls)


# ---- with the real suite: what `run` writes is what `report` reads

# The suite itself, told to run here instead of in a container.
HERE = """#!{python}
import sys
from conformance.cli import main
words = sys.argv[1:]
if "--runner" in words:
    at = words.index("--runner")
    assert words[at + 1 : at + 3] == ["docker", "--image"]
    del words[at : at + 4]
main(words)
"""
# Artifacts are kept beside the checkout.
KEEPER = """#!/bin/sh
case "$1 $2" in
    "meta-data get") echo an-image ;;
    "artifact download") cp -r kept/. results ;;
    annotate*) cat > annotated ;;
esac
"""
CELL, GPU = "rocm62-aiter-mha", "gfx942"
WRONG = "triton above rocm_attn"
BUILD = "https://buildkite.com/team/pipeline/builds/7"
JOBS = {"1": "0193f1a2-0000-4000-8000-000000000001", "2": "0193f1a2-0000-4000-8000-000000000002"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Two jobs of one cell have run, of a build that breaks rules; their artifacts are kept."""
    checkout = stood_in(tmp_path_factory.mktemp("build"))
    for path, text in (
        (".venv/bin/rocm-conformance", HERE.format(python=sys.executable)),
        ("bin/buildkite-agent", KEEPER),
    ):
        (checkout.root / path).write_text(text, encoding="utf-8")
    wrong = shlex.join([sys.executable, str(ROOT / "tests/suites/faults/worker.py"), WRONG])
    arguments = ["--suite", "selection", "--sweep", "5", "-n", "1", "--subject", f"worker:{wrong}"]
    ends = [
        checkout.run(
            *("run-cell.sh", CELL, GPU, *arguments),
            BUILDKITE_PARALLEL_JOB=str(int(part) - 1),
            BUILDKITE_PARALLEL_JOB_COUNT="2",
            BUILDKITE_JOB_ID=job,
            BUILDKITE_BUILD_URL=BUILD,
            BUILDKITE_LABEL=f":amd: {CELL} on {GPU} {part}/2",
        )[0]
        for part, job in JOBS.items()
    ]
    assert ends == [1, 1]
    (checkout.root / "results").rename(checkout.root / "kept")
    return checkout


@pytest.fixture
def build(finished: Checkout, tmp_path: Path) -> Checkout:
    """A copy of it, for a test to break."""
    shutil.copytree(finished.root, tmp_path, dirs_exist_ok=True)
    return Checkout(tmp_path)


def reported(build: Checkout) -> tuple[int, str]:
    """The report step's exit code, and what it put on the build's page."""
    expected = {"CONFORMANCE_STEPS": f"cell-{CELL}-{GPU}", "CONFORMANCE_SHARDS": "2"}
    code, _ = build.run("report.sh", BUILDKITE_BUILD_URL=BUILD, **expected)
    page = (build.root / "report" / "report.html").read_text(encoding="utf-8")
    note = (build.root / "annotated").read_text(encoding="utf-8")
    for job in JOBS.values():
        assert (f"{BUILD}#{job}" in page) == (f"{BUILD}#{job}" in note)
    return code, note


def test_what_two_jobs_leave_is_one_whole_record_that_links_to_both(build: Checkout) -> None:
    code, note = reported(build)
    assert code == 1
    assert "Errors of the record" not in note
    for part, job in JOBS.items():
        assert f"{CELL} on {GPU} {part}/2" in note
        assert f"{BUILD}#{job}" in note


def test_a_job_that_is_missing_is_named(build: Checkout) -> None:
    part = f"cell-{CELL}-{GPU}/2"
    shutil.rmtree(build.root / "kept" / part)
    code, note = reported(build)
    assert code != 0
    assert "Errors of the record: 2" in note
    assert f"{part}/results.jsonl" in note.replace("\\", "")
    assert "shards are missing: 2/2" in note


def test_a_job_whose_record_is_cut_is_named_and_linked(build: Checkout) -> None:
    folder = build.root / "kept" / f"cell-{CELL}-{GPU}" / "1"
    path = folder / "results.jsonl"
    path.write_bytes(path.read_bytes()[:2000])
    code, note = reported(build)
    assert code != 0
    (line,) = [line for line in note.splitlines() if "no footer line" in line]
    assert f"{BUILD}#{JOBS['1']}" in line


def releases_asked(calls: list[str]) -> list[str]:
    return [call.split()[3].removeprefix("vllm==") for call in calls if "--subject" in call]


def test_every_series_in_the_range_is_judged_by_its_newest_release(checkout: Checkout) -> None:
    code, calls = checkout.run("check-releases.sh", "--timeout", "300")
    assert code == 0
    asked = releases_asked(calls)
    assert [nearest_edition(release) for release in asked] == editions()
    assert "make install" in calls
    assert calls[-1] == (
        f"rocm-conformance run --subject vllm=={asked[-1]} --suite selection --suite removal "
        "--suite metadata --quick --sweep 20000 --target gfx942 --target gfx1201 "
        f"--results results/releases/{asked[-1]} --timeout 300"
    )


@pytest.mark.parametrize(
    ("failing", "lost", "code"),
    [("0.2.0", "", 1), ("", "0.1.0", 75), ("0.2.0", "0.1.0", 1), ("0.1.0", "0.2.0", 1)],
)
def test_a_release_that_fails_does_not_stop_the_rest(
    failing: str, lost: str, code: int, checkout: Checkout
) -> None:
    asked = {"RELEASES": "0.1.0 0.2.0 0.3.0", "FAILING": failing, "LOST": lost}
    ended, calls = checkout.run("check-releases.sh", **asked)
    assert ended == code
    assert releases_asked(calls) == ["0.1.0", "0.2.0", "0.3.0"]


def test_a_mistake_stops_it(checkout: Checkout) -> None:
    code, calls = checkout.run("check-releases.sh", "--no-such-option", RUN_EXIT="2")
    assert (code, len(releases_asked(calls))) == (2, 1)


def test_a_part_s_mutants_are_drawn_by_the_build_s_number(checkout: Checkout) -> None:
    asked = {"BUILDKITE_BUILD_NUMBER": "42", "COUNT": "10", "MINUTES": "5"}
    code, calls = checkout.run("check-mutants.sh", "kernels", "-n", "4", **asked)
    assert code == 0
    assert calls[:2] == [
        "make install",
        "rocm-conformance mutants --part kernels --seed 42 --count 10 --limit 5 "
        "--write results/mutants --format markdown -n 4",
    ]
    assert calls[2] == "buildkite-agent annotate --context mutants-kernels --style info"


def test_mutants_without_a_verdict_are_gone_on_with(checkout: Checkout) -> None:
    code, calls = checkout.run("check-mutants.sh", "editions", RUN_EXIT="75")
    assert (code, any("artifact download" in call for call in calls)) == (75, False)
    code, calls = checkout.run("check-mutants.sh", "editions", BUILDKITE_RETRY_COUNT="1")
    assert code == 0
    assert "buildkite-agent artifact download results/mutants/editions.jsonl ." in calls
