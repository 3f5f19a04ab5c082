"""Every kernel that vLLM's HIP decode can be instantiated for, each as a problem that launches it.

``use_rocm_custom_paged_attention`` says when the operator is called at all, and its host code which
template arguments that makes: dtype, cache, head size, block size, query heads per KV head, ALiBi,
and for the last merge how often a wave's lanes go over the partitions:
https://github.com/vllm-project/vllm/blob/v0.19.0/csrc/rocm/attention.cu,
https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/platforms/rocm.py#L182.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

from conformance.problems.problem import Problem
from conformance.problems.shipped import FP8

BACKEND = "ROCM_ATTN"
# How their ids begin.
HIP = "HIP "
DTYPES = ("float16", "bfloat16")
PARTITION, MOST_KEYS = 256, 128 * 1024
# Of CDNA and of RDNA: head sizes, block sizes, query heads per KV head, ALiBi, and whether fp8.
_CDNA = ((64, 128), (16, 32), range(1, 17), ("none", "linear"), True)
_RDNA = ((128,), (16,), range(3, 17), ("none",), False)


def hip_problems(family: str, fp8: str, lanes: int) -> Iterator[Problem]:
    """One decode for each, on a target of a family ("CDNA3"), fp8 encoding and wave size."""
    sizes, pages, groups, slopes, has_fp8 = _RDNA if family.startswith("RDNA") else _CDNA
    caches = ("auto", FP8[fp8]) if has_fp8 and fp8 in FP8 else ("auto",)
    shapes = product(DTYPES, caches, sizes, pages, slopes, groups)
    for dtype, cache, size, page, alibi, group in shapes:
        yield _decode(15, group, size, dtype, cache, page, alibi)
    # The merge: each further time for as many partitions as a wave has lanes.
    for dtype, size in product(DTYPES, sizes):
        for keys in range(PARTITION * lanes, MOST_KEYS, PARTITION * lanes):
            yield _decode(keys, min(groups), size, dtype, "auto", 16, "none")


def _decode(
    context: int, group: int, size: int, dtype: str, cache: str, page: int, alibi: str
) -> Problem:
    parts = [f"h{group}x1", f"d{size}", f"b{page}", dtype, cache]
    parts += [*(["alibi"] if alibi != "none" else []), f"{context + 1} keys"]
    plain = Problem(
        "paged", BACKEND, f"{HIP}{' '.join(parts)}", 1, (1,), (context,), group, 1, size, size
    )
    fields: dict[str, Any] = {"dtype": dtype, "kv_cache_dtype": cache, "alibi": alibi}
    return replace(plain, block_size=page, new_tokens_from_cache=False, **fields)
