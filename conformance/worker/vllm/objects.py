"""The types of vLLM's own objects, as far as the harness reads them.

Paths are below https://github.com/vllm-project/vllm/tree/v0.19.0
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..contract import Value

if TYPE_CHECKING:
    import torch


class Platform(Protocol):
    """``current_platform`` (vllm/platforms/interface.py)."""

    def is_rocm(self) -> bool: ...

    def fp8_dtype(self) -> torch.dtype:
        """The encoding that "fp8" means."""
        ...

    def get_device_capability(self) -> object: ...

    def get_attn_backend_cls(self, backend: Member | None, config: SelectorConfig) -> str:
        """The path of the class that is selected; raises an error if there is none."""
        ...

    def get_vit_attn_backend(
        self, head_size: Value, dtype: torch.dtype, backend: Member | None = None
    ) -> Member: ...


class Member(Protocol):
    """A member of ``AttentionBackendEnum`` (vllm/v1/attention/backends/registry.py)."""

    # The name without the cost of enum's property.
    _name_: str

    @property
    def name(self) -> str: ...

    def get_class(self) -> BackendClass: ...

    def get_path(self) -> str: ...


class BackendClass(Protocol):
    """A class that derives from ``AttentionBackend`` (vllm/v1/attention/backend.py)."""

    __mro__: tuple[type, ...]
    supported_dtypes: Sequence[torch.dtype]
    supported_kv_cache_dtypes: Sequence[str]

    def get_kv_cache_shape(
        self, num_blocks: int, block_size: int, num_kv_heads: int, head_size: int, dtype: str, /
    ) -> tuple[int, ...]: ...

    def set_head_size_v(self, head_size_v: int, /) -> None:
        """Only of backends whose values have a head size of their own."""
        ...

    def get_kv_cache_stride_order(self) -> tuple[int, ...]: ...

    def customize_spec(self, spec: CacheSpec, /) -> CacheSpec: ...

    def get_impl_cls(self) -> Callable[..., Any]:
        """The class of a :class:`DenseImplementation`, or of a :class:`LatentImplementation`."""
        ...

    def get_builder_cls(self) -> Callable[..., Builder]: ...

    def get_supported_kernel_block_sizes(self) -> Sequence[object]: ...

    def get_supported_head_sizes(self) -> Sequence[int]: ...

    def validate_configuration(self, **asked: object) -> list[str]:
        """The reasons against a request; none if the backend is valid."""
        ...

    def supports_alibi_sqrt(self) -> bool: ...

    def supports_attn_type(self, attn_type: str) -> bool: ...

    def supports_head_size(self, head_size: int) -> bool: ...

    def supports_mm_prefix(self) -> bool: ...

    def supports_sink(self) -> bool: ...

    def is_mla(self) -> bool: ...

    def is_sparse(self) -> bool: ...


class CacheSpec(Protocol):
    """``AttentionSpec`` (vllm/v1/kv_cache_interface.py)."""

    block_size: int
    page_size_bytes: int


class Layout(Protocol):
    """``KVCacheLayout`` (vllm/v1/kv_cache_layout.py, from 0.29 on)."""

    name: str


class CacheInterface(Protocol):
    """vllm/v1/kv_cache_interface.py, from 0.29 on: sizes and strides are in bytes."""

    def compute_layer_kv_cache_shape_bytes(
        self, spec: CacheSpec, num_blocks: int
    ) -> tuple[int, ...]: ...

    def compute_layout_strides(
        self, spec: CacheSpec, num_blocks: int, num_layers: int, layout: Layout
    ) -> tuple[int, ...]: ...


class SelectorConfig(Protocol):
    """``AttentionSelectorConfig`` (vllm/v1/attention/selector.py)."""

    def _asdict(self) -> dict[str, object]: ...


class Metadata(Protocol):
    """What a builder makes for a batch; only MLA's has ``num_decode_tokens``, ``num_prefills``."""

    num_actual_tokens: int
    num_decode_tokens: int
    num_prefills: int
    seq_lens: torch.Tensor
    mm_prefix_range: Mapping[int, Sequence[tuple[int, int]]]
    mm_prefix_range_tensor: torch.Tensor | None

    def compute_mm_prefix_range_tensor(
        self, ranges: Mapping[int, Sequence[tuple[int, int]]], count: int, device: torch.device
    ) -> torch.Tensor | None: ...


class Builder(Protocol):
    """``AttentionMetadataBuilder``; ``chunked_prefill_workspace`` is MLA's."""

    reorder_batch_threshold: int
    chunked_prefill_workspace: torch.Tensor
    chunked_prefill_workspace_size: int

    def build(self, common_prefix_len: int, common_attn_metadata: object) -> Metadata: ...


class DenseImplementation(Protocol):
    """``AttentionImpl``."""

    def process_weights_after_loading(self, act_dtype: torch.dtype, /) -> None: ...

    def do_kv_cache_update(
        self,
        layer: object,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
    ) -> None: ...

    def forward(
        self,
        layer: object,
        query: torch.Tensor,
        key: torch.Tensor | None,
        value: torch.Tensor | None,
        kv_cache: torch.Tensor,
        attn_metadata: Metadata,
        output: torch.Tensor,
    ) -> object: ...


class LatentImplementation(Protocol):
    """``MLAAttentionImpl`` (vllm/model_executor/layers/attention/mla_attention.py)."""

    dcp_world_size: int

    def do_kv_cache_update(
        self,
        kv_c_normed: torch.Tensor,
        k_pe: torch.Tensor,
        kv_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
        kv_cache_dtype: str,
        k_scale: torch.Tensor,
    ) -> None: ...

    def forward_mqa(
        self,
        q: torch.Tensor,
        kv_c_and_k_pe_cache: torch.Tensor,
        attn_metadata: Metadata,
        layer: object,
    ) -> tuple[torch.Tensor, torch.Tensor | None]: ...

    def forward_mha(
        self,
        q: torch.Tensor,
        kv_c_normed: torch.Tensor,
        k_pe: torch.Tensor,
        kv_c_and_k_pe_cache: torch.Tensor,
        attn_metadata: Metadata,
        k_scale: torch.Tensor,
        output: torch.Tensor,
    ) -> None: ...


class CacheConfig(Protocol):
    block_size: int
    num_gpu_blocks: int | None
    cache_dtype: str


class SchedulerConfig(Protocol):
    max_num_seqs: int
    max_num_batched_tokens: int


class CompilationConfig(Protocol):
    cudagraph_mode: object
    static_forward_context: dict[str, Any]


class AttentionConfig(Protocol):
    tq_max_kv_splits_for_cuda_graph: int


class Config(Protocol):
    """``VllmConfig`` (vllm/config/vllm.py)."""

    model_config: object
    cache_config: CacheConfig
    attention_config: AttentionConfig
    scheduler_config: SchedulerConfig
    compilation_config: CompilationConfig


class ScaledLayer(Protocol):
    """What an implementation reads of its layer: the scales of the cache."""

    _k_scale: torch.Tensor


def current_platform() -> Platform:
    platform: Platform = importlib.import_module("vllm.platforms").current_platform
    return platform
