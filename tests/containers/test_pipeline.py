"""Buildkite's pipeline: its schema, and what no schema says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from conformance.cli import run_cli
from conformance.containers.buildkite_pipeline import (
    PipelineOptions,
    pipeline,
    pipeline_text,
    queues,
)
from conformance.errors import UsageError
from conformance.matrix.stacks import all_cells, load_stacks, parse_cell
from conformance.mutation.parts import PARTS
from conformance.suites.codegen.test_codegen import TARGETS as CODEGEN_TARGETS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GPUS = ("gfx90a", "gfx942", "gfx950")
WHOLE = PipelineOptions(targets=GPUS, shards=2)


def steps(options: PipelineOptions, kind: str) -> list[dict[str, Any]]:
    return [s for s in pipeline(options)["steps"] if str(s.get("key")).startswith(kind)]


def validate(
    text: str, tmp_path: Path, name: str = "pipeline.json"
) -> subprocess.CompletedProcess[str]:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.buildkite"]
    return subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("options", [PipelineOptions(), WHOLE], ids=["default", "whole"])
def test_the_schema_accepts_it(options: PipelineOptions, tmp_path: Path) -> None:
    done = validate(pipeline_text(options), tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_schema_accepts_the_pipeline_of_the_releases(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "buildkite" / "releases.yaml").read_text(encoding="utf-8")
    assert validate(text, tmp_path, "releases.yaml").returncode == 0
    broken = text.replace("timeout_in_minutes: 45", "timeout_in_minutes: soon")
    assert validate(broken, tmp_path, "releases.yaml").returncode == 1
    assert "command: buildkite/check-releases.sh" in text


def test_the_pipeline_of_the_mutants_has_every_part(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "buildkite" / "mutants.yaml").read_text(encoding="utf-8")
    assert validate(text, tmp_path, "mutants.yaml").returncode == 0
    assert f"    matrix:\n{''.join(f'      - {part}{chr(10)}' for part in PARTS)}    agents" in text
    assert "command: buildkite/check-mutants.sh" in text


def test_the_pipeline_of_what_is_served_has_every_target(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "buildkite" / "served.yaml").read_text(encoding="utf-8")
    assert validate(text, tmp_path, "served.yaml").returncode == 0
    listed = "".join(f"      - {target}\n" for target in CODEGEN_TARGETS)
    assert f"    matrix:\n{listed}    agents" in text
    assert "--suite codegen --configurations served" in text


def test_the_schema_bites(tmp_path: Path) -> None:
    text = pipeline_text(PipelineOptions()).replace(
        '"timeout_in_minutes": 60', '"parallelism": "x"'
    )
    assert validate(text, tmp_path).returncode == 1


def test_every_cell_exactly_once() -> None:
    commands = [step["command"].split() for step in steps(PipelineOptions(), "cell-")]
    assert [words[:2] for words in commands] == [
        ["buildkite/run-cell.sh", cell.name] for cell in all_cells()
    ]


def test_every_cell_once_on_each_gpu_of_its_stack_that_has_a_queue() -> None:
    found = [tuple(step["command"].split()[1:3]) for step in steps(WHOLE, "cell-")]
    assert sorted(found) == sorted(
        (cell.name, gpu) for cell in all_cells() for gpu in GPUS if gpu in cell.stack.targets
    )


def test_the_queue_is_the_target_s() -> None:
    for step in steps(WHOLE, "cell-"):
        assert step["agents"] == {"queue": queues()[step["command"].split()[2]]}
    assert {step["agents"]["queue"] for step in steps(WHOLE, "image-")} == {"amd-cpu"}


def test_keys_are_unique_and_well_formed() -> None:
    keys = [step["key"] for step in pipeline(WHOLE)["steps"] if "key" in step]
    assert len(keys) == len(set(keys))
    assert all(re.fullmatch(r"[A-Za-z0-9_:-]{1,100}", key) for key in keys)


def test_dependencies_exist_come_first_and_are_the_cell_s_stack() -> None:
    before: set[str] = set()
    for step in pipeline(WHOLE)["steps"]:
        if needs := step.get("depends_on"):
            assert needs in before
            cell = parse_cell(step["command"].split()[1])
            assert needs == f"image-{cell.stack.name}"
        before.add(str(step.get("key")))
    assert {f"image-{stack.name}" for stack in load_stacks()} < before


def test_nothing_fails_softly_and_only_infrastructure_is_tried_again() -> None:
    for step in pipeline(WHOLE)["steps"]:
        assert "soft_fail" not in step
        if "command" not in step:
            continue
        rules = step["retry"]["automatic"]
        codes = {rule["exit_status"] for rule in rules if "exit_status" in rule}
        assert codes == {75, 130, -1, 134}
        assert all(rule["limit"] == 1 for rule in rules)
        assert step["timeout_in_minutes"] > 0


def test_the_report_waits_for_all_and_runs_whatever_failed() -> None:
    *_, wait, report = pipeline(WHOLE)["steps"]
    assert wait == {"wait": None, "continue_on_failure": True}
    assert report["env"] == {
        "CONFORMANCE_STEPS": " ".join(step["key"] for step in steps(WHOLE, "cell-")),
        "CONFORMANCE_SHARDS": "2",
    }


def test_limits_of_buildkite() -> None:
    everything = pipeline(WHOLE)["steps"]
    # Jobs a pipeline upload may create: https://buildkite.com/docs/platform/limits
    assert sum(step.get("parallelism", 1) for step in everything) <= 500
    with pytest.raises(UsageError, match="--shards 101: expected 1 to 100"):
        PipelineOptions(shards=101)


def test_a_dollar_is_the_job_s_own() -> None:
    text = pipeline_text(PipelineOptions(arguments=("--results", "$HOME/x")))
    assert "$$HOME/x" in text
    assert not re.search(r"(?<!\$)\$(?!\$)", text)


def test_unknown_targets_and_cells_say_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"gfx1100.*Allowed: gfx90a, gfx942, gfx950"):
        PipelineOptions(targets=("gfx1100",))
    with pytest.raises(UsageError, match="none of gfx950 is a target of rocm62-aiter-mha"):
        pipeline(PipelineOptions(cells=("rocm62-aiter",), targets=("gfx950",)))


def test_the_step_for_vllm_installs_all_but_what_its_image_has() -> None:
    root = Path(__file__).resolve().parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    step = (root / "buildkite" / "vllm-step.yaml").read_text(encoding="utf-8")
    (words,) = re.findall(r"- pip install (?!--)(.*)", step)
    assert set(words.split()) == needed - {"torch", "triton", "numpy", "tomli"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--no-such-option"], "No such option"),
        (["--seed"], "requires an argument"),
        (["--results", "elsewhere"], "--results after --: each job of the pipeline has its own"),
        (["--cell", "rocm72-*"], "use the pipeline's --cell"),
        (["--shard=1/2"], "--shard after --"),
    ],
)
def test_arguments_that_no_job_could_take_are_refused_here(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["pipeline", "--", *arguments]) == 2
    found = capsys.readouterr()
    assert says in found.err
    assert found.out == ""


def test_arguments_of_run_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--quick", "--suite", "parity", "--subject", "worker:python 'a b.py'", "-n", "2"]
    assert run_cli(["pipeline", "--cell", "rocm72-*", "--", *given]) == 0
    assert shlex.join(given) in json.loads(capsys.readouterr().out)["steps"][1]["command"]


def test_arguments_are_quoted_for_the_shell() -> None:
    """An argument is one word of the job's command, whatever is in it."""
    given = ("--subject", "worker:python x.py", "'; touch x; echo '", "$HOME")
    text = pipeline_text(PipelineOptions(cells=("rocm72-*",), arguments=given))
    commands = [s["command"] for s in json.loads(text)["steps"] if "run-cell" in str(s)]
    assert commands
    for command in commands:
        assert shlex.split(command.replace("$$", "$"))[3:] == list(given)
