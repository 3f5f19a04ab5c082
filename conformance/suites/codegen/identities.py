"""What a codegen finding is, in words that a waiver can name: its kind and the kernel."""

from __future__ import annotations

from conformance.results import Identity
from conformance.suites.codegen.findings import AS_SERVED, Compiled

KINDS = {
    "CGN-001": "compile-error",
    "CGN-002": "lds",
    "CGN-003": "spill",
    "CGN-004": "no-matrix",
    "CGN-005": "encoding",
    "CGN-006": "no-fp8",
    "CGN-007": "launch",
    "CGN-008": "waits",
    "CGN-009": "hazards",
    "CGN-014": "no-kernel",
}


def identity_of(requirement: str, text: str, compiled: Compiled) -> Identity:
    """What a finding is; one that names no kernel is about the call's only one, or all."""
    names = tuple(dict.fromkeys(str(kernel["name"]) for kernel in compiled.kernels))
    named = tuple(name for name in names if text.startswith(f"{name}: "))
    kind = KINDS[AS_SERVED.get(requirement, requirement)]
    return Identity(kind, named or names)
