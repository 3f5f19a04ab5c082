"""The calls of vLLM's own Triton ops that the codegen suite compiles."""

from __future__ import annotations

from collections.abc import Iterator

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
