"""A problem in the fp8 of another GPU."""

from __future__ import annotations

from dataclasses import replace

from conformance.problems.problem import CacheDtype, Problem

# What a cache in E4M3 is stored as, by the fp8 that the GPU's hardware reads.
STORED: dict[str, CacheDtype] = {"fnuz": "fp8_e4m3fnuz", "ocp": "fp8_e4m3fn"}


def in_encoding(problem: Problem, fp8: str) -> Problem:
    """The problem with an E4M3 cache as a GPU whose fp8 is ``fp8`` (fnuz, ocp) stores it.

    Its id says so: ids have fields, and no others that end like this. Where hardware has no fp8
    the problem stays as it is.
    """
    was, now = problem.kv_cache_dtype, STORED.get(fp8, problem.kv_cache_dtype)
    if was == now or was not in STORED.values():
        return problem
    named = problem.id.replace(f"-{_word(was)}-", f"-{_word(now)}-")
    return replace(problem, kv_cache_dtype=now, id=named)


def in_each_encoding(problem: Problem) -> tuple[Problem, ...]:
    """The problem as each GPU stores it, itself first."""
    return tuple(dict.fromkeys((problem, *(in_encoding(problem, fp8) for fp8 in STORED))))


def _word(dtype: CacheDtype) -> str:
    """A type as ids have it."""
    return dtype.removeprefix("fp8_")
