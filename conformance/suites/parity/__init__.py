"""Whether every backend's kernels compute attention, to within a proven error bound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from conformance.config import RunConfig
from conformance.results import CaseResult
from conformance.suites.parity.artefacts import artefacts
from conformance.suites.parity.coverage import closing_cases
from conformance.suites.parity.options import (
    BACKEND,
    PROBLEM,
    SHRINK,
    SHRINK_SECONDS,
    left_out,
)
from conformance.suites.suite import Say, Suite


def _shrunk(
    config: RunConfig, cases: Sequence[CaseResult], folder: Path, say: Say
) -> Iterable[CaseResult]:
    if not config.suite_options.get("shrink"):
        return ()
    from conformance.suites.parity.shrink import (  # noqa: PLC0415 - it imports torch
        shrunk_cases,
    )

    return shrunk_cases(config, cases, folder, say)


SUITE = Suite(
    "parity",
    options=(PROBLEM, BACKEND, SHRINK, SHRINK_SECONDS),
    left_out=left_out,
    closing_cases=closing_cases,
    follow_ups=_shrunk,
    artefacts=artefacts,
    many_groups=lambda _config: True,
)
