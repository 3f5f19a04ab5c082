"""How a container ended: a verdict, or trouble that is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conformance.config import RunConfig
from conformance.containers.container_options import Limits
from conformance.reports.collect import collect
from conformance.reports.merge import merge
from conformance.results import CaseResult, JudgedSubject, Outcome, Run, RunHeader
from conformance.runners.cell_records import record_trouble
from conformance.runners.container_verdict import Ending, trouble

LIMITS = Limits(memory=512 * 2**20, cpus=2, seconds=60)
HEADER = RunHeader.now(
    edition="0.19",
    subjects=(JudgedSubject("reference", "0.19", True),),
    cells=("rocm72-aiter-mha",),
    suites=("selection",),
    seed=1,
    sweep=1,
)
CASE = CaseResult(
    suite="selection",
    name="a case",
    outcome=Outcome.PASSED,
    cells=("rocm72-aiter-mha",),
    subject="reference",
    subject_version="0.19",
    edition="0.19",
    requirement="SEL-001",
    source="",
    target="gfx942",
    platform="gfx942",
    simulated=True,
)
WHOLE = Run(HEADER, (CASE,), complete=True)
FAILED = Run(HEADER, (replace(CASE, outcome=Outcome.FAILED),), complete=True)
CUT = Run(HEADER, (CASE,), complete=False, problems=("results.jsonl has no footer",))


@pytest.mark.parametrize(("code", "run"), [(0, WHOLE), (1, FAILED)])
def test_a_whole_record_that_says_the_same_is_a_verdict(code: int, run: Run) -> None:
    assert trouble(Ending(code=code), run, LIMITS) is None


@pytest.mark.parametrize(
    ("ending", "run", "said"),
    [
        (Ending(code=1), None, "left no results"),
        (Ending(code=0), CUT, "its results are not whole: results.jsonl has no footer"),
        (Ending(code=0), FAILED, "ended with 0, and its results say 1"),
        (Ending(code=1, oom=True), FAILED, "for memory, of which it had 512 MiB"),
        (Ending(code=137, oom=True), None, "give it more with --memory"),
        (Ending(code=137), None, "killed from outside the run"),
        (Ending(code=143), None, "told to stop from outside"),
        (Ending(code=134), CUT, "GPU hang"),
        (Ending(code=139), CUT, "segmentation fault"),
        (Ending(code=127), None, "not one of this suite's"),
        (Ending(code=75), CUT, "reached no verdict"),
        (Ending(code=70), None, "a bug of it"),
        (Ending(code=2), None, "build the image from this checkout"),
        (Ending(code=42), None, "no exit code of this suite"),
        (Ending(timed_out=True), CUT, "stopped after its 60 s. Give it more with --cell-timeout"),
        (Ending(lost="refused", seconds=7), CUT, "went away after 7 s (refused): start it again"),
        (
            Ending(refused='error gathering device information while adding "/dev/kfd"'),
            None,
            "load the amdgpu driver",
        ),
        (Ending(refused="bind source path does not exist: /x"), None, "run beside the engine"),
        (Ending(refused="no space left"), None, "could not start the container: no space left"),
    ],
)
def test_trouble_says_what_happened_and_what_to_do(
    ending: Ending, run: Run | None, said: str
) -> None:
    problem = trouble(replace(ending, log="the last words"), run, LIMITS)
    assert problem is not None
    assert said in str(problem.args[0])
    assert problem.stderr == "the last words"
    kept = "1 finished cases are kept" if run else "No case had finished"
    assert kept in str(problem.args[0])


def test_a_part_that_left_nothing_is_on_record_as_that_part(tmp_path: Path) -> None:
    (cell,) = HEADER.cells
    for number in ("1", "3"):
        config = RunConfig(subjects=("reference",), cells=(cell,), shard=f"{number}/3")
        problem = trouble(Ending(timed_out=True), None, LIMITS)
        assert problem is not None
        record_trouble(tmp_path / number, cell, config, problem, image="an image")
    merged = merge(collect(tmp_path))
    assert "shards are missing: 2/3" in [p.text for p in merged.problems]
    assert any("was stopped after its 60 s" in case.message for case in merged.cases)
