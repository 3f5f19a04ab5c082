"""vLLM's ROCM_OCTAVE behind the ``attend`` op: HIP operators over a cache of packed rows of bytes.

A model says how many elements RoPE turns, from which the layer's rows are laid out; the model
runner makes the workspace that the splits of a decode lie in. Sources are below
https://github.com/vllm-project/vllm/tree/v0.33.0/vllm/: v1/attention/backends/rocm_octave_attn.py,
v1/attention/ops/rocm_octave.py.
"""

from __future__ import annotations

import types
from contextlib import nullcontext
from typing import Any
from unittest import mock

import torch

from ..attend import packed_bytes
from ..contract import ProblemFields
from ..errors import Refused
from ..interfaces import Dispatch, Geometry, Layer, Paged
from ..other_kernels import OTHER_KERNELS
from .metadata import engine_config
from .objects import Config
from .packed import MOST_SEQUENCES, PackedBackend

OPERATOR = "octave_decode"
EMULATED = "gfx942"
# AMD's manual of RDNA3, on WMMA: both halves of a wave hold the same rows of a matrix.
NOT_EMULATED = (
    "its decode for RDNA3 has different data of a matrix's row in the two halves of a wave, and "
    "counts on which of them the hardware reads, which the manual does not say"
)
ROPE = 64  # elements that RoPE turns: the kernels take no other number
MOST_TOKENS = 1024  # of a batch, for which the builder keeps maps


class OctaveBackend(PackedBackend):
    """The backend whose kernels are HIP alone."""

    def check(self, problem: ProblemFields) -> None:
        super().check(problem)
        if self.kernels.simulated and not hasattr(torch.ops._C, OPERATOR):
            why = self.kernels.no_hip or "needs an AMD GPU"
            raise Refused(f"unsupported here: {OPERATOR} ({OTHER_KERNELS[OPERATOR]}): {why}")
        if self.kernels.simulated and self.kernels.target != EMULATED:
            raise Refused(f"unsupported here: {OPERATOR}: {NOT_EMULATED}")

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        # It tells the allocator's stream which tensors are in use, and goes on where that fails.
        stream = mock.patch.object(torch.cuda, "current_stream", return_value=None)
        with stream if self.kernels.simulated else nullcontext():
            ran: Dispatch = super().attend(given, layer)
            return ran

    def stored_rows(
        self, cache: torch.Tensor, slots: torch.Tensor, geometry: Geometry
    ) -> torch.Tensor:
        """The bytes that were written of some slots [N]: [N, G, bytes]."""
        size = geometry.block_size
        rows = cache[slots // size, :, slots % size]
        return rows[..., : packed_bytes(geometry.packing, geometry.head_size)]

    def _prepare(self, geometry: Geometry, num_blocks: int) -> None:
        self._config = self._engine_for(geometry, num_blocks)

    def _engine_for(self, geometry: Geometry, num_blocks: int = 0) -> Config:
        text = types.SimpleNamespace(partial_rotary_factor=ROPE / geometry.head_size)
        blocks = num_blocks or self._num_blocks
        config = engine_config(geometry, blocks, self._cache_type, hf_text_config=text)
        config.scheduler_config.max_num_seqs = MOST_SEQUENCES
        config.scheduler_config.max_num_batched_tokens = MOST_TOKENS
        if self._pieces:
            attention: Any = config.attention_config
            attention.tq_max_kv_splits_for_cuda_graph = self._pieces
        return config
