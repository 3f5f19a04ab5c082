"""vLLM's ROCM_AITER_MLA_SPARSE behind the ``attend`` op, as far as its own Triton kernels go.

AITER does most of it. From 0.30 on a Triton kernel attends in float16 with sinks, and from 0.32 on
a long prefill in bfloat16 on gfx942, over rows of the cache that another finds for the chosen keys.
Which of them attends is the release's choice: AITER's are refused where they are called. Sources
are below https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/v1/attention/:
backends/mla/rocm_aiter_mla_sparse.py, ops/rocm_aiter_mla_sparse.py.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from ..contract import ProblemFields
from ..errors import Refused
from ..interfaces import Batch, Dispatch, Geometry, Layer, Paged, Scores
from ..other_kernels import BACKEND_NEEDS
from . import simulated_gpu
from .backend import with_tokens_only
from .indexer import Indexer
from .metadata import LAYER, cache_spec, called, common_metadata, engine_config
from .mla import NOPE, ROPE, LatentBackend, in_order, in_platforms_dtype
from .needs import needs
from .objects import Config, LatentImplementation
from .stand_ins import StandIn, describing

if TYPE_CHECKING:
    from .kernels import VllmKernels

# What the kernel that looks up the chosen keys' rows takes at a time.
CHOSEN_AT_ONCE = 128
# The layer's module, from which builders of some releases take the size of the tensor parallelism.
SPARSE_LAYER = "vllm.model_executor.layers.attention.sparse_mla_attention"
AITER_OPS = "vllm._aiter_ops"
WORKSPACE = "vllm.v1.worker.workspace"
# A module of a release that has the Triton kernel names it.
ATTENDS = "rocm_sparse_attn_prefill"
# AITER's plans of its work, none of which a Triton kernel reads: six parts of one number.
NO_PLANS = [(1, torch.int32)] * 6


class SparseBackend(LatentBackend):
    """Attention over chosen keys of a latent cache."""

    def __init__(self, kernels: VllmKernels, name: str) -> None:
        super().__init__(kernels, name)
        self._topk = 0
        self._tokens = 1
        self._sequences = 1
        self._sinks: torch.Tensor | None = None
        self._indexer: Indexer | None = None

    def check(self, problem: ProblemFields) -> None:
        if problem["kind"] == "indexer":
            self._indexer = Indexer(self.kernels)
            self._indexer.check(problem)
            return
        module = sys.modules[self.kernels.class_of(self.name).__module__]
        if not hasattr(module, ATTENDS):
            raise needs(*BACKEND_NEEDS[self.name])
        self._topk = problem["topk"]
        if self._topk % CHOSEN_AT_ONCE:
            raise Refused(f"vLLM's {self.name} looks up {CHOSEN_AT_ONCE} chosen keys at a time")
        super().check(problem)

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        if self._indexer is not None:
            return self._indexer.allocate(num_blocks, geometry, device)
        return super().allocate(num_blocks, geometry, device)

    def write_index(
        self,
        rows: torch.Tensor,
        cache: torch.Tensor,
        slots: torch.Tensor,
        geometry: Geometry,  # noqa: ARG002 - the tensors' shapes say it all
    ) -> Dispatch:
        assert self._indexer is not None
        return self._indexer.write(rows, cache, slots)

    def select(
        self,
        query: torch.Tensor,
        weights: torch.Tensor,
        cache: torch.Tensor,
        batch: Batch,
        out: torch.Tensor,
    ) -> Dispatch:
        assert self._indexer is not None
        batch, tokens_at = decodes_first(with_tokens_only(batch)[0])
        return self._indexer.select(query, weights, cache, batch, tokens_at, out)

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
        batch, tokens_at = decodes_first(with_tokens_only(given.batch)[0])
        self._tokens, self._sequences = len(tokens_at), len(batch.seq_lens)
        self._sinks = layer.scores.sinks
        chosen = as_an_indexer_has_them(given.selected[tokens_at], batch)
        with self._without_aiter():
            metadata = self._sparse_metadata(batch, layer.geometry, layer.scores.scale)
            made: Any = self._implementation(layer.geometry, layer.scores)
            made.topk_indices_buffer = chosen
            with self._seen_on_gpu(), self.launches.watch() as ran:
                attended, _ = made.forward_mqa(
                    given.query[tokens_at],
                    in_platforms_dtype(given.cache),
                    metadata,
                    self.scaled_layer(layer.scales),
                )
                given.out[tokens_at] = attended
        return ran

    @contextlib.contextmanager
    def _without_aiter(self) -> Iterator[None]:
        """Where there is no AMD GPU: what AITER would do is refused, and its plans are empty."""
        if not self.kernels.simulated:
            yield
            return

        def refused(*_: object, **_named: object) -> None:
            raise needs("aiter.mla.mla_decode_fwd")

        types = {"bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}
        aiter: Any = ModuleType("aiter")
        aiter.dtypes = SimpleNamespace(**types, d_dtypes=types)
        aiter.get_mla_metadata_info_v1 = lambda *_, **_named: NO_PLANS
        aiter.get_mla_metadata_v1 = refused
        ops = importlib.import_module(AITER_OPS).rocm_aiter_ops
        names = [name for name in vars(ops) if name.startswith(("mla_decode", "triton_sparse"))]
        alone: dict[str, Any] = {"get_tensor_model_parallel_world_size": lambda: 1}
        with contextlib.ExitStack() as stack:
            enter = stack.enter_context
            enter(mock.patch.dict(sys.modules, {"aiter": aiter}))
            for name in names:
                enter(mock.patch.object(ops, name, refused))
            if importlib.util.find_spec(SPARSE_LAYER) is not None:
                layer = importlib.import_module(SPARSE_LAYER)
                for name, answer in alone.items():
                    if hasattr(layer, name):
                        enter(mock.patch.object(layer, name, answer))
            # The workspace of a layer gives memory back before it grows.
            enter(mock.patch.object(torch.accelerator, "empty_cache", lambda: None))
            yield

    def _seen_on_gpu(self) -> contextlib.AbstractContextManager[object]:
        """Around a launch: kernels are not launched with tensors of the host."""
        return simulated_gpu.SeenOnGpu() if self.kernels.simulated else contextlib.nullcontext()

    def _sizes(self, geometry: Geometry) -> dict[str, Any]:
        return {
            "q_lora_rank": None,
            "kv_lora_rank": geometry.v_head_size,
            "qk_nope_head_dim": NOPE,
            "qk_rope_head_dim": ROPE,
            "v_head_dim": NOPE,
        }

    def _engine_for(self, geometry: Geometry, scale: float) -> Config:
        """The configuration of a model that chooses as many keys as the problem, for any prefill.

        A short one would be attended densely, by FlashAttention.
        """
        sizes = self._sizes(geometry)
        config: Any = engine_config(
            geometry,
            self._num_blocks,
            self._cache_type,
            hf_text_config=SimpleNamespace(**sizes, index_topk=self._topk),
            model_arch_config=SimpleNamespace(total_num_attention_heads=geometry.num_heads),
        )
        config.scheduler_config.max_num_seqs = self._sequences
        config.scheduler_config.max_num_batched_tokens = self._tokens
        config.attention_config.sparse_mla_force_mqa = True
        config.compilation_config.static_forward_context[LAYER] = StandIn(
            "its MLA layer",
            num_heads=geometry.num_heads,
            non_causal_multi_token_decode=False,
            prefill_backend=self._prefill_backend(geometry, scale, config, sizes),
            impl=SimpleNamespace(sinks=self._sinks, use_aiter_sparse_mla=False),
            **sizes,
        )
        made: Config = config
        return made

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
        scale, sinks = (scores.scale, scores.sinks) if scores else (1.0, None)
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
                **({} if sinks is None else {"sinks": sinks.contiguous()}),
                **self._sizes(geometry),
            )
        return made


def decodes_first(batch: Batch) -> tuple[Batch, torch.Tensor]:
    """The sequences of one query token first, as vLLM's runner orders them; and their tokens."""
    return in_order(batch, torch.argsort((batch.query_start_loc.diff() > 1).int(), stable=True))


def positions_of(batch: Batch) -> torch.Tensor:
    """The position of each query token in its sequence."""
    starts = batch.query_start_loc
    token = torch.arange(int(starts[0]), int(starts[-1]), device=starts.device)
    return token + (batch.seq_lens - starts[1:]).repeat_interleave(starts.diff())


def as_an_indexer_has_them(selected: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Chosen positions [T, topk] as vLLM's indexer has them: at the front, -1 behind.

    Of a token that sees no more keys than may be chosen, it chooses all: how many vLLM reads
    follows from that (``generate_sparse_seqlen_triton``).

    Raises:
        Refused: fewer are chosen.
    """
    sees = positions_of(batch) + 1
    chosen = (selected >= 0) & (selected < sees[:, None])
    if bool((chosen.sum(1) != sees.clamp(max=selected.shape[1])).any()):
        raise Refused("vLLM's indexer chooses all keys of a token that sees no more than it may")
    order = torch.argsort((~chosen).int(), dim=1, stable=True)
    front = torch.where(chosen, selected, -1).gather(1, order)
    return front.to(torch.int32).contiguous()
