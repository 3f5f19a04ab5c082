"""What `run` is told to ask: the user's own problems, backends, variables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.cli import run_cli
from conformance.commands.run_checks import check_problem, warn_of_variables
from conformance.config import RunConfig
from conformance.errors import InfrastructureError, UsageError
from conformance.matrix.requests import AITER
from conformance.matrix.stacks import all_cells, platform_cells
from conformance.problems.families import problems_for
from conformance.problems.files import as_text, read_problems
from conformance.problems.problem import Problem
from conformance.suites.case import Context, Unsupported
from conformance.suites.parity import SUITE, harness
from conformance.suites.parity.case import ParityCase
from conformance.suites.parity.options import ProblemType
from conformance.suites.parity.test_parity import cases
from conformance.suites.parity.test_parity import test_parity as judge
from conformance.suites.selection import test_truth

CELL = "rocm72-noaiter-mha"
QUICK = problems_for("TRITON_ATTN", "quick", 0)


def config_of(**fields: Any) -> RunConfig:
    asked: dict[str, Any] = {"seed": 0, "tier": "quick", **fields}
    return RunConfig(("reference",), (CELL,), ("parity",), **asked)


def asked(config: RunConfig) -> list[ParityCase]:
    return list(cases(Context(config)))


def own(folder: Path, *problems: Problem) -> list[Any]:
    """What the option has for a file of these problems, as a process gets it."""
    path = folder / "own.json"
    path.write_text(as_text(problems), encoding="utf-8")
    return [json.loads(json.dumps(ProblemType().convert(str(path), None, None)))]


def test_a_file_s_problems_and_no_others_are_asked(tmp_path: Path) -> None:
    mine = [replace(QUICK[0], id="mine"), replace(QUICK[1], id="mine too")]
    found = asked(config_of(suite_options={"problem": own(tmp_path, *mine)}))
    assert [case.problem for case in found] == mine
    assert {case.backend for case in found} == {"TRITON_ATTN"}
    words = found[0].command(config_of(env={"A": "1"}))
    assert words.endswith(f"--env A=1 --problem {tmp_path / 'own.json'}")


def test_ids_and_files_are_asked_together(tmp_path: Path) -> None:
    mine = replace(QUICK[0], id="mine")
    options = {"problem": [QUICK[2].id, *own(tmp_path, mine)]}
    assert {case.problem for case in asked(config_of(suite_options=options))} == {QUICK[2], mine}


def test_backends_are_narrowed() -> None:
    found = asked(config_of(suite_options={"backend": ["TRITON_ATTN"]}))
    assert {case.backend for case in found} == {"TRITON_ATTN"}
    assert [case.problem for case in found] == problems_for("TRITON_ATTN", "quick", 0)
    assert len({case.backend for case in asked(config_of())}) > 5


def test_what_another_run_would_find_is_left_out() -> None:
    usual = RunConfig((), (CELL,))
    assert SUITE.left_out(usual) == []
    assert SUITE.left_out(replace(usual, suite_options={"backend": ["TRITON_ATTN"]})) == ["PAR-*"]
    assert SUITE.left_out(replace(usual, env={"A": "1"})) == ["PAR-*"]
    assert replace(usual, cells=("*",), env={"A": "1"}).partial
    assert not replace(usual, cells=("*",)).partial


def test_no_edition_that_admits_a_problem_is_a_mistake(tmp_path: Path) -> None:
    wrong = replace(QUICK[0], id="mine", block_size=7)
    config = config_of(suite_options={"problem": own(tmp_path, wrong)})
    with pytest.raises(UsageError, match=r"own.json: mine:\n  block_size: is 7; allowed"):
        check_problem(config)
    unknown = replace(QUICK[0], id="mine", backend="ROCM_SEGMENTED_ATTN")
    config = config_of(edition="0.19", suite_options={"problem": own(tmp_path, unknown)})
    with pytest.raises(UsageError, match=r"backend: edition 0.19 has no ROCM_SEGMENTED_ATTN"):
        check_problem(config)


def test_a_problem_that_one_edition_admits_is_unsupported_for_the_other(tmp_path: Path) -> None:
    wrong = replace(QUICK[0], id="mine", block_size=7)
    options = {"problem": own(tmp_path, wrong)}
    (case,) = asked(config_of(suite_options=options))
    with pytest.raises(Unsupported, match="block_size: is 7"):
        judge(case, Context(config_of(suite_options=options)), None)  # type: ignore[arg-type] # no worker is asked


def test_a_problem_of_a_backend_that_is_left_out_is_a_mistake(tmp_path: Path) -> None:
    options = {"problem": own(tmp_path, QUICK[0]), "backend": ["TRITON_MLA"]}
    with pytest.raises(UsageError, match="--backend names others"):
        check_problem(config_of(suite_options=options))


def test_an_id_twice_is_a_mistake(tmp_path: Path) -> None:
    options = {"problem": own(tmp_path, QUICK[0], QUICK[0])}
    with pytest.raises(UsageError, match="several problems have the id"):
        check_problem(config_of(suite_options=options))


# ---- variables -----------------------------------------------------------------------------------


def test_variables_are_set_on_every_platform_over_those_of_its_cell() -> None:
    env = {"VLLM_X": "7", AITER: "0"}
    found = platform_cells(all_cells(), (), env)
    assert all(env.items() <= platform.variables.items() for platform in found)
    assert sum(map(len, found.values())) <= sum(map(len, platform_cells(all_cells()).values()))


def test_variables_reach_the_workers_of_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    class Worker:
        info, alive = None, True

        def __init__(self, *arguments: Any) -> None:
            given.extend(arguments)

    monkeypatch.setattr(harness, "KernelWorker", Worker)
    config = config_of(env={"VLLM_X": "7"})
    (case, *_) = asked(config)
    harness.KernelWorkers(Context(config)).worker(case)
    assert given[-1] == {"VLLM_X": "7"}


@pytest.mark.parametrize(
    ("tier", "restarts", "started", "closed"),
    [
        ("quick", True, ["gfx942"], False),
        ("quick", False, ["gfx942", "gfx1201"], True),
        ("standard", True, ["gfx942", "gfx1201"], False),
    ],
)
def test_one_worker_goes_from_gpu_to_gpu_where_cases_of_each_follow_one_another(
    tier: str, restarts: bool, started: list[str], closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    class Worker:
        alive, info, closed = True, None, False

        def __init__(self, *arguments: Any) -> None:
            self.target = arguments[4]
            self.began = self.target
            made.append(self)

        def restart(self, target: str) -> None:
            if not restarts:
                raise InfrastructureError("the subject cannot be imported there")
            self.target = target

        def close(self) -> None:
            self.closed = True

    monkeypatch.setattr(harness, "KernelWorker", Worker)
    config = replace(config_of(), tier=tier, device="interpreter")
    (case, *_) = asked(config)
    workers = harness.KernelWorkers(Context(config))
    for target in ("gfx942", "gfx942", "gfx1201"):
        assert workers.worker(replace(case, target=target)).target == target  # type: ignore[attr-defined] # the stand-in
    assert [worker.began for worker in made] == started
    assert made[0].closed is closed


def test_a_variable_that_vllm_does_not_know_is_named_with_the_nearest() -> None:
    said: list[str] = []
    env = {"VLLM_ROCM_USE_AITR": "1", AITER: "1", "HOME": "/"}
    warn_of_variables(config_of(env=env), said.append)
    (warning,) = said
    for part in ("warning: --env", "VLLM_ROCM_USE_AITR", f"Did you mean {AITER}?"):
        assert part in warning


def test_truth_tables_say_nothing_where_a_flag_of_no_cell_is_set() -> None:
    def of(env: dict[str, str]) -> list[Any]:
        config = replace(config_of(env=env), suites=("selection",), targets=("gfx942",))
        return list(test_truth.cases(Context(config)))

    assert of({"VLLM_ROCM_USE_AITER_MLA": "0"}) == []
    found = of({"VLLM_SOMETHING": "1"})
    assert len(found) == len(of({}))
    assert all(case.asked_on.variables["VLLM_SOMETHING"] == "1" for case in found)


# ---- the catalogue on the command line -----------------------------------------------------------


def test_a_problem_is_shown_as_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["problems", "show", QUICK[0].id, "--tier", "quick", "--format", "json"]
    assert run_cli(command) == 0
    path = tmp_path / "shown.json"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    assert read_problems(path) == [QUICK[0]]
    assert run_cli(command[:-2]) == 0
    assert "head_size" in capsys.readouterr().out


def test_problems_are_listed_and_the_schema_printed(capsys: pytest.CaptureFixture[str]) -> None:
    listing = ["problems", "list", "--tier", "quick", "--backend", "TRITON_ATTN", "--seed", "0"]
    assert run_cli([*listing, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in rows] == [p.id for p in QUICK]
    assert run_cli(["problems", "schema"]) == 0
    assert "query_lens" in json.loads(capsys.readouterr().out)["$defs"]["problem"]["properties"]


def test_a_known_defect_is_shown_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["problems", "show", "rocm-window", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["backend"] == "ROCM_ATTN"
