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
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch

from ..contract import ProblemFields
from ..errors import Refused
from ..interfaces import Backend, Batch, Scales
from . import simulated_gpu
from .caches import SHORT
from .metadata import called
from .objects import Platform, ScaledLayer, current_platform
from .stand_ins import StandIn

if TYPE_CHECKING:
    from .kernels import VllmKernels


PER_TOKEN_HEAD = "_per_token_head"  # how names of caches end that have a scale for each
DS_MLA = "_ds_mla"  # and those of DeepSeek-V4's


class VllmBackend(Backend):
    """One backend of vLLM's, by vLLM's name for it."""

    def __init__(self, kernels: VllmKernels, name: str) -> None:
        self.name = name
        self.kernels = kernels
        self.device = kernels.device
        self.launches = kernels.launches
        self._cache_type = "auto"
        self._interleaved = False
        self._engine: object = None

    def check(self, problem: ProblemFields) -> None:
        """Refuses what this vLLM does not claim to support, in its own words."""
        cls = self.kernels.class_of(self.name)
        platform = current_platform()
        self._cache_type = self._cache_dtype(problem["kv_cache_dtype"], platform)
        self._interleaved = problem["interleaved"]
        sparse = problem["kind"] == "mla_sparse"
        latent = sparse or problem["kind"] in ("mla", "mla_prefill")
        crossed = problem["key_lens"] is not None
        windowed = not latent and max(problem["window"]) >= 0
        reasons: list[str] = called(
            cls.validate_configuration,
            head_size=problem["key_size"] if latent else problem["head_size"],
            dtype=getattr(torch, problem["dtype"]),
            kv_cache_dtype=self._cache_type,
            block_size=problem["block_size"] if problem["kind"] != "varlen" else None,
            use_mla=latent,
            has_sink=problem["sinks"],
            use_sparse=sparse,
            use_mm_prefix=bool(problem["mm_prefix"]),
            use_per_head_quant_scales=False,
            device_capability=platform.get_device_capability(),
            attn_type=self.attention_type(problem["kind"], crossed=crossed),
            use_non_causal=problem["kind"] == "paged" and not crossed and not problem["causal"],
            has_sliding_window=windowed and not problem["prompts"],
            use_rswa=bool(problem["prompts"]),
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
        if wanted.removesuffix(PER_TOKEN_HEAD).removesuffix(DS_MLA) != f"fp8_{own}":
            raise Refused(f"vLLM's fp8 cache on {self.kernels.target} is {own}")
        if wanted.endswith(DS_MLA):
            return f"fp8{DS_MLA}"
        return f"fp8{PER_TOKEN_HEAD}" if wanted.endswith(PER_TOKEN_HEAD) else "fp8_e4m3"

    @staticmethod
    def attention_type(kind: str, *, crossed: bool) -> str:
        if kind == "varlen":
            return "encoder_only"
        return "encoder_decoder" if crossed else "decoder"

    def scaled_layer(self, scales: Scales) -> ScaledLayer:
        """A layer of vLLM's whose stored keys and values are multiplied by these."""
        one = torch.ones((), dtype=torch.float32, device=self.device)
        layer: Any = StandIn(
            "its attention layer",
            _q_scale=one,
            _k_scale=one * scales.k,
            _v_scale=one * scales.v,
            _q_scale_float=1.0,
            _k_scale_float=scales.k,
            _v_scale_float=scales.v,
        )
        return cast("ScaledLayer", layer)

    def undisturbed(self) -> AbstractContextManager[object]:
        """Around code of vLLM's that would pin host memory for a GPU that is not here."""
        return simulated_gpu.Pageable() if self.kernels.simulated else nullcontext()

    def configured(self) -> AbstractContextManager[object]:
        """Around what vLLM does under a current configuration: it makes its layers so."""
        module = importlib.import_module("vllm.config")
        if self._engine is None:
            self._engine = module.VllmConfig()
        current: AbstractContextManager[object] = module.set_current_vllm_config(self._engine)
        return current

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
    """Rows with contiguous heads, as in vLLM; the rows themselves are strided as before."""
    if x.stride(1) == x.shape[2] and x.stride(2) == 1:
        return x
    width = -(-x.stride(0) // 16) * 16
    wide = torch.full((len(x), width), float("nan"), dtype=x.dtype, device=x.device)
    rows = wide.as_strided(x.shape, (wide.stride(0), x.shape[2], 1))
    rows.copy_(x)
    return rows
