"""The backends of the package ``rocm_reference``, which has its own types for what they take."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol

import torch

from ..contract import ProblemFields
from ..errors import Refused
from ..guarded_memory import with_padded_blocks
from ..interfaces import (
    Backend,
    Batch,
    Dispatch,
    Geometry,
    KernelSubject,
    LatentPrefill,
    Layer,
    Paged,
    Varlen,
)


class Methods(Protocol):
    """A backend of the reference: ``rocm_reference.attention`` says what its methods take."""

    allocate: Callable[..., torch.Tensor]
    write: Callable[..., Dispatch]
    attend: Callable[..., Dispatch]
    attend_varlen: Callable[..., Dispatch]
    prefill: Callable[..., Dispatch]
    write_index: Callable[..., Dispatch]
    select: Callable[..., Dispatch]


class Types(Protocol):
    """The classes of ``rocm_reference.attention``; their fields are those of this package's."""

    Geometry: Callable[..., object]
    Batch: Callable[..., object]
    Scores: Callable[..., object]
    Scales: Callable[..., object]


class ReferenceKernels(KernelSubject):
    """Every backend of the reference."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._registry = importlib.import_module("rocm_reference.backends.registry")
        self._types: Types = importlib.import_module("rocm_reference.attention")

    def backend(self, name: str) -> Backend:
        if name not in self._registry.NAMES:
            raise Refused(f"unsupported here: the reference has no kernels for {name}")
        return ReferenceBackend(name, self._registry.backend, self._types)


# What the reference's constructors call a problem's ``pieces`` and ``at_once``.
PIECES = {
    **dict.fromkeys(("ROCM_ATTN", "ROCM_AITER_FA", "TRITON_MLA"), "segments"),
    **dict.fromkeys(("TRITON_ATTN", "ROCM_AITER_UNIFIED_ATTN"), "segments"),
    **dict.fromkeys(("TRITON_ATTN_DIFFKV", "ROCM_SEGMENTED_ATTN", "TREE_ATTN"), "segments"),
    **dict.fromkeys(("ROCM_AITER_MLA", "ROCM_AITER_TRITON_MLA"), "workers"),
    "ROCM_AITER_MLA_SPARSE": "workers",
    **dict.fromkeys(("TURBOQUANT", "ULTRAQUANT"), "segments"),
}
AT_ONCE = {"ROCM_AITER_FA": "workspace_tokens"}


class ReferenceBackend(Backend):
    """Passes each call on, in the reference's own types."""

    def __init__(self, name: str, make: Callable[..., Methods], types: Types) -> None:
        self._name = name
        self._make = make
        self._types = types
        self._methods = make(name)
        self._at_once = 0

    def check(self, problem: ProblemFields) -> None:
        """Takes the problem's limits; the reference supports all problems."""
        self._at_once = problem["at_once"]
        options = {}
        if problem["pieces"] and self._name in PIECES:
            options[PIECES[self._name]] = problem["pieces"]
        if self._at_once and self._name in AT_ONCE:
            options[AT_ONCE[self._name]] = self._at_once
        self._methods = self._make(self._name, **options)

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        return self._methods.allocate(num_blocks, self._geometry(geometry), device)

    def pad_blocks(self, cache: torch.Tensor, of_one_more: torch.Size, pad: int) -> torch.Tensor:
        return with_padded_blocks(cache, of_one_more, pad)

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: torch.Tensor,
        slots: torch.Tensor,
        layer: Layer,
    ) -> Dispatch:
        geometry, _, scales = self._layer(layer)
        return self._methods.write(key, value, cache, slots, geometry, scales)

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        sparse = {} if given.selected is None else {"selected": given.selected}
        return self._methods.attend(
            given.query,
            given.key,
            given.value,
            given.cache,
            self._batch(given.batch),
            *self._layer(layer),
            given.out,
            given.lse,
            **sparse,
        )

    def attend_varlen(self, given: Varlen, layer: Layer) -> Dispatch:
        geometry, scores, _ = self._layer(layer)
        return self._methods.attend_varlen(
            given.query,
            given.key,
            given.value,
            given.query_start_loc,
            given.key_start_loc,
            given.max_query_len,
            given.max_key_len,
            geometry,
            scores,
            given.out,
            given.lse,
        )

    def prefill(self, given: LatentPrefill, layer: Layer) -> Dispatch:
        return self._methods.prefill(
            given.query,
            given.key,
            given.kv_b_proj,
            given.cache,
            self._batch(given.batch),
            *self._layer(layer),
            given.out,
            given.lse,
            **({"workspace_tokens": self._at_once} if self._at_once else {}),
        )

    def write_index(
        self, rows: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor, geometry: Geometry
    ) -> Dispatch:
        return self._methods.write_index(rows, cache, slots, self._geometry(geometry))

    def select(
        self,
        query: torch.Tensor,
        weights: torch.Tensor,
        cache: torch.Tensor,
        batch: Batch,
        out: torch.Tensor,
    ) -> Dispatch:
        limit = {"logits_at_once": self._at_once} if self._at_once else {}
        return self._methods.select(query, weights, cache, self._batch(batch), out, **limit)

    def _geometry(self, geometry: Geometry) -> object:
        return self._types.Geometry(**vars(geometry))

    def _batch(self, batch: Batch) -> object:
        return self._types.Batch(**vars(batch))

    def _layer(self, layer: Layer) -> tuple[object, object, object]:
        scores = self._types.Scores(**vars(layer.scores))
        return self._geometry(layer.geometry), scores, self._types.Scales(**vars(layer.scales))
