"""What a model, served in a certain way, asks vLLM's selector: one question a kind of layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from packaging.specifiers import SpecifierSet

from conformance.errors import UsageError, one_of
from conformance.matrix.requests import Ask, PagedAttention, Platform, Request, Vit
from conformance.models.layers import NOT_ASKED, TOWERS, Layers, Model
from conformance.models.state import hybrid_block_size
from vllm_editions import Edition

# vLLM's default, where the backend has no preference of its own (CacheConfig.DEFAULT_BLOCK_SIZE).
DEFAULT_BLOCK = 16
DTYPE_SPELLINGS = {
    "bf16": "bfloat16",
    "bfloat": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "f16": "float16",
    "fp32": "float32",
    "float": "float32",
    "f32": "float32",
    "fp64": "float64",
    "double": "float64",
}
CACHE_SPELLINGS = {
    **DTYPE_SPELLINGS,
    "e4m3": "fp8_e4m3",
    "fp8e4m3": "fp8_e4m3",
    "fp8_e4m3fn": "fp8_e4m3",
    "fp8_e4m3fnuz": "fp8_e4m3",
    "e5m2": "fp8_e5m2",
    "fp8e5m2": "fp8_e5m2",
}
# From here on a model that is served without images is no multimodal-prefix model either:
# https://github.com/vllm-project/vllm/blob/v0.27.1/vllm/transformers_utils/model_arch_config_convertor.py
TEXT_ONLY_COUNTS = SpecifierSet(">=0.27")
# Drafting with DFlash makes every layer's request a non-causal one in these, later the drafter's:
# https://github.com/vllm-project/vllm/blob/v0.20.2/vllm/v1/attention/selector.py#L33
DFLASH_COUNTS = SpecifierSet("<0.21")
# The names of vLLM's `backend_per_kind`, by kind of layer:
# https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/v1/attention/selector.py#L62
PER_KIND = {
    "full": "full_attention",
    "chunked": "full_attention",
    "sliding": "sliding_window",
    "mla": "mla_attention",
    "sparse MLA": "mla_attention",
    "cross": "cross_attention",
    "encoder": "encoder_only_attention",
}


@dataclass(frozen=True)
class Serving:
    """How vLLM is started, as far as it decides on a backend: its own options.

    ``dtype`` and ``max_model_len`` are the model's unless given; ``block_size`` is vLLM's choice
    unless given. ``skip_layers`` are the layers that keep an ``auto`` cache.
    """

    tensor_parallel: int = 1
    dtype: str = ""
    kv_cache_dtype: str = "auto"
    block_size: int | None = None
    max_model_len: int = 0
    backend: str | None = None
    backend_per_kind: dict[str, str] = field(default_factory=dict)
    mm_backend: str | None = None
    skip_layers: tuple[str, ...] = ()
    text_only: bool = False
    kv_connector: bool = False
    pcp: bool = False
    dcp: bool = False
    non_causal: bool = False
    dflash: bool = False
    adaptive_verification: bool = False
    prefill_decode: bool = False


@dataclass(frozen=True)
class LayerQuestion:
    """One kind of layer, as one GPU has it, and what it asks.

    ``ask`` is None for layers that ask nothing: ``note`` says why. ``inner`` is what ROCM_ATTN's
    choice of a decode kernel depends on; None for layers that decode nothing.
    """

    layers: Layers
    ask: Ask | None
    inner: PagedAttention | None = None
    note: str = ""


def spelled(value: str, spellings: dict[str, str]) -> str:
    """The name that vLLM has for what people write."""
    return spellings.get(value.lower(), value)


def questions(
    model: Model, serving: Serving, table: Edition, platform: Platform
) -> Iterator[LayerQuestion]:
    """A question for each kind of layer of a model."""
    for layers in model.layers:
        share = layers.of_one_gpu(serving.tensor_parallel)
        if layers.kind in NOT_ASKED:
            yield LayerQuestion(share, None, note=_not_asked(layers))
        elif layers.kind in TOWERS:
            if not serving.text_only:
                yield _of_tower(share, model, serving)
        else:
            yield _of_decoder(share, model, serving, table, platform)


def _not_asked(layers: Layers) -> str:
    if layers.kind == "linear":
        return "no attention backend is selected for these: they have kernels of their own"
    return "the selector is not asked: the model's code names the backend's class"


def _of_tower(share: Layers, model: Model, serving: Serving) -> LayerQuestion:
    dtype = serving.dtype or model.dtype
    return LayerQuestion(share, Ask(Vit(share.head_size, dtype), serving.mm_backend))


def _of_decoder(
    share: Layers, model: Model, serving: Serving, table: Edition, platform: Platform
) -> LayerQuestion:
    sparse = share.kind == "sparse MLA"
    cache = serving.kv_cache_dtype
    if share.window and "sliding_window" in serving.skip_layers:
        cache = "auto"
    text_only = serving.text_only and TEXT_ONLY_COUNTS.contains(table.edition)
    invariant = platform.variables.get("VLLM_BATCH_INVARIANT", "0").lower() in ("1", "true")
    request = Request(
        head_size=share.head_size,
        dtype=serving.dtype or model.dtype,
        kv_cache_dtype=cache,
        block_size=serving.block_size,
        use_mla=sparse or share.kind == "mla",
        has_sink=share.sinks,
        use_sparse=sparse,
        use_mm_prefix=model.mm_prefix and not text_only,
        attn_type=_attn_type(share, model),
        has_sliding_window=share.window > 0 and share.kind != "chunked",
        use_non_causal=serving.non_causal
        or (serving.dflash and DFLASH_COUNTS.contains(table.edition)),
        use_batch_invariant=invariant,
        use_kv_connector=serving.kv_connector,
        use_pcp=serving.pcp,
        use_dcp=serving.dcp,
        use_adaptive_verification=serving.adaptive_verification,
        use_rswa=model.rswa,
        use_prefill_decode_attention=serving.prefill_decode,
        encoder_decoder_model=model.encoder_decoder,
        run_kv_cache_dtype=serving.kv_cache_dtype,
    )
    backend = serving.backend_per_kind.get(PER_KIND[share.kind], serving.backend)
    note = ""
    block = serving.block_size or DEFAULT_BLOCK
    if model.hybrid and model.state_elements:
        block = max(block, hybrid_block_size(model.state_elements, share, serving.tensor_parallel))
        note = (
            f"vLLM makes the cache's blocks {block} tokens long, so that one holds a state of the "
            "other layers (longer if the state is in float32)"
        )
    inner = (
        None
        if request.attn_type in ("encoder", "encoder_only")
        else PagedAttention(
            dtype=request.dtype,
            head_size=share.head_size,
            block_size=block,
            gqa_ratio=share.gqa_ratio,
            max_seq_len=serving.max_model_len or PagedAttention.max_seq_len,
            sliding_window=share.window if request.has_sliding_window else 0,
            kv_cache_dtype=cache,
            alibi=share.alibi,
            sinks=share.sinks,
        )
    )
    return LayerQuestion(share, Ask(known_to(request, table), backend), inner, note)


def known_to(request: Request, table: Edition) -> Request:
    """The request as the release asks it: what it does not ask about has its default."""
    asked = {*table.asked.fields, *table.asked.context}
    return Request(**{f.name: getattr(request, f.name) for f in fields(Request) if f.name in asked})


def _attn_type(share: Layers, model: Model) -> str:
    if share.kind == "cross":
        return "encoder_decoder"
    if share.kind == "encoder":
        return "encoder_only" if model.encoder_only else "encoder"
    return "decoder"


def single(request: Request, backend: str | None, shape: dict[str, Any]) -> LayerQuestion:
    """A single request as a question; ``shape`` is what it does not say of the layer.

    ``gqa_ratio``, ``sliding_window`` (tokens), ``alibi``, ``max_seq_len``.
    """
    encoder = request.attn_type in ("encoder", "encoder_only")
    kind = "encoder" if encoder else "cross" if request.attn_type == "encoder_decoder" else "full"
    window = shape.get("sliding_window", 0)
    if request.use_mla:
        kind = "sparse MLA" if request.use_sparse else "mla"
    elif kind == "full" and window:
        kind = "sliding"
    ratio = shape.get("gqa_ratio", PagedAttention.gqa_ratio)
    layers = Layers(
        kind,  # type: ignore[arg-type] # one of Kind, worked out above
        1,
        request.head_size,
        ratio,
        1,
        window,
        request.has_sink,
        shape.get("alibi", False),
    )
    inner = PagedAttention(
        dtype=request.dtype,
        head_size=request.head_size,
        block_size=request.block_size or DEFAULT_BLOCK,
        gqa_ratio=ratio,
        max_seq_len=shape.get("max_seq_len", PagedAttention.max_seq_len),
        sliding_window=window,
        kv_cache_dtype=request.kv_cache_dtype or "auto",
        alibi=layers.alibi,
        sinks=request.has_sink,
    )
    return LayerQuestion(layers, Ask(request, backend), None if encoder else inner)


def check_backend(name: str, table: Edition, option: str, *, vision: bool = False) -> str:
    """A backend's name as the edition has it, in any case."""
    known = [*table.vit.explicit, *table.backends] if vision else list(table.backends)
    known = list(dict.fromkeys(known))
    upper = name.upper().replace("-", "_")
    if upper not in known:
        raise UsageError(f"{option}: {one_of('backend', name, known)}")
    return upper


def check_cache_dtype(name: str, table: Edition, option: str) -> str:
    """A KV-cache dtype that the release knows, as vLLM spells it."""
    dtype = spelled(name, CACHE_SPELLINGS)
    if dtype not in table.asked.kv_cache_dtypes:
        known = list(table.asked.kv_cache_dtypes)
        raise UsageError(
            f"{option}: vLLM {table.edition} does not know it: {one_of('dtype', name, known)}"
        )
    return dtype
