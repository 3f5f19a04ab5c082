"""The check of a pull request as a Buildkite step and as a composite GitHub Action."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
STAND_IN = """#!/bin/sh
name=${0##*/}
{ printf '%s\\t' "$name" "$@"; echo; } >> "$RECORD"
case "$name $*" in
    rocm-conformance*)
        if [ -z "$NO_NOTE" ]; then
            folder=$(echo "$*" | sed 's/.*--results \\([^ ]*\\).*/\\1/')
            mkdir -p "$folder/report" && echo "what moves" > "$folder/report/annotation.md"
        fi
        exit "${CHECK_EXIT:-0}" ;;
    buildkite-agent*) cat >> "$RECORD"; exit "${AGENT_EXIT:-0}" ;;
    "git clone"*)
        mkdir -p "$6/buildkite" && cp "$SUITE"/buildkite/check-change.sh "$6/buildkite/" ;;
    make*) exit "${MAKE_EXIT:-0}" ;;
esac
"""


@dataclass
class Ran:
    code: int
    calls: list[list[str]]
    output: str

    def of(self, name: str) -> list[list[str]]:
        return [call[1:] for call in self.calls if call[0] == name]


class Machine:
    """A folder with vLLM's checkout, and stand-ins for what the scripts start."""

    def __init__(self, root: Path, *programs: str) -> None:
        self.root = root
        self.checkout = root / "vllm"
        self.checkout.mkdir()
        (root / "bin").mkdir()
        for name in programs:
            (root / "bin" / name).write_text(STAND_IN, encoding="utf-8")
            (root / "bin" / name).chmod(0o755)

    def run(self, command: str, env: Mapping[str, str]) -> Ran:
        record = self.root / "record"
        record.write_text("", encoding="utf-8")
        path = f"{self.root / 'bin'}{os.pathsep}{os.defpath}"
        given = {"PATH": path, "RECORD": str(record), "SUITE": str(ROOT), **env}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command],
            cwd=self.checkout,
            env=given,
            capture_output=True,
            text=True,
            check=False,
        )
        lines = record.read_text(encoding="utf-8").splitlines()
        calls = [line.rstrip("\t").split("\t") for line in lines]
        return Ran(done.returncode, calls, done.stdout + done.stderr)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, "rocm-conformance", "buildkite-agent", "git", "make")


SCRIPT = f"{ROOT}/buildkite/check-change.sh"


@pytest.mark.parametrize(("code", "style"), [(0, "success"), (1, "error"), (75, "warning")])
def test_the_script_s_exit_code_is_the_check_s_and_it_is_annotated(
    machine: Machine, code: int, style: str
) -> None:
    results = str(machine.root / "out")
    given = {"CHECK_EXIT": str(code), "CONFORMANCE_RESULTS": results, "AGENT_EXIT": "3"}
    ran = machine.run(f"{SCRIPT} . --target 'RX 9070 XT'", given)
    assert ran.code == code
    (asked,) = ran.of("rocm-conformance")
    checkout = str(machine.checkout)
    assert asked == ["check", checkout, "--results", results, "--target", "RX 9070 XT"]
    (annotated,) = ran.of("buildkite-agent")
    assert annotated[:3] == ["annotate", "--style", style]
    assert ["what moves"] in ran.calls


def test_the_branch_that_a_pull_request_goes_to_is_fetched(machine: Machine) -> None:
    given = {"BUILDKITE_PULL_REQUEST_BASE_BRANCH": "main", "CONFORMANCE_RESULTS": "out"}
    ran = machine.run(f"{SCRIPT} .", given)
    (fetched,) = ran.of("git")
    assert fetched[-1] == "+refs/heads/main:refs/remotes/origin/main"
    assert ran.calls.index(["git", *fetched]) < len(ran.calls) - 2


def test_what_an_earlier_job_left_is_not_annotated(machine: Machine) -> None:
    stale = machine.root / "out" / "report"
    stale.mkdir(parents=True)
    (stale / "annotation.md").write_text("of yesterday")
    given = {"NO_NOTE": "1", "CHECK_EXIT": "75", "CONFORMANCE_RESULTS": str(machine.root / "out")}
    ran = machine.run(f"{SCRIPT} .", given)
    assert (ran.code, ran.of("buildkite-agent")) == (75, [])


def test_a_suite_that_cannot_be_installed_is_no_verdict(tmp_path: Path) -> None:
    ran = Machine(tmp_path, "make").run(f"{SCRIPT} .", {"MAKE_EXIT": "2"})
    assert ran.code == 75


def test_the_buildkite_step(machine: Machine) -> None:
    """Its commands are run one after the other in one shell, as the agent does."""
    loaded = YAML(typ="safe").load((ROOT / "buildkite/change.yaml").read_text(encoding="utf-8"))
    (step,) = loaded["steps"]
    script = "\n".join(step["commands"]).replace("$$", "$")
    given = {"CONFORMANCE_SUITE": "https://example.org/a b", "BUILDKITE_JOB_ID": "j"}
    ran = machine.run(script, {**given, "CHECK_EXIT": "1"})
    assert ran.code == 1
    (cloned,) = ran.of("git")
    assert "https://example.org/a b" in cloned
    (asked,) = ran.of("rocm-conformance")
    assert asked[:2] == ["check", str(machine.checkout)]
    assert asked[3] == f"{machine.checkout}/{step['artifact_paths'][0].partition('/')[0]}"
    assert {rule["exit_status"] for rule in step["retry"]["automatic"]} == {75, 130, -1}
    assert "soft_fail" not in step


# ---- the action ------------------------------------------------------------------------------


def action_step(**inputs: str) -> tuple[str, dict[str, str]]:
    """The script of the action's step that checks, and its variables for these inputs."""
    action = YAML(typ="safe").load((ROOT / "action.yml").read_text(encoding="utf-8"))
    (step,) = [step for step in action["runs"]["steps"] if step.get("id") == "check"]
    given = {name: about["default"] for name, about in action["inputs"].items()} | inputs
    values = {f"${{{{ inputs.{name} }}}}": value for name, value in given.items()}
    values |= {"${{ github.action_path }}": str(ROOT), "${{ runner.temp }}": "/nowhere"}
    env = dict(step["env"])
    for expression, value in values.items():
        env = {name: text.replace(expression, value) for name, text in env.items()}
    assert "${{" not in step["run"]  # an input in the text would be code
    return step["run"], env


@pytest.mark.parametrize("code", [0, 1, 75])
def test_the_action_ends_as_the_check_and_writes_its_summary(machine: Machine, code: int) -> None:
    run, env = action_step(arguments="--target 'RX 9070 XT' --suite selection", base="origin/x y")
    files = {n: str(machine.root / n.lower()) for n in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    results = {"CONFORMANCE_RESULTS": str(machine.root / "out"), "CHECK_EXIT": str(code)}
    ran = machine.run(run, {**env, **files, **results})
    assert ran.code == code
    (asked,) = ran.of("rocm-conformance")
    assert asked[4:] == [
        *("--base", "origin/x y"),
        *("--target", "RX 9070 XT", "--suite", "selection"),
    ]
    outputs = (machine.root / "github_output").read_text(encoding="utf-8")
    assert outputs == f"exit-code={code}\nreport={machine.root}/out/report\n"
    summary = (machine.root / "github_step_summary").read_text(encoding="utf-8")
    assert summary == "what moves\n"
    assert ran.of("buildkite-agent") == []


def test_inputs_of_the_action_are_never_code(machine: Machine) -> None:
    hostile = "$(touch hacked); `touch hacked`"
    run, env = action_step(arguments=f"--target '{hostile}'", base=hostile)
    files = {"GITHUB_OUTPUT": "/dev/null", "CONFORMANCE_RESULTS": str(machine.root / "out")}
    ran = machine.run(run, {**env, **files})
    assert ran.of("rocm-conformance")[0][4:] == ["--base", hostile, "--target", hostile]
    assert not list(machine.root.rglob("hacked"))
