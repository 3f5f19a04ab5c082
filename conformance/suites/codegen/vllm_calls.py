"""The calls of vLLM's own Triton ops that the codegen suite compiles."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.version import Version

from conformance.matrix.targets import Target
from conformance.worker.contract import Call


def shipped_calls(fp8: bool) -> Iterator[Call]:
    """The configurations that are compiled: what vLLM launches for common models.

    ``fp8``: whether the target has an fp8 encoding for keys and values.
    """
    for dtype in ("float16", "bfloat16"):
        for head in (64, 80, 128):
            for op in ("unified_2d", "unified_3d"):
                yield Call(op, dtype, head)
            yield Call("prefix_prefill", dtype, head)
            yield Call("paged_2d", dtype, head)
        yield Call("unified_2d", dtype, window=16, soft_cap=20.0, sinks=True)
        yield Call("unified_3d", dtype, window=16, sinks=True)
        yield Call("paged_2d", dtype, window=16, sinks=True)
        yield Call("prefix_prefill", dtype, window=16)
        yield Call("prefill", dtype, 128)
        yield Call("prefill", dtype, 64)
        yield Call("mla_decode", dtype, 576, heads=16, kv_heads=1)
        yield Call("mha_decode", dtype, 128, heads=4, kv_heads=4)
        yield Call("merge", dtype)
        yield Call("cache_write", dtype)
        if fp8:
            for op in ("unified_2d", "unified_3d", "cache_write", "paged_2d", "prefix_prefill"):
                yield Call(op, dtype, kv_dtype="fp8")


def later_calls(target: Target, edition: str) -> Iterator[Call]:
    """Those of kernels that came after 0.19: values of another head size, and RDNA's segments."""
    fp8, series = target.fp8 != "none", Version(edition)
    if series >= Version("0.24"):
        for op in ("diffkv_2d", "diffkv_3d"):
            yield Call(op, "bfloat16", 192)
            yield Call(op, "bfloat16", 192, window=16, sinks=True)
        if fp8 and series >= Version("0.32"):
            yield Call("diffkv_2d", "bfloat16", 192, kv_dtype="fp8")
    if series >= Version("0.32") and target.family.startswith("RDNA"):
        for head in (64, 128, 256):
            for op in ("segmented_prefill", "segmented_decode"):
                yield Call(op, "bfloat16", head)
        yield Call("segmented_prefill", "float16", window=16, sinks=True)
        if fp8:
            yield Call("segmented_prefill", "bfloat16", kv_dtype="fp8")
            yield Call("segmented_decode", "bfloat16", kv_dtype="fp8")
