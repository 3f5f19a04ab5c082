"""What packed caches hold: the formats by hand, and that no problem hangs on a last place."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from conformance.problems import packed_caches as packed
from conformance.problems.cache_dtypes import DS_MLA_CACHES, HEAD_SCALED_CACHES, PACKED_CACHES
from conformance.problems.families import problems_for
from conformance.problems.problem import Problem
from conformance.problems.tensors import materialise
from conformance.worker.attend import PACKED, packed_bytes

MSE = tuple(name for name, (bits, _) in packed.BITS.items() if bits < 8)
ROTATED = (*MSE, "ultraquant_4bit")


@pytest.mark.parametrize("size", [32, 80, 96, 256])
def test_a_rotation_is_its_own_inverse(size: int) -> None:
    turn = packed.rotation(size)
    assert torch.allclose(turn @ turn, torch.eye(size, dtype=torch.float64))
    assert torch.equal(turn, turn.T)


def test_a_rotation_is_sylvesters_matrix() -> None:
    signs = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    assert torch.equal(packed.rotation(4) * 2, torch.tensor(signs, dtype=torch.float64))
    assert torch.equal(packed.rotation(20)[16:, 16:], packed.rotation(4))
    assert not packed.rotation(20)[16:, :16].any()


# J. Max, "Quantizing for minimum distortion", IRE Transactions on Information Theory 6 (1960),
# table I: the optimum for a normal distribution.
MAX_1960 = {
    3: [0.2451, 0.7560, 1.3440, 2.1520],
    4: [0.1284, 0.3881, 0.6568, 0.9424, 1.2562, 1.6181, 2.0690, 2.7326],
}


@pytest.mark.parametrize("bits", [3, 4])
def test_a_codebook_is_nearly_the_optimum(bits: int) -> None:
    """Nearly: the release's iterations end before they have converged."""
    entries = packed.codebook(64, bits) * 8
    assert torch.allclose(entries, -entries.flip(0), atol=1e-6)
    assert torch.allclose(entries[len(entries) // 2 :], torch.tensor(MAX_1960[bits]), atol=0.02)


def test_a_key_is_its_nearest_entries_at_its_own_length() -> None:
    key = torch.randn(32, generator=torch.Generator().manual_seed(5)).half()
    turned = [
        sum((-1) ** (i & j).bit_count() * float(x) for i, x in enumerate(key)) / math.sqrt(32)
        for j in range(32)
    ]
    length = math.sqrt(sum(x * x for x in turned))
    entries = packed.codebook(32, 3).tolist()
    apart = [[abs(e - x / length) for e in entries] for x in turned]
    chosen = [entries[row.index(min(row))] for row in apart]
    norm = math.sqrt(sum(e * e for e in chosen))
    right = torch.tensor([e / norm for e in chosen], dtype=torch.float64) * length
    stored = packed.stored_key(key[None], "turboquant_3bit_nc")[0]
    assert torch.allclose(stored @ packed.rotation(32), right, rtol=2**-10)
    assert float(stored.norm()) == pytest.approx(float(torch.tensor(length).half()))


def test_keys_of_8_bits_are_fp8() -> None:
    key = torch.tensor([[1.0625, 1.1875, -3.3, 500.0]]).half()
    assert packed.stored_key(key, "turboquant_k8v4").tolist() == [[1.0, 1.25, -3.25, 448.0]]


def test_values_are_steps_above_the_least() -> None:
    value = torch.tensor([[-1.0, -0.4, 0.2, 0.9, 14.0]]).half()
    assert packed.stored_value(value, "turboquant_4bit_nc").tolist() == [[-1, 0, 0, 1, 14]]
    value = torch.tensor([[0.0, 0.9, 3.4, 7.0]]).half()
    assert packed.stored_value(value, "turboquant_3bit_nc").tolist() == [[0, 1, 3, 7]]
    same = torch.full((1, 8), 0.3).half()
    assert torch.equal(packed.stored_value(same, "turboquant_3bit_nc"), same.double())


def test_fp4_has_a_power_of_two_for_each_group() -> None:
    value = torch.zeros(1, 96, dtype=torch.bfloat16)
    value[0, :4] = torch.tensor([8.0, 0.75, -0.75, 0.2])  # 0.156 * 8 is next to 1
    value[0, 32:35] = torch.tensor([64.0, 6.0, -100.0])  # 15.6: 16
    stored = packed.stored_value(value, "ultraquant_4bit")[0]
    # The middle between two numbers is the lower one.
    assert stored[:4].tolist() == [6.0, 0.5, -1.0, 0.0]
    assert stored[32:35].tolist() == [64.0, 8.0, -96.0]
    assert not stored[35:].any()


def test_rotated_queries_are_fp8_and_near_a_middle_either() -> None:
    query = torch.zeros(1, 64, dtype=torch.bfloat16)
    query[0, 0] = 3.1  # 3.09375: a coordinate of 0.387, where numbers are 0.03125 apart
    rounded, moved = packed.rounded_query(query)
    assert set(rounded[0].tolist()) == {0.375}
    assert not moved.any()
    query[0, 0] = 8.5  # 1.0625, in the middle of 1 and 1.125
    assert set(packed.rounded_query(query)[1][0].tolist()) == {0.125}


# Of 160 elements the last 32 are rotated by themselves; of 256 some are nearly always open.
@pytest.mark.parametrize("size", [64, 160, 256])
@pytest.mark.parametrize("name", ROTATED)
def test_no_key_hangs_on_a_last_place(name: str, size: int) -> None:
    keys = torch.randn(50, 2, size, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert packed._is_open(keys, name).any()
    settled = packed.settled_key(keys, name)
    assert not packed._is_open(settled, name).any()
    assert (settled - keys).abs().max() <= 2**-4 * keys.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_no_number_of_16_bits_is_where_a_power_of_two_begins(dtype: torch.dtype) -> None:
    numbers = torch.arange(1, 0x7C00, dtype=torch.int16).view(dtype)[:, None]
    assert not packed._has_open_scale(numbers.double()).any()
    assert packed._has_open_scale(torch.tensor([[8 * 2**0.5 / packed.SCALE_FACTOR]])).any()


@pytest.mark.parametrize("name", packed.BITS)
def test_no_value_hangs_on_a_last_place(name: str) -> None:
    """A value's code is the same whether quotients are a little more or less."""
    values = torch.randn(400, 64, generator=torch.Generator().manual_seed(2)).half()
    settled = packed.settled_value(values, name)
    assert bool((settled != values).any())
    steps, _, step = packed._steps(settled, name)
    for side in (1 - 2.0**-21, 1 + 2.0**-21):
        assert torch.equal((steps * side + 0.5).floor(), (steps + 0.5).floor())
        assert torch.equal((step * side).half(), step.half())


def test_which_tokens_a_prefill_reads_as_stored() -> None:
    """A decode and up to 128 tokens after a context; none without one."""
    (plain, *_) = problems_for("TURBOQUANT", "quick")
    lens = ((1, 0), (1, 9), (2, 9), (128, 9), (129, 9), (2, 0))
    problem = replace(
        plain,
        query_lens=tuple(q for q, _ in lens),
        context_lens=tuple(c for _, c in lens),
        dominant=(),
    )
    read = [problem.reads_computed(s) for s in range(len(lens))]
    assert read == [False, False, False, False, True, True]


@pytest.mark.parametrize("backend", ["TURBOQUANT", "ULTRAQUANT"])
def test_a_tier_asks_about_every_cache(backend: str) -> None:
    for tier in ("quick", "standard", "isa"):
        made = problems_for(backend, tier)
        asked = {problem.kv_cache_dtype for problem in made}
        assert asked == {name for name in PACKED_CACHES if name.startswith(backend.lower())}
        assert len({problem.id for problem in made}) == len(made)


def test_only_ultraquants_queries_are_rounded() -> None:
    def rounds(problem: Problem) -> bool:
        return any(problem.rounds_query(s) for s in range(problem.num_sequences))

    assert not any(map(rounds, problems_for("TURBOQUANT", "quick")))
    assert any(map(rounds, problems_for("ULTRAQUANT", "quick")))


@pytest.mark.parametrize(
    ("name", "size", "right"),
    [
        ("turboquant_k8v4", 128, 128 + 64 + 4),
        ("turboquant_4bit_nc", 64, 32 + 2 + 32 + 4),
        ("turboquant_k3v4_nc", 256, 96 + 2 + 128 + 4),
        ("turboquant_3bit_nc", 64, 24 + 2 + 24 + 4),
        ("ultraquant_4bit", 256, 272),
        ("ultraquant_4bit", 128, 136),
    ],
)
def test_the_bytes_of_a_row(name: str, size: int, right: int) -> None:
    assert packed_bytes(name, size) == right
    assert set(PACKED) == {*PACKED_CACHES, *HEAD_SCALED_CACHES, *DS_MLA_CACHES}


def test_problems_are_the_same_twice() -> None:
    (problem,) = (p for p in problems_for("ULTRAQUANT", "quick") if "packed_odd" in p.tags)
    one, two = materialise(problem), materialise(problem)
    assert torch.equal(one.keys, two.keys)
    assert torch.equal(one.values, two.values)
