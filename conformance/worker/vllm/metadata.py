"""A batch, a layer and its cache, described as this vLLM's own classes want them.

What each class of a release has is read from its fields. Sources are below
https://github.com/vllm-project/vllm/tree/v0.33.0/vllm/v1/: attention/backend.py, and
worker/gpu_model_runner.py, which makes these objects.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import MISSING, fields
from typing import Any

import torch

from ..errors import UnknownError
from ..interfaces import Batch, Geometry
from .caches import stored_dtype
from .objects import BackendClass, CacheSpec, Config, Metadata
from .stand_ins import StandIn

LAYER = "layer"
PROMPTS = "rswa_prefix_lens"
Ranges = dict[int, list[tuple[int, int]]]


def prefix_ranges(ranges: torch.Tensor | None) -> Ranges | None:
    """Each sequence's ranges of positions that see one another, as vLLM's scheduler lists them."""
    if ranges is None:
        return None
    return {
        i: [(start, end) for start, end in of_sequence if start < end]
        for i, of_sequence in enumerate(ranges.tolist())
    }


def common_metadata(
    batch: Batch,
    *,
    causal: bool,
    ranges: Ranges | None = None,
    prompts: torch.Tensor | None = None,
) -> object:
    """vLLM's own description of a batch.

    Raises:
        UnknownError: it has no place for prompts.
    """
    cls = importlib.import_module("vllm.v1.attention.backend").CommonAttentionMetadata
    if prompts is not None and PROMPTS not in {field.name for field in fields(cls)}:
        raise UnknownError("the harness does not know how this vLLM describes prompts (R-SWA)")
    tokens = int(batch.query_start_loc[-1])
    seq_lens_cpu = batch.seq_lens.cpu()
    known = {
        "query_start_loc": batch.query_start_loc,
        "query_start_loc_cpu": batch.query_start_loc.cpu(),
        "seq_lens": batch.seq_lens,
        "seq_lens_cpu_upper_bound": seq_lens_cpu,
        "num_reqs": len(batch.seq_lens),
        "num_actual_tokens": tokens,
        "max_query_len": batch.max_query_len,
        "max_seq_len": batch.max_seq_len,
        "block_table_tensor": batch.block_table,
        "slot_mapping": torch.zeros(tokens, dtype=torch.int64, device=batch.seq_lens.device),
        "causal": causal,
        "mm_req_doc_ranges": ranges,
        PROMPTS: prompts,
    }
    return made_of(cls, known)


def set_ranges(metadata: Metadata, ranges: Ranges) -> None:
    """Sets the ranges on a backend's metadata, as the model runner does where no builder does.

    Until 0.23 it set them on all metadata, from 0.20 as a tensor for TRITON_ATTN too
    (``_set_mm_prefix_range_for_metadata`` of worker/gpu_model_runner.py).
    """
    metadata.mm_prefix_range = ranges
    if hasattr(metadata, "compute_mm_prefix_range_tensor"):
        metadata.mm_prefix_range_tensor = metadata.compute_mm_prefix_range_tensor(
            ranges, len(metadata.seq_lens), metadata.seq_lens.device
        )


def describes_ranges() -> bool:
    """Whether builders take the ranges from the description of a batch."""
    cls = importlib.import_module("vllm.v1.attention.backend").CommonAttentionMetadata
    return "mm_req_doc_ranges" in {field.name for field in fields(cls)}


def engine_config(geometry: Geometry, num_blocks: int, cache_type: str, **model: object) -> Config:
    """vLLM's configuration for a model of this geometry, without a reference window (R-SWA)."""
    module = importlib.import_module("vllm.config")
    config: Config = module.VllmConfig()
    config.model_config = StandIn(
        "its model configuration",
        dtype=geometry.dtype,
        max_model_len=8192,
        rswa_window=None,
        get_num_attention_heads=lambda _: geometry.num_heads,
        get_num_kv_heads=lambda _: geometry.num_kv_heads,
        get_head_size=lambda: geometry.head_size,
        **model,
    )
    config.cache_config.block_size = geometry.block_size
    config.cache_config.num_gpu_blocks = num_blocks
    config.cache_config.cache_dtype = cache_type
    # CUDA graphs would change nothing but the batch size from which decodes are not split.
    config.compilation_config.cudagraph_mode = module.CUDAGraphMode.NONE
    return config


def cache_spec(cls: BackendClass, kind: str, geometry: Geometry, cache_type: str) -> CacheSpec:
    """vLLM's description of a layer's cache.

    ``kind``: FullAttention, MLAAttention, CrossAttention, or EncoderOnlyAttention, which has none.
    """
    module = importlib.import_module("vllm.v1.kv_cache_interface")
    known = {
        "block_size": geometry.block_size,
        "num_kv_heads": geometry.num_kv_heads,
        "head_size": geometry.head_size,
        "dtype": stored_dtype(geometry.cache_dtype),
    }
    if kind == "FullAttention":
        known["head_size_v"] = geometry.v_head_size
    if hasattr(module, "get_kv_quant_mode"):
        known["kv_quant_mode"] = module.get_kv_quant_mode(cache_type)
    spec: CacheSpec = made_of(getattr(module, f"{kind}Spec"), known)
    if kind == "EncoderOnlyAttention" or not hasattr(cls, "customize_spec"):
        return spec
    return cls.customize_spec(spec)


def called(function: Any, **known: object) -> Any:
    """Calls something of vLLM's with those of the arguments that it takes.

    Raises:
        UnknownError: it needs one that is not known.
    """
    taken = inspect.signature(function).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken.values()):
        return function(**known)
    missing = [
        name
        for name, one in taken.items()
        if one.default is inspect.Parameter.empty
        and name not in known
        and one.kind is not inspect.Parameter.VAR_POSITIONAL
    ]
    if missing:
        raise UnknownError(f"the harness does not know {', '.join(missing)} of {function!r}")
    return function(**{name: value for name, value in known.items() if name in taken})


def made_of(cls: Any, known: dict[str, Any]) -> Any:
    """An object of one of vLLM's dataclasses with the values of its fields that are known."""
    missing = [
        field.name
        for field in fields(cls)
        if field.init
        and field.default is MISSING
        and field.default_factory is MISSING
        and field.name not in known
    ]
    if missing:
        raise UnknownError(f"the harness does not know {', '.join(missing)} of {cls.__name__}")
    names = {field.name for field in fields(cls) if field.init}
    return cls(**{name: value for name, value in known.items() if name in names})
