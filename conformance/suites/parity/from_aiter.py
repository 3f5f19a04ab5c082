"""Backends of a subject whose kernels are aiter's Triton kernels, where its Python has aiter."""

from __future__ import annotations

from conformance.subjects.workers import WorkerSubject, worker_command
from conformance.suites.case import Context

# Of a vLLM's backends, those that call plain Triton of aiter's and nothing else of it to attend.
BACKENDS = ("ROCM_AITER_UNIFIED_ATTN",)
DEVICES = ("gpu", "isa:")


def from_aiter(context: Context, subject: str, backend: str) -> bool:
    """Whether a backend's problems go to the aiter in the subject's own Python."""
    if backend not in BACKENDS or not context.config.device.startswith(DEVICES):
        return False
    found = context.subject(subject)
    return isinstance(found, WorkerSubject) and found.libraries.get("aiter") == ""


def aiter_worker(context: Context, subject: str) -> tuple[list[str], dict[str, str]]:
    """The command of the worker that drives a subject's aiter, and its variables."""
    found = context.subject(subject)
    assert isinstance(found, WorkerSubject)
    return worker_command(found.python, "aiter"), found.environment
