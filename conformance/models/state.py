"""What the layers without a KV cache keep of a sequence, and the cache blocks that follow from it.

vLLM gives all layers of a hybrid model pages of one size: it makes the attention's blocks so long
that they hold as much as a state (``_align_hybrid_block_size``):
https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/platforms/interface.py#L940
"""

from __future__ import annotations

from conformance.models.keys import HIDDEN, Keys
from conformance.models.layers import Layers


def state_elements(text: Keys) -> int:
    """Elements that one layer keeps on one GPU; 0: no layer keeps any, or it is not known."""
    return _delta_net(text) or _mamba2(text) or _mamba1(text)


def _delta_net(text: Keys) -> int:
    """Gated delta nets (Qwen3-Next): a convolution's last inputs, and a matrix a head."""
    keys, values = text.number("linear_num_key_heads"), text.number("linear_num_value_heads")
    key_dim, value_dim = text.number("linear_key_head_dim"), text.number("linear_value_head_dim")
    kernel = text.number("linear_conv_kernel_dim")
    if not (keys and values and key_dim and value_dim and kernel):
        return 0
    channels = 2 * keys * key_dim + values * value_dim
    return channels * (kernel - 1) + values * key_dim * value_dim


def _mamba2(text: Keys) -> int:
    heads = text.number("mamba_n_heads", "mamba_num_heads")
    size = text.number("mamba_d_head", "mamba_head_dim")
    state = text.number("mamba_d_state", "ssm_state_size")
    groups = text.number("mamba_n_groups", "n_groups")
    kernel = text.number("mamba_d_conv", "conv_kernel")
    if not (heads and size and state and groups and kernel):
        return 0
    channels = heads * size + 2 * groups * state
    return channels * (kernel - 1) + heads * size * state


def _mamba1(text: Keys) -> int:
    expand, state = text.number("mamba_expand"), text.number("mamba_d_state")
    kernel, hidden = text.number("mamba_d_conv"), text.number(*HIDDEN)
    if not (expand and state and kernel and hidden):
        return 0
    return expand * hidden * (kernel - 1 + state)


def hybrid_block_size(elements: int, attention: Layers, tensor_parallel: int) -> int:
    """Tokens of a cache block, for states and cache of one dtype: a multiple of 16.

    ``attention`` is one GPU's share. A state in float32, or an fp8 cache, makes it longer.
    """
    token = attention.num_kv_heads * attention.head_size * (1 if "MLA" in attention.kind else 2)
    share = -(-elements // tensor_parallel)
    return 16 * max(1, -(-share // (16 * token)))
