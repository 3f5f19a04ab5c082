"""Judges a wrong selector in this process: the selection suite's own cases, without pytest."""

from __future__ import annotations

from conformance.mutation import wrong_builds
from conformance.mutation.wrong_builds import Build, Failure
from tests.suites.faults.fault import EDITION, RELEASE, Fault


def failures(fault: Fault) -> list[Failure]:
    """The cases that a build with a fault fails."""
    build = Build(f"worker:{fault.name}", RELEASE, fault.selector_on)
    return list(wrong_builds.failures(build, EDITION, fault.cells, sweep=300, examples=15))
