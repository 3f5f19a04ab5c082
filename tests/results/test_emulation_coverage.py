"""The coverage of emulated kernels: what a process saw first, sums over a run, words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from conformance.config import RunConfig
from conformance.devices.kernel import Kernel
from conformance.devices.recorder import Compilation, Ran, Recorder
from conformance.devices.resources import resources_of
from conformance.devices.spelling import parse_device
from conformance.problems.tiers import default_tier
from conformance.reports.junit_writer import write_junit
from conformance.results import CaseResult, Outcome
from conformance.results.emulation_coverage import (
    Coverage,
    counts_of,
    coverage_of,
    lines_of,
    rows,
    sentence,
)
from conformance.suites.parity.artefacts import artefacts


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
        lines = ("", "/k.py:4", "/k.py:4", "/k.py:9", *[""] * 6)
        compilations = {kernel.text: Compilation(10, executed, lines)}
        recorder.ran[kernel.key] = Ran(kernel, 1, 0.1, 40, compilations)
        return counts_of(recorder.collect()["kernels"])

    name = {"executed k": 3, "instructions k": 10, "wave instructions": 40}
    lines = {"line /k.py:4": 2, "line /k.py:9": 0}
    assert launched(kernel, {0, 1, 2}) == {**name, **lines}
    later = {**name, "executed k": 2, "instructions k": 0, "line /k.py:9": 1}
    assert launched(kernel, {1, 3, 7}) == later
    assert launched(other, {0, 1}) == {**name, "executed k": 2, **lines, "line /k.py:4": 1}


def test_sums_over_a_run() -> None:
    one = case_of("a", {"executed k": 3, "instructions k": 10, "ran unified_2d": 1})
    two = case_of("b", {"executed k": 4, "instructions j": 4, "executed j": 4})
    found = coverage_of([one, two, one])
    assert found == [Coverage("j", 4, 4), Coverage("k", 7, 10)]
    assert sentence(found) == "78.6% of 14 instructions of 2 kernels executed"
    assert rows(found)[1] == ("k", "10", "7", "70.0%")
    assert coverage_of([case_of("a", {"ran unified_2d": 1})]) == []
    assert sentence([]) == ""


def test_source_lines_of_a_run(tmp_path: Path) -> None:
    """A trace that lcov's tools read, and the source with the counts beside it."""
    source = tmp_path / "k.py"
    source.write_text("def k():\n    a = 1\n    b = 2\n")
    one = case_of("a", {f"line {source}:2": 3, f"line {source}:3": 0, "line gone.py:7": 1})
    two = case_of("b", {f"line {source}:2": 1})
    assert lines_of([one, two, one]) == {str(source): {2: 4, 3: 0}, "gone.py": {7: 1}}
    told = [*artefacts([one, two], tmp_path)]
    assert told == []  # nothing was emulated
    emulated = case_of("c", {"executed k": 3, "instructions k": 4})
    told = [*artefacts([one, two, emulated], tmp_path)]
    assert told[-1].startswith("source lines of kernels that were executed, in 2 files: ")
    trace = (tmp_path / "isa-coverage.info").read_text()
    record = f"TN:\nSF:{source}\nDA:2,4\nDA:3,0\nLH:1\nLF:2\nend_of_record\n"
    assert record in trace and trace.count("end_of_record") == 2
    shown = (tmp_path / "isa-lines.txt").read_text().splitlines()
    assert f"{source}: 1 of 2 lines with instructions executed" in shown
    assert "      4     2      a = 1" in shown and "      !     3      b = 2" in shown
    assert "            1  def k():" in shown and "      1     7" in shown


def test_lines_are_no_properties_of_a_junit_case(tmp_path: Path) -> None:
    case = replace(case_of("a", {"line /k.py:4": 2, "executed k": 3}), cells=("c",))
    write_junit([case], tmp_path)
    (written,) = tmp_path.glob("*.xml")
    assert "executed k" in written.read_text() and "k.py" not in written.read_text()


def test_what_is_emulated_gets_problems_for_it() -> None:
    for device, tier in (("interpreter", "standard"), ("gpu", "gpu"), ("isa:gfx942", "isa")):
        asked = RunConfig((), (), device=device, tier=default_tier(device))
        assert asked.on_device("interpreter").tier == tier
