"""The problems that launch every instance of vLLM's HIP decode."""

from __future__ import annotations

import pytest

from conformance.config import RunConfig
from conformance.matrix.targets import target
from conformance.problems.admission import refusals
from conformance.problems.hip_instances import hip_problems
from conformance.suites.codegen.compilers import configurations
from conformance.suites.codegen.options import left_out, of_hip


@pytest.mark.parametrize(
    ("name", "count"),
    [("gfx90a", 2 * 2 * 2 * 2 * 16 + 28), ("gfx942", 2 * 2 * 2 * 2 * 2 * 16 + 28), ("gfx1201", 58)],
)
def test_each_set_of_template_arguments_has_one(name: str, count: int) -> None:
    facts = target(name)
    made = list(hip_problems(facts.family, facts.fp8, facts.wave_size))
    assert len({problem.id for problem in made}) == len(made) == count
    assert not any(refusals(problem, "0.19") for problem in made[:: len(made) // 20])
    assert max(problem.seq_lens[0] for problem in made) <= 128 * 1024


def test_a_run_of_them_is_of_nothing_else() -> None:
    facts = target("gfx1201")
    assert len(list(configurations("vllm", facts, "0.19", of_hip=True))) == 58
    assert not list(configurations("kernels", facts, "0.19", of_hip=True))
    config = RunConfig(subjects=(), cells=(), suite_options={"configurations": "hip"})
    assert of_hip(config)
    assert "CGN-007" in left_out(config)
    # Nor can it call a waiver of what usual runs compile unmatched.
    assert {"CGN-001", "CGN-003"} <= {*left_out(config)}
