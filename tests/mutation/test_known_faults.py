"""Which failures of a release's own kernels are none of a mutant's."""

from __future__ import annotations

from datetime import date
from typing import cast

import pytest

from conformance.config import RunConfig
from conformance.matrix.requests import Platform
from conformance.mutation.known_faults import KnownFaults
from conformance.requirements.waivers import Waiver, WaiverSet
from conformance.results import Identity
from conformance.suites.case import Context, Nonconformance
from conformance.suites.parity.case import ParityCase

WAIVER = Waiver(
    *("w", "PAR-080", "known", "https://example.org", date(2030, 1, 1), "vllm==0.19.*"),
    kernels=("f_kernel",),
    deviations=("window-one-short",),
)
KNOWN = KnownFaults(WaiverSet((WAIVER,), date(2026, 1, 1)))
SUBJECT = "/some/python"
CONFIG = RunConfig((SUBJECT,), ("*",), releases={SUBJECT: "0.19.0"}, editions={SUBJECT: "0.19"})
PLATFORM = cast(Platform, None)
CASE = ParityCase(
    *("parity", "parity", SUBJECT, "PAR-001", PLATFORM, ("a", "b"), PLATFORM), device="interpreter"
)


def accepted(*identities: Identity, requirement: str = "PAR-080") -> bool:
    findings = [f"finding {at}" for at, _ in enumerate(identities)]
    error = Nonconformance(
        "wrong", requirement=requirement, findings=findings, identities=identities
    )
    return KNOWN.accept(CASE, error, Context(CONFIG))


SEEN = Identity("wrong-value", ("f_kernel",), ("window-one-short",))


def test_what_a_waiver_accepts_is_none_of_a_mutant_s() -> None:
    assert accepted(SEEN)


@pytest.mark.parametrize(
    "other",
    [
        Identity("wrong-value", ("g_kernel",), ("window-one-short",)),
        Identity("wrong-value", ("f_kernel",)),
        Identity("wrong-value", ("f_kernel",), ("causal-mask-missing",)),
    ],
)
def test_a_fault_beside_a_known_one_is_noticed(other: Identity) -> None:
    assert not accepted(other)
    assert not accepted(SEEN, other)


def test_other_requirements_and_what_says_nothing_are_noticed() -> None:
    assert not accepted(SEEN, requirement="PAR-001")
    assert not accepted()
