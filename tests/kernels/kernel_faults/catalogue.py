"""All faults in kernels: what is wrong, where, and which problem must show it."""

from __future__ import annotations

from tests.kernels.kernel_faults import mla, paging, softmax, torch_backends

FAULTS = (*softmax.FAULTS, *paging.FAULTS, *torch_backends.FAULTS, *mla.FAULTS)
