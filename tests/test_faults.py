"""Wrong selectors, and the requirements that must catch each of them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from faults.catalogue import CONFORMING, FAULTS
from faults.fault import EDITION, Fault, changes_something

from conformance.requirements import requirements_of
from conformance.results import CaseResult, Outcome, Run, read_results

WORKER = Path(__file__).parent / "faults" / "worker.py"
CHECKOUT = Path(__file__).parents[1]
# Requirements that no fault of a selector can break.
OTHERS = {
    "REM-008": "about this repository's own files",
    "DOC-001": "about the page of a source tree, compared with classes that a fake has not",
    "DOC-002": "likewise",
}


def judge(fault: Fault, folder: Path) -> tuple[int, Run, str]:
    """What the suite says of a build: its exit code, its record, what it printed."""
    for path, text in fault.files.items():
        file = folder / "tree" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    worker = [sys.executable, str(WORKER), fault.name]
    worker += [str(folder / "tree" / "vllm")] if fault.files else []
    command = [sys.executable, "-m", "conformance", "run", "--edition", EDITION, "-n", "1"]
    command += ["--subject", f"worker:{shlex.join(worker)}", "--quick", "--sweep", "300"]
    command += ["--results", str(folder / "results")]
    for cell in fault.cells:
        command += ["--cell", cell]
    for suite in fault.suites:
        command += ["--suite", suite]
    ended = subprocess.run(
        command, cwd=CHECKOUT, env=os.environ, capture_output=True, text=True, check=False
    )
    said = ended.stdout + ended.stderr
    return ended.returncode, read_results(folder / "results" / "results.jsonl"), said


def ended_as(run: Run, outcome: Outcome) -> list[CaseResult]:
    return [case for case in run.cases if case.outcome is outcome]


@pytest.mark.parametrize("cells", [("rocm62-aiter-*",), ("rocm62-noaiter-*",)], ids="".join)
def test_a_build_without_a_fault_passes_everything(cells: tuple[str, ...], tmp_path: Path) -> None:
    fault = Fault("none", (), files=CONFORMING.files, cells=cells, suites=CONFORMING.suites)
    code, run, said = judge(fault, tmp_path)
    assert code == 0, said
    assert run.complete, run.problems
    assert {case.outcome for case in run.cases} == {Outcome.PASSED, Outcome.UNSUPPORTED}
    passed = {case.requirement for case in ended_as(run, Outcome.PASSED)}
    assert {"SEL-010", "CAP-010", "PAG-001", "VIT-006", "REM-001", "REM-003", "REM-004"} <= passed


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_caught_by_the_requirement_that_names_it(fault: Fault, tmp_path: Path) -> None:
    code, run, said = judge(fault, tmp_path)
    assert code == 1, said
    assert run.complete, run.problems
    assert not ended_as(run, Outcome.ERRORED)
    failed = ended_as(run, Outcome.FAILED)
    missed = set(fault.caught_by) - {case.requirement for case in failed}
    assert not missed, f"only these failed: {sorted({case.requirement for case in failed})}"
    for case in failed:
        assert "expected " in case.message, case
        assert ", got " in case.message or ", but " in case.message, case


def test_every_requirement_catches_a_fault() -> None:
    caught = {identifier for fault in FAULTS for identifier in fault.caught_by}
    assert caught == requirements_of(EDITION).keys() - OTHERS.keys()


def test_every_fault_is_one() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(names) == len(set(names)) >= 28
    assert all(fault.caught_by and changes_something(fault) for fault in FAULTS)
    assert not changes_something(Fault("none", ()))
