"""A KV cache as vLLM's model runner allocates it for a backend, in every release.

Until 0.28 a backend's class gives the cache's shape and the order of its axes in memory
(https://github.com/vllm-project/vllm/blob/v0.28.0/vllm/v1/worker/gpu/attn_utils.py#L275); from 0.29
on the layer's spec gives [blocks, heads, slots, content], and a layout its place in memory
(https://github.com/vllm-project/vllm/blob/v0.29.0/vllm/v1/kv_cache_interface.py#L311). Which of the
two a release has is found by looking.
"""

from __future__ import annotations

import importlib
import math

import torch

from ..errors import UnknownError
from ..interfaces import Geometry
from .objects import BackendClass, CacheInterface, CacheSpec, Layout

# The dtypes of caches that vLLM has as bytes.
SHORT = {
    torch.float8_e4m3fn: "e4m3fn",
    torch.float8_e4m3fnuz: "e4m3fnuz",
    torch.float8_e5m2: "e5m2",
}


def in_vllms_dtype(cache: torch.Tensor) -> torch.Tensor:
    """The cache as vLLM has it: an fp8 cache is one of bytes."""
    return cache.view(torch.uint8) if cache.dtype in SHORT else cache


def stored_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that vLLM's spec of a cache has."""
    return torch.uint8 if dtype in SHORT else dtype


def allocate(
    cls: BackendClass,
    spec: CacheSpec,
    geometry: Geometry,
    num_blocks: int,
    cache_type: str,
    device: torch.device,
) -> torch.Tensor:
    """An uninitialised cache, as the view that vLLM passes to the backend's implementation.

    Raises:
        UnknownError: the class says in neither way how its cache is laid out.
    """
    if hasattr(cls, "get_kv_cache_shape"):
        sizes = (geometry.block_size, geometry.num_kv_heads, geometry.head_size)
        shape = cls.get_kv_cache_shape(num_blocks, *sizes, cache_type)
        return _permuted(shape, _stride_order(cls, len(shape)), geometry.cache_dtype, device)
    interface: CacheInterface = importlib.import_module("vllm.v1.kv_cache_interface")
    if not hasattr(interface, "compute_layout_strides"):
        raise UnknownError(f"the harness does not know how this vLLM lays out {cls!r}'s cache")
    raw = torch.empty(num_blocks * spec.page_size_bytes, dtype=torch.uint8, device=device)
    shape = interface.compute_layer_kv_cache_shape_bytes(spec, num_blocks)
    strides = interface.compute_layout_strides(spec, num_blocks, 1, layout_of(cls))
    return torch.as_strided(raw, shape, strides[1:]).view(geometry.cache_dtype)


def layout_of(cls: BackendClass) -> Layout:
    """The layout that vLLM chooses where all layers have this backend."""
    utils = importlib.import_module("vllm.v1.attention.backends.utils")
    layouts: list[Layout] = utils.get_supported_kv_cache_layouts([cls])
    return layouts[0]


def _stride_order(cls: BackendClass, axes: int) -> tuple[int, ...]:
    try:
        return cls.get_kv_cache_stride_order()
    except (AttributeError, NotImplementedError):  # as vLLM's model runner does
        return tuple(range(axes))


def _permuted(
    shape: tuple[int, ...], order: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """A tensor of this shape whose axes follow one another in memory in this order."""
    flat = torch.empty(math.prod(shape), dtype=dtype, device=device)
    in_memory = flat.view([shape[axis] for axis in order])
    return in_memory.permute([order.index(axis) for axis in range(len(shape))])
