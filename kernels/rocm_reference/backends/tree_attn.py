"""TREE_ATTN: TRITON_ATTN's unified kernel, with a bias between the drafts of speculative decoding.

Cache layout: ``[2, N, B, G, D]``, all keys before all values
(https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/backends/tree_attn.py#L57-L67).
"""

from __future__ import annotations

from rocm_reference.backends.triton_attn import TritonAttention


class TreeAttention(TritonAttention):
    """The backend TREE_ATTN."""

    name = "TREE_ATTN"
    _halves = 0
