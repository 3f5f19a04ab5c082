"""Shrinking: the smallest problem of which something is still true, always the same one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from conformance.problems.families import backends, problems_for
from conformance.problems.files import does_not_fit
from conformance.problems.problem import Problem
from conformance.problems.shrinking import shrink, steps

LARGE = Problem(
    kind="paged",
    backend="TRITON_ATTN",
    id="large",
    seed=3,
    query_lens=(1, 40, 1, 7),
    context_lens=(300, 90, 0, 511),
    num_heads=8,
    num_kv_heads=2,
    head_size=128,
    v_head_size=128,
    kv_cache_dtype="fp8_e4m3fn",
    k_scale=0.5,
    v_scale=0.25,
    block_size=48,
    window=(70, 0),
    evicted=True,
    sinks=True,
    soft_cap=20.0,
    mm_prefix=(),
    dominant=((0, 300), (1, 60), (3, 517)),
    extra_rows=3,
    head_pad=8,
    row_pad=1,
    block_pad=16,
    poison="huge",
    order="shuffled",
)


def past_a_block(problem: Problem) -> bool:
    return any(keys > problem.block_size for keys in problem.seq_lens)


def with_a_window(problem: Problem) -> bool:
    return any(keys > problem.window[0] + 1 > 0 for keys in problem.seq_lens)


# What stays true, and what the smallest problem must be.
FAULTS: dict[str, tuple[Callable[[Problem], bool], Callable[[Problem], bool]]] = {
    "a key past the first block": (past_a_block, lambda p: p.seq_lens == (p.block_size + 1,)),
    "a key past a block of 48": (
        lambda p: p.block_size == 48 and past_a_block(p),
        lambda p: p.seq_lens == (49,),
    ),
    "keys at a tile's edge": (
        lambda p: any(n % 64 == 2 and n > 64 for n in p.seq_lens) and p.sinks,
        lambda p: p.seq_lens == (66,) and p.sinks,
    ),
    "a dominant key at the end of a prefill": (
        lambda p: any(p.query_lens[s] > 1 and at == p.seq_lens[s] - 1 for s, at in p.dominant),
        lambda p: p.query_lens == (2,) and p.seq_lens == (2,) and p.dominant == ((0, 1),),
    ),
    "two query heads to a KV head": (lambda p: p.group > 1, lambda p: p.num_heads == 2),
    "a window that leaves something out": (with_a_window, lambda p: p.seq_lens == (2,)),
    "blocks that were given up": (
        lambda p: p.evicted and p.kept_from(0) > 0,
        lambda p: p.evicted and p.num_sequences == 1,
    ),
    "two sequences": (
        lambda p: p.num_sequences > 1,
        lambda p: sum(p.query_lens) == sum(p.seq_lens) == 1,
    ),
    "an fp8 scale": (lambda p: p.v_scale == 0.25, lambda p: p.k_scale == 1.0),
}


@pytest.mark.parametrize("name", FAULTS)
def test_it_comes_to_what_the_fault_needs_and_no_more(name: str) -> None:
    holds, is_smallest = FAULTS[name]
    assert holds(LARGE)
    found = shrink(LARGE, holds, seconds=60)
    assert found.whole
    assert holds(found.problem)
    assert is_smallest(found.problem), found.problem.to_json()
    assert not any(holds(step) for step in steps(found.problem))
    assert shrink(LARGE, holds, seconds=60) == found


def test_what_the_fault_does_not_need_is_gone() -> None:
    small = shrink(LARGE, past_a_block, seconds=60).problem
    assert not small.dominant and not small.sinks and not small.evicted
    assert (small.soft_cap, small.window, small.kv_cache_dtype) == (0.0, (-1, -1), "auto")
    assert (small.extra_rows, small.head_pad, small.row_pad, small.block_pad) == (0, 0, 0, 0)
    assert (small.k_scale, small.poison, small.order) == (1.0, "nan", "forwards")


def test_it_ends_in_time_with_the_best_so_far() -> None:
    clock = iter(range(1000))
    found = shrink(LARGE, past_a_block, seconds=5, now=lambda: float(next(clock)))
    assert not found.whole
    assert found.tried <= 5
    assert past_a_block(found.problem)


def test_progress_is_told_of_each_smaller_problem() -> None:
    told: list[int] = []
    found = shrink(LARGE, past_a_block, seconds=60, on_step=lambda _, tried: told.append(tried))
    assert told == sorted(told)
    assert 0 < len(told) < found.tried


def test_steps_fit_together_whatever_the_problem() -> None:
    for backend in backends():
        for problem in problems_for(backend, "quick", 5, "0.33")[::9]:
            made = [*steps(problem)]
            assert made, problem.id
            for step in made[::7]:
                step.check()
                assert not [*does_not_fit(step)]


def test_a_problem_that_is_the_smallest_stays() -> None:
    assert shrink(LARGE, lambda p: p == LARGE, seconds=60).problem == LARGE
    one = replace(LARGE, id="other")
    assert shrink(one, lambda p: p.id == "other", seconds=60).problem.id == "other"
