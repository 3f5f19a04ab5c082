"""What every backend of vLLM's needs around it: admission, configuration and metadata.

A backend is called as vLLM's model runner calls it: the metadata builder that the backend names,
its implementation class, ``do_kv_cache_update`` and ``forward``. vLLM promises its backends some
things that a problem does not, so these are established first: keys and values have contiguous
heads (they are slices of one projection: vllm/model_executor/models/llama.py), every entry of a
block table is a block's number (vllm/v1/worker/block_table.py), no sequence has block 0 (the null
block of vllm/v1/core/block_pool.py), and each has a query token
(vllm/v1/core/sched/scheduler.py). Paths are below
https://github.com/vllm-project/vllm/tree/v0.19.0
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from ..contract import ProblemFields
from ..errors import Refused
from ..interfaces import Backend, Batch, Geometry, Scales
from .objects import Config, Platform, ScaledLayer, current_platform

if TYPE_CHECKING:
    from .kernels import VllmKernels

SHORT = {
    torch.float8_e4m3fn: "e4m3fn",
    torch.float8_e4m3fnuz: "e4m3fnuz",
    torch.float8_e5m2: "e5m2",
}


class VllmBackend(Backend):
    """One backend of vLLM's, by vLLM's name for it."""

    def __init__(self, kernels: VllmKernels, name: str) -> None:
        self.name = name
        self.kernels = kernels
        self.device = kernels.device
        self.launches = kernels.launches
        self._cache_type = "auto"

    def check(self, problem: ProblemFields) -> None:
        """Refuses what this vLLM does not claim to support, in its own words."""
        cls = self.kernels.class_of(self.name)
        platform = current_platform()
        self._cache_type = self._cache_dtype(problem["kv_cache_dtype"], platform)
        latent = problem["kind"] in ("mla", "mla_prefill")
        crossed = problem["key_lens"] is not None
        reasons = cls.validate_configuration(
            head_size=problem["key_size"] if latent else problem["head_size"],
            dtype=getattr(torch, problem["dtype"]),
            kv_cache_dtype=self._cache_type,
            block_size=problem["block_size"] if problem["kind"] != "varlen" else None,
            use_mla=latent,
            has_sink=problem["sinks"],
            use_sparse=False,
            use_mm_prefix=bool(problem["mm_prefix"]),
            use_per_head_quant_scales=False,
            device_capability=platform.get_device_capability(),
            attn_type=self.attention_type(problem["kind"], crossed=crossed),
        )
        if problem["alibi"] == "sqrt" and not cls.supports_alibi_sqrt():
            reasons.append("alibi_sqrt not supported")
        if reasons:
            raise Refused(f"vLLM's {self.name} does not admit it: {', '.join(reasons)}")

    def _cache_dtype(self, wanted: str, platform: Platform) -> str:
        """vLLM's name of a cache dtype; its "fp8" is the platform's own e4m3."""
        if not wanted.startswith("fp8_e4m3"):
            return wanted
        own = SHORT[platform.fp8_dtype()]
        if wanted != f"fp8_{own}":
            raise Refused(f"vLLM's fp8 cache on {self.kernels.target} is {own}")
        return "fp8_e4m3"

    @staticmethod
    def attention_type(kind: str, *, crossed: bool) -> str:
        if kind == "varlen":
            return "encoder_only"
        return "encoder_decoder" if crossed else "decoder"

    def scaled_layer(self, scales: Scales) -> ScaledLayer:
        one = torch.ones((), dtype=torch.float32, device=self.device)
        return ScaledLayer(one, one * scales.k, one * scales.v, 1.0, scales.k, scales.v)

    def common_metadata(self, batch: Batch, *, causal: bool = True) -> object:
        """vLLM's own description of a batch."""
        cls = importlib.import_module("vllm.v1.attention.backend").CommonAttentionMetadata
        tokens = int(batch.query_start_loc[-1])
        described: object = cls(
            query_start_loc=batch.query_start_loc,
            query_start_loc_cpu=batch.query_start_loc.cpu(),
            seq_lens=batch.seq_lens,
            num_reqs=len(batch.seq_lens),
            num_actual_tokens=tokens,
            max_query_len=batch.max_query_len,
            max_seq_len=batch.max_seq_len,
            block_table_tensor=batch.block_table,
            slot_mapping=torch.zeros(tokens, dtype=torch.int64, device=self.device),
            causal=causal,
        )
        return described

    def config(self, geometry: Geometry, num_blocks: int, **model: object) -> Config:
        """vLLM's configuration for a model of this geometry."""
        module = importlib.import_module("vllm.config")
        config: Config = module.VllmConfig()
        config.model_config = SimpleNamespace(
            dtype=geometry.dtype,
            max_model_len=8192,
            get_num_attention_heads=lambda _: geometry.num_heads,
            get_num_kv_heads=lambda _: geometry.num_kv_heads,
            get_head_size=lambda: geometry.head_size,
            **model,
        )
        config.cache_config.block_size = geometry.block_size
        config.cache_config.num_gpu_blocks = num_blocks
        # CUDA graphs would change nothing but the batch size from which decodes are not split.
        config.compilation_config.cudagraph_mode = module.CUDAGraphMode.NONE
        return config

    def spec(self, geometry: Geometry) -> object:
        """vLLM's description of a layer's cache."""
        module = importlib.import_module("vllm.v1.kv_cache_interface")
        described: object = module.FullAttentionSpec(
            block_size=geometry.block_size,
            num_kv_heads=geometry.num_kv_heads,
            head_size=geometry.head_size,
            dtype=geometry.cache_dtype,
        )
        return described

    def on_device(self) -> torch.device:
        """Where vLLM makes tensors of its own, as the model runner sets it."""
        return torch.device(self.device)


def with_tokens_only(batch: Batch) -> tuple[Batch, torch.Tensor]:
    """The sequences with a query token (vLLM's scheduler adds no others), and which they are."""
    has = batch.query_start_loc.diff() > 0
    if bool(has.all()):
        return batch, has
    ends = batch.query_start_loc[1:][has]
    kept = replace(
        batch,
        query_start_loc=torch.cat([batch.query_start_loc[:1], ends]),
        seq_lens=batch.seq_lens[has],
        block_table=batch.block_table[has],
    )
    return kept, has


def contiguous_heads(x: torch.Tensor) -> torch.Tensor:
    """Rows with contiguous heads, as in vLLM; the rows themselves may still be strided."""
    if x.stride(1) == x.shape[2] and x.stride(2) == 1:
        return x
    width = x.shape[1] * x.shape[2] + 16
    wide = torch.full((len(x), width), float("nan"), dtype=x.dtype, device=x.device)
    rows = wide.as_strided(x.shape, (wide.stride(0), x.shape[2], 1))
    rows.copy_(x)
    return rows


def in_vllms_dtype(cache: torch.Tensor) -> torch.Tensor:
    """The cache as vLLM has it: an fp8 cache is one of bytes."""
    return cache.view(torch.uint8) if cache.dtype in SHORT else cache
