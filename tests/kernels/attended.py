"""What a paged backend makes of a workload of the benchmarks."""

from __future__ import annotations

from typing import cast

import torch

import tests.devices.interpreter  # noqa: F401 - before the kernels

# isort: split
from conformance.benchmarks.setup import Setup, filled, output
from rocm_reference.attention import Dispatch, PagedBackend
from rocm_reference.backends.registry import backend


def attended(setup: Setup, name: str) -> tuple[torch.Tensor, torch.Tensor, Dispatch]:
    """A backend's output, log-sum-exp and what ran."""
    kernel = cast("PagedBackend", backend(name))
    out = output(setup).fill_(float("nan"))
    lse = torch.empty(out.shape[:2])
    ran = kernel.attend(
        setup.query,
        setup.keys[setup.new],
        setup.values[setup.new],
        filled(setup, kernel),
        setup.batch,
        setup.geometry,
        setup.scores,
        setup.scales,
        out,
        lse,
    )
    return out.float(), lse, ran
