"""DeepSeek-V4's caches: their format against examples done by hand, and what problems ask."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from conformance.errors import SuiteError
from conformance.oracle.attention import attention
from conformance.problems import ds_mla
from conformance.problems.families import problems_for
from conformance.problems.problem import Problem
from conformance.problems.tensors import materialise

DSV4 = "ROCM_FLASHMLA_SPARSE_DSV4"


def rows(*first: float) -> torch.Tensor:
    """A key whose first group of columns begins with these, and whose rotary columns are odd."""
    made = torch.zeros(1, 512)
    made[0, : len(first)] = torch.tensor(first)
    made[0, 448:] = 1.0078125
    return made.to(torch.bfloat16)


def test_a_group_is_scaled_by_the_least_power_of_two_that_takes_it_to_448() -> None:
    # 448 * 2**-8 is 1.75: it takes a scale of 2**-8, the next number one of 2**-7.
    assert ds_mla.scales(rows(1.75))[0, 0] == 2.0**-8
    assert ds_mla.scales(rows(1.7578125))[0, 0] == 2.0**-7
    assert ds_mla.scales(rows(-1.7578125))[0, 0] == 2.0**-7


def test_zeros_are_scaled_as_a_ten_thousandth() -> None:
    assert ds_mla.scales(rows())[0].tolist() == [2.0**-22] * 7
    assert ds_mla.stored(rows())[0, :448].abs().max() == 0


def test_codes_have_three_bits_behind_the_point_and_ties_go_to_even() -> None:
    # With a scale of 2**-7 the step at 1 is 1/8: 1 + 1/16 and 1 + 3/16 are ties.
    stored = ds_mla.stored(rows(3.0, 1.0625, 1.1875, 1.125))[0]
    assert stored[:4].tolist() == [3.0, 1.0, 1.25, 1.125]


def test_a_group_has_no_part_in_anothers_scale_and_rotary_columns_stay() -> None:
    key = rows(3.0)
    key[0, 64] = 0.0107421875
    stored = ds_mla.stored(key)[0]
    assert ds_mla.scales(key)[0, 1] == 2.0**-15
    assert stored[64] == 0.0107421875
    assert torch.equal(stored[448:], key[0, 448:].double())


def test_either_encoding_reads_the_same() -> None:
    """E4M3FNUZ to 224, with a scale twice as large; what a cache on gfx942 holds."""
    key = torch.randn(64, 448, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    grouped = key.double().reshape(64, 7, 64)
    scale = torch.exp2(torch.ceil(torch.log2(grouped.abs().amax(2, keepdim=True) / 224.0)))
    fnuz = (grouped / scale).float().to(torch.float8_e4m3fnuz).double() * scale
    whole = torch.nn.functional.pad(key, (0, 64))
    assert torch.equal(fnuz.reshape(64, 448), ds_mla.stored(whole)[:, :448])


def test_no_problem_has_a_group_whose_scale_hangs_on_a_logarithm() -> None:
    settled = ds_mla.settled(rows(1.75)[:, None])
    assert float(settled[0, 0, 0]) > 1.75
    for problem in problems_for(DSV4, "quick", 3, "0.33"):
        keys = materialise(problem).keys
        coded = keys.double()[..., :448].reshape(len(keys), 7, 64).abs().amax(2)
        assert not bool((torch.frexp(coded)[0] == 448 / 512).any())


@pytest.mark.parametrize("tier", ["quick", "standard", "isa", "isa-quick"])
def test_chosen_keys_lie_before_the_window_and_are_as_many_as_an_indexer_has(tier: str) -> None:
    for problem in problems_for(DSV4, tier, 1, "0.33"):
        chosen = materialise(problem).topk_indices
        assert chosen is not None
        row = 0
        for keys, queries in zip(problem.seq_lens, problem.query_lens, strict=True):
            for position in range(keys - queries, keys):
                listed = [index for index in chosen[row].tolist() if index >= 0]
                there = (position + 1) // problem.tokens_of_a_chosen_key
                assert len({*listed}) == len(listed) == min(there, problem.topk)
                assert all(index < min(there, position - problem.window[0]) for index in listed)
                row += 1


def test_quick_has_lists_of_no_key_of_one_and_at_the_edges_of_tiles() -> None:
    made = problems_for(DSV4, "quick", 1, "0.33")
    windows, lists = set(), set()
    for problem in made:
        ends = [keys for keys, q in zip(problem.seq_lens, problem.query_lens, strict=True) if q]
        windows |= {min(keys, problem.window[0] + 1) for keys in ends}
        lists |= {min(keys // problem.tokens_of_a_chosen_key, problem.topk) for keys in ends}
    assert {1, 15, 16, 17, 32, 33, 63, 64} <= windows
    assert {0, 1, 15, 16, 17, 32, 33, 65} <= lists


def test_a_token_sees_its_window_and_the_chosen_keys_and_no_other() -> None:
    (problem,) = (p for p in problems_for(DSV4, "quick", 1, "0.33") if p.tags == ("chosen_few",))
    problem = replace(problem, query_lens=(1,), context_lens=(99,), dominant=(), sinks=False)
    tensors = materialise(problem)
    right, _ = attention(problem, tensors)
    assert tensors.topk_indices is not None
    seen = {*tensors.topk_indices[0].tolist(), *range(99 - problem.window[0], 100)} - {-1}
    for position in range(100):
        keys = tensors.keys.clone()
        keys[position] = 3
        moved, _ = attention(problem, replace(tensors, keys=keys))
        assert torch.equal(moved, right) == (position not in seen), position


@pytest.mark.parametrize(
    "fields",
    [
        *({"window": (4, 0)}, {"window": (-1, -1)}, {"window": (255, 0)}, {"block_size": 64}),
        *({"latent_rank": 512}, {"v_head_size": 448}, {"dtype": "float16"}),
    ],
)
def test_what_no_two_caches_have_is_refused(fields: dict[str, object]) -> None:
    made = problems_for(DSV4, "quick", 1, "0.33")[0].to_json()
    made = {**made, "extra_rows": 0, **fields}
    with pytest.raises(SuiteError, match="two caches"):
        Problem.from_json(made).check()
