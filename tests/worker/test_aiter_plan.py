"""The plan of a latent decode in pieces, and the merge of what they compute."""

from __future__ import annotations

import pytest
import torch

from conformance.worker.aiter.latent_plan import BLOCK, Plan, plan
from conformance.worker.errors import Refused

LENGTHS = [1, 16, 17, 300, 4000]
HEADS, SIZE = 2, 4


def computed(made: Plan, lens: list[int], tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What kernels and the merge make of a plan, and what is right; no masks."""
    made_by = torch.Generator().manual_seed(2)
    count = len(lens) * tokens
    logits = torch.randn((count, HEADS, sum(lens)), generator=made_by, dtype=torch.float64)
    values = torch.randn((sum(lens), SIZE), generator=made_by, dtype=torch.float64)
    parts = max(len(made.parts), 1) * tokens
    partial = torch.full((parts, 1, HEADS, SIZE), torch.nan, dtype=torch.float64)
    sums = torch.full((parts, 1, HEADS, 1), torch.nan, dtype=torch.float64)
    out = torch.full((count, HEADS, SIZE), torch.nan, dtype=torch.float64)
    for _, part, first, last, begin, end, _, _ in made.pieces.tolist():
        seen = logits[first:last, :, begin:end]
        got = seen.softmax(-1) @ values[begin:end]
        if part < 0:
            out[first:last] = got
        else:
            partial[part : part + last - first, 0] = got
            sums[part : part + last - first, 0, :, 0] = seen.logsumexp(-1)
    made.merge(partial, sums, out)
    right, at = [], 0
    for number, keys in enumerate(lens):
        own = logits[number * tokens : (number + 1) * tokens, :, at : at + keys]
        right.append(own.softmax(-1) @ values[at : at + keys])
        at += keys
    return out, torch.cat(right)


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("workgroups", [1, 4, 304])
def test_pieces_merge_to_the_whole(workgroups: int, tokens: int) -> None:
    made = plan(LENGTHS, 16, tokens, workgroups)
    assert len(made.starts) == workgroups + 1
    assert int(made.starts[-1]) == len(made.pieces)
    assert made.meta.tolist() == [made.starts.data_ptr(), made.pieces.data_ptr()]
    out, right = computed(made, LENGTHS, tokens)
    assert torch.allclose(out, right)


def test_small_batches_are_cut_into_blocks() -> None:
    made = plan([33], 16, 1, 304)
    assert made.pieces[:, 4:7].tolist() == [[0, 16, 17], [16, 32, 1], [32, 33, 0]]
    assert BLOCK == 16


def test_a_part_that_is_not_merged_shows() -> None:
    made = plan([300], 16, 1, 304)
    made.groups[-1] -= 1
    out, right = computed(made, [300], 1)
    assert not torch.allclose(out, right)
    cut = plan([300], 16, 1, 304)
    cut.pieces[3, 5] -= 1
    out, right = computed(cut, [300], 1)
    assert not torch.allclose(out, right)


def test_more_heads_are_planned_as_groups_of_16() -> None:
    made = plan([20, 5], 48, 1, 4)
    assert made.pieces[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert made.pieces[:, 4].tolist() == [0, 0, 0, 20, 20, 20]


@pytest.mark.parametrize(
    ("heads", "tokens", "reason"), [(24, 1, "plans no latent decode of 24"), (128, 2, "128 heads")]
)
def test_what_is_not_planned(heads: int, tokens: int, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        plan([20], heads, tokens, 304)
