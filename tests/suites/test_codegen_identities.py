"""What a codegen finding is: its kind, and the kernel that it names."""

from __future__ import annotations

from typing import Any

from conformance.results import KINDS
from conformance.suites.codegen.findings import Compiled
from conformance.suites.codegen.identities import KINDS as OF_REQUIREMENTS
from conformance.suites.codegen.identities import identity_of
from conformance.suites.codegen.test_codegen import REQUIREMENTS


def compiled(*names: str) -> Compiled:
    kernels: list[dict[str, Any]] = [{"name": name} for name in names]
    return Compiled(tuple(kernels))


def test_every_requirement_has_a_kind() -> None:
    assert set(REQUIREMENTS) <= OF_REQUIREMENTS.keys()
    assert set(OF_REQUIREMENTS.values()) <= set(KINDS)


def test_a_finding_is_about_the_kernel_that_it_names() -> None:
    spill = identity_of(
        "CGN-003", "a_kernel: 8 spilled vector registers", compiled("a", "a_kernel")
    )
    assert (spill.kind, spill.kernels) == ("spill", ("a_kernel",))


def test_a_finding_that_names_none_is_about_all() -> None:
    lds = identity_of("CGN-002", "OutOfResources: shared memory", compiled("a", "b", "a"))
    assert (lds.kind, lds.kernels) == ("lds", ("a", "b"))
