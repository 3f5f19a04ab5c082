"""The real releases on either side of pull request 36702, judged from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conformance.requirements import PULL_36702, requirements_of
from conformance.results import Outcome, Run, read_results

pytestmark = pytest.mark.vllm


def judge(folder: Path, *arguments: str) -> tuple[int, Run, str]:
    """A quick run over the four cells of one stack."""
    command = [sys.executable, "-m", "conformance", "run", "--quick", "--cell", "rocm72-*"]
    done = subprocess.run(
        [*command, "--results", str(folder), "-n", "1", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, read_results(folder / "results.jsonl"), done.stdout + done.stderr


def failed(run: Run) -> set[str]:
    return {case.requirement for case in run.cases if case.outcome is Outcome.FAILED}


def test_0181_fails_exactly_what_pull_request_36702_introduced(tmp_path: Path) -> None:
    code, run, output = judge(tmp_path, "--subject", "vllm==0.18.1")
    introduced = {r.id for r in requirements_of("0.19").values() if r.introduced_by == PULL_36702}
    assert code == 1, output
    assert failed(run) == introduced
    assert "NOT CONFORMANT" in output
    assert all(requirement in output for requirement in introduced)


def test_0181_meets_its_own_edition(tmp_path: Path) -> None:
    code, run, output = judge(tmp_path, "--subject", "vllm==0.18.1", "--edition", "0.18")
    assert (code, failed(run)) == (0, set()), output
