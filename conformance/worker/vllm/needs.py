"""Refuses what calls kernels that run on an AMD GPU only."""

from ..attend import Refused
from ..contract import BACKEND_NEEDS, needs_amd_gpu


def needs(*kernels: str) -> Refused:
    """The refusal of a case that calls these kernels, to be raised."""
    return Refused(needs_amd_gpu(*kernels))


def check_backend(name: str) -> None:
    """Refuses a backend that has no Triton kernel of vLLM's to decode with."""
    if name in BACKEND_NEEDS:
        raise needs(*BACKEND_NEEDS[name])
