"""vLLM's TRITON_ATTN behind the ``attend`` op, whose cache may have a scale per token and head.

Its implementation finds the scales among a cache's bytes when it first meets it, and makes all of
them 1 (``_ensure_scale_caches`` of
https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/v1/attention/backends/triton_attn.py#L412). A
layer has one implementation for as long as its cache lives; here each call has its own. So after
each has found the scales, the cache gets back what was in it.
"""

from __future__ import annotations

from typing import Any

import torch

from ..errors import UnknownError
from ..guarded_memory import as_bytes
from . import caches
from .objects import DenseImplementation
from .stand_ins import describing
from .tree import BiasedBackend

FINDS_SCALES = "_ensure_scale_caches"


class TritonBackend(BiasedBackend):
    """A dense backend whose implementation keeps views of its cache's scales."""

    def met(self, made: DenseImplementation, cache: torch.Tensor) -> DenseImplementation:
        if not self.packing:
            return made
        finder: Any = getattr(made, FINDS_SCALES, None)
        if finder is None:
            raise UnknownError(
                f"the harness does not know where this vLLM keeps the scales of {self._cache_type}"
            )
        memory = as_bytes(cache)
        before = memory.clone()
        with describing(f"the scales of {self.name}"):
            finder(caches.in_vllms_dtype(cache))
        memory.copy_(before)
        return made
