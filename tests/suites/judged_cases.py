"""A case of parity whose backend is a function of the test: what becomes of its answers."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from conformance.config import RunConfig
from conformance.matrix.requests import Platform
from conformance.problems.problem import Problem
from conformance.subjects.kernels import Attended
from conformance.suites.case import Context, Measured
from conformance.suites.parity import harness
from conformance.suites.parity.case import ParityCase

GFX942 = Platform.make("gfx942")


def judged(
    attend: Callable[..., Attended], problem: Problem, device: str, patch: pytest.MonkeyPatch
) -> Measured:
    """``attend`` stands in for the harness's: it is given the same."""
    patch.setattr(harness, "attend", attend)
    config = RunConfig(("reference",), ("rocm72-noaiter-mha",), ("parity",), device=device)
    case = ParityCase(
        *("parity", "parity", "reference", "PAR-004", GFX942, (), GFX942),
        problem=problem,
        backend=problem.backend,
        device=device,
    )
    # Of the workers only the card is read.
    workers: Any = SimpleNamespace(card="")
    return harness.run_problem(case, problem, Context(config), workers)
