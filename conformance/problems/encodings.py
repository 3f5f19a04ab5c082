"""A problem in the fp8 of another GPU."""

from __future__ import annotations

from dataclasses import replace

from conformance.problems.cache_dtypes import CacheDtype
from conformance.problems.problem import Problem

# Caches in E4M3, by the fp8 that the GPU's hardware reads: what stands at the same place is the
# same but for that.
STORED: dict[str, tuple[CacheDtype, ...]] = {
    "fnuz": ("fp8_e4m3fnuz", "fp8_e4m3fnuz_per_token_head", "fp8_e4m3fnuz_ds_mla"),
    "ocp": ("fp8_e4m3fn", "fp8_e4m3fn_per_token_head", "fp8_e4m3fn_ds_mla"),
}
# What an id has for them.
_WORDS = {"fnuz": "-e4m3fnuz-", "ocp": "-e4m3fn-"}


def in_encoding(problem: Problem, fp8: str) -> Problem:
    """The problem with an E4M3 cache as a GPU whose fp8 is ``fp8`` (fnuz, ocp) stores it.

    Its id says so. Where hardware has no fp8 the problem stays as it is.
    """
    for other, caches in STORED.items():
        if problem.kv_cache_dtype in caches and other != fp8 and fp8 in STORED:
            stored = STORED[fp8][caches.index(problem.kv_cache_dtype)]
            named = problem.id.replace(_WORDS[other], _WORDS[fp8])
            return replace(problem, kv_cache_dtype=stored, id=named)
    return problem


def in_each_encoding(problem: Problem) -> tuple[Problem, ...]:
    """The problem as each GPU stores it, itself first."""
    return tuple(dict.fromkeys((problem, *(in_encoding(problem, fp8) for fp8 in STORED))))
