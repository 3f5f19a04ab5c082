"""The float64 oracle: against loops, against torch, and against what attention must satisfy."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.oracle import attention as oracle
from conformance.oracle.attention import attention, indexer_scores
from conformance.problems.problem import Problem
from conformance.problems.tensors import Tensors, materialise, stored

torch.set_num_threads(1)  # tiny tensors: more threads only wait


def problem_of(**fields: Any) -> Problem:
    usual: dict[str, Any] = {
        "kind": "paged",
        "backend": "",
        "id": "a test's",
        "seed": 7,
        "query_lens": (1, 4, 0, 3),
        "context_lens": (9, 0, 2, 5),
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_size": 8,
        "v_head_size": 8,
        "dtype": "float32",
        "block_size": 4,
    }
    return Problem(**{**usual, **fields})


def by_loops(problem: Problem, tensors: Tensors) -> tuple[list[Any], list[Any]]:
    """The definition in ``rocm_reference.attention``, one number at a time."""
    key = stored(tensors.keys, problem, problem.k_scale).tolist()
    value = stored(tensors.values, problem, problem.v_scale).tolist()
    outputs, sums = [], []
    for s, count in enumerate(problem.query_lens):
        keys, base = problem.seq_lens[s], problem.key_starts[s]
        for t in range(count):
            i = keys - count + t
            row, row_sums = [], []
            for h in range(problem.num_heads):
                g = h // problem.group
                query = tensors.query[problem.query_starts[s] + t, h].double().tolist()
                logits = [
                    (j, _logit(problem, tensors, h, i, j, query, key[base + j][g]))
                    for j in range(keys)
                    if _sees(problem, s, i, j)
                ]
                total = sum(math.exp(x) for _, x in logits)
                total += math.exp(float(tensors.sinks[h])) if tensors.sinks is not None else 0.0
                out = [0.0] * problem.v_head_size
                for j, x in logits:
                    for d in range(problem.v_head_size):
                        out[d] += math.exp(x) / total * value[base + j][g][d]
                row.append(out)
                row_sums.append(math.log(total) if total else -math.inf)
            outputs.append(row)
            sums.append(row_sums)
    return outputs, sums


def _logit(
    problem: Problem, tensors: Tensors, h: int, i: int, j: int, query: list[float], key: list[float]
) -> float:
    x = problem.softmax_scale * sum(a * b for a, b in zip(query, key, strict=True))
    if problem.soft_cap:
        x = problem.soft_cap * math.tanh(x / problem.soft_cap)
    if tensors.alibi_slopes is not None:
        slope = float(tensors.alibi_slopes[h])
        x += slope * (j - i) if problem.alibi == "linear" else -slope * math.sqrt(max(i - j, 0))
    return x


def _sees(problem: Problem, s: int, i: int, j: int) -> bool:
    for start, end in problem.mm_prefix[s] if problem.mm_prefix else ():
        if start < end and start <= i <= end and start <= j <= end:
            return True
    left, right = problem.window
    past = left < 0 or i - left <= j
    return past and (right < 0 or j <= i + right) and (not problem.causal or j <= i)


OPTIONS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**31 - 1),
        "window": st.sampled_from([(-1, -1), (0, 0), (2, 0), (3, 2), (-1, 1)]),
        "causal": st.booleans(),
        "soft_cap": st.sampled_from([0.0, 1.5, 20.0]),
        "alibi": st.sampled_from(["none", "linear", "sqrt"]),
        "sinks": st.booleans(),
        "scale": st.sampled_from([None, 0.2]),
        "mm_prefix": st.sampled_from([(), (((1, 4), (5, 5)), (), ((0, 1),), ((2, 40),))]),
        "num_kv_heads": st.sampled_from([1, 2, 4]),
        "dominant": st.sampled_from([(), ((0, 9), (3, 6))]),
        "kv_cache_dtype": st.sampled_from(["auto", "fp8_e4m3fn", "fp8_e4m3fnuz", "fp8_e5m2"]),
        "k_scale": st.sampled_from([0.5, 0.013]),
        "v_scale": st.sampled_from([0.25, 0.02]),
        "extra_rows": st.sampled_from([0, 2]),
        "head_pad": st.sampled_from([0, 3]),
    }
)


@settings(max_examples=25, deadline=None)
@given(OPTIONS)
def test_as_by_loops(options: dict[str, Any]) -> None:
    problem = problem_of(**options)
    tensors = materialise(problem)
    output, lse = attention(problem, tensors)
    loops, sums = by_loops(problem, tensors)
    assert torch.allclose(output, torch.tensor(loops, dtype=torch.float64), rtol=1e-10, atol=1e-12)
    assert torch.allclose(lse, torch.tensor(sums, dtype=torch.float64), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
def test_as_torch_sdpa(causal: bool) -> None:
    problem = problem_of(query_lens=(9,), context_lens=(0,), causal=causal)
    tensors = materialise(problem)
    query, keys, values = (
        x.double().transpose(0, 1) for x in (tensors.query, tensors.keys, tensors.values)
    )
    expected = torch.nn.functional.scaled_dot_product_attention(
        query[None], keys[None], values[None], is_causal=causal, enable_gqa=True
    )[0].transpose(0, 1)
    assert torch.allclose(attention(problem, tensors)[0], expected, rtol=1e-12, atol=1e-12)


def test_cross_attention_sees_all_keys_and_none_gives_zero() -> None:
    problem = problem_of(context_lens=(0,) * 4, key_lens=(6, 2, 3, 0), causal=False)
    tensors = materialise(problem)
    output, lse = attention(problem, tensors)
    loops, _ = by_loops(problem, tensors)
    assert torch.allclose(output, torch.tensor(loops, dtype=torch.float64), rtol=1e-10, atol=1e-12)
    assert output[5:].eq(0).all() and lse[5:].eq(-math.inf).all()
    with_sink = replace(problem, sinks=True)
    tensors = materialise(with_sink)
    output, lse = attention(with_sink, tensors)
    assert tensors.sinks is not None
    assert output[5:].eq(0).all() and torch.allclose(lse[5:], tensors.sinks.double().expand(3, 4))


def test_mla_is_attention_over_its_own_key_and_prefill_is_its_projection() -> None:
    """Absorbing the projection into the query is exact: both kinds give one result."""
    prefill = problem_of(
        kind="mla_prefill", num_kv_heads=1, head_size=192, v_head_size=128, dtype="float32"
    )
    tensors = materialise(prefill)
    output, lse = attention(prefill, tensors)
    weight = tensors.kv_b_proj
    assert weight is not None
    nope = torch.einsum("thd,hdr->thr", tensors.query[..., :128].double(), weight[:, :128].double())
    query = torch.cat([nope, tensors.query[..., 128:].double()], -1)
    absorbed = replace(prefill, kind="mla", head_size=576, v_head_size=512, scale=192**-0.5)
    latent, latent_lse = attention(absorbed, replace(tensors, query=query))
    up = torch.einsum("thr,hvr->thv", latent, weight[:, 128:].double())
    assert torch.allclose(up, output, rtol=1e-9, atol=1e-9)
    assert torch.allclose(latent_lse, lse, rtol=1e-9)


def test_sparse_with_every_position_is_dense() -> None:
    sparse = problem_of(kind="mla_sparse", num_kv_heads=1, head_size=576, v_head_size=512, topk=64)
    tensors = materialise(sparse)
    dense = replace(sparse, kind="mla", topk=0)
    assert torch.equal(attention(sparse, tensors)[0], attention(dense, tensors)[0])
    fewer = materialise(replace(sparse, topk=2))
    assert not torch.allclose(
        attention(replace(sparse, topk=2), fewer)[0], attention(dense, tensors)[0]
    )


def test_fp8_scales_are_the_keys_and_the_values() -> None:
    """What is stored is ``round(x / scale)``: known by hand in each encoding."""
    x = torch.tensor([1.0, 1.0625, 1.1875, 1000.0, -0.001, 0.0])
    for cache, expected in {
        "fp8_e4m3fn": [1.0, 1.0, 1.25, 448.0, -(2.0**-9) * 1, 0.0],
        "fp8_e4m3fnuz": [1.0, 1.0, 1.25, 240.0, -(2.0**-10) * 1, 0.0],
        "fp8_e5m2": [1.0, 1.0, 1.25, 1024.0, -(2.0**-10), 0.0],
    }.items():
        problem = problem_of(kv_cache_dtype=cache)
        assert stored(x, problem, 1.0).tolist() == pytest.approx(expected, rel=0.03), cache
        assert stored(4 * x, problem, 4.0)[:3].tolist() == [4 * e for e in expected[:3]], cache


def test_new_tokens_as_computed_or_as_stored() -> None:
    """A prefill may read its own keys as computed; a decode, and the context, never."""
    problem = problem_of(kv_cache_dtype="fp8_e4m3fn", k_scale=0.5, v_scale=0.5)
    tensors = materialise(problem)
    stored_only, _ = attention(problem, tensors)
    computed, _ = attention(replace(problem, new_tokens_from_cache=False), tensors)
    assert torch.equal(stored_only[0], computed[0])
    assert not torch.allclose(stored_only[1], computed[1])


@settings(max_examples=15, deadline=None)
@given(OPTIONS)
def test_order_of_keys_does_not_matter_without_positions(options: dict[str, Any]) -> None:
    plain = {"causal": False, "window": (-1, -1), "alibi": "none", "mm_prefix": ()}
    problem = problem_of(
        **{**options, **plain, "query_lens": (2,), "context_lens": (8,)},
    )
    problem = replace(problem, dominant=())
    tensors = materialise(problem)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(options["seed"]))
    moved = replace(tensors, keys=tensors.keys[order], values=tensors.values[order])
    for a, b in zip(attention(problem, tensors), attention(problem, moved), strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


def test_shift_of_all_logits_moves_the_sum_alone() -> None:
    """A constant coordinate in the query meets a constant in every key."""
    problem = problem_of(scale=1.0)
    tensors = materialise(problem)
    query, keys = tensors.query.double().clone(), tensors.keys.double().clone()
    query[..., 0], keys[..., 0] = 1.0, 0.0
    base = replace(tensors, query=query, keys=keys)
    shifted = keys.clone()
    shifted[..., 0] = 3.5
    output, lse = attention(problem, base)
    moved, moved_lse = attention(problem, replace(base, keys=shifted))
    assert torch.allclose(output, moved, rtol=1e-10) and torch.allclose(lse + 3.5, moved_lse)


def test_groups_are_repeated_heads() -> None:
    problem = problem_of(num_heads=6, num_kv_heads=2)
    tensors = materialise(problem)
    repeated = replace(
        tensors,
        keys=tensors.keys.repeat_interleave(3, 1),
        values=tensors.values.repeat_interleave(3, 1),
    )
    every = replace(problem, num_kv_heads=6)
    assert torch.allclose(attention(problem, tensors)[0], attention(every, repeated)[0])


def test_parts_merge_by_their_sums() -> None:
    problem = problem_of(query_lens=(2,), context_lens=(0,), key_lens=(12,), causal=False)
    tensors = materialise(problem)
    whole, whole_lse = attention(problem, tensors)
    parts = []
    for span in (slice(0, 5), slice(5, 12)):
        part = replace(problem, key_lens=(span.stop - span.start,))
        cut = replace(tensors, keys=tensors.keys[span], values=tensors.values[span])
        parts.append(attention(part, cut))
    (a, a_lse), (b, b_lse) = parts
    lse = torch.logaddexp(a_lse, b_lse)
    merged = a * torch.exp(a_lse - lse)[..., None] + b * torch.exp(b_lse - lse)[..., None]
    assert torch.allclose(lse, whole_lse) and torch.allclose(merged, whole)


def test_pieces_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(query_lens=(30, 7), context_lens=(0, 9), sinks=True, alibi="linear")
    tensors = materialise(problem)
    whole = attention(problem, tensors)
    monkeypatch.setitem(oracle.PIECE, "cpu", 4 * 16 * 5)
    for a, b in zip(whole, attention(problem, tensors), strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


def test_indexer_by_loops() -> None:
    problem = problem_of(
        kind="indexer",
        num_kv_heads=1,
        head_size=16,
        v_head_size=16,
        topk=3,
        dtype="bfloat16",
        kv_cache_dtype="fp8_e4m3fnuz",
    )
    tensors = materialise(problem)
    assert tensors.weights is not None
    for s, (rows, score, *_) in enumerate(indexer_scores(problem, tensors)):
        for r in range(rows.stop - rows.start):
            i = problem.seq_lens[s] - problem.query_lens[s] + r
            for j in range(score.shape[1]):
                expected = -math.inf
                if j <= i:
                    key = tensors.keys[problem.key_starts[s] + j, 0].double()
                    dots = (tensors.query[rows.start + r].double() * key).sum(-1)
                    weights = tensors.weights[rows.start + r].double()
                    expected = float((weights * dots.clamp_min(0)).sum())
                assert score[r, j].item() == pytest.approx(expected, rel=1e-12)
