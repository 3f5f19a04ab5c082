"""The error bound: never below a correct kernel's error, and near enough to catch a wrong one."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.cli import run_cli
from conformance.errors import ExitCode
from conformance.oracle import proof
from conformance.oracle.arithmetic import (
    UNIT,
    Arithmetic,
    dot_error,
    gamma,
    merges,
    sum_error,
    tiles,
)
from conformance.oracle.attention import attention, by_row, indexer_scores, pieces, sequences
from conformance.oracle.judgement import Truth, judge, judge_topk, solve, solve_indexer
from conformance.problems.problem import Problem
from conformance.problems.tensors import FLOAT8, Tensors, dtype_of, materialise

torch.set_num_threads(1)  # tiny tensors: more threads only wait


def problem_of(**fields: Any) -> Problem:
    usual: dict[str, Any] = {
        "kind": "paged",
        "backend": "",
        "id": "a test's",
        "seed": 3,
        "query_lens": (1, 20),
        "context_lens": (70, 3),
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_size": 64,
        "v_head_size": 64,
    }
    return Problem(**{**usual, **fields})


def solved(**fields: Any) -> tuple[Problem, Tensors, Truth]:
    problem = problem_of(**fields)
    tensors = materialise(problem)
    return problem, tensors, solve(problem, tensors)


def test_correct_kernels_are_within_and_near() -> None:
    """No false alarm; in 16-bit dtypes one element in a hundred is beyond a twentieth."""
    found = proof.prove(150, seed=11)
    assert {e.kernel for e in found} == {"plain", *proof.KERNELS}
    assert [alarm for e in found for alarm in e.alarms] == []
    for evidence in found:
        if evidence.dtype != "float32":
            assert evidence.percentile(0.99) > 0.05, evidence.summary()


def test_a_kernel_that_rounds_its_logits_is_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product rounded to the dtype before the softmax is what the bound is there to catch."""
    exact = proof._logits

    def rounded(*arguments: Any) -> torch.Tensor:
        return exact(*arguments).to(torch.bfloat16).float()

    monkeypatch.setattr(proof, "_logits", rounded)
    assert sum(len(e.alarms) for e in proof.prove(12, seed=11)) > 6


def test_prove_bound_prints_a_table_and_fails_on_an_alarm(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_cli(["prove-bound", "--count", "2", "--format", "json"]) == ExitCode.CONFORMANT
    rows = json.loads(capsys.readouterr().out)
    assert sum(row["problems"] for row in rows) == 4
    monkeypatch.setattr(proof, "_ratio", lambda got, *_: torch.full_like(got.double(), 1.5))
    assert run_cli(["prove-bound", "--count", "1"]) == ExitCode.NOT_CONFORMANT
    assert "false alarm: proof-0: 1.5" in capsys.readouterr().err


def test_no_gpu_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        assert run_cli(["prove-bound", "--count", "1", "--device", "cuda"]) == ExitCode.CONFORMANT
    else:
        assert run_cli(["prove-bound", "--device", "cuda"]) == ExitCode.USAGE
        assert "--device cpu" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_exact_output_passes_and_twice_the_bound_fails(dtype: str) -> None:
    problem, _, truth = solved(dtype=dtype)
    good = judge(problem, truth, truth.output.to(dtype_of(problem)), truth.lse.float())
    assert good.passed and good.ratio < 1, str(good)
    wrong = truth.output.clone()
    wrong[5, 2, 7] -= 2 * truth.bound[5, 2, 7]
    found = judge(problem, truth, wrong, truth.lse)
    assert not found.passed and found.wrong == 1 and found.ratio == pytest.approx(2)
    assert "sequence 1, query token 4, head 2, element 7" in str(found)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_is_never_within(value: float) -> None:
    problem, _, truth = solved()
    wrong = truth.output.clone()
    wrong[0, 1, 3] = value
    found = judge(problem, truth, wrong)
    assert found.ratio == math.inf and found.not_finite == 1 and not found.passed
    assert "sequence 0, query token 0, head 1, element 3" in str(found)


def test_wrong_sum_fails() -> None:
    problem, _, truth = solved()
    lse = truth.lse.clone()
    lse[3, 1] += 2 * truth.lse_bound[3, 1]
    found = judge(problem, truth, truth.output, lse)
    assert not found.passed and found.ratio == 0 and "log-sum-exp" in str(found)


def test_a_row_without_keys_is_exactly_zero() -> None:
    problem, _, truth = solved(context_lens=(0, 0), key_lens=(0, 9), causal=False)
    assert truth.bound[0].eq(0).all() and truth.lse_bound[0].eq(0).all()
    assert judge(problem, truth, truth.output, truth.lse).passed
    tiny = truth.output.clone()
    tiny[0, 0, 0] = 1e-30
    assert judge(problem, truth, tiny).ratio == math.inf
    lse = truth.lse.clone()
    lse[0, 0] = -1e30
    assert not judge(problem, truth, truth.output, lse).passed


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("dominant", [0, 15, 16, 70])
def test_dropping_a_dominant_key_shows(dtype: str, dominant: int) -> None:
    problem, tensors, truth = solved(dtype=dtype, dominant=((0, dominant),))
    keys = tensors.keys.double().clone()
    keys[dominant] = -1e3 * keys[dominant]
    dropped, _ = attention(problem, replace(tensors, keys=keys))
    assert judge(problem, truth, dropped).ratio > 50


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from(["float16", "bfloat16", "float32"]))
def test_moving_what_may_be_moved_stays_within(seed: int, dtype: str) -> None:
    """Inputs moved by a hundredth of a unit roundoff move outputs by less than the bound."""
    problem, tensors, truth = solved(
        seed=seed, dtype=dtype, query_lens=(1, 3), context_lens=(90, 5)
    )
    noise = torch.Generator().manual_seed(seed)
    unit = UNIT[dtype] if dtype != "float32" else 1e-7
    values = tensors.values.double()
    values = values * (1 + 0.99 * unit * (2 * torch.rand(values.shape, generator=noise) - 1))
    moved, _ = attention(problem, replace(tensors, values=values))
    assert judge(problem, truth, moved).ratio <= 1


def test_bound_grows_with_what_an_algorithm_may_do() -> None:
    problem, tensors, plain = solved(
        kv_cache_dtype="fp8_e4m3fnuz", k_scale=0.013, v_scale=0.02, dtype="float16"
    )
    for fields in (
        {"partial_roundings": 1},
        {"partial_roundings": 3},
        {"flushes_subnormals": True},
        {"eight_bit": "fp8_e4m3fnuz"},
        {"eight_bit_weights": "fp8_e4m3fnuz"},
        {"cuts_off": True},
    ):
        more = solve(problem, tensors, Arithmetic(**fields), with_torch=False)
        assert (more.bound >= plain.bound).all() and (more.bound > plain.bound).any(), fields
    less = solve(problem, tensors, Arithmetic(rounds_dequantised=False), with_torch=False)
    assert (less.bound < plain.bound).all()
    assert math.isnan(less.torch_error) and plain.torch_error > 0


@pytest.mark.parametrize("kind", ["fp8_e4m3fn", "fp8_e4m3fnuz"])
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_a_kernel_that_multiplies_in_fp8_is_within(kind: str, spread: float) -> None:
    """Queries and probabilities in fp8, scaled by row: many are subnormal where they spread."""
    problem = problem_of(kv_cache_dtype=kind, k_scale=0.02, v_scale=0.03, dtype="float16",
                         query_lens=(1, 1), context_lens=(300, 40))  # fmt: skip
    tensors = materialise(problem)
    growing = torch.linspace(-1, 1, problem.head_size).exp() ** math.log(spread)
    tensors = replace(tensors, query=(tensors.query.float() * growing).to(tensors.query.dtype))
    truth = solve(problem, tensors, Arithmetic(eight_bit=kind), with_torch=False)
    plain = solve(problem, tensors, with_torch=False)
    stored = getattr(torch, kind.replace("fp8", "float8"))

    def rounded(x: torch.Tensor) -> torch.Tensor:
        scale = 240 / x.abs().amax(-1, keepdim=True)
        return (x * scale).float().to(stored).double() / scale

    moved, _ = attention(problem, replace(tensors, query=rounded(tensors.query.double())))
    assert judge(problem, truth, moved).ratio <= 1
    assert not judge(problem, plain, moved).passed


@pytest.mark.parametrize("kind", ["fp8_e4m3fn", "fp8_e4m3fnuz"])
def test_weights_that_are_rounded_to_fp8_are_within(kind: str) -> None:
    """Weights of the largest, as they are: those far below it are subnormal, or 0."""
    problem = problem_of(
        kv_cache_dtype=kind, k_scale=0.02, v_scale=0.03, dtype="float16", num_kv_heads=1,
        query_lens=(1,), context_lens=(300,),
    )  # fmt: skip
    tensors = materialise(problem)
    truth = solve(problem, tensors, Arithmetic(eight_bit_weights=kind), with_torch=False)
    plain = solve(problem, tensors, with_torch=False)
    moved = truth.output.clone()
    for _, operands in sequences(problem, tensors):
        for piece in pieces(problem, tensors, 0, operands):
            largest = piece.weight.amax(-1, keepdim=True)
            stored = (piece.weight / largest).float().to(FLOAT8[kind]).double() * largest
            moved[piece.rows] = by_row(torch.bmm(stored, piece.operands.value), problem)
    assert judge(problem, truth, moved).ratio <= 1
    assert not judge(problem, plain, moved).passed


def test_an_output_that_is_cut_off_is_within_twice_the_rounding() -> None:
    problem, tensors, plain = solved(dtype="float16", query_lens=(1,), context_lens=(0,))
    cut = solve(problem, tensors, Arithmetic(cuts_off=True), with_torch=False)
    exact = plain.output
    unit = 2.0 ** (exact.abs().log2().floor() - 10)
    beyond = exact + 1.4 * unit * exact.sign()
    assert not judge(problem, plain, beyond).passed
    assert judge(problem, cut, beyond).passed


def test_bound_grows_with_the_keys_and_shrinks_with_the_unit() -> None:
    bounds = [solved(context_lens=(n, 3))[2].bound[0].mean() for n in (60, 600, 6000)]
    ratios = [
        b / solved(context_lens=(n, 3))[2].output[0].abs().mean()
        for b, n in zip(bounds, (60, 600, 6000), strict=True)
    ]
    assert ratios == sorted(ratios)
    by_dtype = [solved(dtype=d)[2].bound.mean() for d in ("bfloat16", "float16", "float32")]
    assert by_dtype == sorted(by_dtype, reverse=True)


@given(st.integers(1, 200_000), st.integers(0, 1000))
def test_counts_grow_with_their_argument(keys: int, more: int) -> None:
    few, many = (
        torch.tensor([[float(keys)]]).double(),
        torch.tensor([[float(keys + more)]]).double(),
    )
    assert sum_error(few) <= sum_error(many) < 1
    assert tiles(few) <= tiles(many) and merges(few) <= merges(many)
    assert dot_error(keys) <= dot_error(keys + more)
    assert gamma(keys, 2.0**-24) >= keys * 2.0**-24


def test_sum_error_covers_every_tile_size() -> None:
    """Sums of truncated float32 products in tiles of any size, cut off like a matrix unit's."""
    draw = torch.Generator().manual_seed(5)
    for keys in (1, 16, 100, 1000):
        products = torch.rand(keys, generator=draw).double()
        limit = sum_error(torch.tensor([float(keys)]).double()).item() * float(products.sum())
        for tile in (16, 48, 512):
            total = 0.0
            for first in range(0, keys, tile):
                part = 0.0
                for product in products[first : first + tile].tolist():
                    part = _cut(part + product)
                total = _cut(_cut(total) + part)
            assert abs(total - float(products.sum())) <= limit, (keys, tile)


def _cut(x: float) -> float:
    """Truncation to float32's 24 bits."""
    if x == 0:
        return 0.0
    unit = math.ldexp(1.0, math.frexp(x)[1] - 24)
    return math.floor(x / unit) * unit


def indexer() -> Problem:
    return problem_of(
        kind="indexer",
        num_kv_heads=1,
        head_size=128,
        v_head_size=128,
        topk=8,
        dtype="bfloat16",
        kv_cache_dtype="fp8_e4m3fn",
    )


def test_topk_is_judged() -> None:
    problem = indexer()
    truth = solve_indexer(problem, materialise(problem))
    best = truth.score.topk(8).indices
    best[~truth.score.gather(1, best).isfinite()] = -1
    assert judge_topk(problem, truth, best) == []
    worst = best.clone()
    worst[0, 2] = int(truth.score[0].argmin())
    (left_out,) = judge_topk(problem, truth, worst)
    assert f"position {int(best[0, 2])} " in left_out and "left out" in left_out
    twice, outside, fewer = best.clone(), best.clone(), best.clone()
    twice[0, 1] = twice[0, 0]
    outside[1, 0] = 22
    fewer[0, 7] = -1
    assert "7 distinct of 8" in judge_topk(problem, truth, twice)[0]
    assert "position 22 is not visible" in judge_topk(problem, truth, outside)[0]
    assert "7 distinct of 7, not 8" in judge_topk(problem, truth, fewer)[0]


def test_dot_products_in_bfloat16_stay_within_their_bound() -> None:
    """They are beyond the one of float32, so that the wider bound is not given away."""
    problem = indexer()
    tensors = materialise(problem)
    exact, wider = solve_indexer(problem, tensors), solve_indexer(problem, tensors, "bfloat16")
    assert tensors.weights is not None
    for s, (rows, score, *_) in enumerate(indexer_scores(problem, tensors)):
        keys = tensors.keys[problem.key_starts[s] : problem.key_starts[s + 1], 0].float()
        dots = torch.einsum("mhd,nd->mhn", tensors.query[rows].float(), keys).bfloat16().double()
        found = (dots.clamp_min(0) * tensors.weights[rows].double()[..., None]).sum(1)
        error = torch.where(score.isfinite(), (found - score).abs(), 0)
        assert bool((error <= wider.bound[rows, : score.shape[1]]).all())
        assert bool((error > exact.bound[rows, : score.shape[1]]).any())


def test_scores_within_float32_choose_rightly() -> None:
    problem = indexer()
    tensors = materialise(problem)
    truth = solve_indexer(problem, tensors)
    noisy = truth.score + 0.99 * truth.bound * torch.sign(torch.randn(truth.score.shape))
    best = noisy.topk(8).indices
    best[~truth.score.gather(1, best).isfinite()] = -1
    assert judge_topk(problem, truth, best) == []
