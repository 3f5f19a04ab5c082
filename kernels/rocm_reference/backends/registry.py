"""Every reference backend by name; its module is imported on first use."""

from __future__ import annotations

from importlib import import_module

from rocm_reference.attention import PagedBackend, VarlenBackend

_CLASSES = {
    "ROCM_ATTN": ("rocm_attn", "RocmAttention"),
    "ROCM_AITER_FA": ("rocm_aiter_fa", "AiterFlashAttention"),
    "ROCM_AITER_UNIFIED_ATTN": ("rocm_aiter_unified_attn", "AiterUnifiedAttention"),
    "TRITON_ATTN": ("triton_attn", "TritonAttention"),
    "TRITON_ATTN_DIFFKV": ("triton_attn_diffkv", "TritonAttentionDiffKV"),
    "TREE_ATTN": ("tree_attn", "TreeAttention"),
    "ROCM_SEGMENTED_ATTN": ("rocm_segmented_attn", "SegmentedAttention"),
    "FLEX_ATTENTION": ("flex_attention", "FlexAttention"),
    "TRITON_MLA": ("triton_mla", "TritonMLA"),
    "ROCM_AITER_MLA": ("rocm_aiter_mla", "AiterMLA"),
    "ROCM_AITER_TRITON_MLA": ("rocm_aiter_triton_mla", "AiterTritonMLA"),
    "ROCM_AITER_MLA_SPARSE": ("rocm_aiter_mla_sparse", "AiterMLASparse"),
    "TURBOQUANT": ("turboquant", "TurboQuantAttention"),
    "ULTRAQUANT": ("turboquant", "UltraQuantAttention"),
    "FLASH_ATTN": ("vit", "FlashAttention"),
    "TORCH_SDPA": ("vit", "TorchSdpa"),
}
NAMES = tuple(_CLASSES)


def backend(name: str, **options: int) -> PagedBackend | VarlenBackend:
    """The reference implementation of a backend; ``options`` are those of its class.

    Raises:
        KeyError: no backend has that name.
    """
    module, cls = _CLASSES[name]
    made: PagedBackend | VarlenBackend = getattr(import_module(f"{__package__}.{module}"), cls)(
        **options
    )
    return made
