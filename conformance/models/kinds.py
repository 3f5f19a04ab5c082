"""Which kind each decoder layer is: every model family says it in keys of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from conformance.errors import UsageError
from conformance.models.keys import WINDOW, Keys
from conformance.models.layers import Kind

# None: a layer without attention and without state (an MLP, a mixture of experts).
LayerKind = Kind | None

_TYPES: dict[str, LayerKind] = {
    "full_attention": "full",
    "full": "full",
    "attention": "full",
    "global": "full",
    "hybrid": "full",
    "sliding_attention": "sliding",
    "sliding": "sliding",
    "local": "sliding",
    "chunked_attention": "chunked",
    "linear_attention": "linear",
    "linear": "linear",
    "mamba": "linear",
    "mamba2": "linear",
    "conv": "linear",
    "short_conv": "linear",
    "recurrent": "linear",
    "kda": "linear",
    "mlp": None,
    "moe": None,
}
_PATTERN: dict[str, LayerKind] = {"M": "linear", "*": "full", "-": None, "E": None}


def kinds_of_layers(text: Keys, count: int) -> list[LayerKind]:
    """The kind of each of ``count`` decoder layers.

    Raises:
        UsageError: a list of layers has another length, or names a type that is not known.
    """
    for rule in _RULES:
        found = rule(text, count)
        if found is not None:
            if len(found) != count:
                raise UsageError(
                    f"{text.where}: {len(found)} layers are described, and there are {count}"
                )
            return found
    return [_everywhere(text)] * count


def _everywhere(text: Keys) -> LayerKind:
    """Of a model whose layers are alike."""
    if text.values.get("use_sliding_window") is False:
        return "full"
    return "sliding" if window_of(text) else "full"


def window_of(text: Keys) -> int:
    """Tokens of the sliding window; 0: there is none."""
    value = text.get(*WINDOW, "local_attention")
    if isinstance(value, list):
        value = max((v for v in value if isinstance(v, int)), default=0)
    return value if isinstance(value, int) and value > 0 else 0


def _listed(text: Keys, count: int) -> list[LayerKind] | None:
    names = text.listed("layer_types", "layers_block_type")
    if names is None:
        block = text.listed("block_types")  # RecurrentGemma: repeated, and all attention is local
        if block is None:
            return None
        local = {"attention": "local"}
        names = [local.get(block[i % len(block)], block[i % len(block)]) for i in range(count)]
    return [_of_type(text, name) for name in names]


def _of_type(text: Keys, name: object) -> LayerKind:
    if isinstance(name, str) and name in _TYPES:
        return _TYPES[name]
    raise UsageError(
        f"{text.where}: a layer of type {name!r} is not known; expected one of {', '.join(_TYPES)}"
    )


def _pattern(text: Keys, _count: int) -> list[LayerKind] | None:
    """Nemotron-H: a letter a layer."""
    pattern = text.text("hybrid_override_pattern")
    if not pattern:
        return None
    if unknown := set(pattern) - set(_PATTERN):
        raise UsageError(
            f"{text.where}: hybrid_override_pattern has {min(unknown)!r}: expected M, *, - and E"
        )
    return [_PATTERN[letter] for letter in pattern]


def _linear_config(text: Keys, count: int) -> list[LayerKind] | None:
    """Kimi-Linear: the numbers of the layers with full attention, from 1."""
    nested = text.nested("linear_attn_config")
    full = nested.listed("full_attn_layers") if nested else None
    return None if full is None else _full_at(count, [n - 1 for n in full])


def _indices(text: Keys, count: int) -> list[LayerKind] | None:
    """Bamba, LFM2: the places of the layers with attention; the others keep a state."""
    at = text.listed("attn_layer_indices", "full_attn_idxs")
    return None if at is None else _full_at(count, at)


def _flags(text: Keys, _count: int) -> list[LayerKind] | None:
    """MiniMax-Text-01: 1 for attention, 0 for linear attention."""
    flags = text.listed("attn_type_list")
    return None if flags is None else ["full" if flag else "linear" for flag in flags]


def _period(text: Keys, count: int) -> list[LayerKind] | None:
    """Jamba: every so many layers, from an offset."""
    period = text.number("attn_layer_period")
    if period is None:
        return None
    offset = text.get("attn_layer_offset") or 0
    return _full_at(count, [i for i in range(count) if i % period == offset % period])


def _interval(text: Keys, count: int) -> list[LayerKind] | None:
    """Qwen3-Next: the last of every so many layers has full attention."""
    every = text.number("full_attention_interval")
    if every is None:
        return None
    return _full_at(count, [i for i in range(count) if (i + 1) % every == 0])


def _gpt_neo(text: Keys, _count: int) -> list[LayerKind] | None:
    names = text.listed("attention_layers")
    return None if names is None else [_of_type(text, name) for name in names]


def _chunks(text: Keys, count: int) -> list[LayerKind] | None:
    """Llama 4: layers with rotary embeddings attend within chunks, the others to everything."""
    if text.number("attention_chunk_size") is None:
        return None
    rope = text.listed("no_rope_layers")
    if not rope:
        every = text.number("no_rope_layer_interval") or 4
        rope = [0 if (i + 1) % every == 0 else 1 for i in range(count)]
    return ["chunked" if flag else "full" for flag in rope]


def _of_windows(text: Keys, _count: int) -> list[LayerKind] | None:
    """A window a layer, or a flag a layer (MiMo: 1 has the window)."""
    windows = text.listed("sliding_window", "hybrid_layer_pattern")
    return None if windows is None else ["sliding" if each else "full" for each in windows]


def _every_nth_full(text: Keys, count: int) -> list[LayerKind] | None:
    """Gemma, Cohere2: windows, and the last of every so many layers without (or a text: LLLG)."""
    if not window_of(text):
        return None
    pattern = text.get("sliding_window_pattern", "_sliding_window_pattern")
    if isinstance(pattern, str) and pattern:
        turns = [pattern[i % len(pattern)] for i in range(count)]
        return ["sliding" if letter == "L" else "full" for letter in turns]
    if not isinstance(pattern, int) or pattern < 1:
        return None
    return ["full" if (i + 1) % pattern == 0 else "sliding" for i in range(count)]


def _first_of_n_full(text: Keys, count: int) -> list[LayerKind] | None:
    """ModernBERT: the first of every so many layers sees everything."""
    every = text.number("global_attn_every_n_layers")
    if every is None:
        return None
    return ["full" if i % every == 0 else "sliding" for i in range(count)]


def _full_at(count: int, places: Sequence[int]) -> list[LayerKind]:
    there = set(places)
    return ["full" if i in there else "linear" for i in range(count)]


_RULES: tuple[Callable[[Keys, int], list[LayerKind] | None], ...] = (
    _listed,
    _pattern,
    _linear_config,
    _indices,
    _flags,
    _period,
    _interval,
    _gpt_neo,
    _chunks,
    _of_windows,
    _every_nth_full,
    _first_of_n_full,
)
