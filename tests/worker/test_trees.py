"""A problem's tree as a vLLM is told of it, and the part of a batch that it verifies."""

from __future__ import annotations

import ast
from typing import Any

import pytest
import torch

from conformance.problems.rare_edges import BRANCHES, DEEP
from conformance.problems.trees import rows_seen
from conformance.worker.interfaces import Batch, Paged
from conformance.worker.vllm.tree import branches, part_of


def test_a_tree_is_spelled_by_its_choices() -> None:
    """The two trees of vLLM's own test, tests/v1/spec_decode/test_tree_attention.py of 0.19.0."""
    assert branches((0, 1, 2)) == [(0,), (0, 0), (0, 0, 0)]
    assert branches(BRANCHES) == [(0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize("tree", [BRANCHES, DEEP, (0, 0, 0), (0,)])
def test_the_spelling_is_sorted_and_says_what_is_seen(tree: tuple[int, ...]) -> None:
    paths = [(), *ast.literal_eval(str(branches(tree)))]
    assert paths == sorted(paths, key=lambda path: (len(path), path))
    seen = [[row[: len(column)] == column for column in paths] for row in paths]
    assert seen == rows_seen(tree)


def test_a_part_of_a_batch_has_its_own_rows_and_lengths() -> None:
    rows = torch.arange(14.0)[:, None, None]
    batch = Batch(
        query_start_loc=torch.tensor([0, 3, 4, 12], dtype=torch.int32),
        seq_lens=torch.tensor([9, 20, 10], dtype=torch.int32),
        block_table=torch.tensor([[1, 2], [3, 4], [5, 6]], dtype=torch.int32),
        max_query_len=8,
        max_seq_len=20,
        max_context_len=19,
    )
    given = Paged(rows, rows, rows + 100, torch.empty(0), batch, rows.clone(), None)

    def told(part: Paged) -> list[Any]:
        of = part.batch
        lens = [of.query_start_loc.tolist(), of.seq_lens.tolist(), of.block_table.tolist()]
        most = (of.max_query_len, of.max_seq_len, of.max_context_len)
        return [*lens, most, part.query.flatten().tolist()]

    first, rest = part_of(given, 0, 2), part_of(given, 2, 3)
    assert told(first) == [[0, 3, 4], [9, 20], [[1, 2], [3, 4]], (3, 20, 19), [0, 1, 2, 3]]
    assert told(rest) == [[0, 8], [10], [[5, 6]], (8, 10, 2), [*range(4, 12)]]
    rest.out.fill_(-1)
    assert given.out.flatten().tolist() == [0, 1, 2, 3, *[-1] * 8, 12, 13]
    assert rest.value is not None and rest.value[0].item() == 104
