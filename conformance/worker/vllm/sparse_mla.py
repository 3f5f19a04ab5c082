"""vLLM's ROCM_AITER_MLA_SPARSE behind the ``attend`` op, as far as its own Triton kernels go.

AITER decodes, and attends short prefills. From 0.32 on a long prefill in bfloat16 is a Triton
kernel's on gfx942, over rows of the cache that another finds for the chosen keys. Which of them
attends is the release's choice: AITER's are refused where they are called. Sources are below
https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/v1/attention/:
backends/mla/rocm_aiter_mla_sparse.py, ops/rocm_aiter_mla_sparse.py.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from ..contract import BACKEND_NEEDS, ProblemFields
from ..errors import Refused
from ..interfaces import Batch, Dispatch, Geometry, Layer, Paged, Scores
from . import simulated_gpu
from .backend import with_tokens_only
from .metadata import LAYER, cache_spec, called, common_metadata, engine_config
from .mla import NOPE, ROPE, LatentBackend, in_platforms_dtype
from .needs import needs
from .objects import Config, LatentImplementation
from .stand_ins import StandIn, describing

if TYPE_CHECKING:
    from .kernels import VllmKernels

# What the kernel that looks up the chosen keys' rows takes at a time.
CHOSEN_AT_ONCE = 128
SPARSE_LAYER = "vllm.model_executor.layers.attention.sparse_mla_attention"
WORKSPACE = "vllm.v1.worker.workspace"
AITER_OPS = ("mla_decode_fwd", "mla_decode_fwd_lse", "triton_sparse_mla_fwd")


class SparseBackend(LatentBackend):
    """Attention over chosen keys of a latent cache."""

    def __init__(self, kernels: VllmKernels, name: str) -> None:
        super().__init__(kernels, name)
        self._topk = 0
        self._tokens = 1
        self._sequences = 1

    def check(self, problem: ProblemFields) -> None:
        module = sys.modules[self.kernels.class_of(self.name).__module__]
        if problem["kind"] != "mla_sparse" or not hasattr(module, "rocm_sparse_attn_prefill"):
            raise needs(*BACKEND_NEEDS[self.name])
        self._topk = problem["topk"]
        if self._topk % CHOSEN_AT_ONCE:
            raise Refused(f"vLLM's {self.name} looks up {CHOSEN_AT_ONCE} chosen keys at a time")
        super().check(problem)

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: torch.Tensor,
        slots: torch.Tensor,
        layer: Layer,
    ) -> Dispatch:
        with self._without_aiter():
            return super().write(key, value, cache, slots, layer)

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        assert given.selected is not None
        batch, _ = with_tokens_only(given.batch)
        self._tokens, self._sequences = int(batch.query_start_loc[-1]), len(batch.seq_lens)
        with self._without_aiter():
            metadata = self._sparse_metadata(batch, layer.geometry, layer.scores.scale)
            if metadata.prefill is not None and metadata.prefill.use_dense_mha:
                raise needs("flash_attn.flash_attn_varlen_func")
            made: Any = self._implementation(layer.geometry, layer.scores)
            made.topk_indices_buffer = given.selected.contiguous()
            with self.launches.watch() as ran:
                attended, _ = made.forward_mqa(
                    given.query[: self._tokens],
                    in_platforms_dtype(given.cache),
                    metadata,
                    self.scaled_layer(layer.scales),
                )
                given.out[: self._tokens] = attended
        return ran

    @contextlib.contextmanager
    def _without_aiter(self) -> Iterator[None]:
        """Where there is no AMD GPU: what AITER would do is refused, and its metadata are empty."""
        if not self.kernels.simulated:
            yield
            return

        def refused(*_: object, **_named: object) -> None:
            raise needs("aiter.mla.mla_decode_fwd")

        types = {"bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}
        aiter: Any = ModuleType("aiter")
        aiter.dtypes = SimpleNamespace(**types, d_dtypes=types)
        aiter.get_mla_metadata_info_v1 = lambda *_, **_named: [(1, torch.int32)] * 6
        aiter.get_mla_metadata_v1 = refused
        ops = importlib.import_module("vllm._aiter_ops").rocm_aiter_ops
        there: dict[str, Any] = {name: refused for name in AITER_OPS if hasattr(ops, name)}
        sparse = importlib.import_module(SPARSE_LAYER)
        alone: dict[str, Any] = {"get_tensor_model_parallel_world_size": lambda: 1}
        with (
            mock.patch.dict(sys.modules, {"aiter": aiter}),
            mock.patch.multiple(ops, **there),
            mock.patch.multiple(sparse, **alone),
            simulated_gpu.SeenOnGpu(),
        ):
            yield

    def _sizes(self, geometry: Geometry) -> dict[str, Any]:
        return {
            "q_lora_rank": None,
            "kv_lora_rank": geometry.v_head_size,
            "qk_nope_head_dim": NOPE,
            "qk_rope_head_dim": ROPE,
            "v_head_dim": NOPE,
        }

    def _engine_for(self, geometry: Geometry, scale: float) -> Config:
        """The configuration of a model that chooses as many keys as the problem."""
        sizes = self._sizes(geometry)
        config = engine_config(
            geometry,
            self._num_blocks,
            self._cache_type,
            hf_text_config=SimpleNamespace(**sizes, index_topk=self._topk),
            model_arch_config=SimpleNamespace(total_num_attention_heads=geometry.num_heads),
        )
        config.scheduler_config.max_num_seqs = self._sequences
        config.scheduler_config.max_num_batched_tokens = self._tokens
        config.compilation_config.static_forward_context[LAYER] = StandIn(
            "its MLA layer",
            num_heads=geometry.num_heads,
            non_causal_multi_token_decode=False,
            prefill_backend=self._prefill_backend(geometry, scale, config, sizes),
            impl=SimpleNamespace(sinks=None, use_aiter_sparse_mla=False),
            **sizes,
        )
        return config

    def _sparse_metadata(self, batch: Batch, geometry: Geometry, scale: float) -> Any:
        batch = replace(batch, block_table=batch.block_table.clamp(0, self._num_blocks - 1))
        cls = self.kernels.class_of(self.name)
        with describing(f"a batch of {self.name}"), self.configured(), self.undisturbed():
            config = self._engine_for(geometry, scale)
            spec = cache_spec(cls, "MLAAttention", geometry, self._cache_type)
            builder = cls.get_builder_cls()(spec, [LAYER], config, self.device)
            return builder.build(0, common_metadata(batch, causal=True))

    def _implementation(
        self,
        geometry: Geometry,
        scores: Scores | None,
        kv_b_proj: torch.Tensor | None = None,  # noqa: ARG002 - no prefill projects up here
    ) -> LatentImplementation:
        workspace = importlib.import_module(WORKSPACE)
        if not workspace.is_workspace_manager_initialized():
            workspace.init_workspace_manager(self.device)
        scale = scores.scale if scores else 1.0
        current = importlib.import_module("vllm.config").set_current_vllm_config
        cls = self.kernels.class_of(self.name).get_impl_cls()
        with self.configured(), current(self._engine_for(geometry, scale)), self.on_device():
            made: LatentImplementation = called(
                cls,
                num_heads=geometry.num_heads,
                head_size=geometry.head_size,
                scale=scale,
                num_kv_heads=1,
                alibi_slopes=None,
                sliding_window=None,
                kv_cache_dtype=self._cache_type,
                logits_soft_cap=None,
                attn_type="decoder",
                kv_sharing_target_layer_name=None,
                qk_head_dim=NOPE + ROPE,
                kv_b_proj=None,
                **self._sizes(geometry),
            )
        return made
