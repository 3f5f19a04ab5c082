"""vLLM's TRITON_MLA behind the ``attend`` op: decoding, cache write, and prefill around its merge.

``decode_attention_fwd`` and ``merge_attn_states`` are vLLM's Triton kernels. The cache write, the
gather and the prefill's attention are HIP and CK kernels: without an AMD GPU ``replaced_ops`` does
their work, so that what is judged of a prefill there is vLLM's own chunking and merge.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from ..contract import ProblemFields
from ..errors import Refused
from ..interfaces import Batch, Dispatch, Geometry, LatentPrefill, Layer, Paged, Scores
from . import caches, replaced_ops
from .backend import VllmBackend, with_tokens_only
from .metadata import LAYER, cache_spec, called, common_metadata, engine_config
from .needs import needs
from .objects import Builder, Config, LatentImplementation, Metadata, current_platform
from .stand_ins import StandIn, describing

if TYPE_CHECKING:
    from .kernels import VllmKernels

ROPE = 64
NOPE = 128
HEAD_AXES = 4
# From 0.25 on: of so many keys a decode makes a part of its own. Before, 0.19 has four, others one.
LEAST_OF_A_PART = "_MIN_WORK_PER_SPLIT"
MLA_LAYER = "vllm.model_executor.layers.attention.mla_attention"
# From 0.21 on; before, the implementation itself called FlashAttention.
MLA_PREFILL = "vllm.v1.attention.backends.mla.prefill"


class LatentBackend(VllmBackend):
    """TRITON_MLA: a cache [blocks, block size, latent + rope] of one KV head."""

    def __init__(self, kernels: VllmKernels, name: str) -> None:
        super().__init__(kernels, name)
        self._num_blocks = 0
        self._at_once = 0
        self._pieces = 0

    def check(self, problem: ProblemFields) -> None:
        super().check(problem)
        self._at_once = problem["at_once"]
        self._pieces = problem["pieces"]
        if problem["kind"] == "mla_prefill" and self.kernels.simulated:
            self._check_prefill(problem)

    def _check_prefill(self, problem: ProblemFields) -> None:
        """Refuses a prefill without a context: with nothing to merge, a CK kernel does it all."""
        lens = zip(problem["query_lens"], problem["context_lens"], strict=True)
        if not any(queries > 1 and context for queries, context in lens):
            raise needs("flash_attn.flash_attn_varlen_func")

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        cls = self.kernels.class_of(self.name)
        self._num_blocks = num_blocks
        with describing(f"the cache of {self.name}"), self.configured():
            spec = cache_spec(cls, "MLAAttention", geometry, self._cache_type)
            cache = caches.allocate(cls, spec, geometry, num_blocks, self._cache_type, device)
        # From 0.29 on it has an axis for heads, which vLLM's layer drops again.
        return cache.squeeze(1) if cache.dim() == HEAD_AXES else cache

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,  # noqa: ARG002 - it is the first columns of the key
        cache: torch.Tensor,
        slots: torch.Tensor,
        layer: Layer,
    ) -> Dispatch:
        rank = layer.geometry.v_head_size
        with self.launches.watch() as ran:
            self._implementation(layer.geometry, None).do_kv_cache_update(
                key[:, 0, :rank],
                key[:, :, rank:],
                caches.in_vllms_dtype(cache),
                slots[: len(key)],
                self._cache_type,
                self.scaled_layer(layer.scales)._k_scale,
            )
        return ran

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        metadata = self._metadata(given.batch, layer.geometry, layer.scores.scale)
        if metadata.num_prefills:
            raise Refused("TRITON_MLA decodes one token a sequence")
        tokens = metadata.num_decode_tokens
        with self._divided(given.batch), self.launches.watch() as ran:
            attended, _ = self._implementation(layer.geometry, layer.scores).forward_mqa(
                given.query[:tokens],
                in_platforms_dtype(given.cache),
                metadata,
                self.scaled_layer(layer.scales),
            )
            given.out[:tokens] = attended
        return ran

    @contextmanager
    def _divided(self, batch: Batch) -> Iterator[None]:
        """vLLM divides the keys of a decode into as many parts as the problem says, if it does."""
        module = sys.modules[self.kernels.class_of(self.name).__module__]
        usual = getattr(module, LEAST_OF_A_PART, 0)
        if usual and self._pieces:
            longest = int(batch.seq_lens.max())
            setattr(module, LEAST_OF_A_PART, max(1, longest // self._pieces))
        try:
            yield
        finally:
            if usual:
                setattr(module, LEAST_OF_A_PART, usual)

    def prefill(self, given: LatentPrefill, layer: Layer) -> Dispatch:
        geometry = layer.geometry
        batch, tokens_at = contexts_first(given.batch)
        metadata = self._metadata(batch, geometry, layer.scores.scale, threshold=0)
        rank, heads = geometry.v_head_size, geometry.num_heads
        query, key = given.query[tokens_at], given.key[tokens_at]
        implementation = self._implementation(geometry, layer.scores, given.kv_b_proj)
        implementation.dcp_world_size = 1
        made = torch.full(
            (len(tokens_at), heads * given.out.shape[2]),
            float("nan"),
            dtype=given.out.dtype,
            device=self.device,
        )
        with self.launches.watch() as ran:
            implementation.forward_mha(
                query,
                key[:, 0, :rank],
                key[:, :, rank:],
                in_platforms_dtype(given.cache),
                metadata,
                self.scaled_layer(layer.scales)._k_scale,
                output=made,
            )
        # vLLM writes rows of all heads together; the padding in ``out`` is the harness's own.
        given.out[tokens_at] = made.view(len(tokens_at), heads, -1)
        return ran

    def _metadata(
        self, batch: Batch, geometry: Geometry, scale: float, threshold: int = 1
    ) -> Metadata:
        """``threshold``: a sequence with more query tokens than this is a prefill."""
        batch, _ = with_tokens_only(batch)
        batch = replace(batch, block_table=batch.block_table.clamp(0, self._num_blocks - 1))
        sizes = {
            "q_lora_rank": None,
            "kv_lora_rank": geometry.v_head_size,
            "qk_nope_head_dim": NOPE,
            "qk_rope_head_dim": ROPE,
            "v_head_dim": NOPE,
        }
        cls = self.kernels.class_of(self.name)
        with describing(f"a batch of {self.name}"), self.configured(), self.undisturbed():
            model = SimpleNamespace(**sizes)
            config = engine_config(
                geometry, self._num_blocks, self._cache_type, hf_text_config=model
            )
            config.compilation_config.static_forward_context[LAYER] = StandIn(
                "its MLA layer",
                num_heads=geometry.num_heads,
                non_causal_multi_token_decode=False,
                prefill_backend=self._prefill_backend(geometry, scale, config, sizes),
                **sizes,
            )
            spec = cache_spec(cls, "MLAAttention", geometry, self._cache_type)
            builder = cls.get_builder_cls()(spec, [LAYER], config, self.device)
            builder.reorder_batch_threshold = threshold
            if threshold == 0:
                self._poison_workspace(builder)
            return builder.build(0, common_metadata(batch, causal=True))

    def _poison_workspace(self, builder: Builder) -> None:
        """Poisons the workspace of a prefill; it has as many tokens as the problem says.

        At least a block for each sequence, as in vLLM (``determine_chunked_prefill_workspace_size``
        of vllm/model_executor/layers/attention/mla_attention.py).
        """
        if self._at_once:
            builder.chunked_prefill_workspace_size = self._at_once
            builder.chunked_prefill_workspace = builder.chunked_prefill_workspace[: self._at_once]
        builder.chunked_prefill_workspace.fill_(float("nan"))

    def _prefill_backend(
        self, geometry: Geometry, scale: float, config: Config, sizes: dict[str, int | None]
    ) -> object:
        """What a layer of vLLM's prefills with: FlashAttention, or what vLLM chooses on a GPU."""
        attention = replaced_ops.flash_attention(self.launches) if self.kernels.simulated else None
        return prefill_backend(geometry.num_heads, scale, config, sizes, attention)

    def _implementation(
        self, geometry: Geometry, scores: Scores | None, kv_b_proj: torch.Tensor | None = None
    ) -> LatentImplementation:
        """vLLM's implementation of a layer; without ``scores`` one that only writes."""
        if self.kernels.simulated:
            lend_attention(replaced_ops.flash_attention(self.launches))
        cls = self.kernels.class_of(self.name).get_impl_cls()
        with self.configured(), self.on_device():
            made: LatentImplementation = called(
                cls,
                num_heads=geometry.num_heads,
                head_size=geometry.head_size,
                scale=scores.scale if scores else 1.0,
                num_kv_heads=1,
                alibi_slopes=None,
                sliding_window=None,
                kv_cache_dtype=self._cache_type,
                logits_soft_cap=None,
                attn_type="decoder",
                kv_sharing_target_layer_name=None,
                q_lora_rank=None,
                kv_lora_rank=geometry.v_head_size,
                qk_nope_head_dim=NOPE,
                qk_rope_head_dim=ROPE,
                qk_head_dim=NOPE + ROPE,
                v_head_dim=NOPE,
                kv_b_proj=None if kv_b_proj is None else _Projection(kv_b_proj),
            )
        return made


def lend_attention(attention: object) -> None:
    """Gives implementations an attention for prefills, where they call it themselves."""
    module = importlib.import_module(MLA_LAYER)
    if hasattr(module, "is_vllm_fa"):
        vars(module).update(flash_attn_varlen_func=attention, is_vllm_fa=False)


def prefill_backend(
    num_heads: int,
    scale: float,
    config: Config,
    sizes: dict[str, int | None],
    attention: object | None,
) -> object:
    """What a layer prefills with; None where the implementation itself does.

    With an ``attention``, FlashAttention that calls it; else what vLLM chooses.
    """
    if importlib.util.find_spec(MLA_PREFILL) is None:
        return None
    if attention is not None:
        module = importlib.import_module(f"{MLA_PREFILL}.flash_attn")
        vars(module)["flash_attn_varlen_func"] = attention
        cls = module.FlashAttnPrefillBackend
    else:
        cls = importlib.import_module(MLA_PREFILL).get_mla_prefill_backend(config)
    return called(cls, num_heads=num_heads, scale=scale, vllm_config=config, **sizes)


def contexts_first(batch: Batch) -> tuple[Batch, torch.Tensor]:
    """The sequences in vLLM's order, those with a context first; and where their tokens were.

    vLLM's runner orders them so (``reorder_batch_to_split_decodes_and_prefills`` of
    vllm/v1/attention/backends/utils.py), and from 0.20 to 0.27 the merge counts on it.
    """
    lens = batch.query_start_loc.diff()
    return in_order(batch, torch.argsort((batch.seq_lens <= lens).int(), stable=True))


def in_order(batch: Batch, order: torch.Tensor) -> tuple[Batch, torch.Tensor]:
    """The sequences in this order; and where the tokens of each were."""
    lens = batch.query_start_loc.diff()
    starts = batch.query_start_loc[:-1]
    rows = [torch.arange(int(starts[s]), int(starts[s] + lens[s])) for s in order.tolist()]
    ordered = replace(
        batch,
        query_start_loc=torch.cat([starts[:1], lens[order].cumsum(0, dtype=torch.int32)]),
        seq_lens=batch.seq_lens[order],
        block_table=batch.block_table[order],
    )
    return ordered, torch.cat(rows).to(batch.seq_lens.device)


def in_platforms_dtype(cache: torch.Tensor) -> torch.Tensor:
    """The cache as ``MLAAttention.forward_impl`` passes it: fp8 in the platform's encoding."""
    return cache.view(current_platform().fp8_dtype()) if cache.dtype in caches.SHORT else cache


class _Projection:
    """``kv_b_proj`` [H, rank, 128 + V], as vLLM's linear layer: rows in, (rows, no bias) out."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight

    def __call__(self, rows: torch.Tensor) -> tuple[torch.Tensor, None]:
        flat = self.weight.permute(1, 0, 2).flatten(1)
        return (rows.float() @ flat.float()).to(rows.dtype), None
