"""vLLM's TRITON_MLA behind the ``attend`` op: decoding, cache write, and prefill around its merge.

``decode_attention_fwd`` and ``merge_attn_states`` are vLLM's Triton kernels. The cache write, the
gather and the prefill's attention are HIP and CK: ``replaced_ops`` does them where no AMD GPU
is, so that what is judged of a prefill there is vLLM's own chunking and merge.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

from ..attend import Refused
from . import replaced_ops
from .kernels import SHORT, Driver, in_vllms_dtype, with_tokens_only
from .needs import needs

ROPE = 64
NOPE = 128


class LatentDriver(Driver):
    """TRITON_MLA: a cache [blocks, block size, latent + rope] of one KV head."""

    def check(self, problem: Any) -> None:
        super().check(problem)
        if problem.kind == "mla_prefill" and self.contestant.simulated:
            self._check_prefill(problem)

    def _check_prefill(self, problem: Any) -> None:
        """Without a context there is no merge: all of it is another's kernel."""
        if not any(
            q > 1 and n for q, n in zip(problem.query_lens, problem.context_lens, strict=True)
        ):
            raise needs("flash_attn.flash_attn_varlen_func")

    def allocate(self, num_blocks: int, geometry: Any, device: Any) -> Any:
        cls = self.contestant.class_of(self.name)
        sizes = (geometry.block_size, 1, geometry.head_size)
        shape = cls.get_kv_cache_shape(num_blocks, *sizes, self._cache_type)
        self._num_blocks = num_blocks
        return torch.empty(shape, dtype=geometry.cache_dtype, device=device)

    def write(
        self, key: Any, _value: Any, cache: Any, slots: Any, geometry: Any, scales: Any
    ) -> list[str]:
        rank = geometry.v_head_size
        with self.launches.watch() as ran:
            self._impl(geometry, None).do_kv_cache_update(
                key[:, 0, :rank],
                key[:, :, rank:],
                in_vllms_dtype(cache),
                slots[: len(key)],
                self._cache_type,
                self.layer(scales)._k_scale,
            )
        return ran

    def attend(
        self,
        query: Any,
        _key: Any,
        _value: Any,
        cache: Any,
        batch: Any,
        geometry: Any,
        scores: Any,
        scales: Any,
        out: Any,
        _lse: Any,
    ) -> list[str]:
        metadata = self._metadata(batch, geometry)
        if metadata.num_prefills:
            raise Refused("TRITON_MLA decodes one token a sequence")
        tokens = metadata.num_decode_tokens
        with self.launches.watch() as ran:
            found, _ = self._impl(geometry, scores).forward_mqa(
                query[:tokens], _as_the_layer_hands_it(cache), metadata, self.layer(scales)
            )
            out[:tokens] = found
        return ran

    def prefill(
        self,
        query: Any,
        key: Any,
        kv_b_proj: Any,
        cache: Any,
        batch: Any,
        geometry: Any,
        scores: Any,
        scales: Any,
        out: Any,
        _lse: Any,
    ) -> list[str]:
        metadata = self._metadata(batch, geometry, threshold=0)
        tokens, rank = metadata.num_actual_tokens, geometry.v_head_size
        impl = self._impl(geometry, scores, kv_b_proj)
        impl.dcp_world_size = 1
        made = torch.full(
            (tokens, geometry.num_heads * out.shape[2]),
            float("nan"),
            dtype=out.dtype,
            device=self.device,
        )
        with self.launches.watch() as ran:
            impl.forward_mha(
                query[:tokens],
                key[:tokens, 0, :rank],
                key[:tokens, :, rank:],
                _as_the_layer_hands_it(cache),
                metadata,
                self.layer(scales)._k_scale,
                output=made,
            )
        # A layer hands on rows of all heads together; a padded output is the harness's.
        out[:tokens] = made.view(tokens, geometry.num_heads, -1)
        return ran

    def _metadata(self, batch: Any, geometry: Any, threshold: int = 1) -> Any:
        """``threshold``: the most query tokens of a sequence that is decoded."""
        batch, _ = with_tokens_only(batch, SimpleNamespace(mm_prefix=None))
        table = batch.block_table.clamp(0, self._num_blocks - 1)
        batch = SimpleNamespace(**{**vars(batch), "block_table": table})
        sizes = SimpleNamespace(
            q_lora_rank=None,
            kv_lora_rank=geometry.v_head_size,
            qk_nope_head_dim=NOPE,
            qk_rope_head_dim=ROPE,
            v_head_dim=NOPE,
        )
        config = self.config(geometry, self._num_blocks, hf_text_config=sizes)
        config.cache_config.cache_dtype = self._cache_type
        cls = self.contestant.class_of(self.name).get_builder_cls()
        with _pageable():
            builder = cls(self.spec(geometry), ["layer"], config, self.device)
            builder.reorder_batch_threshold = threshold
            if threshold == 0:
                builder.chunked_prefill_workspace.fill_(float("nan"))
            return builder.build(0, self.common_metadata(batch))

    def _impl(self, geometry: Any, scores: Any, kv_b_proj: Any = None) -> Any:
        name = "vllm.model_executor.layers.attention.mla_attention"
        module: Any = importlib.import_module(name)
        if self.contestant.simulated:
            module.flash_attn_varlen_func = replaced_ops.flash_attention(self.launches)
            module.is_vllm_fa = False
        config = importlib.import_module("vllm.config")
        cls = self.contestant.class_of(self.name).get_impl_cls()
        with config.set_current_vllm_config(config.VllmConfig()), self.on_device():
            return cls(
                num_heads=geometry.num_heads,
                head_size=geometry.head_size,
                scale=getattr(scores, "scale", 1.0),
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


def _as_the_layer_hands_it(cache: Any) -> Any:
    """``MLAAttention.forward_impl`` reads an fp8 cache in the platform's encoding."""
    platform = importlib.import_module("vllm.platforms").current_platform
    return cache.view(platform.fp8_dtype()) if cache.dtype in SHORT else cache


class _Projection:
    """``kv_b_proj`` [H, rank, 128 + V], as vLLM's linear layer: rows in, (rows, no bias) out."""

    def __init__(self, weight: Any) -> None:
        self.weight = weight

    def __call__(self, rows: Any) -> tuple[Any, None]:
        flat = self.weight.permute(1, 0, 2).flatten(1)
        return (rows.float() @ flat.float()).to(rows.dtype), None


@contextmanager
def _pageable() -> Iterator[None]:
    """vLLM pins host memory while it builds metadata, which needs a GPU."""
    if torch.cuda.is_available():
        yield
        return
    zeros = torch.zeros

    def unpinned(*sizes: Any, pin_memory: bool = False, **options: Any) -> Any:  # noqa: ARG001 - what is left out
        return zeros(*sizes, **options)

    torch.zeros = unpinned  # type: ignore[assignment] # for as long as metadata is built
    try:
        yield
    finally:
        torch.zeros = zeros
