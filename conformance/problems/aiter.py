"""What aiter's kernels are made for: problems of :mod:`conformance.problems.shipped`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from conformance.problems.problem import Problem
from conformance.problems.shipped import FP8, shipped

# aiter's modules, as the worker names them, with the backend and kind whose problems they get.
_MODULES = {
    "aiter.unified_attention": ("ROCM_AITER_UNIFIED_ATTN", "paged"),
    "aiter.pa_decode": ("ROCM_AITER_UNIFIED_ATTN", "paged"),
    "aiter.mha": ("FLASH_ATTN", "varlen"),
    "aiter.mla": ("ROCM_AITER_TRITON_MLA", "mla"),
    "aiter.mla_decode_rope": ("ROCM_AITER_TRITON_MLA", "mla"),
    # Code objects that ship, not compiled here: checked like what is.
    "aiter.pa_fwd_asm": ("ROCM_AITER_FA", "paged"),
    "aiter.mla_decode_stage1_asm_fwd": ("ROCM_AITER_MLA", "mla"),
}
_ASSEMBLY = ("aiter.pa_fwd_asm", "aiter.mla_decode_stage1_asm_fwd")


def aiter_problems(fp8: str) -> Iterator[Problem]:
    """Every module's configurations on a target whose fp8 encoding is ``fp8``."""
    for module, (backend, kind) in _MODULES.items():
        for problem in shipped(fp8):
            if (problem.backend, problem.kind) == (backend, kind) and _takes(module, problem):
                name = problem.id.partition(" ")[2]
                yield replace(problem, backend=module, id=f"{module} {name}")


def _takes(module: str, problem: Problem) -> bool:
    """Whether a module supports a problem."""
    if module in _ASSEMBLY:
        of_size = problem.kind == "mla" or problem.head_size == 128
        given = problem.kv_cache_dtype == "auto" and max(problem.window) < 0
        return of_size and given and not problem.soft_cap and set(problem.query_lens) == {1}
    if module == "aiter.pa_decode":
        plain = not problem.sinks and not problem.soft_cap and max(problem.window) < 0
        return plain and set(problem.query_lens) == {1} and problem.kv_cache_dtype == "auto"
    return module != "aiter.mla_decode_rope" or problem.kv_cache_dtype == "auto"


# vLLM's ROCM_AITER_MLA hands aiter's ``mla_decode_fwd`` as many query tokens of each sequence as it
# drafts, and one more; fewer heads than 16 it repeats.
PLANNED = "aiter.mla_decode_fwd"
_HEADS, _TOKENS = (16, 32, 128), (1, 2, 4, 5)


def planned_problems(fp8: str) -> Iterator[Problem]:
    """What ROCM_AITER_MLA may be asked, on a target whose fp8 encoding is ``fp8``."""
    caches = (("bfloat16", "auto"), ("float16", "auto"), ("bfloat16", FP8[fp8]))
    for dtype, cache in caches:
        for heads in _HEADS:
            for tokens in _TOKENS:
                name = f"{dtype} {cache} {heads} heads {tokens} tokens"
                plain = Problem("mla", PLANNED, f"{PLANNED} {name}", 1, (tokens,), (16,), heads, 1,
                                576, 512)  # fmt: skip
                fields: dict[str, Any] = {"dtype": dtype, "kv_cache_dtype": cache}
                yield replace(plain, **fields)
