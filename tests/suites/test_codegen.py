"""The suite codegen: what each subject is asked, and what becomes of a compiler that dies."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.config import RunConfig
from conformance.errors import InfrastructureError
from conformance.matrix.requests import Platform
from conformance.matrix.targets import target
from conformance.problems.problem import Problem
from conformance.requirements.waivers import load_waivers
from conformance.results import CaseResult, Outcome
from conformance.suites.case import Context, Measured, Nonconformance, Unsupported
from conformance.suites.codegen import SUITE
from conformance.suites.codegen.compilers import Compilations, configurations
from conformance.suites.codegen.options import left_out
from conformance.suites.codegen.test_codegen import CodegenCase, cases
from conformance.suites.codegen.test_codegen import test_codegen as judge
from conformance.worker.contract import Call

WORKER = Path(__file__).parents[1] / "devices" / "codegen_worker.py"
BROKEN, WHOLE = Call("merge"), Call("cache_write")


def context_of(*subjects: str) -> Context:
    return Context(RunConfig(subjects=subjects, cells=("rocm72-noaiter-mha",), suites=("codegen",)))


def asked(subject: str, library: str, configuration: Any, requirement: str) -> CodegenCase:
    platform = Platform.make("gfx942")
    return CodegenCase(
        "codegen", "codegen", subject, requirement, platform, (), platform, library, "",
        configuration,
    )  # fmt: skip


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    made: list[tuple[Context, Compilations]] = []

    def of(*words: str) -> tuple[str, Compilations]:
        subject = "worker:" + shlex.join([sys.executable, str(WORKER), *words])
        context = context_of(subject)
        made.append((context, Compilations(context)))
        return subject, made[-1][1]

    yield of
    for context, found in made:
        found.close()
        context.close()


@pytest.mark.parametrize(
    ("edition", "backends", "caches"),
    [
        ("0.19", set(), set()),
        ("0.20", {"TURBOQUANT"}, {"int8", "fp8_e4m3fnuz"}),
        ("0.28", {"TURBOQUANT"}, {"int8", "fp8_e4m3fnuz", "int4"}),
        (
            "0.33",
            {"TURBOQUANT", "ULTRAQUANT", "ROCM_AITER_MLA_SPARSE"},
            {"int8", "fp8_e4m3fnuz", "int4"},
        ),
    ],
)
def test_a_vllms_later_kernels_are_compiled_through_their_backends(
    edition: str, backends: set[str], caches: set[str]
) -> None:
    made = [*configurations("vllm", target("gfx942"), edition)]
    problems = [each for each in made if isinstance(each, Problem)]
    scaled = [p for p in problems if p.is_head_scaled]
    assert {p.backend for p in problems if p not in scaled} == backends
    assert {p.kv_cache_dtype.removesuffix("_per_token_head") for p in scaled} == caches
    assert {p.backend for p in scaled} <= {"TRITON_ATTN"}


def test_an_abort_fails_its_own_kernel_with_its_output(compilations: Any) -> None:
    subject, found = compilations("copy_kernel", "SIGABRT")
    whole = asked(subject, "vllm", WHOLE, "CGN-001")
    assert isinstance(judge(whole, found), Measured)
    with pytest.raises(Nonconformance, match=r"the compiler aborted.*SIGABRT") as broken:
        judge(replace(whole, configuration=BROKEN), found)
    assert "Invalid opcode!\nUNREACHABLE executed" in broken.value.detail
    assert broken.value.findings == (str(broken.value),)
    # Nothing else is said of what was not compiled, and the next one gets a new process.
    with pytest.raises(Unsupported, match="see CGN-001"):
        judge(replace(whole, configuration=BROKEN, requirement="CGN-003"), found)
    again = replace(whole, configuration=replace(WHOLE, seed=1))
    assert judge(again, found).counts == {"kernels": 1}


def test_a_killed_worker_is_no_finding(compilations: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked once, and not once for each requirement: a hanging one would take hours."""
    subject, found = compilations("copy_kernel", "SIGKILL")
    with pytest.raises(InfrastructureError, match="SIGKILL"):
        judge(asked(subject, "vllm", BROKEN, "CGN-001"), found)
    with monkeypatch.context() as patch:
        patch.setattr(found, "_compile", lambda *_: pytest.fail("asked again"))
        with pytest.raises(InfrastructureError, match="SIGKILL"):
            judge(asked(subject, "vllm", BROKEN, "CGN-003"), found)
    assert isinstance(judge(asked(subject, "vllm", WHOLE, "CGN-001"), found), Measured)


def test_the_reference_is_asked_for_every_backend_with_kernels() -> None:
    found = [c for c in cases(context_of("reference")) if c.requirement == "CGN-003"]
    named = [c.name for c in found]
    assert len(set(named)) == len(named)
    problems = [(c.platform.target, c.configuration) for c in found]
    asked_of = {p.backend for _, p in problems if isinstance(p, Problem)}
    assert len(asked_of) == 11 and "TORCH_SDPA" not in asked_of
    for name, problem in problems:
        assert isinstance(problem, Problem)
        ours = {"fnuz": "fp8_e4m3fnuz", "ocp": "fp8_e4m3fn"}.get(target(name).fp8, "auto")
        assert problem.kv_cache_dtype in ("auto", ours)


def test_hip_kernels_are_asked_apart_from_what_usual_runs_ask() -> None:
    """So that a waiver of theirs is no stale one in a run without them, nor another's in theirs."""
    of_hip = {"configurations": "hip"}
    config = replace(context_of("vllm==0.19.0").config, suite_options=of_hip)
    made = next(case for case in cases(Context(config)) if case.requirement == "CGN-003")
    assert made.where["platform"].endswith(", HIP kernels")
    other = asked("vllm==0.19.0", "vllm", WHOLE, "CGN-003")
    assert "HIP" not in other.where["platform"]
    waiver = next(w for w in load_waivers().waivers if w.id == "vllm-0.19-hip-decode-spills-cdna")
    shown = CaseResult(
        "codegen", made.name, Outcome.FAILED, (), "vllm==0.19.0", "0.19.0", "0.19", "CGN-003",
        "", "gfx942", made.where["platform"], simulated=True,
    )  # fmt: skip
    assert waiver.in_scope(shown)
    assert not waiver.in_scope(replace(shown, platform=other.where["platform"]))
    assert {f"CGN-00{n}" for n in range(1, 10)} <= {*left_out(config)}
    assert "CGN-003" not in left_out(replace(config, suite_options={}))


def test_any_process_may_compile_any_instance_of_hip() -> None:
    """There are hundreds, and nothing is shared: they are dealt to processes and shards singly."""
    of_hip = {"configurations": "hip"}
    config = replace(context_of("vllm==0.19.0").config, suite_options=of_hip)
    assert SUITE.many_groups(config)
    assert not SUITE.many_groups(replace(config, suite_options={}))
    made = [case for case in cases(Context(config)) if case.requirement == "CGN-003"]
    assert len({case.group for case in made}) == len(made) > 400
    usual = [case for case in cases(context_of("vllm==0.19.0")) if case.library == "vllm"]
    assert len({case.group for case in usual}) == len({case.platform.target for case in usual})
