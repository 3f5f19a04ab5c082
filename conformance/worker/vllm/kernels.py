"""vLLM's own attention behind the ``attend`` op: its backends by name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from ..contract import HIP_SOURCES
from ..errors import Refused
from ..interfaces import KernelSubject
from ..launches import Launches
from . import hip_ops, replaced_ops, simulated_gpu
from .backend import VllmBackend
from .dense import DenseBackend
from .head_scaled import TritonBackend
from .mla import LatentBackend
from .needs import check_backend
from .objects import BackendClass
from .octave import OctaveBackend
from .packed import PackedBackend
from .registry import Registry
from .segmented import SegmentedBackend
from .sparse_mla import SparseBackend
from .stand_ins import why_no_gpu, why_unknown
from .tree import TreeBackend
from .vit import VitSdpa
from .windowed import WindowedBackend

if TYPE_CHECKING:
    from ...devices.triton.driver import Driver

BACKENDS: dict[str, type[VllmBackend]] = {
    "TORCH_SDPA": VitSdpa,
    "TREE_ATTN": TreeBackend,
    "TRITON_ATTN": TritonBackend,
    "TRITON_MLA": LatentBackend,
    "ROCM_OCTAVE": OctaveBackend,
    "ROCM_SEGMENTED_ATTN": SegmentedBackend,
    "ROCM_AITER_MLA_SPARSE": SparseBackend,
    "ROCM_FLASHMLA_SPARSE_DSV4": WindowedBackend,
    "TURBOQUANT": PackedBackend,
    "ULTRAQUANT": PackedBackend,
}
# AITER's, but for what newer releases have Triton kernels of their own for.
PARTLY = ("ROCM_AITER_MLA_SPARSE",)


class VllmKernels(KernelSubject):
    """The backends of an imported vLLM on one platform.

    ``simulated``: there is no AMD GPU here, so the ops that are not Triton are replaced by name, or
    refused; HIP ops run if the device of ``driver`` emulates their kernels; ``no_hip``: why they do
    not on one that could. ``registry``: vLLM's backends by name.
    """

    def __init__(
        self,
        registry: Registry,
        target: str,
        device: torch.device,
        driver: Driver | None = None,
        *,
        simulated: bool,
    ) -> None:
        super().__init__(device)
        self.target = target
        self.simulated = simulated
        self.launches = Launches()
        self._registry = registry
        self.no_hip = ""
        if simulated:
            hip, why_not = False, ""
            # On aot devices only where sources are given: who asks there is after HIP kernels.
            if driver is not None and (driver.name.kind == "isa" or HIP_SOURCES in os.environ):
                why_not = hip_ops.install(self.launches, driver)
                hip = not why_not
            self.no_hip = why_not
            replaced_ops.install(self.launches, why_not, hip=hip)
            simulated_gpu.install(target)

    def backend(self, name: str) -> VllmBackend:
        """A backend; raises ``Refused`` if nothing of it can run here."""
        if self.simulated and name not in PARTLY:
            check_backend(name)
        return BACKENDS.get(name, DenseBackend)(self, name)

    def why_unknown(self, error: Exception) -> str:
        return why_unknown(error) or (why_no_gpu(error) if self.simulated else "")

    def class_of(self, name: str) -> BackendClass:
        """vLLM's class of a backend."""
        if name not in self._registry.members:
            raise Refused(f"this vLLM has no backend {name}")
        try:
            cls: BackendClass = self._registry.members[name].get_class()
        except ImportError as error:
            raise Refused(f"vLLM cannot import {name}: {error}") from error
        return cls
