"""The options of ``explain``: a model or a single request, and vLLM's own options."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from conformance.errors import UsageError, one_of
from conformance.explanations.asked import Serving

F = TypeVar("F", bound=Callable[..., Any])

# Options of vLLM that people paste along, and that change no attention backend.
WITHOUT_INFLUENCE = (
    "enable-prefix-caching",
    "enable-chunked-prefill",
    "enable-expert-parallel",
    "enable-eplb",
    "enable-lora",
    "enable-auto-tool-choice",
    "enable-log-requests",
    "enable-sleep-mode",
    "enforce-eager",
    "calculate-kv-scales",
    "async-scheduling",
    "trust-remote-code",
)
_ATTENTION_CONFIG = (
    "backend",
    "backend_per_kind",
    "use_non_causal",
    "use_prefill_decode_attention",
)
_FIELDS = (
    ("--mla", "use_mla", "Multi-head latent attention."),
    ("--sparse", "use_sparse", "Sparse attention."),
    ("--sinks", "has_sink", "Attention sinks."),
    ("--mm-prefix", "use_mm_prefix", "Multimodal prefix attention."),
    ("--per-head-quant-scales", "use_per_head_quant_scales", "The cache has one scale per head."),
    ("--non-causal", "use_non_causal", "Attention is not causal."),
    ("--batch-invariant", "use_batch_invariant", "As with VLLM_BATCH_INVARIANT=1."),
    ("--kv-connector", "use_kv_connector", "A KV connector is in use."),
    ("--pcp", "use_pcp", "Prefill context parallelism."),
    ("--dcp", "use_dcp", "Decode context parallelism."),
    ("--rswa", "use_rswa", "The model has an R-SWA window."),
    ("--adaptive-verification", "use_adaptive_verification", "Of speculated tokens."),
    ("--encoder-decoder", "encoder_decoder_model", "An encoder-decoder model."),
)


def request_options(function: F) -> F:
    """Adds the options of a single request."""
    options: list[Callable[[Any], Any]] = [
        click.option("--head-size", type=click.IntRange(min=1), help="[default: 128; --vit: 80]"),
        click.option("--attn-type", help="[default: decoder]"),
        *(click.option(flag, field, is_flag=True, help=text) for flag, field, text in _FIELDS),
        click.option(
            "--sliding-window",
            is_flag=False,
            flag_value=4096,
            type=click.IntRange(min=1),
            metavar="[TOKENS]",
            help="A sliding window. [without TOKENS: 4096]",
        ),
        click.option(
            "--gqa", type=click.IntRange(min=1), help="Query heads to one KV head. [default: 8]"
        ),
        click.option("--alibi", is_flag=True, help="ALiBi."),
        click.option("--vit", is_flag=True, help="Ask about a vision tower."),
        click.option("--run-kv-cache-dtype", help="The run's, where this layer's is another."),
    ]
    return _with(options, function)


def vllm_options(function: F) -> F:
    """Adds vLLM's own options, as ``vllm serve`` spells them."""
    size = click.IntRange(min=1)
    options: list[Callable[[Any], Any]] = [
        click.option(
            "--tensor-parallel-size", "-tp", "--tp", default=1, type=size, help="GPUs to a model."
        ),
        click.option("--dtype", help="[default: the model's; a single request: float16]"),
        click.option("--kv-cache-dtype", help="[default: auto]"),
        click.option("--kv-cache-dtype-skip-layers", multiple=True, metavar="LAYER|sliding_window"),
        click.option("--block-size", type=size, help="Tokens per cache block."),
        click.option("--max-model-len", type=size, help="The longest sequence, in tokens."),
        click.option("--attention-backend", "--backend", "backend", help="Asked for by name."),
        click.option("--mm-encoder-attn-backend", "mm_backend", help="The vision tower's."),
        click.option("--attention-config", metavar="JSON", help=", ".join(_ATTENTION_CONFIG)),
        click.option("--kv-transfer-config", metavar="JSON", help="Of a KV connector."),
        click.option("--speculative-config", metavar="JSON", help="Of speculative decoding."),
        click.option("--language-model-only", is_flag=True, help="Serve no images."),
        click.option("--decode-context-parallel-size", "-dcp", default=1, type=size),
        click.option("--prefill-context-parallel-size", "-pcp", default=1, type=size),
        *(
            click.option(f"--{name}/--no-{name}", default=None, hidden=True)
            for name in WITHOUT_INFLUENCE
        ),
    ]
    return _with(options, function)


def _with(options: Sequence[Callable[[F], F]], function: F) -> F:
    for option in reversed(options):
        function = option(function)
    return function


def serving_of(values: dict[str, Any], request: dict[str, Any]) -> tuple[Serving, list[str]]:
    """How vLLM is started, and sentences on options that change nothing.

    ``request`` are the fields that a single request's own options set.

    Raises:
        UsageError: a JSON option is no JSON object, or has keys that vLLM does not.
    """
    attention = _json("--attention-config", values["attention_config"])
    for key in attention:
        if key not in _ATTENTION_CONFIG:
            raise UsageError(f"--attention-config: {one_of('key', key, list(_ATTENTION_CONFIG))}")
    speculative = _json("--speculative-config", values["speculative_config"])
    connector = _json("--kv-transfer-config", values["kv_transfer_config"])
    per_kind = attention.get("backend_per_kind", {})
    if not isinstance(per_kind, dict):
        raise UsageError("--attention-config: backend_per_kind must be an object")
    ignored = [
        f"--{name}" for name in WITHOUT_INFLUENCE if values[name.replace("-", "_")] is not None
    ]
    notes = [f"{', '.join(ignored)}: changes no attention backend"] if ignored else []
    serving = Serving(
        tensor_parallel=values["tensor_parallel_size"],
        block_size=values["block_size"],
        max_model_len=values["max_model_len"] or 0,
        backend=values["backend"] or attention.get("backend"),
        backend_per_kind={str(kind): str(name) for kind, name in per_kind.items()},
        mm_backend=values["mm_backend"],
        skip_layers=values["kv_cache_dtype_skip_layers"],
        text_only=values["language_model_only"],
        kv_connector=bool(connector) or request.get("use_kv_connector", False),
        pcp=values["prefill_context_parallel_size"] > 1 or request.get("use_pcp", False),
        dcp=values["decode_context_parallel_size"] > 1 or request.get("use_dcp", False),
        dflash=speculative.get("method") == "dflash",
        non_causal=bool(attention.get("use_non_causal")) or request.get("use_non_causal", False),
        adaptive_verification=bool(speculative.get("enable_adaptive_verification"))
        or request.get("use_adaptive_verification", False),
        prefill_decode=bool(attention.get("use_prefill_decode_attention")),
    )
    return serving, notes


def _json(option: str, text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{option}: is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{option}: expected a JSON object, got {type(value).__name__}")
    return value
