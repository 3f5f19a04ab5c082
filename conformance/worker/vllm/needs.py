"""Refuses what calls kernels that run on an AMD GPU only."""

from __future__ import annotations

from ..contract import BACKEND_NEEDS, needs_amd_gpu
from ..errors import Refused


def needs(*kernels: str) -> Refused:
    """The refusal of a case that calls these kernels, to be raised."""
    return Refused(needs_amd_gpu(*kernels))


def check_backend(name: str) -> None:
    """Refuses a backend that has no Triton kernel of vLLM's to decode with."""
    if name in BACKEND_NEEDS:
        raise needs(*BACKEND_NEEDS[name])
