"""A problem in another fp8 is the same problem, and its id says which."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conformance.problems.encodings import in_each_encoding, in_encoding
from conformance.problems.families import problems_for
from conformance.problems.problem import Problem

SEED = 36702
QUICK = problems_for("TRITON_MLA", "quick", SEED)
OCP = next(p for p in QUICK if p.kv_cache_dtype == "fp8_e4m3fn")
FNUZ = next(p for p in QUICK if p.kv_cache_dtype == "fp8_e4m3fnuz")


HEADS = next(
    p
    for p in problems_for("TRITON_ATTN", "quick", SEED, "0.33")
    if p.kv_cache_dtype == "fp8_e4m3fn_per_token_head"
)


@pytest.mark.parametrize(
    ("problem", "fp8", "stored"),
    [
        (OCP, "fnuz", "fp8_e4m3fnuz"),
        (FNUZ, "ocp", "fp8_e4m3fn"),
        (HEADS, "fnuz", "fp8_e4m3fnuz_per_token_head"),
    ],
)
def test_a_cache_is_stored_as_the_gpu_does(problem: Problem, fp8: str, stored: str) -> None:
    made = in_encoding(problem, fp8)
    assert made.kv_cache_dtype == stored
    assert f"-{stored.removeprefix('fp8_').removesuffix('_per_token_head')}-" in made.id
    assert replace(made, kv_cache_dtype=problem.kv_cache_dtype, id=problem.id) == problem
    assert in_each_encoding(problem) == (problem, made)


@pytest.mark.parametrize(("problem", "fp8"), [(OCP, "ocp"), (FNUZ, "fnuz"), (OCP, "none")])
def test_what_is_stored_so_already_stays(problem: Problem, fp8: str) -> None:
    assert in_encoding(problem, fp8) is problem


def test_other_caches_stay() -> None:
    for problem in QUICK:
        if problem.kv_cache_dtype in ("auto", "fp8_e5m2"):
            assert in_each_encoding(problem) == (problem,)
