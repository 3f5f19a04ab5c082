"""What parity asks of a release is what its edition admits, and what its engine gives."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import pytest

from conformance.config import RunConfig
from conformance.problems.families import problems_for
from conformance.problems.features import admitted, features
from conformance.problems.problem import Problem
from conformance.results import CaseResult, Outcome
from conformance.suites.case import Context
from conformance.suites.parity.case import ParityCase
from conformance.suites.parity.coverage import (
    RAN,
    closing_cases,
    kernels_reached,
    vllm_kernels,
)
from conformance.suites.parity.test_parity import cases

UNIFIED = "triton_unified_attention.kernel_unified_attention"
PREFIXED = ("TRITON_ATTN", "FLEX_ATTENTION")


def asked(edition: str, backend: str) -> list[Problem]:
    """The problems of the reference under an edition."""
    return [case.problem for case in cases_of("reference", edition, backend) if case.problem]


def test_problems_are_those_of_the_subjects_edition() -> None:
    """ROCM_ATTN claims prefix ranges until 0.31."""
    assert any(problem.mm_prefix for problem in asked("0.31", "ROCM_ATTN"))
    assert not any(problem.mm_prefix for problem in asked("0.32", "ROCM_ATTN"))


def prefixed(edition: str) -> list[Problem]:
    made = (problems_for(b, t, 0, edition) for b in PREFIXED for t in ("quick", "standard"))
    return [problem for problem in chain(*made) if problem.mm_prefix]


def longest(problem: Problem) -> int:
    return max(
        end - start + 1 for ranges in problem.mm_prefix for start, end in ranges or ((0, 0),)
    )


def past_the_keys(problem: Problem) -> bool:
    """Whether some key of a range, but not all, is not there yet."""
    pairs = zip(problem.mm_prefix, problem.seq_lens, strict=True)
    return any(start < keys <= end for ranges, keys in pairs for start, end in ranges)


@pytest.mark.parametrize(
    ("edition", "longer", "past"),
    [("0.19", True, True), ("0.20", False, True), ("0.30", False, False)],
)
def test_what_no_engine_of_a_release_gives_is_not_asked(
    edition: str, longer: bool, past: bool
) -> None:
    made = prefixed(edition)
    windowed = [problem for problem in made if problem.window[0] >= 0]
    assert any(longest(problem) > problem.window[0] + 1 for problem in windowed) == longer
    assert any(map(past_the_keys, made)) == past
    assert any(longest(problem) > 1 for problem in windowed)
    row = admitted("TRITON_ATTN", edition)
    assert (row.long_prefixes, row.cut_prefixes) == (longer, past)


@pytest.mark.parametrize("edition", ["0.19", "0.33"])
def test_rocm_attn_is_asked_what_only_its_triton_kernels_take(edition: str) -> None:
    tagged = [p for p in asked(edition, "ROCM_ATTN") if "large_pages" in p.tags]
    found = {(p.alibi, p.window[0] >= 0) for p in tagged}
    assert found == {("none", False), ("linear", False), ("linear", True)}
    assert {p.block_size for p in tagged} == {64}


def test_the_kernels_that_must_run_are_those_of_the_release() -> None:
    assert f"{UNIFIED}_3d" in vllm_kernels("TRITON_ATTN", "0.19")
    assert UNIFIED not in vllm_kernels("TRITON_ATTN", "0.19")
    newer = vllm_kernels("TRITON_ATTN", "0.20")
    assert UNIFIED in newer
    assert not any(name.endswith(("_2d", "_3d")) for name in newer)
    merge = "triton_merge_attn_states.merge_attn_states_kernel"
    assert merge in vllm_kernels("TRITON_MLA", "0.31")
    assert merge not in vllm_kernels("TRITON_MLA", "0.32")
    assert vllm_kernels("ROCM_AITER_FA", "0.33") == ()


CASE = CaseResult(
    suite="parity",
    name="PAR-004 TRITON_ATTN [one]",
    outcome=Outcome.PASSED,
    cells=("rocm72-aiter-mha",),
    subject="vllm==0.33.0",
    subject_version="0.33.0",
    edition="0.33",
    requirement="PAR-004",
    source="",
    target="gfx942",
    platform="device interpreter",
    simulated=True,
    counts={f"{RAN}{name}": 1 for name in vllm_kernels("TRITON_ATTN", "0.33")},
    backend="TRITON_ATTN",
)


@pytest.mark.parametrize("edition", ["0.33", "0.19"])
def test_a_release_is_held_to_its_own_kernels_by_whatever_edition(edition: str) -> None:
    (closing,) = kernels_reached([replace(CASE, edition=edition)], "source")
    assert closing.outcome is Outcome.PASSED


def test_a_build_of_no_release_is_held_to_its_editions_kernels() -> None:
    older = replace(CASE, subject_version="dev", edition="0.19")
    (closing,) = kernels_reached([older], "source")
    assert f"{UNIFIED}_2d" in closing.message


@pytest.mark.parametrize(("targets", "asked_for"), [(("gfx942",), 0), (("gfx942", "gfx950"), 2)])
def test_kernels_of_one_target_are_asked_where_problems_were_given_to_it(
    targets: tuple[str, ...], asked_for: int
) -> None:
    name = "ROCM_AITER_MLA_SPARSE"
    ended = [replace(CASE, backend=name, counts={}, target=target) for target in targets]
    (closing,) = kernels_reached(ended, "source")
    assert closing.message.count("indexer") == asked_for
    assert "_sparse_attn_prefill_ragged_kernel" in closing.message


@pytest.mark.parametrize(("device", "asked_for"), [("isa:gfx942", 1), ("aot:gfx942", 0)])
def test_no_kernel_is_asked_to_run_where_code_is_only_compiled(device: str, asked_for: int) -> None:
    config = RunConfig(("vllm==0.33.0",), ("*",), edition="0.33", device=device, tier="isa-quick")
    assert len([*closing_cases(config, [CASE])]) == asked_for


def cases_of(subject: str, edition: str, backend: str) -> list[ParityCase]:
    config = RunConfig(
        (subject,),
        ("rocm72-aiter-mha",),
        edition=edition,
        tier="quick",
        suite_options={"backend": [backend]},
    )
    return [case for case in cases(Context(config)) if case.backend == backend]


def test_a_backend_of_rdna_is_shown_one_and_one_process_has_it() -> None:
    """A vLLM takes seconds to start; the other backends' cases are any process's."""
    segmented = cases_of("vllm==0.33.0", "0.33", "ROCM_SEGMENTED_ATTN")
    assert len(segmented) > 10
    assert {case.target for case in segmented} == {"gfx1201"}
    assert len({case.group for case in segmented}) == 1
    other = cases_of("vllm==0.33.0", "0.33", "TRITON_ATTN_DIFFKV")
    assert {case.target for case in other} == {"gfx942"}
    assert len({case.group for case in other}) == len(other)
    own = cases_of("reference", "0.33", "ROCM_SEGMENTED_ATTN")
    assert len({case.group for case in own}) == len(own)


@pytest.mark.parametrize(
    ("backend", "target", "stored"),
    [
        ("TRITON_MLA", "gfx942", "fp8_e4m3fnuz"),
        ("TRITON_ATTN", "gfx942", "fp8_e4m3fnuz"),
        ("ROCM_SEGMENTED_ATTN", "gfx1201", "fp8_e4m3fn"),
    ],
)
def test_no_quick_problem_is_lost_to_the_fp8_of_a_gpu_that_is_not_shown(
    backend: str, target: str, stored: str
) -> None:
    made = cases_of("vllm==0.33.0", "0.33", backend)
    assert {case.target for case in made} == {target}
    problems = [case.problem for case in made if case.problem]
    e4m3 = {p.kv_cache_dtype for p in problems if "e4m3" in p.kv_cache_dtype}
    assert stored in e4m3 <= {stored, f"{stored}_per_token_head"}
    assert len({p.id for p in problems}) == len(problems)


def test_the_suites_own_kernels_are_asked_in_every_fp8() -> None:
    assert {p.kv_cache_dtype for p in asked("0.19", "TRITON_MLA")} >= {"fp8_e4m3fn", "fp8_e4m3fnuz"}


def test_a_kind_is_shown_the_gpu_of_its_kernels_and_one_process_has_it() -> None:
    made = cases_of("vllm==0.33.0", "0.33", "ROCM_AITER_MLA_SPARSE")
    shown = {(case.problem.kind, case.target) for case in made if case.problem}
    assert shown == {("indexer", "gfx950"), ("mla_sparse", "gfx942")}
    indexers = [case for case in made if case.problem and case.problem.kind == "indexer"]
    assert {case.problem.kv_cache_dtype for case in indexers if case.problem} == {"fp8_e4m3fn"}
    assert len({case.group for case in indexers}) == 1


def test_the_gpu_of_an_emulated_run_is_shown_to_all() -> None:
    others = [name for name, row in features().items() if row.shown or row.shown_for]
    config = RunConfig(
        ("vllm==0.33.0",),
        ("*",),
        edition="0.33",
        device="isa:gfx1100",
        tier="quick",
        suite_options={"backend": others},
    )
    made = [case for case in cases(Context(config)) if case.problem is not None]
    assert {case.backend for case in made} == set(others)
    assert {case.target for case in made} == {"gfx1100"}


@pytest.mark.parametrize(("edition", "some"), [("0.29", False), ("0.30", True)])
def test_sparse_attention_is_asked_where_a_triton_kernel_does_some(
    edition: str, some: bool
) -> None:
    found = cases_of(f"vllm=={edition}.0", edition, "ROCM_AITER_MLA_SPARSE")
    assert any(case.problem is not None for case in found) == some
    assert len(found) > 1 or found[0].problem is None


@pytest.mark.parametrize("backend", ["ROCM_SEGMENTED_ATTN", "TRITON_ATTN_DIFFKV"])
def test_a_later_backend_is_asked_by_the_editions_that_have_it(backend: str) -> None:
    assert not asked("0.23", backend)
    assert asked("0.33", backend)


def test_values_have_another_head_size_where_a_backend_takes_it() -> None:
    for tier in ("quick", "standard"):
        for problem in problems_for("TRITON_ATTN_DIFFKV", tier, 0, "0.33"):
            assert problem.v_head_size != problem.head_size
    for problem in problems_for("TRITON_ATTN", "quick", 0, "0.33"):
        assert problem.v_head_size == problem.head_size


def test_rdnas_backend_has_the_fp8_of_rdna_and_no_more_heads_than_it_takes() -> None:
    assert admitted("ROCM_SEGMENTED_ATTN", "0.33").caches == ("auto", "fp8_e4m3fn")
    made = problems_for("ROCM_SEGMENTED_ATTN", "standard", 0, "0.33")
    assert max(problem.group for problem in made) <= 16
