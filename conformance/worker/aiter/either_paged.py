"""ROCM_AITER_FA's two decodes: in assembly over a shuffled cache, and in HIP over a plain one.

vLLM takes the first where ``VLLM_ROCM_SHUFFLE_KV_CACHE_LAYOUT`` is set, and the second by default.
Here the assembly has the problems that it takes, unless that variable says 0, and HIP has all
others.
"""

from __future__ import annotations

import os

import torch

from ..contract import ProblemFields
from ..interfaces import Backend, Dispatch, Geometry, Layer, Paged
from .code_objects import CodeObjects
from .paged_assembly import HEAD_SIZE, PagedAssembly
from .paged_hip import PagedHip

VARIABLE = "VLLM_ROCM_SHUFFLE_KV_CACHE_LAYOUT"
BLOCK_SIZE = 16


class EitherPaged(Backend):
    """The decode that takes a problem, with the cache that it wants."""

    def __init__(self, objects: CodeObjects) -> None:
        self._objects = objects
        self._chosen: Backend = PagedAssembly(objects)

    def check(self, problem: ProblemFields) -> None:
        plain = (
            problem["head_size"] == HEAD_SIZE
            and problem["block_size"] == BLOCK_SIZE
            and max(problem["window"]) < 0
            and problem["alibi"] == "none"
        )
        if not plain or os.environ.get(VARIABLE) == "0":
            self._chosen = PagedHip(self._objects)

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        return self._chosen.allocate(num_blocks, geometry, device)

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: torch.Tensor,
        slots: torch.Tensor,
        layer: Layer,
    ) -> Dispatch:
        return self._chosen.write(key, value, cache, slots, layer)

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        return self._chosen.attend(given, layer)
