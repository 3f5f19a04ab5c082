"""Reading a config.json of any family: kinds of layers, shapes, and what is wrong with a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conformance.errors import UsageError
from conformance.models.config_file import read_config, read_file
from conformance.models.layers import Layers, Model
from conformance.models.state import hybrid_block_size

PLAIN = {
    "model_type": "llama",
    "hidden_size": 512,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "num_hidden_layers": 4,
    "torch_dtype": "float16",
}


def model(**changed: Any) -> Model:
    return read_config({**PLAIN, **changed}, "a model", "config.json")


def kinds(**changed: Any) -> list[tuple[str, int, int]]:
    """Kind, number and window of each group of layers."""
    return [(each.kind, each.count, each.window) for each in model(**changed).layers]


WAYS: dict[str, tuple[dict[str, Any], list[tuple[str, int, int]]]] = {
    "plain": ({}, [("full", 4, 0)]),
    "window everywhere": ({"sliding_window": 64}, [("sliding", 4, 64)]),
    "window not used": ({"sliding_window": 64, "use_sliding_window": False}, [("full", 4, 0)]),
    "window null": ({"model_type": "mistral", "sliding_window": None}, [("full", 4, 0)]),
    "layer types": (
        {
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "sliding_window": 32,
        },
        [("sliding", 2, 32), ("full", 2, 0)],
    ),
    "pattern of n": (
        {"sliding_window": 32, "sliding_window_pattern": 4},
        [("sliding", 3, 32), ("full", 1, 0)],
    ),
    "pattern of letters": (
        {"sliding_window": 32, "sliding_window_pattern": "LG"},
        [("sliding", 2, 32), ("full", 2, 0)],
    ),
    "a window a layer": (
        {"sliding_window": [None, 128, None, 128]},
        [("full", 2, 0), ("sliding", 2, 128)],
    ),
    "a flag a layer": (
        {"hybrid_layer_pattern": [0, 1, 1, 1], "sliding_window_size": 128},
        [("full", 1, 0), ("sliding", 3, 128)],
    ),
    "chunks": (
        {"attention_chunk_size": 256, "no_rope_layers": [1, 1, 1, 0]},
        [("chunked", 3, 256), ("full", 1, 0)],
    ),
    "chunks, layers not said": (
        {"attention_chunk_size": 256, "no_rope_layers": []},
        [("chunked", 3, 256), ("full", 1, 0)],
    ),
    "Jamba": ({"attn_layer_period": 4, "attn_layer_offset": 2}, [("linear", 3, 0), ("full", 1, 0)]),
    "Qwen3-Next": ({"full_attention_interval": 2}, [("linear", 2, 0), ("full", 2, 0)]),
    "Bamba": ({"attn_layer_indices": [1]}, [("linear", 3, 0), ("full", 1, 0)]),
    "Nemotron-H": ({"hybrid_override_pattern": "M-*E"}, [("linear", 1, 0), ("full", 1, 0)]),
    "Kimi-Linear": (
        {"linear_attn_config": {"full_attn_layers": [4]}},
        [("linear", 3, 0), ("full", 1, 0)],
    ),
    "RecurrentGemma": (
        {"block_types": ["recurrent", "attention"], "attention_window_size": 16},
        [("linear", 2, 0), ("sliding", 2, 16)],
    ),
    "MiniMax": ({"attn_type_list": [0, 0, 0, 1]}, [("linear", 3, 0), ("full", 1, 0)]),
    "ModernBERT": (
        {"model_type": "modernbert", "global_attn_every_n_layers": 2, "local_attention": 8},
        [("encoder", 2, 0), ("encoder", 2, 8)],
    ),
    "made an embedder": ({"is_causal": False}, [("encoder", 4, 0)]),
    "latent": (
        {"model_type": "deepseek_v3", "kv_lora_rank": 512, "qk_rope_head_dim": 64},
        [("mla", 4, 0)],
    ),
    "latent and sparse": (
        {
            "model_type": "deepseek_v32",
            "kv_lora_rank": 512,
            "qk_rope_head_dim": 64,
            "index_topk": 2048,
        },
        [("sparse MLA", 4, 0)],
    ),
    "named by the model": ({"model_type": "deepseek_v4"}, [("named by the model", 4, 0)]),
}


@pytest.mark.parametrize("name", WAYS)
def test_kinds_of_layers(name: str) -> None:
    changed, expected = WAYS[name]
    assert kinds(**changed) == expected


SIZES: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "hidden size over heads": ({}, (64, 8, 2)),
    "head_dim": ({"head_dim": 128}, (128, 8, 2)),
    "no KV heads named": ({"num_key_value_heads": None}, (64, 8, 8)),
    "multi-query": ({"multi_query": True}, (64, 8, 1)),
    "GPT-2's names": (
        {"hidden_size": None, "num_attention_heads": None, "n_embd": 256, "n_head": 4}
        | {"num_key_value_heads": None},
        (64, 4, 4),
    ),
    "MPT": ({"attn_config": {"kv_n_heads": 4}}, (64, 8, 4)),
    "latent, multiplied out": (
        {"model_type": "minicpm3", "kv_lora_rank": 256, "qk_rope_head_dim": 32}
        | {"qk_nope_head_dim": 64},
        (96, 8, 2),
    ),
}


@pytest.mark.parametrize("name", SIZES)
def test_shapes(name: str) -> None:
    changed, expected = SIZES[name]
    (layers,) = model(**changed).layers
    assert (layers.head_size, layers.num_heads, layers.num_kv_heads) == expected


def test_layers_of_different_shapes_are_told_apart() -> None:
    found = model(num_key_value_heads=[2, 2, 4, 8]).layers
    assert [(each.count, each.num_kv_heads) for each in found] == [(2, 2), (1, 4), (1, 8)]


def test_blocks_of_a_searched_model() -> None:
    blocks = [
        {"attention": {"n_heads_in_group": 4}},
        {"attention": {"no_op": True}},
        {"attention": {"n_heads_in_group": 8}},
        {"attention": {"n_heads_in_group": 4}},
    ]
    found = model(block_configs=blocks).layers
    assert [(each.count, each.num_kv_heads) for each in found] == [(2, 2), (1, 1)]


def test_sinks_alibi_and_caps() -> None:
    (sinks,) = model(model_type="gpt_oss", sliding_window=None).layers
    assert sinks.sinks
    (bloom,) = model(model_type="bloom").layers
    assert bloom.alibi
    (capped,) = model(attn_logit_softcapping=50.0).layers
    assert capped.soft_cap
    (plain,) = model().layers
    assert not (plain.sinks or plain.alibi or plain.soft_cap)


def test_a_model_in_parts_has_its_language_model_and_its_towers() -> None:
    whole = read_config(
        {
            "model_type": "qwen2_5_omni",
            "thinker_config": {
                "text_config": PLAIN,
                "vision_config": {"hidden_size": 1280, "num_heads": 16, "depth": 32},
                "audio_config": {
                    "d_model": 640,
                    "encoder_attention_heads": 10,
                    "encoder_layers": 6,
                },
            },
        },
        "omni",
        "config.json",
    )
    found = [(each.kind, each.count, each.head_size) for each in whole.layers]
    assert found == [("full", 4, 64), ("vision", 32, 80), ("audio", 6, 64)]
    assert whole.dtype == "float16"


def test_defaults_of_the_class_stand_in_for_what_a_file_leaves_out() -> None:
    whole = read_config(
        {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}, "g", "c"
    )
    assert [(e.kind, e.count, e.head_size) for e in whole.layers] == [
        ("sliding", 22, 256),
        ("full", 4, 256),
    ]
    assert whole.mm_prefix


@pytest.mark.parametrize(
    ("said", "taken", "assumes"),
    [("float16", "float16", False), ("float32", "bfloat16", True), (None, "bfloat16", True)],
)
def test_dtype_as_vllm_takes_it(said: str | None, taken: str, assumes: bool) -> None:
    found = model(torch_dtype=said)
    assert (found.dtype, bool(found.assumed)) == (taken, assumes)


# What vLLM prints of these models when it starts: "Setting attention block size to N tokens".
@pytest.mark.parametrize(("gpus", "block"), [(1, 544), (2, 544), (4, 272)])
def test_blocks_of_a_hybrid_model_hold_a_state(gpus: int, block: int) -> None:
    hybrid = model(
        model_type="qwen3_next",
        **{"linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128},
        **{"linear_value_head_dim": 128, "linear_conv_kernel_dim": 4},
    )
    assert hybrid.hybrid
    attention = Layers("full", 12, 256, 16, 2).of_one_gpu(gpus)
    assert hybrid_block_size(hybrid.state_elements, attention, gpus) == block


# ---- each GPU's share ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "heads", "kv", "ratio"), [(1, 64, 8, 8), (8, 8, 1, 8), (16, 4, 1, 4), (2, 32, 4, 8)]
)
def test_heads_are_shared_out_and_kv_heads_repeated(
    gpus: int, heads: int, kv: int, ratio: int
) -> None:
    share = Layers("full", 1, 128, 64, 8).of_one_gpu(gpus)
    assert (share.num_heads, share.num_kv_heads, share.gqa_ratio) == (heads, kv, ratio)


@pytest.mark.parametrize("gpus", [3, 128])
def test_heads_that_cannot_be_shared_out(gpus: int) -> None:
    with pytest.raises(UsageError, match=f"--tensor-parallel-size {gpus}.*1, 2, 4, 8"):
        Layers("full", 1, 128, 64, 8).of_one_gpu(gpus)


# ---- files that are wrong --------------------------------------------------------------------

WRONG = {
    "no JSON": ("{", "is no JSON"),
    "a list": ("[]", "expected a JSON object, got list"),
    "empty": ("{}", "no number of layers"),
    "heads as text": (json.dumps({**PLAIN, "num_attention_heads": "8"}), "num_attention_heads"),
    "heads below 1": (json.dumps({**PLAIN, "num_attention_heads": 0}), "whole number from 1 on"),
    "heads as a fraction": (json.dumps({**PLAIN, "num_attention_heads": 1.5}), "whole number"),
    "heads that do not divide": (json.dumps({**PLAIN, "num_attention_heads": 7}), "no multiple"),
    "KV heads that do not divide": (json.dumps({**PLAIN, "num_key_value_heads": 3}), "no multiple"),
    "unknown layer": (json.dumps({**PLAIN, "layer_types": ["x"] * 4}), "'x' is not known"),
    "too few layers": (json.dumps({**PLAIN, "layer_types": ["attention"]}), "there are 4"),
    "unknown letter": (json.dumps({**PLAIN, "hybrid_override_pattern": "MMZ*"}), "'Z'"),
    "too few KV heads": (json.dumps({**PLAIN, "num_key_value_heads": [2]}), "layer 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_named_with_what_is_wrong(name: str, tmp_path: Path) -> None:
    text, says = WRONG[name]
    file = tmp_path / "config.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=says) as caught:
        read_file(file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_file(tmp_path / "config.json")


def test_a_folder_with_a_file_and_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("\ufeff" + json.dumps(PLAIN), encoding="utf-8")
    assert read_file(tmp_path).layers == model().layers
