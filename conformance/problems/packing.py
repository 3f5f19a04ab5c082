"""Caches that pack a key and a value into one row of bytes, by name: what they hold."""

from __future__ import annotations

from typing import Protocol

import torch

from conformance.problems import octave_cache, packed_caches
from conformance.problems.cache_dtypes import OCTAVE_CACHES


class Packing(Protocol):
    """A format, or several: what attention reads, and what all kernels store alike."""

    def stored_key(self, key: torch.Tensor, name: str) -> torch.Tensor: ...

    def stored_value(self, value: torch.Tensor, name: str) -> torch.Tensor: ...

    def settled_key(self, key: torch.Tensor, name: str) -> torch.Tensor: ...

    def settled_value(self, value: torch.Tensor, name: str) -> torch.Tensor: ...


def packing_of(name: str) -> Packing:
    """The module with the format of a cache of this name."""
    return octave_cache if name in OCTAVE_CACHES else packed_caches
