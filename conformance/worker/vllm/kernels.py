"""vLLM's own attention behind the ``attend`` op: its backends' classes, given a problem's tensors.

A backend is driven as vLLM's model runner drives it: the metadata builder that the backend names,
its implementation class, ``do_kv_cache_update`` and ``forward``. What vLLM promises its backends
and a problem does not is put right first: keys and values have contiguous heads (they are slices
of one projection: vllm/model_executor/models/llama.py), a block table holds numbers of blocks
everywhere (vllm/v1/worker/block_table.py), no sequence has block 0 (the null block of
vllm/v1/core/block_pool.py), and each has a query token (vllm/v1/core/sched/scheduler.py). Paths
are below https://github.com/vllm-project/vllm/tree/v0.19.0
"""

import importlib
from types import SimpleNamespace
from typing import Any

import torch

from ..attend import Contestant, Refused
from ..launches import Launches
from . import replaced_ops
from .needs import check_backend
from .registry import Registry

SHORT = {
    torch.float8_e4m3fn: "e4m3fn",
    torch.float8_e4m3fnuz: "e4m3fnuz",
    torch.float8_e5m2: "e5m2",
}


class VllmContestant(Contestant):
    """The backends of an imported vLLM on one platform.

    ``simulated``: no AMD GPU is here; then what is not Triton is stood in for by name, or refused.
    ``registry``: vLLM's backends by name.
    """

    def __init__(self, registry: Registry, target: str, device: Any, *, simulated: bool) -> None:
        self.device = device
        self.target = target
        self.simulated = simulated
        self.launches = Launches()
        self._registry = registry
        if simulated:
            replaced_ops.install(self.launches)

    def seam(self) -> Any:
        names = ("Geometry", "Batch", "Scores", "Scales")
        return SimpleNamespace(**dict.fromkeys(names, SimpleNamespace))

    def backend(self, name: str) -> Any:
        """The driver of a backend; ``Refused`` where nothing of it can run here."""
        if self.simulated:
            check_backend(name)
        kinds = {"TORCH_SDPA": ("vit", "VitSdpa"), "TRITON_MLA": ("mla", "LatentDriver")}
        module, cls = kinds.get(name, ("kernels", "DenseDriver"))
        driver = getattr(importlib.import_module(f"{__package__}.{module}"), cls)
        return driver(self, name)

    def class_of(self, name: str) -> Any:
        """vLLM's class of a backend."""
        if name not in self._registry.members:
            raise Refused(f"this vLLM has no backend {name}")
        try:
            return self._registry.members[name].get_class()
        except ImportError as error:
            raise Refused(f"vLLM cannot import {name}: {error}") from error


class Driver:
    """What drivers of backends have in common: admission, and the configuration that vLLM wants."""

    def __init__(self, contestant: VllmContestant, name: str) -> None:
        self.name = name
        self.contestant = contestant
        self.device = contestant.device
        self.launches = contestant.launches
        self._cache_type = "auto"

    def check(self, problem: Any) -> None:
        """Refuses what this vLLM does not claim to support, in its own words."""
        cls = self.contestant.class_of(self.name)
        platform = importlib.import_module("vllm.platforms").current_platform
        self._cache_type = self._cache_dtype(problem.kv_cache_dtype, platform)
        latent = problem.kind in ("mla", "mla_prefill")
        asked = {
            "head_size": problem.key_size if latent else problem.head_size,
            "dtype": getattr(torch, problem.dtype),
            "kv_cache_dtype": self._cache_type,
            "block_size": problem.block_size if problem.kind != "varlen" else None,
            "use_mla": latent,
            "has_sink": problem.sinks,
            "use_sparse": False,
            "use_mm_prefix": bool(problem.mm_prefix),
            "use_per_head_quant_scales": False,
            "device_capability": platform.get_device_capability(),
            "attn_type": self.attention_type(problem.kind, crossed=problem.key_lens is not None),
        }
        reasons = cls.validate_configuration(**asked)
        if problem.alibi == "sqrt" and not cls.supports_alibi_sqrt():
            reasons.append("alibi_sqrt not supported")
        if reasons:
            raise Refused(f"vLLM's {self.name} does not admit it: {', '.join(reasons)}")

    def _cache_dtype(self, wanted: str, platform: Any) -> str:
        """vLLM's word for an encoding; its "fp8" is the platform's own e4m3."""
        if not wanted.startswith("fp8_e4m3"):
            return wanted
        own = SHORT[platform.fp8_dtype()]
        if wanted != f"fp8_{own}":
            raise Refused(f"vLLM's fp8 cache on {self.contestant.target} is {own}")
        return "fp8_e4m3"

    @staticmethod
    def attention_type(kind: str, *, crossed: bool) -> str:
        if kind == "varlen":
            return "encoder_only"
        return "encoder_decoder" if crossed else "decoder"

    def layer(self, scales: Any) -> Any:
        """What an implementation reads of its layer: the scales of the cache."""
        one = torch.ones((), dtype=torch.float32, device=self.device)
        return SimpleNamespace(
            _q_scale=one,
            _k_scale=one * scales.k,
            _v_scale=one * scales.v,
            _q_scale_float=1.0,
            _k_scale_float=scales.k,
            _v_scale_float=scales.v,
        )

    def common_metadata(self, batch: Any, *, causal: bool = True) -> Any:
        """vLLM's own description of a batch."""
        cls = importlib.import_module("vllm.v1.attention.backend").CommonAttentionMetadata
        tokens = int(batch.query_start_loc[-1])
        return cls(
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

    def config(self, geometry: Any, num_blocks: int, **model: Any) -> Any:
        """vLLM's configuration around a model of this geometry."""
        module = importlib.import_module("vllm.config")
        found = module.VllmConfig()
        found.model_config = SimpleNamespace(
            dtype=geometry.dtype,
            max_model_len=8192,
            get_num_attention_heads=lambda _: geometry.num_heads,
            get_num_kv_heads=lambda _: geometry.num_kv_heads,
            get_head_size=lambda: geometry.head_size,
            **model,
        )
        found.cache_config.block_size = geometry.block_size
        found.cache_config.num_gpu_blocks = num_blocks
        # Captured graphs only move the batch size from which decodes are not split.
        found.compilation_config.cudagraph_mode = module.CUDAGraphMode.NONE
        return found

    def spec(self, geometry: Any) -> Any:
        module = importlib.import_module("vllm.v1.kv_cache_interface")
        return module.FullAttentionSpec(
            block_size=geometry.block_size,
            num_kv_heads=geometry.num_kv_heads,
            head_size=geometry.head_size,
            dtype=geometry.cache_dtype,
        )

    def on_device(self) -> Any:
        """Where vLLM makes tensors of its own, as the model runner sets it."""
        return torch.device(self.device)


class DenseDriver(Driver):
    """A backend with a paged cache of keys and values, or none at all (encoders)."""

    def __init__(self, contestant: VllmContestant, name: str) -> None:
        super().__init__(contestant, name)
        # FLEX_ATTENTION takes block 0 for the null block, so sequences get the blocks after it.
        self._null = 1 if name == "FLEX_ATTENTION" else 0
        self._num_blocks = 0
        self.filling = ""
        if name == "FLEX_ATTENTION" and contestant.simulated:
            # Uncompiled it multiplies all of the cache, most of it by 0.
            self.filling = "zero"
            contestant.class_of(name)
            replaced_ops.eager_flex_attention(self.launches)

    def allocate(self, num_blocks: int, geometry: Any, device: Any) -> Any:
        cls = self.contestant.class_of(self.name)
        sizes = (geometry.block_size, geometry.num_kv_heads, geometry.head_size)
        shape = cls.get_kv_cache_shape(num_blocks + self._null, *sizes, self._cache_type)
        self._num_blocks = num_blocks + self._null
        return torch.empty(shape, dtype=geometry.cache_dtype, device=device)

    def write(
        self, key: Any, value: Any, cache: Any, slots: Any, geometry: Any, scales: Any
    ) -> list[str]:
        with self.launches.watch() as ran:
            shifted = torch.where(slots >= 0, slots + self._null * geometry.block_size, slots)
            rows = (contiguous_heads(key), contiguous_heads(value))
            # Padding tokens have rows of their own in vLLM, and slot -1.
            self._impl(geometry, None).do_kv_cache_update(
                self.layer(scales),
                *(row[: len(shifted)] for row in rows),
                in_vllms_dtype(cache),
                shifted[: len(key)],
            )
        return ran

    def attend(
        self,
        query: Any,
        key: Any,
        value: Any,
        cache: Any,
        batch: Any,
        geometry: Any,
        scores: Any,
        scales: Any,
        out: Any,
        _lse: Any,
    ) -> list[str]:
        batch, scores = with_tokens_only(batch, scores)
        table = batch.block_table.clamp(0, self._num_blocks - 1 - self._null) + self._null
        batch = SimpleNamespace(**{**vars(batch), "block_table": table})
        with self.launches.watch() as ran:
            self._forward(
                self._impl(geometry, scores, crossed=key is None),
                self._metadata(batch, geometry, scores),
                query,
                None if key is None else contiguous_heads(key),
                None if value is None else contiguous_heads(value),
                in_vllms_dtype(cache),
                scales,
                out,
            )
        return ran

    def attend_varlen(
        self,
        query: Any,
        key: Any,
        value: Any,
        query_start_loc: Any,
        key_start_loc: Any,
        max_query_len: int,
        max_key_len: int,
        geometry: Any,
        scores: Any,
        out: Any,
        _lse: Any,
    ) -> list[str]:
        if not torch.equal(query_start_loc, key_start_loc):
            raise Refused("vLLM's encoder attention has one length for queries and keys")
        lens = query_start_loc.diff()
        batch = SimpleNamespace(
            query_start_loc=query_start_loc,
            seq_lens=lens,
            block_table=torch.zeros(len(lens), 1, dtype=torch.int32, device=self.device),
            max_query_len=max_query_len,
            max_seq_len=max_key_len,
        )
        self._num_blocks = 1
        with self.launches.watch() as ran:
            self._forward(
                self._impl(geometry, scores, encoder=True),
                self._metadata(batch, geometry, scores, causal=False),
                *(query, contiguous_heads(key), contiguous_heads(value)),
                torch.empty(0, device=self.device),
                SimpleNamespace(k=1.0, v=1.0),
                out,
            )
        return ran

    def _forward(
        self,
        impl: Any,
        metadata: Any,
        query: Any,
        key: Any,
        value: Any,
        cache: Any,
        scales: Any,
        out: Any,
    ) -> None:
        impl.forward(self.layer(scales), query, key, value, cache, metadata, output=out)

    def _impl(
        self, geometry: Any, scores: Any, *, crossed: bool = False, encoder: bool = False
    ) -> Any:
        """vLLM's implementation of a layer; without ``scores`` one that only writes."""
        types = importlib.import_module("vllm.v1.attention.backend").AttentionType
        kind = types.ENCODER_DECODER if crossed else types.DECODER
        options: dict[str, Any] = {}
        slopes = window = None
        if scores is not None:
            if scores.sinks is not None:
                options["sinks"] = scores.sinks
            if scores.alibi_sqrt:
                options["use_alibi_sqrt"] = True
            slopes = None if scores.alibi_slopes is None else scores.alibi_slopes.tolist()
            window = scores.window[0] + 1 if scores.window[0] >= 0 else None
        cls = self.contestant.class_of(self.name).get_impl_cls()
        with self.on_device():
            return cls(
                num_heads=geometry.num_heads,
                head_size=geometry.head_size,
                scale=getattr(scores, "scale", 1.0),
                num_kv_heads=geometry.num_kv_heads,
                alibi_slopes=slopes,
                sliding_window=window,
                kv_cache_dtype=self._cache_type,
                logits_soft_cap=getattr(scores, "soft_cap", 0.0) or None,
                attn_type=types.ENCODER_ONLY if encoder else kind,
                **options,
            )

    def _metadata(self, batch: Any, geometry: Any, scores: Any, *, causal: bool = True) -> Any:
        cls = self.contestant.class_of(self.name).get_builder_cls()
        config = self.config(geometry, self._num_blocks)
        builder = cls(self.spec(geometry), ["layer"], config, self.device)
        for scratch in vars(builder).values():
            if isinstance(scratch, torch.Tensor) and scratch.is_floating_point():
                scratch.fill_(float("nan"))
        metadata = builder.build(0, self.common_metadata(batch, causal=causal))
        if scores.mm_prefix is not None:
            # As vllm/v1/worker/gpu_model_runner.py does, whatever the metadata's class.
            metadata.mm_prefix_range = {
                i: [tuple(r) for r in ranges if r[0] < r[1]]
                for i, ranges in enumerate(scores.mm_prefix.tolist())
            }
        return metadata


def with_tokens_only(batch: Any, scores: Any) -> tuple[Any, Any]:
    """Without sequences of no query token: vLLM's scheduler puts none into a batch."""
    has = batch.query_start_loc.diff() > 0
    if bool(has.all()):
        return batch, scores
    ends = batch.query_start_loc[1:][has]
    kept = {
        "query_start_loc": torch.cat([batch.query_start_loc[:1], ends]),
        "seq_lens": batch.seq_lens[has],
        "block_table": batch.block_table[has],
    }
    if scores.mm_prefix is not None:
        scores = SimpleNamespace(**{**vars(scores), "mm_prefix": scores.mm_prefix[has]})
    return SimpleNamespace(**{**vars(batch), **kept}), scores


def contiguous_heads(x: Any) -> Any:
    """Rows whose heads follow one another, as in vLLM; a token's row may still be strided."""
    if x.stride(1) == x.shape[2] and x.stride(2) == 1:
        return x
    width = x.shape[1] * x.shape[2] + 16
    wide = torch.full((len(x), width), float("nan"), dtype=x.dtype, device=x.device)
    rows = wide.as_strided(x.shape, (wide.stride(0), x.shape[2], 1))
    rows.copy_(x)
    return rows


def in_vllms_dtype(cache: Any) -> Any:
    """An fp8 cache is bytes to vLLM."""
    return cache.view(torch.uint8) if cache.dtype in SHORT else cache
