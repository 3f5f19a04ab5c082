"""Makes a problem smaller while something about it stays as it is: a plain delta search.

A step changes one thing: fewer sequences, a shorter one, or one field at a simpler value. Steps
are tried in a fixed order, the boldest first, and the first that holds is taken; the search ends
when no step holds. So the same problem always comes to the same one, in which nothing that is left
can be left out by itself. hypothesis shrinks what it drew itself; a problem was not drawn by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from conformance.problems.files import does_not_fit
from conformance.problems.problem import Problem

Holds = Callable[[Problem], bool]

# Simpler values of a field, the simplest first.
_SIMPLER: dict[str, tuple[Any, ...]] = {
    "tags": ((),),
    "dominant": ((),),
    "mm_prefix": ((),),
    "prompts": ((),),
    "tree": ((),),
    "interleaved": (False,),
    "large_logits": (False,),
    "fp8_edges": (False,),
    "sinks": (False,),
    "alibi": ("none", "linear"),
    "soft_cap": (0.0,),
    "evicted": (False,),
    "window": ((-1, -1),),
    "kv_cache_dtype": ("auto",),
    "k_scale": (1.0,),
    "v_scale": (1.0,),
    "scale": (None,),
    "dtype": ("float16",),
    "skipped_writes": (0, 1),
    "extra_rows": (0, 1),
    "row_pad": (0, 1),
    "head_pad": (0, 1),
    "block_pad": (0, 1),
    "spare_blocks": (0, 1),
    "table_spare": (2,),
    "shuffled": (False,),
    "high_blocks": (False,),
    "poison": ("nan",),
    "order": ("forwards",),
    "at_once": (0,),
    "pieces": (0, 1, 2, 3, 4),
    "topk": (1, 2, 4, 16, 64, 256),
    "block_size": (1, 2, 4, 8, 16, 32, 48, 64, 128),
    "num_heads": (),
    "head_size": (16, 32, 64, 80, 96, 128),
}
# Where code that works in tiles changes its ways.
_EDGES = (0, 1, 2, 3, 4, 8, 16, 17, 32, 33, 64, 65, 128, 129, 256, 257, 512, 513)


@dataclass(frozen=True)
class Shrunk:
    """``whole``: whether the search came to its end; else its time was up. ``tried``: problems."""

    problem: Problem
    tried: int
    whole: bool


def shrink(
    problem: Problem,
    holds: Holds,
    *,
    seconds: float,
    on_step: Callable[[Problem, int], None] = lambda _problem, _tried: None,
    now: Callable[[], float] = time.monotonic,
) -> Shrunk:
    """The smallest problem that the search finds of which ``holds`` is true, as of this one.

    ``on_step`` is told each smaller problem and how many were tried.
    """
    ends, tried, known = now() + seconds, 0, {problem: True}
    smaller: Problem | None = problem
    while smaller is not None:
        problem, smaller = smaller, None
        for candidate in steps(problem):
            if candidate in known:
                continue
            if now() >= ends:
                return Shrunk(problem, tried, whole=False)
            tried += 1
            known[candidate] = holds(candidate)
            if known[candidate]:
                smaller = candidate
                on_step(candidate, tried)
                break
    return Shrunk(problem, tried, whole=True)


def steps(problem: Problem) -> Iterator[Problem]:
    """Every smaller problem that is one step away and fits together, the boldest steps first."""
    for candidate in _raw(problem):
        made = _settled(candidate)
        if made != problem and not any(does_not_fit(made)):
            yield made


def _raw(problem: Problem) -> Iterator[Problem]:
    yield from _fewer_sequences(problem)
    yield from _simpler_fields(problem)
    yield from _fewer_heads(problem)
    yield from _smaller_windows(problem)
    yield from _shorter(problem)
    for name in ("dominant", "mm_prefix"):
        yield from _with_fewer(problem, name)


def _settled(problem: Problem) -> Problem:
    """The problem without what its other fields leave no room for."""
    changes: dict[str, Any] = {}
    if problem.evicted and not problem.slides:
        changes["evicted"] = False
    if problem.kv_cache_dtype == "auto":
        changes |= {"fp8_edges": False, "k_scale": 1.0, "v_scale": 1.0}
    if not any(problem.mm_prefix):
        changes["mm_prefix"] = ()
    if problem.window[0] < 0:
        changes["prompts"] = ()
    return replace(problem, **changes)


# ---- sequences -------------------------------------------------------------------------------


def _fewer_sequences(problem: Problem) -> Iterator[Problem]:
    """Ever smaller runs of sequences are left out."""
    count = problem.num_sequences
    size = count - 1
    while size:
        for first in range(0, count, size):
            yield _of_sequences(problem, [s for s in range(count) if not first <= s < first + size])
        size //= 2


def _of_sequences(problem: Problem, kept: list[int]) -> Problem:
    place = {s: number for number, s in enumerate(kept)}
    of_each: dict[str, Any] = {}
    for name in ("query_lens", "context_lens", "key_lens", "mm_prefix", "prompts"):
        values = getattr(problem, name)
        if values:
            of_each[name] = tuple(values[s] for s in kept)
    dominant = tuple((place[s], at) for s, at in problem.dominant if s in place)
    return replace(problem, **of_each, dominant=dominant)


def _shorter(problem: Problem) -> Iterator[Problem]:
    """One sequence has fewer keys, or fewer query tokens of as many keys, or of fewer."""
    if problem.key_lens is None and problem.kind != "varlen":
        for s, (query, keys) in enumerate(zip(problem.query_lens, problem.seq_lens, strict=True)):
            for shorter in _below(query, problem.block_size):
                yield replace(
                    problem,
                    query_lens=_with(problem.query_lens, s, shorter),
                    context_lens=_with(problem.context_lens, s, keys - shorter),
                )
    lens = ("key_lens",) if problem.key_lens is not None else ()
    for name in (*lens, "context_lens", "query_lens"):
        values = getattr(problem, name)
        for s, length in enumerate(values):
            for shorter in _below(length, problem.block_size):
                changed: dict[str, Any] = {name: _with(values, s, shorter), "dominant": ()}
                if name == "query_lens" and problem.kind == "varlen" and problem.key_lens:
                    continue
                yield from _moved(problem, s, replace(problem, **changed))


def _with(values: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    return (*values[:place], value, *values[place + 1 :])


def _below(length: int, block: int) -> list[int]:
    """Lengths to try instead of one, the shortest first: edges, half, and a tile or a key less."""
    edges = {*_EDGES, block - 1, block, block + 1, 2 * block, 2 * block + 1, length // 2}
    less = {length - each for each in (1, 16, 32, 64, 128, 256, 512, block)}
    return sorted(each for each in edges | less if 0 <= each < length)


def _moved(before: Problem, s: int, after: Problem) -> Iterator[Problem]:
    """The shorter problem with its dominant keys where they were, and as far from the end."""
    lost = before.seq_lens[s] - after.seq_lens[s]
    made = []
    for shift in (0, lost):
        kept = []
        for sequence, at in before.dominant:
            place = at - shift if sequence == s else at
            if 0 <= place < after.seq_lens[sequence]:
                kept.append((sequence, place))
        made.append(replace(after, dominant=tuple(dict.fromkeys(kept))))
    yield from dict.fromkeys(reversed(made))


# ---- fields ----------------------------------------------------------------------------------


def _simpler_fields(problem: Problem) -> Iterator[Problem]:
    """One field is at a simpler value: of numbers, a smaller one."""
    for name, values in _SIMPLER.items():
        now = getattr(problem, name)
        for value in values:
            if value == now:
                break
            if name in ("block_size", "topk", "pieces") and value > now > 0:
                break
            if name == "head_size":
                if value >= now or problem.kind not in ("paged", "varlen"):
                    break
                same = problem.v_head_size == now
                yield replace(problem, head_size=value, **({"v_head_size": value} if same else {}))
            else:
                yield replace(problem, **{name: value})


def _fewer_heads(problem: Problem) -> Iterator[Problem]:
    """Fewer KV heads of as many query heads, or fewer query heads to a KV head."""
    group, kv_heads = problem.group, problem.num_kv_heads
    for fewer in _fewer(kv_heads):
        yield replace(problem, num_kv_heads=fewer, num_heads=fewer * group)
    for fewer in _fewer(group):
        yield replace(problem, num_heads=fewer * kv_heads)


def _fewer(count: int) -> Iterable[int]:
    return sorted(each for each in {1, 2, 3, 4, 8, 16, count // 2, count - 1} if 0 < each < count)


def _smaller_windows(problem: Problem) -> Iterator[Problem]:
    left, right = problem.window
    for smaller in _below(left, problem.block_size):
        yield replace(problem, window=(smaller, min(right, smaller)))


def _with_fewer(problem: Problem, name: str) -> Iterator[Problem]:
    """One dominant key, or one sequence's prefix ranges, less."""
    values = getattr(problem, name)
    for number in range(len(values)):
        rest = ((),) if name == "mm_prefix" else ()
        fewer = (*values[:number], *rest, *values[number + 1 :])
        changed: dict[str, Any] = {name: fewer}
        if fewer != values:
            yield replace(problem, **changed)
