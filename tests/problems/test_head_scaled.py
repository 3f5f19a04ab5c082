"""What caches with a scale per token and head hold: the formats by hand, and that none hangs on a
last place."""

from __future__ import annotations

import math

import pytest
import torch

from conformance.errors import SuiteError
from conformance.problems import head_scaled
from conformance.problems.admission import refusals
from conformance.problems.cache_dtypes import HEAD_SCALED_CACHES
from conformance.problems.families import problems_for
from conformance.problems.features import admitted
from conformance.problems.problem import Problem
from conformance.problems.tensors import materialise

INT8, FN, FNUZ, INT4 = HEAD_SCALED_CACHES


def test_int8_is_to_the_nearest_of_127_steps_halves_away_from_zero() -> None:
    row = torch.tensor([[12.7, 0.05, -0.05, 0.04, -12.6]], dtype=torch.float64)
    scale = torch.tensor([[0.1]], dtype=torch.float64)
    assert head_scaled.codes_of(row, INT8, scale).tolist() == [[127, 1, -1, 0, -126]]
    assert float(head_scaled.scales(row, INT8)) == pytest.approx(0.1)


@pytest.mark.parametrize(("name", "largest"), [(FN, 448.0), (FNUZ, 224.0)])
def test_fp8s_largest_code_is_the_largest_element(name: str, largest: float) -> None:
    row = torch.tensor([[-7.0, 3.5, 7 * 17 / largest]], dtype=torch.float64)
    scale = head_scaled.scales(row, name)
    assert float(scale) == 7 / largest
    # 17 lies in the middle of 16 and 18, of which 16 is even.
    assert head_scaled.codes_of(row, name, scale).tolist() == [[-largest, largest / 2, 16.0]]


@pytest.mark.parametrize("name", [INT8, FN, FNUZ, INT4])
def test_zeros_stay_zeros(name: str) -> None:
    rows = torch.zeros(2, 1, 32, dtype=torch.bfloat16)
    assert not head_scaled.stored(rows, name).any()
    assert head_scaled.scales(rows, name).amin() > 0


@pytest.mark.parametrize("size", [32, 80, 96])
def test_a_rotation_is_orthonormal_and_in_blocks(size: int) -> None:
    turn, block = head_scaled.rotation(size), size & -size
    assert torch.allclose(turn @ turn.T, torch.eye(size, dtype=torch.float64))
    assert torch.equal(turn[:block, :block], turn[-block:, -block:])
    assert not turn[:block, block:].any()
    assert torch.allclose(turn[:block, :block].abs(), torch.tensor(block**-0.5).double())


def test_int4_is_sixteen_steps_with_one_for_zero() -> None:
    rotated = torch.tensor([[-3.0, 0.0, 0.4, 12.0, 4.6]], dtype=torch.float64)
    codes, zero, scale = head_scaled._steps(rotated)
    assert zero.item() == 3.0
    assert scale.item() == pytest.approx(1.0, rel=2**-19)
    assert codes.tolist() == [[0, 3, 3, 15, 8]]
    above = rotated + 4  # all above zero: the steps begin there, and the greatest is cut off
    codes, zero, _ = head_scaled._steps(above)
    assert (zero.item(), codes.tolist()) == (0.0, [[1, 4, 4, 15, 9]])


def test_int4s_scale_lends_four_bits() -> None:
    row = torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    bits = int(head_scaled.scales(row, INT4).float().view(torch.int32))
    assert bits & 0xF == 0


@pytest.mark.parametrize("name", HEAD_SCALED_CACHES)
def test_what_is_stored_is_near(name: str) -> None:
    rows = torch.randn(20, 2, 64, generator=torch.Generator().manual_seed(2)).bfloat16()
    apart = (head_scaled.stored(rows, name) - rows.double()).norm(dim=-1)
    part = {INT8: 0.01, INT4: 0.15}.get(name, 0.04)
    assert bool((apart < part * rows.double().norm(dim=-1)).all())


@pytest.mark.parametrize("name", HEAD_SCALED_CACHES)
def test_no_row_hangs_on_a_last_place(name: str) -> None:
    """Codes are the same whether quotients are a little more or less."""
    rows = torch.randn(300, 2, 64, generator=torch.Generator().manual_seed(3)).bfloat16()
    settled = head_scaled.settled(rows, name)
    assert 0 < int((settled != rows).any(-1).sum()) < len(rows)
    assert (settled - rows).abs().amax() <= 2**-3
    if name == INT4:
        assert not head_scaled._is_open(settled).any()
        return
    scale = head_scaled.scales(settled, name)
    low, high = (head_scaled.codes_of(settled, name, scale * f) for f in (1 - 2**-20, 1 + 2**-20))
    assert torch.equal(low, high)


def test_values_differ_in_scale_by_token_and_head() -> None:
    values = head_scaled.spread(torch.ones(26, 2, 4))
    rows = values[..., 0]
    assert {*rows.flatten().tolist()} == {0.0, *head_scaled.FACTORS}
    assert bool((rows[1:, 0] != rows[:-1, 0]).all())
    assert bool((rows[:, 0] != rows[:, 1]).any())


def of(edition: str, tier: str = "quick") -> list[Problem]:
    return [p for p in problems_for("TRITON_ATTN", tier, edition=edition) if p.is_head_scaled]


@pytest.mark.parametrize(
    ("edition", "caches"),
    [("0.19", set()), ("0.20", {INT8, FN, FNUZ}), ("0.25", {*HEAD_SCALED_CACHES})],
)
def test_a_tier_asks_about_every_cache_of_an_edition(edition: str, caches: set[str]) -> None:
    assert {*admitted("TRITON_ATTN", edition).head_scaled} == caches
    for tier in ("quick", "standard", "isa"):
        made = of(edition, tier)
        assert {p.kv_cache_dtype for p in made} == caches
        assert len({p.id for p in made}) == len(made)


def test_other_problems_of_the_backend_are_the_same() -> None:
    """They are drawn apart, so that an edition's new caches change no problem of another."""
    before, after = (problems_for("TRITON_ATTN", "quick", edition=e) for e in ("0.24", "0.25"))
    assert [p for p in before if not p.is_head_scaled] == [p for p in after if not p.is_head_scaled]


def test_an_edition_admits_its_caches_alone() -> None:
    (problem, *_) = (p for p in of("0.25") if p.turns_heads)
    assert refusals(problem, "0.25") == []
    assert any("kv_cache_dtype" in why for why in refusals(problem, "0.24"))


def test_int4_is_asked_in_bfloat16() -> None:
    assert {p.dtype for p in of("0.25", "standard") if p.turns_heads} == {"bfloat16"}
    (problem, *_) = (p for p in of("0.25") if p.turns_heads)
    wrong = Problem.from_json({**problem.to_json(), "dtype": "float16"})
    with pytest.raises(SuiteError, match="bfloat16"):
        wrong.check()


def test_scales_of_a_problem_differ() -> None:
    (problem, *_) = of("0.20")
    scales = head_scaled.scales(materialise(problem).values, INT8)[..., 0]
    assert math.log2(float(scales[scales > 1e-5].max() / scales[scales > 1e-5].min())) > 3
    assert bool((scales < 1e-5).any())
