"""The numbers of each preset fit together: a digit typed wrong breaks one of these relations.

They hold of the models' published files: heads fill the hidden size or a head size is named, every
layer is of one kind, a window is shorter than the context, machines of eight GPUs share the heads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from conformance.errors import UsageError
from conformance.models.config_file import read_config
from conformance.models.keys import HEAD_SIZE, HEADS, HIDDEN, LAYERS, Keys
from conformance.models.layers import NOT_ASKED, TOWERS, Layers, Model
from conformance.models.presets import find_model, presets

ONE_LANGUAGE_MODEL = "text_config"
LATENT = ("mla", "sparse MLA")
# Head sizes that served models have; 576 is a latent rank of 512 and a rope part of 64.
HEAD_SIZES = (64, 72, 80, 88, 96, 128, 256, 576)
# Models that eight GPUs cannot share, with the query and KV heads that their files say.
NOT_ON_EIGHT_GPUS = {
    **dict.fromkeys(("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2-VL-7B-Instruct"), (28, 4)),
    **{"Qwen/Qwen2.5-VL-7B-Instruct": (28, 4), "openai/whisper-large-v3": (20, 20)},
    **{"answerdotai/ModernBERT-base": (12, 12), "tiiuae/falcon-7b": (71, 1)},
    "microsoft/phi-4": (40, 10),
}
# Of these few parameters are in experts, and the name says how many there are (billions).
NAMED_BY_SIZE = re.compile(r"[-_r](\d+(?:\.\d+)?)b\b", re.IGNORECASE)
EXPERTS = ("8x7B", "A3B", "A22B", "16E", "gpt-oss")
# Weights of a dense layer: 4 of hidden x hidden in attention, and about 8 in the MLP; grouped heads
# have fewer, wide MLPs and large vocabularies more.
OF_A_LAYER, LEAST, MOST = 12, 0.4, 1.35
# Models with one shape and other weights, by their cards:
# https://huggingface.co/deepseek-ai/DeepSeek-R1 and
# https://huggingface.co/meta-llama/Llama-3.3-70B-Instruct
SAME_SHAPE = [
    ("deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-V3"),
    ("meta-llama/Llama-3.3-70B-Instruct", "meta-llama/Llama-3.1-70B-Instruct"),
]


def text_of(config: Mapping[str, Any], name: str) -> Keys:
    """What a preset says of its language model."""
    return Keys(name, config.get(ONE_LANGUAGE_MODEL) or config)


def decoder_of(model: Model) -> list[Layers]:
    """The layers that the language model's own number counts."""
    return [each for each in model.layers if each.kind not in (*TOWERS, "cross")]


def check(model: Model, config: Mapping[str, Any]) -> None:
    """Asserts every relation that one model's numbers must have."""
    text = text_of(config, model.name)
    check_layers(model, text)
    for layers in model.layers:
        if layers.kind not in NOT_ASKED:
            check_heads(layers, text)
        if layers.kind in ("sliding", "chunked"):
            assert 0 < layers.window < model.max_len
        elif layers.kind != "encoder":
            assert layers.window == 0
    check_shares(model)
    check_size(model, text)


def check_layers(model: Model, text: Keys) -> None:
    said = text.number(*LAYERS)
    if said is None:  # the default of transformers
        return
    without = sum(text.text("hybrid_override_pattern").count(letter) for letter in "-E")
    assert sum(layers.count for layers in decoder_of(model)) == said - without
    assert (text.number("max_window_layers") or 0) <= said
    listed = text.listed("layer_types", "layers_block_type")
    assert listed is None or len(listed) == said


def check_heads(layers: Layers, text: Keys) -> None:
    assert layers.head_size in HEAD_SIZES
    assert layers.num_heads % layers.num_kv_heads == 0
    if layers.kind in LATENT:
        rank, rope = text.number("kv_lora_rank"), text.number("qk_rope_head_dim")
        assert (layers.head_size, layers.num_kv_heads) == ((rank or 0) + (rope or 0), 1)
    elif layers.kind not in TOWERS and (hidden := text.number(*HIDDEN)):
        size = text.number(*HEAD_SIZE) or hidden / (text.number(*HEADS) or layers.num_heads)
        assert layers.head_size == size


def check_shares(model: Model) -> None:
    for layers in decoder_of(model):
        for gpus in (1, 2, 4, 8):
            try:
                share = layers.of_one_gpu(gpus)
            except UsageError:
                heads = (layers.num_heads, layers.num_kv_heads)
                assert NOT_ON_EIGHT_GPUS.get(model.name) == heads
                continue
            assert share.num_heads * gpus == layers.num_heads
            if layers.kind not in NOT_ASKED:
                assert share.num_kv_heads == max(layers.num_kv_heads // gpus, 1)
                assert share.num_heads % share.num_kv_heads == 0


def check_size(model: Model, text: Keys) -> None:
    named = NAMED_BY_SIZE.search(model.name)
    hidden, count = text.number(*HIDDEN), text.number(*LAYERS)
    if named and hidden and count and not any(part in model.name for part in EXPERTS):
        weights = OF_A_LAYER * count * hidden**2 / 1e9
        assert LEAST <= weights / float(named[1]) <= MOST


@pytest.mark.parametrize("name", presets())
def test_the_numbers_of_a_preset_fit_together(name: str) -> None:
    check(find_model(name), presets()[name].config)


@pytest.mark.parametrize(("name", "other"), SAME_SHAPE)
def test_models_of_one_shape_have_the_same_numbers(name: str, other: str) -> None:
    assert find_model(name).layers == find_model(other).layers


def test_models_that_eight_gpus_cannot_share_are_there() -> None:
    assert set(NOT_ON_EIGHT_GPUS) <= set(presets())


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("meta-llama/Llama-3.1-70B-Instruct", {"hidden_size": 8129}),
        ("meta-llama/Llama-3.1-70B-Instruct", {"hidden_size": 4096}),
        ("meta-llama/Llama-3.1-70B-Instruct", {"num_attention_heads": 46}),
        ("meta-llama/Llama-3.1-70B-Instruct", {"num_key_value_heads": 7}),
        ("meta-llama/Llama-3.1-70B-Instruct", {"num_hidden_layers": 8}),
        ("Qwen/Qwen3-8B", {"head_dim": 129}),
        ("Qwen/Qwen3-8B", {"max_window_layers": 63}),
        ("openai/gpt-oss-120b", {"sliding_window": 1280000}),
        ("openai/gpt-oss-120b", {"num_hidden_layers": 35}),
        ("deepseek-ai/DeepSeek-V3", {"kv_lora_rank": 521}),
        ("nvidia/Nemotron-H-8B-Base-8K", {"num_hidden_layers": 56}),
    ],
)
def test_a_number_typed_wrong_does_not_fit(name: str, wrong: dict[str, int]) -> None:
    config = {**presets()[name].config, **wrong}
    with pytest.raises((AssertionError, UsageError)):
        check(read_config(config, name, name), config)
