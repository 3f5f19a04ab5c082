"""vLLM's TURBOQUANT and ULTRAQUANT behind the ``attend`` op: caches of packed rows of bytes.

Sources are below https://github.com/vllm-project/vllm/tree/v0.33.0/vllm/: the backends are
v1/attention/backends/turboquant_attn.py and ultraquant_attn.py; a layer keeps what they derive once
(its rotation and codebook), and the model runner makes the workspace that they take buffers from
(v1/worker/workspace.py).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import Any, cast
from unittest import mock

import torch

from ..contract import ProblemFields
from ..interfaces import Geometry, Layer, Paged, Scales
from .dense import DenseBackend
from .metadata import engine_config
from .objects import Config, ScaledLayer, current_platform

DECODE = "vllm.v1.attention.ops.triton_turboquant_decode"
WORKSPACE = "vllm.v1.worker.workspace"
LAYER = "vllm.model_executor.layers.attention.attention"
# Where it is there (0.20), a layer makes the codebook and the buffers of decodes.
MADE_BY_LAYERS = "_init_turboquant_buffers"
SMALLEST_E4M3 = (8, 9)  # the capability from which vLLM stores keys as E4M3
# Bytes of workspace, poisoned beforehand (what is compiled for a model's layer may need more); and
# the sequences that the builder reserves it for.
SCRATCH, MOST_SEQUENCES = 1 << 25, 64
# ULTRAQUANT splits decodes whose keys may be so many, however many there are; and from how many
# pieces on a problem asks for that.
MAY_BE_SPLIT, PIECES = 1024, 4


class PackedBackend(DenseBackend):
    """A backend whose cache has a key and a value in one row of bytes."""

    def __init__(self, kernels: Any, name: str) -> None:
        super().__init__(kernels, name)
        self._layer: Any = torch.nn.Module()
        self._config: Config | None = None
        self._pieces = 0

    @property
    def is_plain(self) -> bool:
        return False

    def check(self, problem: ProblemFields) -> None:
        super().check(problem)
        self._pieces = problem["pieces"]

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        if self._config is None:
            self._prepare(geometry, num_blocks)
        return super().allocate(num_blocks, geometry, device)

    def attend(self, given: Paged, layer: Layer) -> Any:
        if self.name == "ULTRAQUANT" and self._pieces >= PIECES:
            # An engine's bound may be far above the keys there are, as where graphs are captured.
            bound = max(given.batch.max_seq_len, MAY_BE_SPLIT)
            given = replace(given, batch=replace(given.batch, max_seq_len=bound))
        with self._workspace():
            return super().attend(given, layer)

    def configured(self) -> AbstractContextManager[object]:
        """The implementation reads the model's length and the number of parts."""
        if self._config is None:
            return super().configured()
        module = importlib.import_module("vllm.config")
        current: AbstractContextManager[object] = module.set_current_vllm_config(self._config)
        return current

    def scaled_layer(self, scales: Scales) -> ScaledLayer:  # noqa: ARG002 - these caches have none
        """The layer, on which the backend keeps its rotation, its codebook and its buffers."""
        return cast("ScaledLayer", self._layer)

    def _prepare(self, geometry: Geometry, num_blocks: int) -> None:
        self._config = engine_config(geometry, num_blocks, self._cache_type)
        self._config.scheduler_config.max_num_seqs = MOST_SEQUENCES
        if self._pieces:
            self._config.attention_config.tq_max_kv_splits_for_cuda_graph = self._pieces
        decode = importlib.import_module(DECODE)
        attention: Any = importlib.import_module(LAYER).Attention
        if hasattr(attention, MADE_BY_LAYERS):
            self._layer.num_heads = geometry.num_heads
            with self.configured():
                made = getattr(attention, MADE_BY_LAYERS)
                made(self._layer, self._cache_type, geometry.head_size, "layer")
            for name, buffer in self._layer.named_buffers():
                if name.endswith("_buf"):
                    buffer.fill_(float("nan"))
        if self.kernels.simulated:
            capability: Any = current_platform().get_device_capability()
            old = (capability.major, capability.minor) < SMALLEST_E4M3
            decode._FP8_E4B15[0] = int(old)

    @contextmanager
    def _workspace(self) -> Iterator[None]:
        """The model runner's workspace, anew, where this vLLM's backends take buffers from it."""
        module = importlib.import_module(WORKSPACE)
        module.reset_workspace_manager()
        module.init_workspace_manager(torch.device(self.device))
        manager = module.current_workspace_manager()
        with ExitStack() as stack:
            stack.callback(module.reset_workspace_manager)
            if self.kernels.simulated:
                # Growing, it asks torch to free the accelerator's memory.
                freeing = mock.patch.object(torch.accelerator, "empty_cache", create=True)
                stack.enter_context(freeing)
            manager.get_simultaneous(((SCRATCH,), torch.uint8))[0].fill_(0xFF)
            yield
