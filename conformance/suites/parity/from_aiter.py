"""Backends of a subject whose kernels are aiter's Triton kernels, where its Python has aiter."""

from __future__ import annotations

from conformance.subjects.workers import WorkerSubject
from conformance.suites.case import Context

# Of a vLLM's backends, those that call plain Triton of aiter's and nothing else of it to attend.
BACKENDS = ("ROCM_AITER_UNIFIED_ATTN",)
DEVICES = ("gpu", "isa:")


def from_aiter(context: Context, subject: str, backend: str) -> bool:
    """Whether a backend's problems go to the aiter in the subject's own Python."""
    if subject == "reference" or backend not in BACKENDS:
        return False
    if not context.config.device.startswith(DEVICES):
        return False
    found = context.subject(subject)
    return isinstance(found, WorkerSubject) and found.libraries.get("aiter") == ""
