"""ROCM_AITER_UNIFIED_ATTN: the unified algorithm over ROCM_ATTN's cache shape.

Cache layout: ``[2, N, B, G, D]``, all keys before all values
(https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/backends/rocm_aiter_unified_attn.py).
The kernel is TRITON_ATTN's: the two backends differ in cache layout and in when vLLM selects them.
"""

from __future__ import annotations

from rocm_reference.backends.triton_attn import TritonAttention


class AiterUnifiedAttention(TritonAttention):
    """The backend ROCM_AITER_UNIFIED_ATTN."""

    name = "ROCM_AITER_UNIFIED_ATTN"
    _halves = 0
