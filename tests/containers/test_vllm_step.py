"""The step for vLLM's own AMD pipeline, run as vLLM's CI would: from template to exit code.

What is modelled here is how vLLM's template and its script hand commands on:
https://github.com/vllm-project/ci-infra/blob/main/buildkite/test-template-amd.j2
https://github.com/vllm-project/vllm/blob/v0.33.0/.buildkite/scripts/hardware_ci/run-amd-test.sh
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from jinja2 import Environment
from ruamel.yaml import YAML

from conformance.cli import cli

STEP = Path(__file__).parents[2] / "buildkite" / "vllm-step.yaml"
# The commands as one double-quoted YAML text of a variable, which the script gives to a shell.
BY_VARIABLE = """\
env:
  VLLM_TEST_COMMANDS: "cd {{ step.working_dir | safe }} && {{ step.commands | join(' && ') |
    replace('"', '\\\\"') | safe }}"
"""
# Until 0.19 they were a double-quoted argument of the script's command line.
BY_ARGUMENT = """\
command: bash run "cd {{ step.working_dir | safe }} && {{ step.commands | join(' && ') | safe }}"
"""
STAND_IN = """#!/bin/sh
name=${0##*/}
{ printf '%s\\t' "$name" "$@"; echo; } >> "$RECORD"
case $name in
    pip) exit "${PIP_EXIT:-0}" ;;
    buildkite-agent) exit "${AGENT_EXIT:-0}" ;;
esac
mkdir -p results/cell
touch results/results.jsonl results/junit-a.xml results/cell/junit-b.xml
exit "${RUN_EXIT:-0}"
"""
WHEEL = "https://example.org/conformance.whl"


@dataclass
class Ran:
    """How the step's shell ended, and the words of each program that it started."""

    code: int
    calls: list[list[str]]


class Ci:
    """vLLM's CI in a folder: stand-ins for the programs of its image."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin").mkdir()
        for name in ("pip", "rocm-conformance", "buildkite-agent"):
            (root / "bin" / name).write_text(STAND_IN, encoding="utf-8")
            (root / "bin" / name).chmod(0o755)
        (root / "results" / "old").mkdir(parents=True)
        (root / "results" / "old" / "file").touch()  # what a pattern could match here

    def run(self, step: str, template: str, **env: str) -> Ran:
        """The step from its text in test-amd.yaml to the end of its shell."""
        (loaded,) = YAML(typ="safe").load(step)
        loaded["working_dir"] = str(self.root)
        text = Environment(autoescape=True).from_string(template).render(step=loaded)
        uploaded = YAML(typ="safe").load(self._uploaded(text))
        record = self.root / "record"
        record.write_text("", encoding="utf-8")
        path = f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}"
        given = {"PATH": path, "RECORD": str(record), **env}
        if "env" in uploaded:
            command = ["bash", "-o", "pipefail", "-c", uploaded["env"]["VLLM_TEST_COMMANDS"]]
            given["CONFORMANCE_WHEEL"] = WHEEL
        else:
            (self.root / "run").write_text('exec bash -c "$*"\n', encoding="utf-8")
            command = ["bash", "-c", f"export CONFORMANCE_WHEEL={WHEEL}\n{uploaded['command']}"]
        done = subprocess.run(command, cwd=self.root, env=given, check=False)
        lines = record.read_text(encoding="utf-8").splitlines()
        return Ran(done.returncode, [line.rstrip("\t").split("\t") for line in lines])

    def _uploaded(self, text: str) -> str:
        """What the agent makes of a pipeline: variables are its own, and $$ is a dollar sign."""
        own = {"CONFORMANCE_WHEEL": "an agent has none"}

        def value(found: re.Match[str]) -> str:
            return "$" if found[0] == "$$" else own.get(found[1], "")

        return re.sub(r"\$\$|\$\{?(\w+)\}?", value, text)


@pytest.fixture
def ci(tmp_path: Path) -> Ci:
    return Ci(tmp_path)


TEMPLATES = pytest.mark.parametrize(
    "template", [BY_VARIABLE, BY_ARGUMENT], ids=["variable", "argument"]
)


@TEMPLATES
@pytest.mark.parametrize("verdict", [0, 1, 75])
def test_the_words_arrive_whole_and_the_verdict_is_the_step_s(
    ci: Ci, template: str, verdict: int
) -> None:
    step = STEP.read_text(encoding="utf-8")
    ran = ci.run(step, template, RUN_EXIT=str(verdict))
    assert ran.code == verdict
    assert ran.calls[0] == ["pip", "install", "--no-deps", WHEEL]
    assert ran.calls[1][:2] == ["pip", "install"]
    judged = "rocm-conformance run --subject vllm --cell rocm72-aiter-* --results results"
    assert ran.calls[2] == judged.split()
    # One pattern, for the agent to match: JUnit files, the record and what lies below.
    assert ran.calls[3:] == [["buildkite-agent", "artifact", "upload", "results/**/*"]]


@TEMPLATES
def test_what_goes_wrong_before_or_after_is_no_other_verdict(ci: Ci, template: str) -> None:
    step = STEP.read_text(encoding="utf-8")
    failed = ci.run(step, template, PIP_EXIT="9")
    assert (failed.code, [call[0] for call in failed.calls]) == (9, ["pip", "buildkite-agent"])
    lost = ci.run(step, template, AGENT_EXIT="3", RUN_EXIT="1")
    assert lost.code == 1


@TEMPLATES
@pytest.mark.parametrize(
    ("now", "broken"),
    [
        ("set -f", "true"),
        ("'rocm72-aiter-*'", '"rocm72-aiter-* x"'),
        ("trap 'buildkite-agent artifact upload results/**/*' EXIT", "true"),
        ("$$CONFORMANCE_WHEEL", "$CONFORMANCE_WHEEL"),
    ],
)
def test_a_step_that_loses_its_quoting_or_its_artifact_is_noticed(
    ci: Ci, template: str, now: str, broken: str
) -> None:
    step = STEP.read_text(encoding="utf-8")
    assert now in step
    whole = ci.run(step, template).calls
    assert ci.run(step.replace(now, broken), template).calls != whole


def test_the_command_line_is_one_that_run_takes() -> None:
    (step,) = YAML(typ="safe").load(STEP.read_text(encoding="utf-8"))
    words = step["commands"][-1].replace("'", "").split()
    run = cli.get_command(click.Context(cli), "run")
    assert run is not None
    assert run.make_context("run", words[2:]).params["cells"] == ("rocm72-aiter-*",)
