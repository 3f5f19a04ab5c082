"""What a problem's kernels took of their target, on devices that compile them for one.

A Triton kernel that spills, or that takes more LDS than a workgroup has, computes right in an
emulator. It is a finding all the same, of the codegen suite's requirement. HIP kernels are not
judged: they are compiled here by another clang than the release's own.
"""

from __future__ import annotations

from collections.abc import Iterator

from conformance.devices import parse_device
from conformance.matrix.targets import target as known_target
from conformance.problems.problem import Problem
from conformance.results import Identity
from conformance.subjects.kernels import Attended
from conformance.suites.codegen.findings import Compiled, findings
from conformance.suites.codegen.identities import identity_of

LDS, SPILLS = "CGN-002", "CGN-003"
REQUIREMENTS = (LDS, SPILLS)
OUT_OF_LDS = "OutOfResources"


def target_of(device: str) -> str:
    """The AMD target that a device compiles for; "" for none."""
    return parse_device(device).target if device.startswith(("aot:", "isa:")) else ""


def resource_findings(
    device: str, problem: Problem, attended: Attended
) -> Iterator[tuple[str, Identity]]:
    """Each requirement about resources that is not met: a sentence, and what it is.

    Spills are judged of configurations that builds ship; none computes attention in float32.
    """
    target = target_of(device)
    if not target:
        return
    # One that was compiled again is listed again, with the same resources.
    triton = [kernel for kernel in attended.emulated if kernel["types"]]
    kernels = {(k["name"], str(k["resources"])): k for k in triton}.values()
    compiled = Compiled(tuple(kernels), attended.raised)
    for requirement in REQUIREMENTS if problem.dtype != "float32" else (LDS,):
        for text in findings(requirement, compiled, known_target(target)):
            identity = identity_of(requirement, text, compiled)
            yield text, Identity(identity.kind, identity.kernels, requirement=requirement)
