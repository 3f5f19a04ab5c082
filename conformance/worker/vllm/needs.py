"""Refuses backends that call kernels which run on an AMD GPU only."""

from __future__ import annotations

from ..errors import Refused
from ..other_kernels import BACKEND_NEEDS, needs_amd_gpu


def needs(*kernels: str) -> Refused:
    """The exception to raise for a case that calls these kernels."""
    return Refused(needs_amd_gpu(*kernels))


def check_backend(name: str) -> None:
    """Refuses a backend that does not decode with a Triton kernel of vLLM's."""
    if name in BACKEND_NEEDS:
        raise needs(*BACKEND_NEEDS[name])
