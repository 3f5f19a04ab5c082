"""Spills and LDS of kernels that parity compiles for an AMD target: findings of codegen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from conformance.oracle.judgement import solve
from conformance.problems.problem import Problem
from conformance.problems.tensors import dtype_of
from conformance.results import Identity
from conformance.subjects.kernels import Attended
from conformance.suites.case import Measured, Nonconformance, Unsupported
from conformance.suites.parity.case import ParityCase
from tests.kernels.kernel_faults.problems import TRITON, decode
from tests.suites import judged_cases

PROBLEM = replace(decode(TRITON), query_lens=(1,), context_lens=(2,), dominant=())


def kernel(name: str = "unified_kernel", **resources: int) -> Mapping[str, Any]:
    had = {"lds": 0, "spills": 0, "scratch": 0, **resources}
    return {
        **{"name": name, "resources": had, "newly_executed": 1, "newly_loaded": 1, "lines": {}},
        "types": ["*fp16"],
        "wave_instructions": 1,
        "lanes_off": False,
    }


def judged(
    device: str,
    *kernels: Mapping[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    raised: str = "",
    off: float = 0.0,
    asked: Problem = PROBLEM,
) -> Measured:
    """What becomes of a case whose backend computes right, or off by so much."""

    def attend(
        _case: ParityCase, problem: Problem, _workers: object, tensors: Any, **_: Any
    ) -> Attended:
        output = solve(problem, tensors).output.to(dtype_of(problem)) + off
        found = {} if raised else {"output": output}
        return Attended(found, ("unified_2d",), (), raised, "", 0.1, kernels)

    return judged_cases.judged(attend, asked, device, monkeypatch)


FOUND: list[tuple[dict[str, int], str, str, str]] = [
    ({"spills": 2}, "CGN-003", "spill", "2 spilled vector registers"),
    ({"scratch": 64}, "CGN-003", "spill", "64 bytes of scratch"),
    ({"lds": 65 * 1024}, "CGN-002", "lds", "66,560 bytes of LDS where gfx942 has 65,536"),
]


@pytest.mark.parametrize("device", ["isa:gfx942", "isa:gfx942,races", "aot:gfx942"])
@pytest.mark.parametrize(("resources", "requirement", "kind", "says"), FOUND)
def test_what_a_kernel_takes_too_much_is_a_finding_of_codegen(
    device: str,
    resources: dict[str, Any],
    requirement: str,
    kind: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(Nonconformance, match=says) as caught:
        judged(device, kernel("whole"), kernel(**resources), monkeypatch=monkeypatch)
    error = caught.value
    assert error.requirement == requirement
    assert error.identities == (Identity(kind, ("unified_kernel",), (), requirement),)
    assert "--problem" in error.reproduce


def test_kernels_that_fit_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    judged("isa:gfx942", kernel(lds=64 * 1024), monkeypatch=monkeypatch)
    with pytest.raises(Unsupported, match="nothing was run"):
        judged("aot:gfx942", kernel(lds=64 * 1024), monkeypatch=monkeypatch)


def test_a_hip_kernel_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    hip = {**kernel("_Z3foov", spills=22), "types": []}
    judged("isa:gfx942", hip, monkeypatch=monkeypatch)


def test_float32_may_spill_as_no_build_ships_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = replace(PROBLEM, dtype="float32")
    judged("isa:gfx942", kernel(spills=2), asked=asked, monkeypatch=monkeypatch)
    with pytest.raises(Nonconformance, match="LDS"):
        judged("isa:gfx942", kernel(lds=65 * 1024), asked=asked, monkeypatch=monkeypatch)


def test_a_target_with_more_lds_may_take_more(monkeypatch: pytest.MonkeyPatch) -> None:
    judged("isa:gfx950", kernel(lds=65 * 1024), monkeypatch=monkeypatch)


def test_where_nothing_is_compiled_for_a_target_nothing_is_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged("interpreter", kernel(spills=2), monkeypatch=monkeypatch)


@pytest.mark.parametrize("device", ["isa:gfx942", "aot:gfx942"])
def test_a_launch_that_is_refused_for_its_lds_is_one_about_lds(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Nonconformance) as caught:
        judged(
            device,
            kernel(),
            raised="OutOfResources: out of resource: shared memory, Required: 99999",
            monkeypatch=monkeypatch,
        )
    assert caught.value.requirement == "CGN-002"
    assert [each.kind for each in caught.value.identities] == ["lds"]


def test_a_wrong_answer_is_the_backend_s_own_whatever_it_spills(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(Nonconformance) as caught:
        judged("isa:gfx942", kernel(spills=2), off=1.0, monkeypatch=monkeypatch)
    assert caught.value.requirement == ""
    kinds = {each.kind: each.requirement for each in caught.value.identities}
    assert kinds == {"wrong-value": "", "spill": "CGN-003"}


def test_another_error_of_a_compiler_is_not_about_resources(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(Nonconformance) as caught:
        judged("aot:gfx942", raised="ValueError: no such layout", monkeypatch=monkeypatch)
    assert caught.value.requirement == ""
    assert [each.kind for each in caught.value.identities] == ["compile-error"]
