"""One thing that a backend is known to compute instead of attention: what it is, and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from conformance.oracle.attention import Reading
from conformance.oracle.judgement import Truth
from conformance.problems.problem import Problem
from conformance.problems.tensors import Tensors

UNUSED_SLOTS = "PAR-080"


def _as_before(reading: Reading, _target: str) -> Reading:
    return reading


@dataclass(frozen=True)
class Deviation:
    """One thing that a backend computes instead. ``waivers.toml`` names it, and ``says`` words it.

    ``shows``: whether it can show in a problem. ``reading``: a reading with the deviation in it,
    made from one without, on a target. ``truth``: what becomes of a truth. ``free``, ``overflows``
    and ``poisoned`` are rows and heads [T, H], or rows [T, 1], whose elements may be anything, or
    may be NaN or infinite, or that if unused slots are. ``kernel``: the start of the name of the
    one that does it, where others of the backend do not. ``requirement``: the one that it breaks,
    if it is not the backend's own.
    """

    name: str
    backend: str
    says: str
    shows: Callable[[Problem], bool]
    reading: Callable[[Reading, str], Reading] = _as_before
    truth: Callable[[Problem, Tensors, Truth], Truth] | None = None
    free: Callable[[Problem], torch.Tensor] | None = None
    overflows: Callable[[Problem], torch.Tensor] | None = None
    poisoned: Callable[[Problem], torch.Tensor] | None = None
    kernel: str = ""

    @property
    def requirement(self) -> str:
        return UNUSED_SLOTS if self.poisoned else ""
