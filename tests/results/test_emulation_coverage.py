"""The coverage of emulated kernels: what a process saw first, sums over a run, words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from conformance.config import RunConfig
from conformance.devices.kernel import Kernel
from conformance.devices.recorder import Compilation, Ran, Recorder
from conformance.devices.resources import resources_of
from conformance.devices.spelling import parse_device
from conformance.problems.tiers import default_tier
from conformance.results import CaseResult, Outcome
from conformance.results.emulation_coverage import Coverage, counts_of, coverage_of, rows, sentence


def case_of(name: str, counts: dict[str, int]) -> CaseResult:
    return CaseResult(
        suite="parity",
        name=name,
        outcome=Outcome.PASSED,
        cells=(),
        subject="reference",
        subject_version="",
        edition="0.19",
        requirement="PAR-001",
        source="",
        target="",
        platform="",
        backend="",
        simulated=True,
        seed=0,
        message="",
        detail="",
        reproduce="",
        seconds=0.0,
        counts=counts,
    )


def test_a_process_counts_an_instruction_once() -> None:
    """A second compilation of a kernel is more instructions; a second launch of one is not."""
    device = parse_device("isa:gfx942")
    text = "nothing"
    resources = resources_of(text, 0, 1, device.facts)
    kernel = Kernel("k", text, 0, 1, 64, resources)
    other = replace(kernel, text="other code of the same configuration")
    recorder = Recorder(device)

    def launched(kernel: Kernel, executed: set[int]) -> dict[str, Any]:
        compilations = {kernel.text: Compilation(10, executed)}
        recorder.ran[kernel.key] = Ran(kernel, 1, 0.1, 40, compilations)
        return counts_of(recorder.collect()["kernels"])

    name = {"executed k": 3, "instructions k": 10, "wave instructions": 40}
    assert launched(kernel, {0, 1, 2}) == name
    assert launched(kernel, {1, 2, 7}) == {**name, "executed k": 1, "instructions k": 0}
    assert launched(other, {0, 1}) == {**name, "executed k": 2}


def test_sums_over_a_run() -> None:
    one = case_of("a", {"executed k": 3, "instructions k": 10, "ran unified_2d": 1})
    two = case_of("b", {"executed k": 4, "instructions j": 4, "executed j": 4})
    found = coverage_of([one, two, one])
    assert found == [Coverage("j", 4, 4), Coverage("k", 7, 10)]
    assert sentence(found) == "78.6% of 14 instructions of 2 kernels executed"
    assert rows(found)[1] == ("k", "10", "7", "70.0%")
    assert coverage_of([case_of("a", {"ran unified_2d": 1})]) == []
    assert sentence([]) == ""


def test_what_is_emulated_gets_problems_for_it() -> None:
    for device, tier in (("interpreter", "standard"), ("gpu", "gpu"), ("isa:gfx942", "isa")):
        asked = RunConfig((), (), device=device, tier=default_tier(device))
        assert asked.on_device("interpreter").tier == tier
