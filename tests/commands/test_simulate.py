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
from conformance.errors import InfrastructureError
from conformance.subjects.base import Options
from conformance.subjects.workers import WorkerSubject
from conformance.suites.upstream.machine import SIMULATED, VARIABLE
from conformance.suites.upstream.recorded import Recorded, counted, read_record


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


def test_a_run_that_left_no_record_has_no_cases(tmp_path: Path) -> None:
    assert read_record(tmp_path / "no-such-record") == []


def test_a_case_that_took_its_process_along_is_told(tmp_path: Path) -> None:
    record = tmp_path / "cases.jsonl"
    lines = ['{"begun": "a"}', '{"case": "a", "ended": "passed", "message": ""}', '{"begun": "b"}']
    record.write_text("\n".join([*lines, '{"case": "b", "en']), encoding="utf-8")
    ended = {case.case: case.ended for case in read_record(record)}
    assert ended == {"a": "passed", "b": "errored"}
    assert read_record(record)[0] == Recorded("a", "passed")


CASES = """
import os, pytest
def test_right(): pass
def test_wrong(): assert 1 == 2
def test_endless():
    while True:
        try:
            while True: pass
        except Exception: pass
def test_lacks_a_package(): import no_such_package_at_all
def test_lacks_a_fixture(no_such_fixture): pass
def test_needs_memory(): raise MemoryError
def test_dies(): os._exit(9)
@pytest.mark.parametrize("i", range(9))
def test_many(i): pass
class Violation(Exception): pass
def test_violates():
    try: raise Violation("8 bytes past the end of K")
    except Violation as error: raise RuntimeError("launch failed") from error
"""


SAYS = (
    "4 passed, 1 failed, 1 violated, 1 too-slow, 3 unsupported",
    "failed: test_it.py::test_wrong: AssertionError: assert 1 == 2",
    "too-slow: test_it.py::test_endless: took more than 0.1 s",
    "unsupported: test_it.py::test_lacks_a_package: needs a package",
    "unsupported: test_it.py::test_lacks_a_fixture: the harness has no",
    "unsupported: test_it.py::test_needs_memory: needs more memory",
    "violated: test_it.py::test_violates: 8 bytes past the end of K",
)


def limited(*options: str, only: str) -> int:
    on = ("--gpu", "MI355X", "--subject", "vllm", "--limit", "0.1", *options)
    return run_cli(["simulate", *on, "--", "pytest", "-v", "test_it.py", "-k", only])


def test_how_cases_end_is_told_apart(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_it.py").write_text(CASES, encoding="utf-8")
    assert limited("--sample", "3", "--seed", "1", only="not dies") == 1
    said = capfd.readouterr()
    assert [text for text in SAYS if text not in said.err] == []
    first = {line.split()[0] for line in said.out.splitlines() if "test_many" in line}
    assert limited("--sample", "3", "--seed", "2", only="many or dies") == 75
    said = capfd.readouterr()
    assert "errored: test_it.py::test_dies: its process ended" in said.err
    assert len(first) == 3
    assert first != {line.split()[0] for line in said.out.splitlines() if "test_many" in line}


@pytest.mark.parametrize(
    ("code", "ended", "expected"),
    [
        (1, ["passed", "failed"], 1),
        (1, ["passed", "violated"], 1),
        (1, ["passed", "unsupported", "too-slow", "skipped"], 0),
        (1, ["unsupported", "too-slow"], 75),
        (0, ["skipped"], 75),
        (0, ["passed"], 0),
        (2, ["unsupported"], 75),
        (2, [], 130),
        (3, [], 70),
        (4, [], 2),
        (5, [], 75),
        (-9, ["passed", "errored"], 75),
    ],
)
def test_exit_codes(code: int, ended: list[str], expected: int) -> None:
    counts = counted(Recorded(str(number), each) for number, each in enumerate(ended))
    try:
        assert module.exit_code(code, counts) == expected
    except InfrastructureError as error:
        assert error.exit_code == expected


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--gpu", "MI300X", "--subject", "reference", "--", "true"], "commands of a vLLM"),
        (["--gpu", "H100", "--subject", "vllm", "--", "true"], "'H100'"),
        (["--gpu", "MI300X", "--subject", "vllm", "--", "no-such-program"], "cannot be run"),
        (["--gpu", "MI300X", "--subject", "vllm"], "COMMAND"),
        (["--gpu", "MI300X", "--subject", "vllm", "--device", "gpu", "--", "true"], "isa:<gpu>"),
        (["--gpu", "MI300X", "--subject", "vllm", "--device", "isa:MI355X", "--", "true"], "same"),
        (["--gpu", "MI300X", "--subject", "vllm", "--device", "isa:H100", "--", "true"], "'H100'"),
        (["--gpu", "MI300X", "--subject", "vllm", "--limit", "nan", "--", "true"], "nan"),
        (["--gpu", "MI300X", "--subject", "vllm", "--sample", "0", "--", "true"], "--sample"),
        (["--gpu", "MI300X", "--subject", "vllm", "--limit", "3", "--", "true"], "pytest's cases"),
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
