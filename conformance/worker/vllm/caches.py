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
from pathlib import Path

import torch

from ..errors import UnknownError
from ..guarded_memory import with_padded_blocks
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


def padded(
    cache: torch.Tensor, of_one_more: torch.Size, pad: int, *, hybrid: bool, plain: bool
) -> torch.Tensor:
    """A cache whose blocks lie further apart, as the release's engine makes one; else this one.

    Pages of one size for layers of several kinds leave ``pad`` elements unused after each block,
    where blocks are the outermost axis: from 0.24 on
    (https://github.com/vllm-project/vllm/blob/v0.24.0/vllm/v1/worker/gpu/attn_utils.py#L217), and
    those of another format than keys and values (not ``plain``) where releases lay them out.
    Where keys and values are the outermost axis, a ``hybrid`` model has the values of a block
    behind its keys, whatever the pad
    (https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/worker/gpu_model_runner.py#L6681).
    """
    (axis,) = (i for i, size in enumerate(of_one_more) if size != cache.shape[i])
    if axis == 0:
        return with_padded_blocks(cache, of_one_more, pad) if pads_pages(plain=plain) else cache
    if axis != 1 or cache.shape[0] != 2 or not hybrid or not cache.is_contiguous():
        return cache
    block = cache.shape[2:].numel()
    return cache.as_strided(cache.shape, (block, 2 * block, *cache.stride()[2:]))


def pads_pages(*, plain: bool = True) -> bool:
    """Whether the release's model runner strides over what is unused of a page.

    Rows of bytes, or with scales among them, are viewed as dense until the release lays out caches.
    """
    interface = importlib.import_module("vllm.v1.kv_cache_interface")
    if hasattr(interface, "compute_layout_strides"):
        return True
    if not plain:
        return False
    # Read and not imported: it needs modules that no attention needs.
    root = Path(str(importlib.import_module("vllm").__file__)).parent
    runner = root / "v1" / "worker" / "gpu" / "attn_utils.py"
    return runner.is_file() and "page_size_padded" in runner.read_text(encoding="utf-8")


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
