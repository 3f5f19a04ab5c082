"""What the reference's kernels are compiled for: the attention layers of models in use.

A configuration is a problem like any other, so that it is launched exactly as its backend launches
it. Its numbers matter only as far as the launch depends on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from conformance.problems.features import PER_TOKEN_HEAD, admitted, features
from conformance.problems.problem import Problem
from vllm_editions import DEFAULT_EDITION, load_edition

# Query tokens and context of each sequence, with enough keys to be split into segments.
BATCHES: dict[str, tuple[tuple[int, int], ...]] = {
    "prefill": ((70, 0), (30, 0)),
    "mixed": ((1, 900), (1, 40), (70, 100)),
    "decode": ((1, 900), (1, 40)),
    "chunked": ((70, 2100), (30, 0)),
}
FP8 = {"fnuz": "fp8_e4m3fnuz", "ocp": "fp8_e4m3fn"}


@dataclass(frozen=True)
class Layer:
    """An attention layer of a model. ``needs`` names a feature that its backend must have.

    ``v_head_size``: that of values, where it is not that of keys.
    """

    name: str
    heads: tuple[int, int]
    head_size: int
    dtype: str
    batches: tuple[str, ...] = ("mixed", "decode")
    fp8: bool = False
    needs: str = ""
    window: tuple[int, int] = (-1, -1)
    soft_cap: float = 0.0
    v_head_size: int = 0


# Sizes from the models' public configurations (config.json on their pages).
DENSE = (
    Layer("llama-3-8b", (32, 8), 128, "bfloat16", ("prefill", "mixed", "decode")),
    Layer("llama-3-8b", (32, 8), 128, "float16"),
    Layer("llama-3-8b", (32, 8), 128, "bfloat16", fp8=True),
    Layer("llama-3.2-1b", (32, 8), 64, "bfloat16"),
    Layer("phi-2", (32, 32), 80, "float16"),
    Layer("gemma-2-9b", (16, 8), 256, "bfloat16", needs="soft_cap", soft_cap=50.0),
    Layer("gpt-oss-20b", (64, 8), 64, "bfloat16", needs="sinks", window=(127, 0)),
)
# Of MiMo-V2-Flash: a layer with full attention, and one with a window and sinks.
OWN_VALUES = (
    Layer("mimo-v2", (64, 4), 192, "bfloat16", ("prefill", "mixed", "decode"), v_head_size=128),
    Layer("mimo-v2", (64, 4), 192, "bfloat16", fp8=True, v_head_size=128),
    Layer(
        "mimo-v2-swa",
        (64, 8),
        192,
        "bfloat16",
        needs="sinks",
        window=(127, 0),
        v_head_size=128,
    ),
)
# DeepSeek-V3 has 128 heads: all of them on one GPU, and one GPU's share of eight.
LATENT = (
    Layer("deepseek-v3-tp8", (16, 1), 576, "bfloat16", ("decode", "prefill")),
    Layer("deepseek-v3-tp8", (16, 1), 576, "float16", ("decode",)),
    Layer("deepseek-v3", (128, 1), 576, "bfloat16", ("decode",)),
    Layer("deepseek-v3-tp8", (16, 1), 576, "bfloat16", ("decode", "prefill"), fp8=True),
)
# Of sparse attention vLLM has Triton kernels for prefills of more keys than are chosen (bfloat16),
# and for sinks (float16).
SPARSE = (
    *LATENT,
    Layer("deepseek-v3-tp8", (16, 1), 576, "bfloat16", ("chunked",)),
    Layer("deepseek-v3-tp8-sinks", (16, 1), 576, "float16", ("decode", "chunked"), needs="sinks"),
)
VISION = (
    Layer("qwen2-vl", (16, 16), 80, "bfloat16", ("prefill",)),
    Layer("siglip", (16, 16), 72, "bfloat16", ("prefill",)),
)
TOPK = 2048
# Backends that launch no Triton kernel.
NO_KERNELS = ("TORCH_SDPA",)


def shipped(fp8: str, edition: str = DEFAULT_EDITION) -> Iterator[Problem]:
    """The configurations of the edition's backends on a target whose fp8 encoding is ``fp8``."""
    for backend, row in features().items():
        if backend in NO_KERNELS or not (row.dtypes or backend in load_edition(edition).backends):
            continue
        if row.kinds == ("varlen",):
            layers: tuple[Layer, ...] = VISION
        elif "mla_sparse" in row.kinds:
            layers = SPARSE
        elif "mla" in row.kinds:
            layers = LATENT
        elif row.value_head_sizes:
            layers = OWN_VALUES
        else:
            layers = DENSE
        for layer in layers:
            yield from _of_layer(backend, layer, fp8, edition)
        if "indexer" in row.kinds and fp8 in FP8:
            yield _made(backend, layers[0], "decode", FP8[fp8], _INDEXER)


def _of_layer(backend: str, layer: Layer, fp8: str, edition: str) -> Iterator[Problem]:
    """A backend's problems of one layer; none if it does not admit the layer."""
    takes = admitted(backend, edition)
    if takes.packed:
        if layer is DENSE[0] and backend in load_edition(edition).backends:
            for name in takes.caches:
                for batch in ("mixed", "decode"):
                    yield _problem(backend, layer, batch, name, takes.features.kinds)
        return
    kinds = takes.features.kinds
    if layer is DENSE[0]:
        for name in takes.head_scaled:
            if not name.startswith("fp8") or name == f"{FP8.get(fp8)}{PER_TOKEN_HEAD}":
                for batch in layer.batches[1:]:
                    yield _problem(backend, layer, batch, name, kinds)
    cache = FP8.get(fp8, "") if layer.fp8 else "auto"
    if not cache or cache not in takes.caches or layer.dtype not in takes.dtypes:
        return
    needs = {"": True, "soft_cap": takes.features.soft_cap, "sinks": takes.sinks}
    if not needs[layer.needs] or layer.head_size not in (*takes.head_sizes, 576):
        return
    for batch in layer.batches:
        yield _problem(backend, layer, batch, cache, kinds)


_INDEXER: dict[str, Any] = {
    "kind": "indexer",
    "num_heads": 64,
    "head_size": 128,
    "v_head_size": 128,
    "topk": TOPK,
}


def _problem(backend: str, layer: Layer, batch: str, cache: str, kinds: tuple[str, ...]) -> Problem:
    fields: dict[str, Any]
    if kinds == ("varlen",):
        fields = {"kind": "varlen", "causal": False}
    elif "paged" in kinds:
        fields = {"kind": "paged"}
    elif "mla_sparse" in kinds:
        fields = {"kind": "mla_sparse", "v_head_size": 512, "topk": TOPK}
    elif batch == "decode":
        fields = {"kind": "mla", "v_head_size": 512}
    else:
        # With a context, because a prefill also gathers and merges it.
        fields = {"kind": "mla_prefill", "head_size": 192, "v_head_size": 128}
        fields |= {"query_lens": (70,), "context_lens": (300,)}
    return _made(backend, layer, batch, cache, fields)


def _made(backend: str, layer: Layer, batch: str, cache: str, fields: dict[str, Any]) -> Problem:
    lengths = BATCHES[batch]
    heads, kv_heads = layer.heads
    computed = features()[backend].new_tokens == "computed"
    named = [fields["kind"].replace("_", "-"), layer.name, layer.dtype]
    named += [cache] if cache != "auto" else []
    named += [batch] if fields["kind"] in ("paged", "mla_sparse") else []
    made: dict[str, Any] = {
        "backend": backend,
        "id": f"{backend} {'-'.join(named)}",
        "seed": 0,
        "query_lens": tuple(q for q, _ in lengths),
        "context_lens": tuple(c for _, c in lengths),
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_size": layer.head_size,
        "v_head_size": layer.v_head_size or layer.head_size,
        "dtype": layer.dtype,
        "kv_cache_dtype": cache,
        "window": layer.window,
        "soft_cap": layer.soft_cap,
        "sinks": layer.needs == "sinks",
        "new_tokens_from_cache": not computed,
        "continued_from_cache": features()[backend].continued_from_cache,
        **fields,
    }
    problem = Problem(**made)
    problem.check()
    return problem
