"""Matrix products while lanes were off: what hardware does then is not known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from conformance.oracle.judgement import solve
from conformance.problems.problem import Problem
from conformance.problems.tensors import dtype_of
from conformance.subjects.kernels import Attended
from conformance.suites.case import Measured, Nonconformance
from conformance.suites.parity import harness
from conformance.suites.parity.case import ParityCase
from conformance.suites.parity.deviation import UNUSED_SLOTS
from tests.kernels.kernel_faults.problems import TRITON, decode
from tests.suites import judged_cases

PROBLEM = replace(decode(TRITON), query_lens=(1,), context_lens=(2,), dominant=())
DEVICE = "isa:gfx942"
# What is added to the right answer, by what unused slots hold and what lanes bring that are off.
Off = Callable[[str, str], float]


def judged(
    off: Off, monkeypatch: pytest.MonkeyPatch, *, were_off: bool = True
) -> tuple[Measured, list[tuple[str, str]]]:
    """What becomes of a case, and how its backend was asked."""
    asked = []

    def attend(
        _case: ParityCase,
        problem: Problem,
        _workers: object,
        tensors: Any,
        *,
        cache_filling: str = "",
        lanes_off: str = "",
    ) -> Attended:
        asked.append((cache_filling, lanes_off))
        kernel = {
            **{"name": "decode", "types": [], "wave_instructions": 1, "lines": {}},
            **{"newly_executed": int(len(asked) == 1), "newly_loaded": int(len(asked) == 1)},
            "lanes_off": were_off,
        }
        output = solve(problem, tensors).output.to(dtype_of(problem)) + off(*asked[-1])
        return Attended({"output": output}, ("decode",), (), "", "", 0.1, (kernel,))

    return judged_cases.judged(attend, PROBLEM, DEVICE, monkeypatch), asked


def test_what_is_right_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, asked = judged(lambda *_: 0.0, monkeypatch)
    assert (measured.proviso, asked) == ("", [("", "")])


@pytest.mark.parametrize("wrong", [1.0, torch.nan])
def test_what_is_right_with_zeros_alone_passes_with_a_proviso(
    wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it executed first is counted of the first run."""
    measured, asked = judged(lambda _, lanes: 0.0 if lanes else wrong, monkeypatch)
    assert asked == [("", ""), ("", "zero")]
    assert measured.proviso == harness.LANES_OFF
    assert measured.counts["executed decode"] == 1


def test_what_is_wrong_either_way_fails_as_it_does_with_zeros(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(Nonconformance, match="off by 1 where") as caught:
        judged(lambda _, lanes: 1.0 if lanes else torch.nan, monkeypatch)
    assert caught.value.measured is not None
    assert caught.value.measured.counts["executed decode"] == 1


def test_poison_is_looked_for_in_the_same_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN by poison with zeros in such lanes, too: unused slots are at fault, as ever."""
    with pytest.raises(Nonconformance) as caught:
        judged(lambda filling, _: 0.0 if filling else torch.nan, monkeypatch)
    assert caught.value.requirement == UNUSED_SLOTS


def test_without_lanes_that_were_off_nothing_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Nonconformance, match="off by 1 where"):
        judged(lambda _, lanes: 0.0 if lanes else 1.0, monkeypatch, were_off=False)
