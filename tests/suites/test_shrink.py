"""``run --shrink``: the smallest problem of each finding, as a file, a case and a line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.config import RunConfig
from conformance.errors import InfrastructureError
from conformance.mutation.edit import Edit
from conformance.problems.families import problems_for
from conformance.problems.files import as_text, read_problems
from conformance.problems.problem import Problem
from conformance.reports.summary import summarise
from conformance.results import SMALLEST, CaseResult, Identity, Outcome, Run
from conformance.results.folder import SHRUNK
from conformance.suites.case import Measured, Nonconformance
from conformance.suites.parity import SUITE
from conformance.suites.parity import shrink as shrinking
from tests.suites.test_parity import CELL, ended

PROBLEMS = problems_for("TRITON_ATTN", "quick", 0)
# Problems with keys to leave out.
FIRST, SECOND = [problem for problem in PROBLEMS if max(problem.seq_lens) > 9][:2]
WRONG = Identity("wrong-value", ("unified_2d",))


def config_of(**options: Any) -> RunConfig:
    return RunConfig(
        *(("reference",), (CELL,), ("parity",)),
        seed=0,
        tier="quick",
        suite_options={"shrink": True, "shrink_seconds": 60.0, **options},
    )


def failed(problem: Problem, **fields: Any) -> CaseResult:
    case = CaseResult(
        suite="parity",
        name=f"PAR-004 {problem.backend} [{problem.id}]",
        outcome=Outcome.FAILED,
        cells=(CELL,),
        subject="reference",
        subject_version="0.19",
        edition="0.19",
        requirement="PAR-004",
        source="",
        target="",
        platform="device interpreter",
        simulated=True,
        backend=problem.backend,
        message="wrong",
        identities=(WRONG,),
    )
    return replace(case, **fields)


Finds = Callable[[Problem], tuple[Identity, ...]]


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Callable[[Finds], list[Problem]]:
    """Makes problems end as a function says; gives those that were asked."""

    def by(finds: Finds) -> list[Problem]:
        asked: list[Problem] = []

        def run(case: Any, problem: Problem, *_: Any) -> Measured:
            assert case.problem is problem
            asked.append(problem)
            if found := finds(problem):
                raise Nonconformance("wrong in small", identities=found)
            return Measured()

        monkeypatch.setattr(shrinking, "run_problem", run)
        return asked

    return by


def shrunk(
    folder: Path, *cases: CaseResult, config: RunConfig | None = None
) -> tuple[list[CaseResult], list[str]]:
    said: list[str] = []
    found = SUITE.follow_ups(config or config_of(), cases, folder, said.append)
    return [*found], said


def past_two_keys(problem: Problem) -> tuple[Identity, ...]:
    return (WRONG,) if max(problem.seq_lens) > 2 else ()


def test_the_smallest_problem_is_a_file_a_case_and_a_line(
    judged: Callable[[Finds], list[Problem]], tmp_path: Path
) -> None:
    judged(past_two_keys)
    (case,), said = shrunk(tmp_path, failed(FIRST))
    (path,) = (tmp_path / SHRUNK).glob("*.json")
    (problem,) = read_problems(path)
    assert problem.seq_lens == (3,)
    assert problem.id == f"{FIRST.id}-{SMALLEST}"
    assert case.name == f"PAR-004 TRITON_ATTN [{problem.id}]"
    assert (case.outcome, case.message) == (Outcome.FAILED, "wrong in small")
    assert case.identities == (WRONG,)
    assert json.dumps(problem.to_json()) in case.detail
    words = shlex.split(case.reproduce)
    assert words[:4] == ["rocm-conformance", "run", "--suite", "parity"]
    assert words[-2:] == ["--problem", str(path)]
    (line,) = [*SUITE.artefacts([failed(FIRST), case], tmp_path)]
    assert case.reproduce in line
    assert any("tried" in text for text in said)


def test_the_summary_shows_the_smallest(
    judged: Callable[[Finds], list[Problem]], tmp_path: Path
) -> None:
    judged(past_two_keys)
    (case,), _ = shrunk(tmp_path, failed(FIRST))
    for cases in ((failed(FIRST), case), (case, failed(FIRST))):
        (subject,) = summarise(Run(None, cases, complete=True)).subjects
        (finding,) = subject.findings["failed"]
        assert case.reproduce in finding.reproduce
        assert "wrong in small" in finding.first


def test_another_finding_is_not_the_same(
    judged: Callable[[Finds], list[Problem]], tmp_path: Path
) -> None:
    """Below 20 keys it fails too, but in another way."""

    def finds(problem: Problem) -> tuple[Identity, ...]:
        longest = max(problem.seq_lens)
        other = (
            Identity("non-finite", ("unified_2d",)),
            Identity("wrong-value", ("unified_3d",)),
            Identity("wrong-value", ("unified_2d",), ("window-one-short",)),
        )
        return (WRONG,) if longest >= 20 else (other[longest % 3],)

    judged(finds)
    large = next(p for p in PROBLEMS if max(p.seq_lens) > 20)
    shrunk(tmp_path, failed(large))
    (path,) = (tmp_path / SHRUNK).glob("*.json")
    assert max(read_problems(path)[0].seq_lens) == 20


def test_each_finding_is_shrunk_once_from_its_cheapest_problem(
    judged: Callable[[Finds], list[Problem]], tmp_path: Path
) -> None:
    judged(past_two_keys)
    cheap, dear = sorted((FIRST, SECOND), key=lambda p: p.cost)
    cases, _ = shrunk(tmp_path, failed(dear), failed(cheap))
    assert [case.name for case in cases] == [f"PAR-004 TRITON_ATTN [{cheap.id}-{SMALLEST}]"]
    other = failed(dear, identities=(Identity("raised", ("unified_2d",)),))
    assert len(shrunk(tmp_path, other, failed(cheap))[0]) == 2


def test_waived_findings_are_shrunk_where_their_problems_are_named(
    judged: Callable[[Finds], list[Problem]], tmp_path: Path
) -> None:
    judged(past_two_keys)
    waived = failed(FIRST, outcome=Outcome.WAIVED, waiver="w")
    assert shrunk(tmp_path, waived)[0] == []
    (case,), _ = shrunk(tmp_path, waived, config=config_of(problem=[FIRST.id]))
    assert (case.outcome, case.waiver) == (Outcome.WAIVED, "w")


def test_nothing_is_asked_without_the_option_or_a_finding(
    judged: Callable[[Finds], list[Problem]], tmp_path: Path
) -> None:
    asked = judged(past_two_keys)
    assert shrunk(tmp_path, failed(FIRST), config=config_of(shrink=False)) == ([], [])
    assert shrunk(tmp_path, failed(FIRST, outcome=Outcome.PASSED))[0] == []
    assert shrunk(tmp_path, failed(FIRST, outcome=Outcome.ERRORED, identities=()))[0] == []
    assert asked == []


def test_a_problem_of_a_file_is_shrunk_too(
    judged: Callable[[Finds], list[Problem]], tmp_path: Path
) -> None:
    judged(past_two_keys)
    own = replace(FIRST, id="mine")
    config = config_of(problem=[[{"file": "mine.json", "problem": own.to_json()}]])
    (case,), _ = shrunk(tmp_path, failed(own), config=config)
    assert case.name == f"PAR-004 TRITON_ATTN [mine-{SMALLEST}]"


def test_what_the_backend_does_not_admit_and_what_has_no_answer_is_not_smaller(
    judged: Callable[[Finds], list[Problem]], tmp_path: Path
) -> None:
    def finds(problem: Problem) -> tuple[Identity, ...]:
        if max(problem.seq_lens) < 9:
            raise InfrastructureError("the worker died")
        return (WRONG,)

    asked = judged(finds)
    shrunk(tmp_path, failed(FIRST))
    (path,) = (tmp_path / SHRUNK).glob("*.json")
    assert max(read_problems(path)[0].seq_lens) == 9
    assert all(problem.block_size % 16 == 0 for problem in asked if problem.has_cache)


def test_the_time_limit_is_kept_and_said(
    judged: Callable[[Finds], list[Problem]], tmp_path: Path
) -> None:
    judged(past_two_keys)
    (case,), said = shrunk(tmp_path, failed(FIRST), config=config_of(shrink_seconds=1e-9))
    assert shrinking.NOT_WHOLE in case.detail
    assert any(shrinking.NOT_WHOLE in text for text in said)


# The first key of the second block is read from the first.
AT_A_BLOCK_EDGE = Edit(
    "ops/tiles.py",
    "slots",
    "load_entries(table_ptr, positions // BLOCK_SIZE, stored, MASKED)",
    "load_entries(table_ptr, tl.where(positions == BLOCK_SIZE, 0, positions // BLOCK_SIZE), "
    "stored, MASKED)",
)


@pytest.mark.slow
def test_a_fault_at_a_blocks_edge_comes_to_one_key_past_it(tmp_path: Path) -> None:
    problem = next(p for p in PROBLEMS if max(p.seq_lens) > p.block_size > 1 and p.has_cache)
    own = tmp_path / "own.json"
    own.write_text(as_text([problem]), encoding="utf-8")
    found = []
    for folder in (tmp_path / "first", tmp_path / "again"):
        command = ["run", "--suite", "parity", "--problem", str(own), "--cell", CELL, "-n", "1"]
        run = ended([*command, "--shrink"], folder, (AT_A_BLOCK_EDGE,))
        assert run.code == 1, run.said
        assert run.run.complete
        (path,) = (folder / "results" / SHRUNK).glob("*.json")
        (small,) = read_problems(path)
        assert small.seq_lens == (small.block_size + 1,), small.to_json()
        assert small.num_heads == 1
        found.append(small)
    assert found[0] == found[1]
    again = ended(
        ["run", "--suite", "parity", "--problem", str(path), "--cell", CELL, "-n", "1"],
        tmp_path / "reproduced",
        (AT_A_BLOCK_EDGE,),
    )
    first = next(case for case in run.run.cases if SMALLEST in case.counts)
    assert again.case.identities == first.identities
    right = ended(
        ["run", "--suite", "parity", "--problem", str(path), "--cell", CELL, "-n", "1"],
        tmp_path / "right",
        (),
    )
    assert right.code == 0, right.said
