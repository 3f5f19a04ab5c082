"""What commands print, for people and for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import jsonschema
import pytest
import torch

import conformance
from conformance.cache import CACHE_VARIABLE
from conformance.cli import run_cli
from conformance.commands.options import complete_gpu, complete_model
from conformance.matrix.stacks import match_cells
from conformance.subjects.vllm.cached_folders import made_once
from tests.support.schemas import valid

ROOT = Path(__file__).parents[2]
GPU = ("--gpu", "MI300X")
Printed = Callable[..., str]


@pytest.fixture(autouse=True)
def _a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`doctor` measures the cache: not the one that the machine has."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    def run(*arguments: str) -> str:
        assert run_cli(arguments) == 0
        return capsys.readouterr().out

    return run


JSON = {
    "cells": (("cells",), "cells"),
    "coverage": (("coverage", "--backend", "TRITON_MLA"), "coverage"),
    "doctor": (("doctor",), "doctor"),
    "a request": (("explain", *GPU), "explain"),
    "an error": (("explain", *GPU, "--sinks", "--backend", "ROCM_ATTN"), "explain"),
    "a tower": (("explain", *GPU, "--vit"), "explain"),
    "a model": (("explain", "--model", "gemma-3-4b-it", *GPU), "explain-model"),
    "a hybrid model": (("explain", "--model", "Qwen3-Next", *GPU), "explain-model"),
}


@pytest.mark.parametrize("name", JSON)
def test_json_is_as_the_schema_says(name: str, printed: Printed) -> None:
    arguments, definition = JSON[name]
    valid(json.loads(printed(*arguments, "--format", "json")), definition)


def test_the_schema_bites() -> None:
    with pytest.raises(jsonschema.ValidationError):
        valid([{"name": "python", "ok": "yes", "found": "3.11", "advice": ""}], "doctor")
    with pytest.raises(jsonschema.ValidationError):
        valid({"id": 1, "error": "odd", "message": "", "candidates": []}, "select")


def test_select_s_lines_are_as_the_schema_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["{}", '{"id": 7, "request": {"has_sink": true}, "backend": "ROCM_ATTN"}', "{"]
    file = tmp_path / "lines"
    file.write_text("\n".join(lines), encoding="utf-8")
    run_cli(["select", *GPU, str(file)])
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(answers) == len(lines)
    for answer in answers:
        valid(answer, "select")


def test_names_of_cells_a_line_each(printed: Printed) -> None:
    assert printed("cells", "--names").splitlines() == [c.name for c in match_cells(["*"])]


@pytest.mark.parametrize("command", ["cells", "doctor"])
def test_tables_are_not_wrapped_in_a_pipe(command: str, printed: Printed) -> None:
    lines = printed(command).splitlines()
    assert max(map(len, lines)) > 80
    assert all(line == line.rstrip() for line in lines)


def test_the_version_is_of_all_that_decides(printed: Printed) -> None:
    text = printed("--version").strip()
    for part in (conformance.__version__, torch.__version__, version("triton"), "Python 3."):
        assert part.partition("+")[0] in text


# ---- completion ------------------------------------------------------------------------------


def test_gpus_and_models_complete() -> None:
    assert [item.value for item in complete_gpu(None, None, "mi30")] == [
        *("MI300A", "MI300X", "MI308X", "MI300")
    ]
    assert [item.value for item in complete_model(None, None, "openai/gpt")] == [
        *("openai/gpt-oss-20b", "openai/gpt-oss-120b")
    ]
    assert [item.type for item in complete_model(None, None, "./conf")] == ["file"]


def test_the_documented_line_gives_a_shell_its_completion() -> None:
    page = (ROOT / "docs/reference/command-line.md").read_text(encoding="utf-8")
    assert 'eval "$(_ROCM_CONFORMANCE_COMPLETE=bash_source rocm-conformance)"' in page
    program = Path(sys.executable).parent / "rocm-conformance"
    done = subprocess.run(
        [program],
        env={**os.environ, "_ROCM_CONFORMANCE_COMPLETE": "bash_source"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "complete -o nosort -F" in done.stdout
    assert done.stdout.rstrip().endswith("rocm-conformance;") or "rocm-conformance" in done.stdout


# ---- doctor and the cache --------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a whole release, a damaged one, a half-made one, and compiled Python."""
    tmp_path /= "whole"
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    for name in ("0.18", "0.19"):
        made_once(tmp_path / "vllm" / name, fill, what=name, progress=lambda _text: None)
    (tmp_path / "vllm" / "0.18" / "file").unlink()
    (tmp_path / "vllm" / ".0.20.making-1").mkdir()
    (tmp_path / "bytecode").mkdir()
    (tmp_path / "bytecode" / "x.pyc").write_bytes(b"x" * 2000)
    return tmp_path


def fill(folder: Path) -> dict[str, str]:
    (folder / "file").write_bytes(b"x" * 1500)
    (folder / "vllm-0.19.0.dist-info").mkdir()
    (folder / "vllm-0.19.0.dist-info" / "METADATA").write_text("", encoding="utf-8")
    return {}


def test_doctor_shows_the_cache_and_names_what_is_damaged(cache: Path, printed: Printed) -> None:
    checks = {c["name"]: c for c in json.loads(printed("doctor", "--format", "json"))}
    assert checks["cache"]["found"].startswith(f"{cache}: ")
    assert "2 kB" in checks["cache: bytecode"]["found"]
    releases = checks["cache: vllm"]
    assert not releases["ok"]
    assert "damaged: .0.20.making-1, 0.18" in releases["found"]


def test_clean_removes_what_is_damaged_or_compiled_and_nothing_else(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["doctor", "--clean"]) == 0
    err = capsys.readouterr().err
    assert err.count("removed ") == 3
    assert f"removed {cache}/vllm/0.18 (file is missing)" in err
    assert (cache / "vllm" / "0.19" / "file").is_file()
    left = [entry.name for entry in (cache / "vllm").iterdir() if entry.is_dir()]
    assert left == ["0.19"]
    assert not (cache / "bytecode").exists()


def test_a_damaged_entry_is_named_and_replaced(cache: Path) -> None:
    said: list[str] = []
    made_once(cache / "vllm" / "0.18", fill, what="vLLM 0.18", progress=said.append)
    assert said == [
        "vLLM 0.18: the copy in the cache is damaged (file is missing) and is made again"
    ]
    assert (cache / "vllm" / "0.18" / "file").is_file()
