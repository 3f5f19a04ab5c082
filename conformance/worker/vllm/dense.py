"""vLLM's backends of dense attention behind the ``attend`` op: paged caches, and encoders."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ..errors import Refused
from ..interfaces import Batch, Dispatch, Geometry, Layer, Paged, Scales, Scores, Varlen
from . import caches, replaced_ops
from .backend import PER_TOKEN_HEAD, VllmBackend, contiguous_heads, with_tokens_only
from .metadata import (
    LAYER,
    cache_spec,
    called,
    common_metadata,
    describes_ranges,
    engine_config,
    prefix_ranges,
    set_ranges,
)
from .objects import BackendClass, Config, DenseImplementation, Metadata
from .stand_ins import describing

if TYPE_CHECKING:
    from .kernels import VllmKernels


# Tokens of the blocks that HIP's cache write takes.
SHORT_BLOCKS = (16, 32)
INTERLEAVES = "set_interleaved_v_cache"


class DenseBackend(VllmBackend):
    """A backend with a paged cache of keys and values, or none at all (encoders).

    ``not_scratch`` names what a metadata builder keeps for its kernels to read.
    """

    not_scratch: tuple[str, ...] = ()

    def __init__(self, kernels: VllmKernels, name: str) -> None:
        super().__init__(kernels, name)
        # Block 0 is FLEX_ATTENTION's null block, so sequences get the blocks after it.
        self._null = 1 if name == "FLEX_ATTENTION" else 0
        self._num_blocks = self._block_size = 0
        if name == "FLEX_ATTENTION" and kernels.simulated:
            # Not compiled, it multiplies the whole cache by weights, most of which are 0.
            self.filling = "zero"
            kernels.class_of(name)
            replaced_ops.eager_flex_attention(self.launches)

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        cls = self._class_for(geometry)
        self._num_blocks, self._block_size = num_blocks + self._null, geometry.block_size
        with describing(f"the cache of {self.name}"), self.configured():
            spec = cache_spec(cls, "FullAttention", geometry, self._cache_type)
            return caches.allocate(cls, spec, geometry, self._num_blocks, self._cache_type, device)

    def pad_blocks(self, cache: torch.Tensor, of_one_more: torch.Size, pad: int) -> torch.Tensor:
        """A cache whose blocks lie further apart, as far as this release's engine makes such a one.

        FLEX_ATTENTION views its cache as rows of slots, and is given a dense one.
        """
        if self.name == "FLEX_ATTENTION":
            return cache
        # Those of a hybrid model are longer than the blocks of HIP's cache write.
        hybrid = self._block_size not in SHORT_BLOCKS
        return caches.padded(cache, of_one_more, pad, hybrid=hybrid, plain=self.is_plain)

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: torch.Tensor,
        slots: torch.Tensor,
        layer: Layer,
    ) -> Dispatch:
        geometry = layer.geometry
        with self.launches.watch() as ran:
            shifted = torch.where(slots >= 0, slots + self._null * geometry.block_size, slots)
            # In vLLM padding tokens have rows of their own, with slot -1.
            made = self.met(self._implementation(geometry, None), cache)
            made.do_kv_cache_update(
                self.scaled_layer(layer.scales),
                contiguous_heads(key)[: len(shifted)],
                contiguous_heads(value)[: len(shifted)],
                caches.in_vllms_dtype(cache),
                shifted[: len(key)],
            )
        return ran

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        batch, has_tokens = with_tokens_only(given.batch)
        scores = layer.scores
        if scores.mm_prefix is not None:
            scores = replace(scores, mm_prefix=scores.mm_prefix[has_tokens])
        if scores.prompt_lens is not None:
            scores = replace(scores, prompt_lens=scores.prompt_lens[has_tokens])
        table = batch.block_table.clamp(0, self._num_blocks - 1 - self._null) + self._null
        batch = replace(batch, block_table=table)
        crossed = given.key is None
        # vllm/model_executor/layers/attention/cross_attention.py describes its batches so.
        metadata = self._metadata(
            batch, layer.geometry, scores, "CrossAttention" if crossed else "FullAttention"
        )
        with self.launches.watch() as ran:
            query, out = self._rows(given)
            made = self._implementation(layer.geometry, scores, crossed=crossed)
            self.met(made, given.cache).forward(
                self.scaled_layer(layer.scales),
                query,
                None if given.key is None else contiguous_heads(given.key),
                None if given.value is None else contiguous_heads(given.value),
                caches.in_vllms_dtype(given.cache),
                metadata,
                output=out,
            )
        if out is not given.out:
            tokens = int(batch.query_start_loc[-1])
            given.out[:tokens] = out[:tokens]
        return ran

    @property
    def packing(self) -> str:
        """vLLM's name of a cache whose bytes are laid out in rows of their own, or ""."""
        return self._cache_type if self._cache_type.endswith(PER_TOKEN_HEAD) else ""

    @property
    def is_plain(self) -> bool:
        """Whether the cache holds keys and values as numbers, and nothing else."""
        return not self.packing

    def met(self, made: DenseImplementation, cache: torch.Tensor) -> DenseImplementation:  # noqa: ARG002 - a subclass reads it
        """An implementation that knows its cache."""
        return made

    def _class_for(self, geometry: Geometry) -> BackendClass:
        """vLLM's class, told of the head size of values where it keeps one of its own.

        A model tells it before its layers are made (vllm/model_executor/models/mimo_v2.py).
        """
        cls = self.kernels.class_of(self.name)
        if hasattr(cls, "set_head_size_v"):
            cls.set_head_size_v(geometry.v_head_size)
        return cls

    def _engine_for(self, geometry: Geometry) -> Config:
        return engine_config(geometry, self._num_blocks, self._cache_type)

    def _rows(self, given: Paged) -> tuple[torch.Tensor, torch.Tensor]:
        """Query and output as vLLM's attention layer has them: a token's heads follow one another,
        and so do the rows of the output. ROCM_ATTN's HIP kernels count on that
        (vllm/model_executor/layers/attention/attention.py)."""
        if self.name != "ROCM_ATTN" or given.out.is_contiguous():
            return given.query, given.out
        out = torch.full(given.out.shape, float("nan"), dtype=given.out.dtype, device=self.device)
        return contiguous_heads(given.query), out

    def attend_varlen(self, given: Varlen, layer: Layer) -> Dispatch:
        if not torch.equal(given.query_start_loc, given.key_start_loc):
            raise Refused("vLLM's encoder attention has one length for queries and keys")
        lens = given.query_start_loc.diff()
        batch = Batch(
            query_start_loc=given.query_start_loc,
            seq_lens=lens,
            block_table=torch.zeros(len(lens), 1, dtype=torch.int32, device=self.device),
            max_query_len=given.max_query_len,
            max_seq_len=given.max_key_len,
            max_context_len=0,
        )
        self._num_blocks = 1
        metadata = self._metadata(batch, layer.geometry, layer.scores, "EncoderOnlyAttention")
        with self.launches.watch() as ran:
            self._implementation(layer.geometry, layer.scores, encoder=True).forward(
                self.scaled_layer(Scales()),
                given.query,
                contiguous_heads(given.key),
                contiguous_heads(given.value),
                torch.empty(0, device=self.device),
                metadata,
                output=given.out,
            )
        return ran

    def _implementation(
        self,
        geometry: Geometry,
        scores: Scores | None,
        *,
        crossed: bool = False,
        encoder: bool = False,
    ) -> DenseImplementation:
        """vLLM's implementation of a layer; without ``scores`` one that only writes."""
        types = importlib.import_module("vllm.v1.attention.backend").AttentionType
        kind = types.ENCODER_DECODER if crossed else types.DECODER
        options: dict[str, object] = {}
        slopes = window = None
        if scores is not None:
            if scores.sinks is not None:
                options["sinks"] = scores.sinks
            if scores.alibi_sqrt:
                options["use_alibi_sqrt"] = True
            slopes = None if scores.alibi_slopes is None else scores.alibi_slopes.tolist()
            window = scores.window[0] + 1 if scores.window[0] >= 0 else None
            if scores.prompt_lens is not None:
                window = None  # it is the model's
        cls = self._class_for(geometry).get_impl_cls()
        with self.configured(), self.on_device(), self.undisturbed():
            made: DenseImplementation = called(
                cls,
                num_heads=geometry.num_heads,
                head_size=geometry.head_size,
                scale=scores.scale if scores else 1.0,
                num_kv_heads=geometry.num_kv_heads,
                alibi_slopes=slopes,
                sliding_window=window,
                kv_cache_dtype=self._cache_type,
                logits_soft_cap=(scores.soft_cap if scores else 0.0) or None,
                attn_type=types.ENCODER_ONLY if encoder else kind,
                **options,
            )
        if self._interleaved:
            # As QkNormRopeKvCacheFusionPass does, whether or not it then finds what to fuse
            # (vllm/compilation/passes/fusion/qk_norm_rope_kvcache_fusion.py).
            if not hasattr(made, INTERLEAVES):
                raise Refused(f"this vLLM's {self.name} has one place for values in a cache")
            getattr(made, INTERLEAVES)()
        return made

    def _metadata(self, batch: Batch, geometry: Geometry, scores: Scores, kind: str) -> Metadata:
        """The backend's own description of a batch; ``kind`` is that of the layer's cache."""
        cls = self._class_for(geometry)
        ranges = prefix_ranges(scores.mm_prefix)
        with describing(f"a batch of {self.name}"), self.configured(), self.undisturbed():
            config = self._engine_for(geometry)
            if scores.prompt_lens is not None:
                model: Any = config.model_config
                model.rswa_window = scores.window[0] + 1
            spec = cache_spec(cls, kind, geometry, self._cache_type)
            builder = cls.get_builder_cls()(spec, [LAYER], config, self.device)
            for name, scratch in vars(builder).items():
                if name in self.not_scratch:
                    continue
                if isinstance(scratch, torch.Tensor) and scratch.is_floating_point():
                    scratch.fill_(float("nan"))
            given = common_metadata(
                batch, causal=scores.causal, ranges=ranges, prompts=scores.prompt_lens
            )
            metadata = builder.build(0, given)
            if ranges is not None and not describes_ranges():
                set_ranges(metadata, ranges)
        return metadata
