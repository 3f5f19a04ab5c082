"""Reads any config.json of Hugging Face as a :class:`Model`, with what it says of attention.

Keys differ from family to family, and a file leaves out what is transformers' default: see
``keys.py``, ``kinds.py`` and ``defaults.toml``. What vLLM makes of a configuration is cited where
it is not plain from the file.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from conformance.errors import UsageError
from conformance.models.keys import HEAD_SIZE, HEADS, HIDDEN, KV_HEADS, LAYERS, Keys
from conformance.models.kinds import kinds_of_layers, window_of
from conformance.models.layers import Kind, Layers, Model
from conformance.models.state import state_elements

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIG = "config.json"
_LANGUAGE = ("text_config", "language_config", "llm_config", "text_model_config")
_VISION = ("vision_config", "visual", "vision_tower_config", "vit_config")
_AUDIO = ("audio_config", "audio_encoder_config", "speech_config", "sound_config")
_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_seq_length")
# Models whose image tokens see each other both ways: `is_mm_prefix_lm` in
# https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/transformers_utils/model_arch_config_convertor.py
_MM_PREFIX = ("bagel", "gemma3", "molmo2", "moondream3", "paligemma")
# vLLM gives these the latent attention of DeepSeek (`is_deepseek_mla`, same file); others with a
# latent rank, such as MiniCPM3, multiply the latent out and attend as usual.
_LATENT = (
    *("axk1", "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_mtp", "kimi_k2"),
    *("kimi_linear", "glm_moe_dsa", "glm4_moe_lite", "longcat_flash", "pangu_ultra_moe"),
    *("glm5_next", "glm5_next_text", "bailing_hybrid", "dots3_note", "hy_v4"),
)
_NAMED_BY_THE_MODEL = ("deepseek_v4", "deepseek_v41")
_ENCODERS = (
    *("bert", "roberta", "xlm-roberta", "modernbert", "nomic_bert", "new", "gte", "camembert"),
    *("distilbert", "electra", "deberta-v2", "xlm-roberta-xl", "eurobert", "jina_bert"),
)
_ALIBI = ("bloom",)
_SINKS = ("gpt_oss",)
_DTYPES = {"float16": "float16", "half": "float16", "bfloat16": "bfloat16", "float32": "float32"}


def read_file(path: Path) -> Model:
    """The model that a config.json, or a folder with one, describes.

    Raises:
        UsageError: the file cannot be read, is no JSON object, or lacks what attention needs.
    """
    file = path / CONFIG if path.is_dir() else path
    try:
        config = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"--model {file}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--model {file}: is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"--model {file}: expected a JSON object, got {type(config).__name__}")
    name = config.get("_name_or_path")
    return read_config(config, name if isinstance(name, str) and name else str(file), str(file))


def read_config(config: Mapping[str, Any], name: str, source: str) -> Model:
    """The model that the keys of a configuration describe; see :func:`read_file`."""
    whole = _thinker(Keys(source, config))
    text = _with_defaults(_language(whole))
    encoder_only = _is_encoder(whole, text)
    sequence_to_sequence = bool(text.values.get("is_encoder_decoder"))
    if sequence_to_sequence:
        decoder = list(_sequence_to_sequence(text))
    elif encoder_only:
        decoder = list(_grouped(text, encoder=True))
    else:
        decoder = list(_grouped(text))
    towers = [*_towers(whole, _VISION, "vision"), *_towers(whole, _AUDIO, "audio")]
    dtype, assumed = _dtype(whole, text, pooling=encoder_only)
    return Model(
        name=name,
        source=source,
        dtype=dtype,
        layers=tuple(decoder + towers),
        max_len=text.number(*_LENGTHS, "max_target_positions") or 0,
        mm_prefix=_mm_prefix(whole, text),
        encoder_decoder=sequence_to_sequence,
        encoder_only=encoder_only,
        rswa=whole.get("rswa_window") is not None,
        state_elements=state_elements(text),
        assumed=(*assumed, *_assumed_of_latent(text)),
    )


def _thinker(whole: Keys) -> Keys:
    """Qwen's omni models put the model that reads within ``thinker_config``."""
    thinker = whole.nested("thinker_config")
    if thinker is None:
        return whole
    return Keys(thinker.where, {**whole.values, **thinker.values})


def _language(whole: Keys) -> Keys:
    """The part about the language model; the whole, where the file has one part."""
    return whole.nested(*_LANGUAGE) or whole


@cache
def _defaults() -> dict[str, dict[str, Any]]:
    text = resources.files(__package__).joinpath("defaults.toml").read_text(encoding="utf-8")
    return {name: row["config"] for name, row in tomllib.loads(text).items()}


def _with_defaults(keys: Keys, model_type: str = "") -> Keys:
    """The keys, and under them what transformers fills in for their model type."""
    usual = _defaults().get(model_type or keys.text("model_type"), {})
    return Keys(keys.where, {**usual, **keys.values})


def _is_encoder(whole: Keys, text: Keys) -> bool:
    """Whether the model attends both ways: encoders, and decoders that were made embedders."""
    causal = [keys.values.get("is_causal") for keys in (whole, text)]
    both_ways = text.values.get("use_bidirectional_attention")
    return text.text("model_type") in _ENCODERS or False in causal or both_ways is True


def _dtype(whole: Keys, text: Keys, *, pooling: bool) -> tuple[str, list[str]]:
    """The dtype that vLLM's ``--dtype auto`` takes, and what had to be assumed."""
    said = whole.text("torch_dtype", "dtype") or text.text("torch_dtype", "dtype")
    said = said.removeprefix("torch.")
    if said in ("float16", "half", "bfloat16"):
        return _DTYPES[said], []
    taken = "float16" if pooling else "bfloat16"
    if said in _DTYPES:
        return taken, [f"the file says {said}, of which vLLM's --dtype auto makes {taken}"]
    if not said:
        return taken, [f"the file names no dtype: {taken} is assumed; --dtype sets another"]
    return taken, [f"the file's dtype {said!r} is not known: {taken} is assumed; --dtype sets it"]


def _mm_prefix(whole: Keys, text: Keys) -> bool:
    if (said := whole.values.get("is_mm_prefix_lm")) is not None:
        return bool(said)
    if text.values.get("use_bidirectional_attention") == "vision":
        return True
    return whole.text("model_type") in _MM_PREFIX


def _assumed_of_latent(text: Keys) -> Iterator[str]:
    if _latent_rank(text) and text.text("model_type") not in _LATENT:
        yield (
            f"model type {text.text('model_type')!r} has a latent rank, but is not among the "
            "models with latent attention (MLA) of vLLM 0.33: its layers are taken as ordinary ones"
        )


def _latent_rank(text: Keys) -> int | None:
    return text.number("kv_lora_rank") if text.get("kv_lora_rank") else None


def _grouped(text: Keys, *, encoder: bool = False) -> Iterator[Layers]:
    """The decoder's layers, those that are alike together, in the order of their first."""
    if text.text("model_type") in _NAMED_BY_THE_MODEL:
        count = text.required("number of layers", *LAYERS)
        yield Layers("named by the model", count)
        return
    blocks = text.listed("block_configs")
    if blocks is not None:
        yield from _of_blocks(text, blocks)
        return
    count = text.required("number of layers", *LAYERS)
    found = Counter[Layers]()
    for place, kind in enumerate(kinds_of_layers(text, count)):
        if kind is not None:
            found[_layer(text, kind, place, encoder=encoder)] += 1
    for layer, number in found.items():
        yield Layers(**{**vars(layer), "count": number})


def _layer(text: Keys, kind: Kind, place: int, *, encoder: bool) -> Layers:
    """One layer of the language model."""
    if kind == "linear":
        return Layers("linear", 1)
    heads = _at(text, place, "number of heads", "num_query_heads", *HEADS)
    latent = _latent_rank(text)
    if latent and text.text("model_type") in _LATENT:
        rope = text.required("rope part of a latent head", "qk_rope_head_dim")
        sparse: Kind = "sparse MLA" if text.get("index_topk") else "mla"
        return Layers(sparse, 1, latent + rope, heads, 1)
    window = 0
    if kind == "sliding":
        window = window_of(text)
    elif kind == "chunked":
        window = text.number("attention_chunk_size") or 0
    model_type = text.text("model_type")
    sink = text.flag(f"add_{'swa' if kind == 'sliding' else 'full'}_attention_sink_bias")
    return Layers(
        "encoder" if encoder else kind,
        1,
        _head_size(text, place, heads),
        heads,
        _kv_heads(text, place, heads),
        window,
        sinks=sink or model_type in _SINKS,
        alibi=_has_alibi(text),
        soft_cap=bool(text.get("attn_logit_softcapping")),
    )


def _has_alibi(text: Keys) -> bool:
    attention = text.nested("attn_config")  # MPT
    return (
        text.text("model_type") in _ALIBI
        or text.flag("alibi", "use_alibi")
        or text.text("position_embedding_type") == "alibi"
        or bool(attention and attention.flag("alibi"))
    )


def _at(text: Keys, place: int, what: str, *names: str) -> int:
    """A number that may differ from layer to layer."""
    value = text.get(*names)
    if isinstance(value, list):
        if place >= len(value):
            raise UsageError(f"{text.where}: no {what} of layer {place}")
        return Keys(text.where, {names[0]: value[place]}).required(what, names[0])
    return text.required(what, *names)


def _kv_heads(text: Keys, place: int, heads: int) -> int:
    if text.flag("multi_query") and not text.flag("new_decoder_architecture"):
        return 1
    attention = text.nested("attn_config")
    if attention and attention.get("kv_n_heads"):
        return attention.required("number of KV heads", "kv_n_heads")
    if text.get(*KV_HEADS) is None:
        return heads
    kv = _at(text, place, "number of KV heads", *KV_HEADS)
    if heads % kv:
        raise UsageError(f"{text.where}: {heads} query heads are no multiple of {kv} KV heads")
    return kv


def _head_size(text: Keys, place: int, heads: int) -> int:
    named = text.get(*HEAD_SIZE)
    if named is not None:
        return _at(text, place, "head size", *HEAD_SIZE)
    if (nope := text.number("qk_nope_head_dim")) and (rope := text.number("qk_rope_head_dim")):
        return nope + rope
    hidden = text.required("hidden size", *HIDDEN)
    if hidden % heads:
        raise UsageError(
            f"{text.where}: the hidden size {hidden} is no multiple of {heads} heads, and no "
            f"{HEAD_SIZE[0]} is given"
        )
    return hidden // heads


def _of_blocks(text: Keys, blocks: list[Any]) -> Iterator[Layers]:
    """Nemotron-NAS: a configuration a block, some of which have no attention."""
    heads = text.required("number of heads", *HEADS)
    size = _head_size(text, 0, heads)
    found = Counter[int]()
    for place, block in enumerate(blocks):
        attention = Keys(f"{text.where}, block {place}", block).nested("attention")
        if attention is None or attention.flag("no_op", "replace_with_linear"):
            continue
        found[heads // attention.required("heads in a group", "n_heads_in_group")] += 1
    for kv, number in found.items():
        yield Layers("full", number, size, heads, kv)


def _sequence_to_sequence(text: Keys) -> Iterator[Layers]:
    """An encoder, and a decoder whose layers also attend to it.

    vLLM's Whisper attends in the encoder as a vision tower does:
    https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/model_executor/models/whisper.py#L111
    """
    heads = text.required("number of heads", "decoder_attention_heads", *HEADS)
    count = text.required("number of layers", "decoder_layers", *LAYERS)
    size = _head_size(text, 0, heads)
    yield Layers("full", count, size, heads, heads)
    yield Layers("cross", count, size, heads, heads)
    of_encoder = text.required("number of heads", "encoder_attention_heads", *HEADS)
    hears = text.get("num_mel_bins", "max_source_positions") is not None
    yield Layers(
        "audio" if hears else "encoder",
        text.required("number of layers", "encoder_layers", *LAYERS),
        _head_size(text, 0, of_encoder),
        of_encoder,
        of_encoder,
    )


def _towers(whole: Keys, names: tuple[str, ...], kind: Kind) -> Iterator[Layers]:
    """The vision tower or the audio encoder, if the model has one whose shape is said."""
    tower = whole.nested(*names)
    if tower is None:
        return
    model_type = tower.text("model_type")
    tower = _with_defaults(tower, "qwen2_5_vl_vision" if model_type == "qwen2_5_vl" else model_type)
    heads = tower.number("encoder_attention_heads", *HEADS)
    count = tower.number("encoder_layers", *LAYERS)
    hidden = tower.number("embed_dim", "width", *HIDDEN)
    size = tower.number(*HEAD_SIZE) or (hidden // heads if hidden and heads else None)
    if heads and count and size:
        yield Layers(kind, count, size, heads, heads)
