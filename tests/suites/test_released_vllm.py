"""The real releases on either side of pull request 36702, judged from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conformance.requirements import PULL_36702, requirements_of
from conformance.results import Outcome, Run, read_results

pytestmark = pytest.mark.vllm


def judge(folder: Path, edition: str, *targets: str) -> tuple[int, Run, str]:
    """A quick run of vLLM 0.18.1 over three cells, on some targets."""
    command = [sys.executable, "-m", "conformance", "run", "--subject", "vllm==0.18.1", "-n", "1"]
    command += ["--edition", edition, "--quick", "--sweep", "500", "--results", str(folder)]
    command += ["--suite", "selection", "--suite", "removal"]
    command += ["--cell", "rocm62-aiter-*", "--cell", "rocm62-noaiter-nomha"]
    for target in targets:
        command += ["--target", target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, read_results(folder / "results.jsonl"), done.stdout + done.stderr


def failed(run: Run) -> set[str]:
    return {case.requirement for case in run.cases if case.outcome is Outcome.FAILED}


def test_0181_fails_exactly_what_pull_request_36702_introduced(tmp_path: Path) -> None:
    code, run, output = judge(tmp_path, "0.19", "gfx90a", "gfx942", "gfx1100")
    introduced = {r.id for r in requirements_of("0.19").values() if r.introduced_by == PULL_36702}
    assert code == 1, output
    assert failed(run) == introduced
    assert "NOT CONFORMANT" in output
    assert all(requirement in output for requirement in introduced)


def test_0181_meets_its_own_edition(tmp_path: Path) -> None:
    code, run, output = judge(tmp_path, "0.18", "gfx942")
    assert (code, failed(run)) == (0, set()), output
