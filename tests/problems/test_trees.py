"""Trees of draft tokens: what each sees, and that the quick problems show it where one is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance.errors import SuiteError
from conformance.oracle.attention import attention
from conformance.oracle.judgement import Truth, judge, solve
from conformance.problems import trees
from conformance.problems.admission import refusals
from conformance.problems.families import problems_for
from conformance.problems.problem import Problem
from conformance.problems.tensors import Tensors, dtype_of, materialise

torch.set_num_threads(1)  # tiny tensors: more threads only wait

BRANCHES = (0, 0, 1, 1, 2, 2)
Seen = list[list[bool]]


def problem_of(**fields: Any) -> Problem:
    usual: dict[str, Any] = {
        "kind": "paged",
        "backend": "TREE_ATTN",
        "id": "a test's",
        "seed": 5,
        "query_lens": (7, 3, 1, 9),
        "context_lens": (6, 15, 4, 2),
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_size": 32,
        "v_head_size": 32,
        "tree": BRANCHES,
    }
    return Problem(**{**usual, **fields})


def drawn() -> st.SearchStrategy[tuple[int, ...]]:
    """Trees of up to a dozen drafts."""
    picks = st.lists(st.integers(0, 20), max_size=12)
    return picks.map(lambda some: tuple(sorted(min(p, i) for i, p in enumerate(sorted(some)))))


@given(drawn())
def test_a_row_sees_itself_and_its_ancestors(tree: tuple[int, ...]) -> None:
    assert trees.mistake(tree) == ""
    for row, seen in enumerate(trees.rows_seen(tree)):
        branch, at = {row}, row
        while at:
            at = tree[at - 1]
            branch.add(at)
        assert {column for column, is_seen in enumerate(seen) if is_seen} == branch
        assert len(seen) == len(tree) + 1


@pytest.mark.parametrize("rows", [2, 4, 9])
def test_a_chain_is_the_causal_mask(rows: int) -> None:
    chain = tuple(range(rows - 1))
    assert trees.is_chain(chain)
    assert trees.rows_seen(chain) == [[c <= r for c in range(rows)] for r in range(rows)]
    plain = problem_of(query_lens=(rows, 1), context_lens=(17, 3), tree=())
    tensors = materialise(plain)
    for got, expected in zip(
        attention(replace(plain, tree=chain), tensors), attention(plain, tensors), strict=True
    ):
        assert torch.equal(got, expected)


def test_a_draft_is_attention_over_its_branch_alone() -> None:
    """As vLLM's own test has it, with a plain problem for each branch."""
    problem = problem_of(query_lens=(7,), context_lens=(6,))
    tensors = materialise(problem)
    output, lse = attention(problem, tensors)
    for row, seen in enumerate(trees.rows_seen(BRANCHES)):
        kept = torch.tensor([True] * 6 + seen)
        alone = replace(problem, query_lens=(1,), context_lens=(int(kept.sum()) - 1,), tree=())
        own = replace(
            materialise(alone),
            query=tensors.query[row : row + 1],
            keys=tensors.keys[kept],
            values=tensors.values[kept],
        )
        expected, expected_lse = attention(alone, own)
        assert torch.allclose(output[row], expected[0], rtol=1e-12, atol=1e-12)
        assert torch.allclose(lse[row], expected_lse[0], rtol=1e-12)


def test_a_part_of_a_tree_is_verified_and_a_longer_sequence_is_causal() -> None:
    problem = problem_of()
    assert problem.verified == (True, True, True, False)
    tensors = materialise(problem)
    output, _ = attention(problem, tensors)
    causal, _ = attention(replace(problem, tree=()), tensors)
    first = problem.query_starts
    assert not torch.allclose(output[: first[1]], causal[: first[1]])
    # Row 2 of the second sequence follows row 0.
    assert torch.equal(output[first[1] : first[1] + 2], causal[first[1] : first[1] + 2])
    assert not torch.allclose(output[first[1] + 2], causal[first[1] + 2])
    assert torch.equal(output[first[2] :], causal[first[2] :])


def test_the_bias_lies_in_wider_rows_of_nan() -> None:
    bias = materialise(problem_of()).query_bias
    assert bias is not None
    rows = len(BRANCHES) + 1
    assert bias.shape == (rows, rows) and bias.stride() == (rows + 3, 1)
    assert bias.eq(0).tolist() == trees.rows_seen(BRANCHES)
    assert bias.eq(-math.inf).eq(~bias.eq(0)).all()
    held = torch.as_strided(bias, ((rows + 2) * (rows + 3),), (1,), 0)
    assert int(held.isnan().sum()) == len(held) - rows * rows


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"tree": (1,)}, "row 1 comes before its parent"),
        ({"tree": (0, 1, 0)}, "sorted by depth"),
        ({"query_lens": (9, 7, 3, 1)}, "longer ones last"),
        ({"window": (8, 0)}, "none with a window"),
        ({"alibi": "linear"}, "none with a window"),
        ({"causal": False}, "none with a window"),
        ({"key_lens": (9, 9, 9, 9)}, "none with a window"),
        ({"mm_prefix": (((1, 2),), (), (), ())}, "none with a window"),
        ({"kv_cache_dtype": "int8_per_token_head"}, "none with a window"),
    ],
)
def test_what_has_no_meaning_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(SuiteError, match=says):
        problem_of(**fields).check()


@pytest.mark.parametrize(
    ("backend", "edition", "taken"),
    [
        ("TREE_ATTN", "0.20", True),
        ("TRITON_ATTN", "0.20", False),
        ("TRITON_ATTN", "0.21", True),
        ("TRITON_ATTN", "0.33", True),
        ("ROCM_ATTN", "0.33", False),
    ],
)
def test_one_backend_of_each_edition_takes_trees(backend: str, edition: str, taken: bool) -> None:
    row = problem_of(backend=backend, new_tokens_from_cache=backend != "ROCM_ATTN")
    assert (refusals(row, edition) == []) is taken
    made = {tier: problems_for(backend, tier, edition=edition) for tier in ("quick", "standard")}
    assert all(any(p.tree for p in problems) is taken for problems in made.values())


def _transposed(tree: tuple[int, ...]) -> Seen:
    return [list(column) for column in zip(*trees.rows_seen(tree), strict=True)]


def _a_row_late(tree: tuple[int, ...]) -> Seen:
    right = trees.rows_seen(tree)
    return [right[0], *right[:-1]]


def _without_parents(tree: tuple[int, ...]) -> Seen:
    """The depth is one short: the nearest ancestor is not seen."""
    seen = trees.rows_seen(tree)
    for row, parent in enumerate(tree, 1):
        seen[row][parent] = False
    return seen


def _at_the_wrong_stride(tree: tuple[int, ...]) -> Seen:
    """Rows one element too short, so that each begins a column earlier than the one before."""
    rows = len(tree) + 1
    flat = [value for row in trees.rows_seen(tree) for value in row]
    return [flat[row * (rows - 1) :][:rows] for row in range(rows)]


FAULTS: dict[str, Callable[[tuple[int, ...]], Seen]] = {
    "causal": lambda tree: trees.rows_seen(tuple(range(len(tree)))),
    "siblings seen": lambda tree: [
        [
            seen or (c > 0 and r > 0 and tree[c - 1] == tree[r - 1] and c < r)
            for c, seen in enumerate(row)
        ]
        for r, row in enumerate(trees.rows_seen(tree))
    ],
    "transposed": _transposed,
    "a row late": _a_row_late,
    "parents not seen": _without_parents,
    "only parents seen": lambda tree: [
        [c == r or (r > 0 and c == tree[r - 1]) for c in range(len(tree) + 1)]
        for r in range(len(tree) + 1)
    ],
    "the root not seen": lambda tree: [
        [seen and (c > 0 or r == 0) for c, seen in enumerate(row)]
        for r, row in enumerate(trees.rows_seen(tree))
    ],
    "rows at the wrong stride": _at_the_wrong_stride,
}
ASKED = [("TREE_ATTN", "0.19"), ("TRITON_ATTN", "0.33")]


@cache
def solved(backend: str, edition: str) -> list[tuple[Problem, Tensors, Truth]]:
    made = [p for p in problems_for(backend, "quick", 36702, edition) if p.tree]
    tensors = [materialise(p) for p in made]
    return [(p, t, solve(p, t, with_torch=False)) for p, t in zip(made, tensors, strict=True)]


def wrong(backend: str, edition: str) -> int:
    """How many of the quick problems show that the oracle is another."""
    found = [
        judge(p, truth, attention(p, tensors)[0].to(dtype_of(p))).passed
        for p, tensors, truth in solved(backend, edition)
    ]
    return found.count(False)


@pytest.mark.parametrize(("backend", "edition"), ASKED)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_tree_shows(
    fault: str, backend: str, edition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wrong(backend, edition) == 0
    made = {p.tree: FAULTS[fault](p.tree) for p, _, _ in solved(backend, edition)}
    monkeypatch.setattr(trees, "rows_seen", made.__getitem__)
    assert wrong(backend, edition)


@pytest.mark.parametrize(("backend", "edition"), ASKED)
def test_a_bias_for_a_longer_sequence_shows(
    backend: str, edition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first tokens see branches, where they are to be causal."""
    longer = [p for p, _, _ in solved(backend, edition) if not all(p.verified)]
    assert longer
    seen = trees.rows_seen

    def long_enough(tree: tuple[int, ...]) -> Seen:
        known = seen(tree)
        return [
            *(row + [False] * 40 for row in known),
            *([c <= r for c in range(len(known) + 40)] for r in range(len(known), len(known) + 40)),
        ]

    monkeypatch.setattr(trees, "rows_seen", long_enough)
    monkeypatch.setattr(trees, "verified", lambda _, lens: [True] * len(lens))
    for problem in longer:
        problem.__dict__.pop("verified")
    try:
        assert wrong(backend, edition)
    finally:
        for problem in longer:
            problem.__dict__.pop("verified", None)
