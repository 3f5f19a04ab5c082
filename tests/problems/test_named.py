"""Every id that the suite prints is one that it takes."""

from __future__ import annotations

import pytest

from conformance.config import RunConfig
from conformance.errors import UsageError
from conformance.problems import named
from conformance.problems.encodings import in_each_encoding
from conformance.problems.families import backends
from conformance.problems.named import DEFECTS, catalogue, problem_named, seed_in
from conformance.problems.tiers import TIERS
from conformance.suites.case import Context
from conformance.suites.parity.test_parity import cases

SEED = 36702


@pytest.mark.parametrize("tier", [*TIERS, DEFECTS])
def test_an_id_of_any_tier_is_known_in_a_run_of_another(tier: str) -> None:
    """In the fp8 of each GPU, because reports name the one that a vLLM was shown."""
    usual = "standard" if tier != "standard" else "quick"
    printed = [
        each.id
        for _, made in catalogue([tier], backends(), "0.33", SEED)
        for each in in_each_encoding(made)
    ]
    assert printed
    for name in printed:
        try:
            problem = problem_named(name, "0.33", usual, SEED)
        except UsageError as error:
            assert "name one by --problems" in str(error)
            problem = problem_named(name, "0.33", tier, SEED)
        assert problem is not None
        assert problem.id == name


def test_an_id_has_the_seed_of_its_problem() -> None:
    (_, made), *_ = catalogue(["quick"], ["ROCM_ATTN"], "0.19", 7)
    assert seed_in(made.id) == 7
    assert problem_named(made.id, "0.19", "quick", SEED) == made
    assert problem_named(made.id.replace("-s7", "-s8"), "0.19", "quick", SEED) != made


@pytest.mark.parametrize("name", ["nosuch", "rocm-attn-paged-s36702", "-s", ""])
def test_no_other_id_is_known(name: str) -> None:
    assert problem_named(name, "0.19", "quick", SEED) is None


def test_tiers_that_differ_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    (_, one), (_, other), *_ = catalogue(["quick"], ["ROCM_ATTN"], "0.19", SEED)
    made = {"gpu": [one], "isa": [other]}
    monkeypatch.setattr(
        named,
        "_by_id",
        lambda tier, backend, *_: {"x": made.get(tier, [])} if backend == "ROCM_ATTN" else {},
    )
    problem_named.cache_clear()
    with pytest.raises(UsageError, match="the tiers gpu, isa have different problems"):
        problem_named("x", "0.19", "quick", SEED)
    assert problem_named("x", "0.19", "isa", SEED) == other
    problem_named.cache_clear()


def test_a_vllm_is_asked_the_problem_as_its_gpu_stores_it() -> None:
    """The id that a report of a quick run prints, and the one that `problems list` prints."""
    made = (each for _, each in catalogue(["quick"], ["TRITON_ATTN"], "0.33", SEED))
    listed = next(each for each in made if each.kv_cache_dtype == "fp8_e4m3fn")
    ids = [each.id for each in in_each_encoding(listed)]
    assert len(ids) == 2
    for name in ids:
        config = RunConfig(
            ("vllm==0.33.0",),
            ("rocm72-aiter-mha",),
            edition="0.33",
            tier="quick",
            suite_options={"problem": [name]},
        )
        (case,) = cases(Context(config))
        assert case.problem is not None
        assert (case.problem.kv_cache_dtype, case.target) == ("fp8_e4m3fnuz", "gfx942")
