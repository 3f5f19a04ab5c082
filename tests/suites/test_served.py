"""Codegen as served: which models and shapes are asked, and what each requirement finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from conformance.config import RunConfig
from conformance.matrix.requests import Platform
from conformance.matrix.targets import target
from conformance.models.presets import presets
from conformance.problems.admission import refusals
from conformance.problems.files import does_not_fit
from conformance.problems.problem import Problem
from conformance.results import CaseResult, Outcome
from conformance.suites.case import Context, Measured, Nonconformance
from conformance.suites.codegen import SUITE
from conformance.suites.codegen.compilers import configurations
from conformance.suites.codegen.findings import AS_SERVED, Compiled
from conformance.suites.codegen.served import BATCHES, NO_MODEL, served, shapes
from conformance.suites.codegen.test_codegen import CodegenCase, cases
from conformance.suites.codegen.test_codegen import test_codegen as judge
from conformance.suites.codegen.tiles import REQUIREMENT, choices_of, tile_rows

EDITION = "0.33"
PROBLEMS = [*served("fnuz", EDITION)]
SERVED = {"configurations": "served"}
MI300X = Platform.make("gfx942")


def config_of(*subjects: str) -> RunConfig:
    return RunConfig(
        subjects=subjects or ("reference",),
        cells=("rocm72-noaiter-mha",),
        suites=("codegen",),
        targets=("gfx942",),
        suite_options=SERVED,
    )


def test_at_least_30_models_are_asked_each_with_a_source() -> None:
    asked = {name for problem in PROBLEMS for name in problem.tags} - {NO_MODEL}
    assert len(asked) >= 30
    assert asked == presets().keys()
    assert all(presets()[name].source.startswith("https://") for name in asked)


def test_what_is_asked_is_what_models_have() -> None:
    dense = [p for p in PROBLEMS if p.backend == "TRITON_ATTN" and p.kind == "paged"]
    assert {64, 80, 96, 128, 256} <= {p.head_size for p in dense}
    assert {1, 2, 4, 5, 7, 8, 12, 16, 71} <= {p.group for p in dense}
    assert {16, 64, 528, 544} <= {p.block_size for p in dense}
    assert max(max(p.context_lens) for p in dense) > 2000
    assert max(max(p.query_lens) for p in dense) >= 512
    assert {p.kv_cache_dtype for p in dense} == {"auto", "fp8_e4m3fnuz"}
    assert any(p.sinks for p in dense) and any(p.soft_cap for p in dense)
    assert any(p.alibi == "linear" for p in dense) and any(p.key_lens for p in dense)
    assert {0, 1023} <= {p.window[0] + p.window[1] * 0 for p in dense} | {0}
    kinds = {p.kind for p in PROBLEMS}
    assert kinds == {"paged", "varlen", "mla", "mla_prefill", "mla_sparse"}
    heads = {p.num_heads for p in PROBLEMS if p.kind == "mla"}
    assert {16, 128} <= heads
    assert len(BATCHES) >= 5


def test_every_problem_fits_and_is_admitted_and_asked_once() -> None:
    for problem in PROBLEMS:
        assert not [*does_not_fit(replace(problem, id="x"))], problem
        assert not refusals(problem, EDITION)
    assert len({p.id for p in PROBLEMS}) == len(PROBLEMS)
    assert len({replace(p, id="", tags=()) for p in PROBLEMS}) == len(PROBLEMS)


def test_targets_without_fp8_are_asked_about_none() -> None:
    assert {p.kv_cache_dtype for p in served("none", EDITION)} == {"auto"}
    assert len(shapes()) > 100


def test_a_vllm_is_asked_about_its_own_triton_kernels() -> None:
    mi300x = target("gfx942")
    found = [*configurations("vllm", mi300x, EDITION, as_served=True)]
    assert {p.backend for p in found if isinstance(p, Problem)} == {
        "ROCM_ATTN",
        "TRITON_ATTN",
        "TRITON_MLA",
    }
    assert [*configurations("aiter", mi300x, EDITION, as_served=True)] == []
    assert [*configurations("kernels", mi300x, EDITION)] != PROBLEMS


def test_cases_are_of_the_requirements_as_served() -> None:
    found = [*cases(Context(config_of()))]
    assert {case.requirement for case in found} == set(AS_SERVED)
    assert {case.platform.target for case in found} == {"gfx942"}
    assert len(found) == 3 * len([*served("fnuz", "0.19")])


class Compiler:
    """Compiles everything to the same."""

    def __init__(self, compiled: Compiled) -> None:
        self.of: Any = lambda _asked, _configuration: compiled


def kernel(**resources: int) -> dict[str, Any]:
    had = {"lds": 0, "spills": 0, "scratch": 0, **resources}
    constants = {"BLOCK_M": 16, "TILE": 64, "HEADS": 4}
    return {"name": "unified_kernel", "resources": had, "constants": constants, "num_warps": 4}


def judged(requirement: str, compiled: Compiled) -> Measured:
    case = CodegenCase(
        *("codegen", "codegen", "reference", requirement, MI300X, (), MI300X, "kernels"),
        configuration=PROBLEMS[0],
    )
    return judge(case, Compiler(compiled))  # type: ignore[arg-type] # of is all that is called


@pytest.mark.parametrize(
    ("requirement", "compiled", "kind", "says"),
    [
        ("CGN-010", Compiled((), "ValueError: no such layout"), "compile-error", "no such layout"),
        ("CGN-011", Compiled((kernel(lds=65 * 1024),)), "lds", "66,560 bytes of LDS"),
        ("CGN-011", Compiled((), "OutOfResources: shared memory"), "lds", "OutOfResources"),
        ("CGN-012", Compiled((kernel(spills=3),)), "spill", "3 spilled"),
        ("CGN-012", Compiled((kernel(scratch=16),)), "spill", "16 bytes of scratch"),
    ],
)
def test_each_requirement_finds_its_fault(
    requirement: str, compiled: Compiled, kind: str, says: str
) -> None:
    with pytest.raises(Nonconformance, match=says) as caught:
        judged(requirement, compiled)
    assert [identity.kind for identity in caught.value.identities] == [kind]
    assert "--configurations served --target gfx942" in caught.value.reproduce
    for other in AS_SERVED.keys() - {requirement} if compiled.kernels else ():
        assert judged(other, compiled).counts["kernels"] == 1


def result(choices: Sequence[str], outcome: Outcome = Outcome.PASSED) -> CaseResult:
    return CaseResult(
        *("codegen", "CGN-010 x on gfx942", outcome, (), "reference", "0.19", "0.19", "CGN-010"),
        *("", "gfx942", "gfx942", True),
        counts={f"tile unified_kernel {choice}": 1 for choice in choices},
    )


def test_a_tile_that_was_not_compiled_is_found() -> None:
    (row,) = (row for row in tile_rows() if row.name == "reference-cdna")
    (whole,) = SUITE.closing_cases(config_of(), [result(row.choices)])
    assert (whole.requirement, whole.outcome) == (REQUIREMENT, Outcome.PASSED)
    (lacking,) = SUITE.closing_cases(config_of(), [result(row.choices[1:])])
    assert lacking.outcome is Outcome.FAILED
    assert row.choices[0] in lacking.message


def test_tiles_have_no_verdict_where_cases_have_none_and_none_without_the_option() -> None:
    assert [*SUITE.closing_cases(config_of(), [result((), Outcome.ERRORED)])] == []
    shipped = replace(config_of(), suite_options={})
    assert [*SUITE.closing_cases(shipped, [result(())])] == []


def test_a_case_counts_the_tiles_of_its_kernels() -> None:
    assert choices_of(Compiled((kernel(),))) == {
        "tile unified_kernel BLOCK_M=16 TILE=64 warps=4": 1
    }


def test_what_a_run_leaves_out() -> None:
    assert "CGN-012" in SUITE.left_out(replace(config_of(), suite_options={}))
    assert "CGN-003" in SUITE.left_out(config_of())
