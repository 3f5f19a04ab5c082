"""Machines with AMD GPUs, as far as one without can show what a run makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import ReadWriteLock, Timeout

from conformance.cache import CACHE_VARIABLE
from conformance.cli import run_cli
from conformance.config import RunConfig
from conformance.errors import InfrastructureError, OutOfMemoryError
from conformance.matrix import installed_gpus as gpus
from conformance.matrix.installed_gpus import amd_gpus, device_here
from conformance.oracle.judgement import solve
from conformance.problems.families import problems_for
from conformance.problems.problem import Problem
from conformance.problems.tensors import materialise
from conformance.reports.collect import collect
from conformance.reports.junit_reader import read_junit
from conformance.reports.junit_writer import write_junit
from conformance.reports.merge import merge
from conformance.results import read_results
from conformance.subjects.kernels import Attended, card_environment, card_of
from conformance.suites.case import Context, Measured
from conformance.suites.parity import judging
from conformance.suites.parity import test_parity as parity
from conformance.suites.parity.case import ParityCase
from conformance.suites.parity.gpu_sharing import using
from conformance.suites.parity.harness import KernelWorkers
from conformance.worker.attend import attend
from conformance.worker.vllm.machine import check_real
from conformance.worker.wire import answer_to
from tests.subjects.test_protocol import cases_of, run_suite
from tests.support.misbehaving_worker import HERE
from tests.support.results import CASE, A, write_run

Driver = Callable[..., None]


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Gives this machine nodes with these versions, as the kernel driver lists them."""

    def install(*versions: int) -> None:
        for number, version in enumerate(versions):
            node = tmp_path / "nodes" / str(number)
            node.mkdir(parents=True)
            text = f"cpu_cores_count 0\ngfx_target_version {version}\nvendor_id 4098\n"
            (node / "properties").write_text(text)
        monkeypatch.setattr(gpus, "NODES", tmp_path / "nodes")

    return install


@pytest.mark.parametrize(
    ("version", "name"),
    [
        (90010, "gfx90a"),
        (90402, "gfx942"),
        (90500, "gfx950"),
        (110000, "gfx1100"),
        (110501, "gfx1151"),
        (120001, "gfx1201"),
    ],
)
def test_a_gpu_has_the_compiler_s_name(driver: Driver, version: int, name: str) -> None:
    driver(0, version, version)
    assert amd_gpus() == (name,)


def test_a_machine_without_the_driver_has_none(driver: Driver) -> None:
    driver()
    assert amd_gpus() == ()
    driver(0)
    assert amd_gpus() == ()


def test_kernels_run_on_the_gpu_where_torch_can_drive_it(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig(subjects=(), cells=("*",), device="auto", tier="")
    monkeypatch.setattr(torch.version, "hip", "7.2.1")
    assert device_here() == "interpreter"
    here = config.on_device(device_here())
    assert (here.device, here.tier) == ("interpreter", "standard")
    driver(0, 90402)
    there = config.on_device(device_here())
    assert (there.device, there.tier) == ("gpu", "gpu")
    asked = replace(config, device="isa:gfx942", tier="quick").on_device("gpu")
    assert (asked.device, asked.tier) == ("isa:gfx942", "quick")
    monkeypatch.setattr(torch.version, "hip", None)
    assert device_here() == "interpreter"


def test_two_machines_results_of_one_cell_are_both_kept(tmp_path: Path) -> None:
    for gpu in ("gfx90a", "gfx942"):
        for part in ("1/2", "2/2"):
            case = replace(CASE, name=f"{CASE.name} {part[0]}", gpu=gpu)
            write_run(tmp_path / gpu / part[0], [case], shard=part, gpu=gpu)
            write_junit([case], tmp_path / gpu / part[0])
    merged = merge(collect(tmp_path))
    assert merged.problems == ()
    assert len(merged.cases) == 4
    (tmp_path / "gfx90a" / "2" / "results.jsonl").unlink()
    (problem,) = merge(collect(tmp_path)).problems
    assert "shards are missing: 2/2" in str(problem)


def test_junit_tells_machines_apart(tmp_path: Path) -> None:
    (path,) = write_junit([replace(CASE, gpu="gfx942"), replace(CASE, gpu="gfx90a")], tmp_path)
    assert f'classname="{A}+gfx942.vllm-0_19_0.selection"' in path.read_text()
    assert sorted(case.gpu for case in read_junit(path).cases) == ["gfx90a", "gfx942"]


def test_a_run_notes_the_machine_s_gpus(
    driver: Driver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    driver(0, 90402)
    arguments = ["--cell", "rocm62-noaiter", "--suite", "selection", "--sweep", "0", "-n", "1"]
    assert run_cli(["run", *arguments, "--results", str(tmp_path / "results")]) == 0
    capsys.readouterr()
    run = read_results(tmp_path / "results" / "results.jsonl")
    assert run.header is not None
    assert run.header.gpu == "gfx942"
    assert {case.gpu for case in run.cases} == {"gfx942"}


def test_a_real_machine_is_judged_as_what_it_is(tmp_path: Path) -> None:
    code, output = run_suite(tmp_path, "mi300x", "99")  # no batch is misdone
    assert code == 0, output
    found = cases_of(tmp_path)
    assert {case.target for case in found["passed"]} == {HERE}
    elsewhere = [case for case in found["unsupported"] if case.target != HERE]
    assert {case.target for case in elsewhere} == {"gfx90a", "gfx1100"}
    assert all(
        f"this machine's GPU is {HERE}, not {case.target}; --simulate always" in case.message
        for case in elsewhere
    )


def test_the_worker_names_a_refusal_to_be_another_machine() -> None:
    gpu = "gfx942:sramecc+:xnack-"
    check_real(gpu, HERE, {"aiter": False})
    asked: list[tuple[str, dict[str, bool]]] = [("gfx90a", {}), (HERE, {"aiter": True})]
    for target, present in asked:
        check = partial(check_real, gpu, target, present)
        error = told(check)["error"]
        assert error["kind"] == "other_machine"
        assert "this machine" in error["message"]


def test_processes_share_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "3,5")
    assert [card_of(number) for number in range(3)] == ["3", "5", "3"]
    assert card_environment("5") == {"HIP_VISIBLE_DEVICES": "5", "CUDA_VISIBLE_DEVICES": "5"}
    assert card_environment("") == {}


# ---- a card's memory ----------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def others_may(cache: Path, card: str) -> tuple[bool, bool]:
    """Whether another process could use a card now: with others, and alone."""
    lock = ReadWriteLock(cache / f"card-{card}.db", timeout=0, is_singleton=False)
    found = []
    for acquire in (lock.acquire_read, lock.acquire_write):
        try:
            acquire()
            lock.release()
            found.append(True)
        except Timeout:
            found.append(False)
    return found[0], found[1]


def test_a_card_is_shared_or_had_alone(cache: Path) -> None:
    with using("MIG-a/1"):
        assert others_may(cache, "MIG-a-1") == (True, False)
    with using("MIG-a/1", alone=True):
        assert others_may(cache, "MIG-a-1") == (False, False)
        assert others_may(cache, "2") == (True, True), "another card is free"
    assert others_may(cache, "MIG-a-1") == (True, True)
    with using("", alone=True), using("", alone=True):
        pass


PROBLEM = problems_for("TRITON_ATTN", "quick", 0)[0]
NO_MEMORY = OutOfMemoryError("the GPU ran out of memory", "what the process wrote")


class CrowdedCard(KernelWorkers):
    """A GPU whose memory is too little for the first problems it is given, as ``answers`` say."""

    def __init__(self, cache: Path, answers: Sequence[Attended | InfrastructureError]) -> None:
        config = RunConfig(subjects=("reference",), cells=("*",), device="interpreter")
        super().__init__(Context(config))
        self.card = "0"
        self.others: list[tuple[bool, bool]] = []
        self.closed = 0
        self._cache = cache
        self._answers = list(answers)

    def worker(self, _case: ParityCase) -> CrowdedCard:  # type: ignore[override] # its fake
        return self

    def attend(self, *_asked: object, **_options: object) -> Attended:
        self.others.append(others_may(self._cache, self.card))
        answer = self._answers.pop(0)
        if isinstance(answer, InfrastructureError):
            raise answer
        return answer

    def close(self, _case: ParityCase | None = None) -> None:
        self.closed += 1

    def judge(self, problem: Problem) -> Measured:
        case = next(
            case
            for case in parity.cases(self._context)
            if case.problem is not None and case.backend == problem.backend
        )
        return parity.test_parity(replace(case, problem=problem), self._context, self)


def right_answer(problem: Problem) -> Attended:
    truth = solve(problem, materialise(problem))
    results = {"output": truth.output.to(getattr(torch, problem.dtype)), "lse": truth.lse.float()}
    return Attended(results, ("a kernel",), (), "", "", 0.0)


def test_a_problem_that_lacked_memory_is_given_again_alone_on_the_gpu(cache: Path) -> None:
    kernels = CrowdedCard(cache, [NO_MEMORY, right_answer(PROBLEM)])
    assert kernels.judge(PROBLEM).counts == {"ran a kernel": 1}
    assert kernels.others == [(True, False), (False, False)]
    assert kernels.closed == 1, "the second try has a new process"


def test_a_problem_too_large_for_a_card_of_its_own_is_an_error(cache: Path) -> None:
    kernels = CrowdedCard(cache, [NO_MEMORY, NO_MEMORY])
    with pytest.raises(OutOfMemoryError, match="ran out of memory"):
        kernels.judge(PROBLEM)
    assert others_may(cache, kernels.card) == (True, True)


def test_other_failures_are_not_tried_again(cache: Path) -> None:
    kernels = CrowdedCard(cache, [InfrastructureError("died"), right_answer(PROBLEM)])
    with pytest.raises(InfrastructureError, match="died"):
        kernels.judge(PROBLEM)


def test_judging_that_lacked_memory_is_done_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [torch.cuda.OutOfMemoryError("CUDA out of memory")]

    def crowded(*given: object) -> object:
        if failures:
            raise failures.pop()
        return solve(*given)  # type: ignore[arg-type] # what it was given

    kernels = CrowdedCard(cache, [right_answer(PROBLEM), right_answer(PROBLEM)])
    monkeypatch.setattr(judging, "solve", crowded)
    kernels.judge(PROBLEM)
    assert kernels.others == [(True, False), (False, False)]


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("HIP out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("Triton Error [HIP]: Code: 2, Messsage: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("another error"),
    ],
)
def test_the_worker_tells_a_lack_of_memory(error: RuntimeError, tmp_path: Path) -> None:
    def fail(_name: str) -> None:
        raise error

    subject = SimpleNamespace(device="cpu", backend=fail, release=int, why_unknown=lambda _: "")
    torch.save({}, tmp_path / "given.pt")
    message = {"problem": {"backend": "A"}, "tensors": str(tmp_path / "given.pt")}
    answer = told(attend, subject, message)
    if "another" in str(error):
        assert answer["ok"]["raised"] == "RuntimeError: another error"
    else:
        assert answer["error"]["kind"] == "out_of_memory"
        assert "run with fewer" in answer["error"]["message"]


def told(action: Callable[..., Any], *given: Any) -> Any:
    """A worker's answer, as it is sent."""
    return json.loads(json.dumps(answer_to(1, partial(action, *given))))


def told_without_tensors(tensors: Path) -> dict[str, str]:
    """The error that a worker answers with if its problem's tensors cannot be loaded."""
    subject = SimpleNamespace(device="cpu", synchronize=int, release=int)
    message = {"problem": {}, "tensors": str(tensors)}
    error: dict[str, str] = told(attend, subject, message)["error"]
    return error


def test_tensors_that_cannot_be_loaded_are_no_fault_of_the_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told_without_tensors(tmp_path / "gone.pt")["kind"] == "internal"

    def crowded(*_given: object, **_options: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "load", crowded)
    assert told_without_tensors(tmp_path / "gone.pt")["kind"] == "out_of_memory"
