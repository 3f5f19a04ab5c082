"""The engine around one attention layer: its configuration, the layer, its cache's description."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any, NoReturn

import torch

from ..errors import Refused, UnknownError
from ..interfaces import Geometry
from ..metadata_contract import LayerFields
from .metadata import LAYER, cache_spec, called, engine_config
from .mla import NOPE, ROPE, lend_attention, prefill_backend
from .objects import BackendClass, Builder, Config, current_platform
from .stand_ins import StandIn

FULL = "FULL_AND_PIECEWISE"
# Tokens that ROCM_AITER_FA gathers at once, by vLLM's name for it in the builder's module.
AT_ONCE = "_CP_TOKENS_PER_ITER_ROCM"
# vLLM's own number, by the module that has it.
_USUAL: dict[str, int] = {}


class Engine:
    """A configuration with one layer of a backend; ``name`` is vLLM's for the backend."""

    def __init__(
        self, name: str, cls: BackendClass, layer: LayerFields, device: torch.device
    ) -> None:
        self._name = name
        self._cls = cls
        self._layer = layer
        self._device = device
        self.latent = bool(cls.is_mla())
        self.sparse = bool(cls.is_sparse())
        dtype = getattr(torch, layer["dtype"])
        fp8 = layer["kv_cache_dtype"].startswith("fp8")
        self._geometry = Geometry(
            num_heads=layer["num_heads"],
            num_kv_heads=layer["num_kv_heads"],
            head_size=layer["head_size"],
            v_head_size=layer["head_size"] - ROPE if self.latent else layer["head_size"],
            block_size=layer["block_size"],
            dtype=dtype,
            cache_dtype=current_platform().fp8_dtype() if fp8 else dtype,
        )
        self.config = self._config()

    def configured(self) -> AbstractContextManager[object]:
        module = importlib.import_module("vllm.config")
        current: AbstractContextManager[object] = module.set_current_vllm_config(self.config)
        return current

    def _config(self) -> Config:
        layer = self._layer
        rank = layer["head_size"] - ROPE
        sizes = {
            "q_lora_rank": None,
            "kv_lora_rank": rank,
            "qk_nope_head_dim": NOPE,
            "qk_rope_head_dim": ROPE,
            "v_head_dim": NOPE,
        }
        hf = StandIn(
            "its model's hf_config",
            index_topk=layer["topk"],
            index_n_heads=64,
            index_head_dim=128,
            **sizes,
        )
        blocks = layer["max_reqs"] * -(-layer["max_len"] // layer["block_size"]) + 1
        config = engine_config(
            self._geometry,
            blocks,
            layer["kv_cache_dtype"],
            hf_text_config=hf,
            hf_config=hf,
        )
        model: Any = config.model_config
        model.max_model_len = layer["max_len"]
        model.get_head_size = lambda: layer["model_head_size"]
        model.get_num_kv_heads = lambda _=None: layer["model_kv_heads"]
        model.get_num_attention_heads = lambda _=None: layer["num_heads"]
        model.is_encoder_decoder = False
        model.model_arch_config = StandIn(
            "its model's architecture", total_num_attention_heads=layer["num_heads"]
        )
        model.use_mla = self.latent
        engine: Any = config
        scheduler = engine.scheduler_config
        scheduler.max_num_seqs = layer["max_reqs"]
        scheduler.max_num_batched_tokens = layer["max_tokens"]
        if layer["graphs"]:
            modes = importlib.import_module("vllm.config").CUDAGraphMode
            config.compilation_config.cudagraph_mode = modes[FULL]
        compilation: Any = config.compilation_config
        compilation.cudagraph_capture_sizes = list(layer["capture_sizes"])
        compilation.max_cudagraph_capture_size = max(layer["capture_sizes"])
        if layer["speculative"]:
            engine.speculative_config = StandIn(
                "its speculative configuration",
                num_speculative_tokens=layer["speculative"],
                method="eagle3",
                # A chain: each drafted token is the only one after the one before.
                speculative_token_tree=str([(0,) * n for n in range(1, layer["speculative"] + 1)]),
                parallel_drafting=False,
                enable_adaptive_verification=False,
            )
        self._sizes = sizes
        return config

    def check(self) -> None:
        """Refuses a layer that the backend does not claim, in vLLM's words.

        Builders see the blocks that kernels see, so that a multiple of a size is no such size.
        """
        size = self._layer["block_size"]
        taken = self._cls.get_supported_kernel_block_sizes()
        if not any(size % getattr(one, "base", size + 1) == 0 or size == one for one in taken):
            raise Refused(f"blocks of {size} are not the kernels'")
        reasons: list[str] = called(
            self._cls.validate_configuration,
            head_size=self._layer["head_size"],
            dtype=self._geometry.dtype,
            kv_cache_dtype=self._layer["kv_cache_dtype"],
            block_size=size,
            use_mla=self.latent,
            has_sink=False,
            use_sparse=self.sparse,
            use_mm_prefix=False,
            use_per_head_quant_scales=False,
            device_capability=current_platform().get_device_capability(),
            attn_type="decoder",
            has_sliding_window=self._layer["window"] > 0,
        )
        if reasons:
            raise Refused(f"vLLM's {self._name} does not admit it: {', '.join(reasons)}")

    def graph_support(self, builder: Any) -> str:
        """The name of the graphs that the builder supports."""
        if hasattr(builder, "get_cudagraph_support"):
            return str(builder.get_cudagraph_support(self.config, builder.kv_cache_spec).name)
        return str(builder._cudagraph_support.name)

    def make_builder(self) -> Builder:
        """The backend's builder for the layer."""
        kind = "MLAAttention" if self.latent else "FullAttention"
        spec = cache_spec(self._cls, kind, self._geometry, self._layer["kv_cache_dtype"])
        cls = self._cls.get_builder_cls()
        at_once = self._layer["at_once"]
        module: Any = importlib.import_module(cls.__module__)
        usual = _USUAL.setdefault(cls.__module__, getattr(module, AT_ONCE, 0))
        if usual:
            setattr(module, AT_ONCE, at_once or usual)
        builder: Any = cls(spec, [LAYER], self.config, self._device)
        if at_once and hasattr(builder, "chunked_prefill_workspace_size"):
            builder.chunked_prefill_workspace_size = at_once
            builder.chunked_prefill_workspace = builder.chunked_prefill_workspace[:at_once]
        made: Builder = builder
        return made

    def make_implementation(self) -> None:
        """The backend's implementation, and the layer that has it."""
        context = self.config.compilation_config.static_forward_context
        if self.latent:
            lend_attention(_attention)
            context[LAYER] = self._latent_layer()
            context[LAYER].impl = None  # until there is one
            context[LAYER].impl = self._implementation()
            return
        module = importlib.import_module("vllm.model_executor.layers.attention")
        made = module.Attention.__new__(module.Attention)
        torch.nn.Module.__init__(made)
        made.impl = self._implementation()
        made.kv_sharing_target_layer_name = None
        made.kv_cache_update_bypass = False
        made.num_heads = self._layer["num_heads"]
        made.num_kv_heads = self._layer["num_kv_heads"]
        made.head_size = self._layer["head_size"]
        made.layer_name = LAYER
        context[LAYER] = made

    def _latent_layer(self) -> Any:
        return StandIn(
            "its MLA layer",
            num_heads=self._layer["num_heads"],
            non_causal_multi_token_decode=False,
            prefill_backend=prefill_backend(
                self._layer["num_heads"], 1.0, self.config, self._sizes, _attention
            ),
            **self._sizes,
        )

    def _implementation(self) -> object:
        types = importlib.import_module("vllm.v1.attention.backend").AttentionType
        layer = self._layer
        known: dict[str, object] = {
            "num_heads": layer["num_heads"],
            "head_size": layer["head_size"],
            "scale": 1.0,
            "num_kv_heads": layer["num_kv_heads"],
            "alibi_slopes": None,
            "sliding_window": layer["window"] or None,
            "kv_cache_dtype": layer["kv_cache_dtype"],
            "logits_soft_cap": None,
            "attn_type": types.DECODER,
            "kv_sharing_target_layer_name": None,
        }
        if self.latent:
            known |= {**self._sizes, "qk_head_dim": NOPE + ROPE, "kv_b_proj": None}
        if self.sparse:
            indices = torch.zeros(layer["max_tokens"], layer["topk"], dtype=torch.int32)
            known["indexer"] = SimpleNamespace(
                topk_indices_buffer=indices, topk_tokens=layer["topk"]
            )
            known["topk_indices_buffer"] = indices
        return called(self._cls.get_impl_cls(), **known)


def _attention(*_given: object, **_named: object) -> NoReturn:
    """Stands for FlashAttention, which no builder calls."""
    raise UnknownError("the harness has no attention where metadata is built")
