"""Judges a wrong selector in this process: the selection suite's own cases, without pytest."""

from __future__ import annotations

from collections.abc import Sequence

from conformance.mutation import wrong_builds
from conformance.mutation.wrong_builds import JUDGES, Build, Failure, Judge
from tests.suites.faults.fault import Fault

__all__ = ["JUDGES", "failures"]


def failures(
    fault: Fault, judges: Sequence[Judge] = JUDGES, targets: tuple[str, ...] = ()
) -> list[Failure]:
    """The cases that a build with a fault fails; ``targets``: on these alone."""
    build = Build(f"worker:{fault.name}", fault.release, fault.selector_on)
    found = wrong_builds.failures(
        build, fault.series, fault.cells, sweep=300, examples=15, judges=judges, targets=targets
    )
    return list(found)
