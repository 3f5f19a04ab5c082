"""All seeded faults in the reference kernels."""

from __future__ import annotations

from tests.kernels.kernel_faults import (
    caches_and_segments,
    head_scaled,
    latent_attention,
    masks_and_softmax,
    newer_backends,
    packed_caches,
    rare_kinds,
    torch_backends,
    trees,
)

FAULTS = (
    *masks_and_softmax.FAULTS,
    *caches_and_segments.FAULTS,
    *torch_backends.FAULTS,
    *latent_attention.FAULTS,
    *rare_kinds.FAULTS,
    *newer_backends.FAULTS,
    *packed_caches.FAULTS,
    *head_scaled.FAULTS,
    *trees.FAULTS,
)
