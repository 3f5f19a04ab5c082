"""Backends of a subject whose kernels are aiter's Triton kernels, where its Python has aiter."""

from __future__ import annotations

from conformance.subjects.workers import WorkerSubject
from conformance.suites.case import Context

# Of a vLLM's backends, those that call plain Triton of aiter's and nothing else of it to attend.
BACKENDS = ("ROCM_AITER_UNIFIED_ATTN",)
# Those whose problems aiter's other Triton kernels take, where there is no vLLM that would attend
# with something else.
ALONE = (*BACKENDS, "FLASH_ATTN", "ROCM_AITER_TRITON_MLA")
DEVICES = ("gpu", "isa:")


def from_aiter(context: Context, subject: str, backend: str) -> bool:
    """Whether a backend's problems go to the aiter in the subject's own Python."""
    if subject == "reference" or backend not in ALONE:
        return False
    if not context.config.device.startswith(DEVICES):
        return False
    found = context.subject(subject)
    if not isinstance(found, WorkerSubject) or found.libraries.get("aiter") != "":
        return False
    return backend in BACKENDS or found.libraries.get("vllm") != ""
