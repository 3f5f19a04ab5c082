"""Backends whose kernels are aiter's, for subjects whose Python has aiter."""

from __future__ import annotations

from conformance.subjects.spellings import SubjectKind, kind_of
from conformance.subjects.workers import WorkerSubject
from conformance.suites.case import Context

# vLLM backends whose attention uses only aiter's Triton kernels.
BACKENDS = ("ROCM_AITER_UNIFIED_ATTN",)
# Backends whose problems aiter's other Triton kernels take if no vLLM is installed beside it: a
# vLLM would attend with something else.
ALONE = (*BACKENDS, "FLASH_ATTN", "ROCM_AITER_TRITON_MLA")
DEVICES = ("gpu", "isa:")
# Likewise those that decode with aiter's code objects, which are executed by emulation.
ASSEMBLY = ("ROCM_AITER_FA", "ROCM_AITER_MLA")


def from_aiter(context: Context, subject: str, backend: str) -> bool:
    """Whether a backend's problems are given to the aiter in the subject's own Python."""
    if kind_of(subject) is not SubjectKind.VLLM or backend not in (*ALONE, *ASSEMBLY):
        return False
    devices = "isa:" if backend in ASSEMBLY else DEVICES
    if not context.config.device.startswith(devices):
        return False
    build = context.subject(subject)
    if not isinstance(build, WorkerSubject) or build.libraries.get("aiter") != "":
        return False
    return backend in BACKENDS or build.libraries.get("vllm") != ""
