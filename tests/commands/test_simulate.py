"""``simulate``: a command sees an AMD machine, and a run that tested nothing is no success."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.cli import run_cli
from conformance.commands import simulate as module
from conformance.commands.simulate import SIMULATED, VARIABLE, Counted
from conformance.subjects.base import Options
from conformance.subjects.workers import WorkerSubject


@pytest.fixture(autouse=True)
def _own_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The subject is a Python without a vLLM: what is asked here needs none."""
    build = WorkerSubject("vllm", [sys.executable], Options("auto"))
    monkeypatch.setattr(module, "parse_subject", lambda *_: build)
    monkeypatch.chdir(tmp_path)


def simulated(*words: str) -> int:
    on = ("--gpu", "MI355X", "--aiter", "--env", "VLLM_ROCM_USE_AITER=1")
    return run_cli(["simulate", *on, "--subject", "vllm", "--", *words])


SEES = """
import amdsmi, aiter, json, os
(handle,) = amdsmi.amdsmi_get_processor_handles()
info = amdsmi.amdsmi_get_gpu_asic_info(handle)
found = {"target": info["target_graphics_version"], "aiter": os.environ["VLLM_ROCM_USE_AITER"]}
try:
    import flash_attn
except ImportError:
    found["flash_attn"] = "none"
open("seen", "w").write(json.dumps(found))
"""


def test_python_and_what_it_starts_see_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_ROCM_USE_AITER_MHA", "0")  # this machine's own: not the other's
    (tmp_path / "sees.py").write_text(SEES, encoding="utf-8")
    child = "import subprocess, sys; subprocess.run([sys.executable, 'sees.py'], check=True)"
    assert simulated("python", "-c", child) == 0
    found = json.loads((tmp_path / "seen").read_text(encoding="utf-8"))
    assert found == {"target": "gfx950", "aiter": "1", "flash_attn": "none"}


def test_another_python_sees_nothing_of_it() -> None:
    env = {k: v for k, v in os.environ.items() if k != VARIABLE}
    env["PYTHONPATH"] = str(SIMULATED)
    code = "import importlib.util as u; raise SystemExit(u.find_spec('amdsmi') is not None)"
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


def test_the_command_s_exit_code_is_its_own() -> None:
    assert simulated("python", "-c", "raise SystemExit(3)") == 3


TEST = """
import pytest, amdsmi
def test_here():
    assert {holds}
@pytest.mark.skip
def test_left_out():
    pass
"""


@pytest.mark.parametrize(("holds", "code"), [("amdsmi.amdsmi_init() is None", 0), ("False", 1)])
def test_pytest_s_verdict_is_the_verdict(holds: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TEST.format(holds=holds), encoding="utf-8")
    assert simulated("pytest", "-q", "test_it.py") == code


@pytest.mark.parametrize("arguments", [["-k", "left_out"], ["-k", "nothing_of_that_name"]])
def test_a_run_that_tested_nothing_is_no_success(
    arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_it.py").write_text(TEST.format(holds="True"), encoding="utf-8")
    assert simulated("pytest", "-q", "test_it.py", *arguments) == 75
    assert "0 passed" in capfd.readouterr().err


def test_counts_of_a_run_that_left_no_record() -> None:
    assert module._counted(Path("no-such-record")) == Counted()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--gpu", "MI300X", "--subject", "reference", "--", "true"], "commands of a vLLM"),
        (["--gpu", "H100", "--subject", "vllm", "--", "true"], "'H100'"),
        (["--gpu", "MI300X", "--subject", "vllm", "--", "no-such-program"], "cannot be run"),
        (["--gpu", "MI300X", "--subject", "vllm"], "COMMAND"),
    ],
)
def test_bad_input(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["simulate", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_release_s_tests_are_taken_without_its_vllm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source distribution holds vLLM itself, which must not hide the build that is asked."""
    tree = tmp_path / "vllm-9.9"
    (tree / "vllm").mkdir(parents=True)
    (tree / "vllm" / "__init__.py").write_text("raise ImportError('the wrong one')", "utf-8")
    (tree / "tests").mkdir()
    text = "import importlib.util as u\ndef test_it():\n    assert u.find_spec('vllm') is None\n"
    (tree / "tests" / "test_it.py").write_text(text, encoding="utf-8")
    build = WorkerSubject("vllm", [sys.executable], Options("auto"), source_tree=lambda: tree)
    monkeypatch.setattr(module, "parse_subject", lambda *_: build)
    assert simulated("pytest", "-q", "tests/test_it.py") == 0
    assert simulated("pytest", "-q", "tests/test_other.py") == 2
