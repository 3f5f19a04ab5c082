"""vLLM's ROCM_SEGMENTED_ATTN behind the ``attend`` op.

Its kernels take tensors of a GPU alone, and the implementation keeps the engine's configuration,
from which it sizes its workspace. Sources are below
https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/v1/attention/:
backends/rocm_segmented_attn.py, ops/segmented_attention.py.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager, nullcontext

from ..interfaces import Dispatch, Geometry, Layer, Paged, Scores
from . import simulated_gpu
from .dense import DenseBackend
from .objects import Config, DenseImplementation


class SegmentedBackend(DenseBackend):
    """A dense backend whose implementation reads the engine's configuration as it is loaded."""

    _tokens = 1
    _sequences = 1

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        self._tokens, self._sequences = len(given.query), len(given.batch.seq_lens)
        with self._seen_on_gpu():
            return super().attend(given, layer)

    def _seen_on_gpu(self) -> AbstractContextManager[object]:
        return simulated_gpu.SeenOnGpu() if self.kernels.simulated else nullcontext()

    def _engine_for(self, geometry: Geometry) -> Config:
        """The configuration of an engine for no larger batches than the problem's."""
        config = super()._engine_for(geometry)
        config.scheduler_config.max_num_seqs = self._sequences
        config.scheduler_config.max_num_batched_tokens = self._tokens
        return config

    def _implementation(
        self,
        geometry: Geometry,
        scores: Scores | None,
        *,
        crossed: bool = False,
        encoder: bool = False,
    ) -> DenseImplementation:
        made = super()._implementation(geometry, scores, crossed=crossed, encoder=encoder)
        current = importlib.import_module("vllm.config").set_current_vllm_config
        with current(self._engine_for(geometry)):
            made.process_weights_after_loading(geometry.dtype)
        return made
