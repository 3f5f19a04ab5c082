"""What vLLM's backends call that is no Triton kernel of vLLM's, which needs an AMD GPU."""

from __future__ import annotations

# What vLLM's ROCm backends call besides vLLM's own Triton kernels, and what each is.
OTHER_KERNELS = {
    "paged_attention_rocm": "HIP: ROCM_ATTN's custom decode kernel",
    "reshape_and_cache": "HIP: ROCM_ATTN's cache write at block sizes 16 and 32",
    "aiter.flash_attn_varlen_func": "CK or assembly: ROCM_AITER_FA's prefill",
    "aiter.paged_attention_v1": "assembly: ROCM_AITER_FA's decode",
    "aiter.mla.mla_decode_fwd": "assembly: ROCM_AITER_MLA's decode",
    "aiter.ops.triton.unified_attention": "aiter's Triton kernels, none of vLLM's",
    "aiter.ops.triton.mha": "aiter's Triton kernels, none of vLLM's",
    "flash_attn.flash_attn_varlen_func": "CK: prefill of TRITON_MLA, and of vision models",
    "octave_decode": "HIP: all of ROCM_OCTAVE's kernels",
    "top_k_per_row": "HIP: the sparse indexer's choice",
}
# The backends that do not decode with a Triton kernel of vLLM's, and what they need instead.
BACKEND_NEEDS = {
    "ROCM_AITER_FA": ("aiter.flash_attn_varlen_func", "aiter.paged_attention_v1"),
    "ROCM_AITER_UNIFIED_ATTN": ("aiter.ops.triton.unified_attention",),
    "ROCM_AITER_MLA": ("aiter.mla.mla_decode_fwd", "aiter.flash_attn_varlen_func"),
    "ROCM_AITER_TRITON_MLA": ("aiter.mla.mla_decode_fwd", "aiter.ops.triton.mha"),
    "ROCM_AITER_MLA_SPARSE": ("aiter.mla.mla_decode_fwd", "top_k_per_row"),
    "FLASH_ATTN": ("flash_attn.flash_attn_varlen_func",),
}


def needs_amd_gpu(*kernels: str) -> str:
    """Says that something cannot run without an AMD GPU, because it calls these kernels."""
    named = "; ".join(f"{kernel} ({OTHER_KERNELS[kernel]})" for kernel in kernels)
    return f"unsupported here, needs an AMD GPU: {named}"
