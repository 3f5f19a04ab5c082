"""Presets: every one is read, from a public file, and finds its way by any of its names."""

from __future__ import annotations

import pytest

from conformance.errors import UsageError
from conformance.models.layers import NOT_ASKED, TOWERS
from conformance.models.presets import find_model, presets

# What is published of some models, typed from their pages once more: kind, number, head size,
# query heads, KV heads, window.
PUBLISHED = {
    "meta-llama/Llama-3.1-70B-Instruct": [("full", 80, 128, 64, 8, 0)],
    "openai/gpt-oss-120b": [("sliding", 18, 64, 64, 8, 128), ("full", 18, 64, 64, 8, 0)],
    "deepseek-ai/DeepSeek-V3": [("mla", 61, 576, 128, 1, 0)],
    "deepseek-ai/DeepSeek-V3.2-Exp": [("sparse MLA", 61, 576, 128, 1, 0)],
    "google/gemma-3-27b-it": [
        ("sliding", 52, 128, 32, 16, 1024),
        ("full", 10, 128, 32, 16, 0),
        ("vision", 27, 72, 16, 16, 0),
    ],
    "Qwen/Qwen3-Next-80B-A3B-Instruct": [("linear", 36, 0, 0, 0, 0), ("full", 12, 256, 16, 2, 0)],
    "Qwen/Qwen2.5-VL-7B-Instruct": [("full", 28, 128, 28, 4, 0), ("vision", 32, 80, 16, 16, 0)],
    "openai/whisper-large-v3": [
        ("full", 32, 64, 20, 20, 0),
        ("cross", 32, 64, 20, 20, 0),
        ("audio", 32, 64, 20, 20, 0),
    ],
    "nvidia/Nemotron-H-8B-Base-8K": [("linear", 24, 0, 0, 0, 0), ("full", 4, 128, 32, 8, 0)],
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": [
        ("chunked", 36, 128, 40, 8, 8192),
        ("full", 12, 128, 40, 8, 0),
        ("vision", 34, 88, 16, 16, 0),
    ],
    "answerdotai/ModernBERT-base": [
        ("encoder", 8, 64, 12, 12, 0),
        ("encoder", 14, 64, 12, 12, 128),
    ],
    "tiiuae/falcon-7b": [("full", 32, 64, 71, 1, 0)],
    # These, and gpt-oss-120b, DeepSeek-V3 and falcon-7b above, are what the class of the model type
    # has by default, e.g. https://github.com/huggingface/transformers/blob/v5.20.2/src/transformers/models/minimax_m2/configuration_minimax_m2.py
    "MiniMaxAI/MiniMax-M2": [("full", 62, 128, 48, 8, 0)],
    "mistralai/Mixtral-8x7B-Instruct-v0.1": [("full", 32, 128, 32, 8, 0)],
    "meta-llama/Llama-2-7b-hf": [("full", 32, 128, 32, 32, 0)],
    "ai21labs/AI21-Jamba-Mini-1.6": [("linear", 28, 0, 0, 0, 0), ("full", 4, 128, 32, 8, 0)],
}


def test_there_are_presets_enough() -> None:
    assert len(presets()) >= 25


@pytest.mark.parametrize("name", presets())
def test_each_preset_is_a_model_with_attention(name: str) -> None:
    model = find_model(name)
    assert model.name == name
    assert presets()[name].source == f"https://huggingface.co/{name}/blob/main/config.json"
    asked = [layers for layers in model.layers if layers.kind not in NOT_ASKED]
    assert any(layers.kind not in TOWERS for layers in asked)
    for layers in asked:
        assert layers.count > 0
        assert layers.head_size > 0
        assert layers.num_heads % layers.num_kv_heads == 0
    assert model.dtype in ("float16", "bfloat16")


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_are_the_published_ones(name: str) -> None:
    found = [
        (each.kind, each.count, each.head_size, each.num_heads, each.num_kv_heads, each.window)
        for each in find_model(name).layers
    ]
    assert found == PUBLISHED[name]


@pytest.mark.parametrize(
    "name",
    ["meta-llama/Llama-3.1-70B-Instruct", "Llama-3.1-70B-Instruct", "llama-3.1-70b"],
)
def test_a_preset_is_found_by_any_of_its_names(name: str) -> None:
    assert find_model(name).name == "meta-llama/Llama-3.1-70B-Instruct"


def test_an_unknown_name_names_the_near_ones() -> None:
    with pytest.raises(UsageError, match=r"Did you mean .*gpt-oss-120b") as caught:
        find_model("gpt-os-120b")
    assert "--model list" in str(caught.value)


def test_a_part_of_several_names_is_none_of_them() -> None:
    with pytest.raises(UsageError, match="gemma-3-12b-it or google/gemma-3-27b-it"):
        find_model("gemma-3")
