"""The parity suite as users run it: exit codes, reports, and what counts as whose fault."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from conformance.errors import SuiteError
from conformance.mutation.edit import Edit
from conformance.mutation.kernel_copy import copy_kernels
from conformance.problems.families import problems_for
from conformance.results import CaseResult, Identity, Outcome, Run, read_results
from conformance.suites.parity.coverage import RAN, REFERENCE_KERNELS, kernels_reached

CELL = "rocm62-aiter-mha"
SEED = 0
# Little: two sequences of one token, about as many keys as a block has.
PROBLEM = next(
    problem
    for problem in problems_for("TRITON_ATTN", "quick", SEED)
    if "block_edge" in problem.tags
)
WRONG = Edit(
    "ops/softmax.py",
    "finish",
    "(maximum + tl.log2(divisor)) * LN2",
    "(maximum + tl.log2(divisor)) * LN2 + 1.0",
)
ATTENDS = "return unified_attention(...)"
RAISES = Edit(
    "backends/triton_attn.py",
    "TritonAttention.attend",
    ATTENDS,
    f'raise NotImplementedError("not on Tuesdays")\n{ATTENDS}',
)
DIES = replace(RAISES, replace=f"import os\nos.kill(os.getpid(), 9)\n{ATTENDS}")
CHECKOUT = Path(__file__).parents[2]


def kernels_of(case: CaseResult) -> list[str]:
    """The end of a failed case's message, which says what ran and is no finding."""
    return [f"kernels: {case.message.rpartition('kernels: ')[2]}"]


@dataclass(frozen=True)
class Ended:
    code: int
    run: Run
    said: str
    folder: Path

    @property
    def case(self) -> CaseResult:
        (case,) = self.run.cases
        return case


def judge(folder: Path, *edits: Edit) -> Ended:
    """The suite's verdict on one problem, with these edits in the kernels."""
    command = ["--suite", "parity", "--subject", "reference", "--problem", PROBLEM.id]
    command += ["--problems", "quick", "--seed", str(SEED), "--cell", CELL, "-n", "1"]
    return ended(["run", *command], folder, edits)


def ended(arguments: list[str], folder: Path, edits: tuple[Edit, ...]) -> Ended:
    copy = copy_kernels(folder / "edited", edits)
    results = folder / "results"
    process = subprocess.run(
        [sys.executable, "-P", "-m", "conformance", *arguments, "--results", str(results)],
        env={**os.environ, "PYTHONPATH": f"{copy}:{CHECKOUT}", "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    run = read_results(results / "results.jsonl")
    return Ended(process.returncode, run, process.stdout + process.stderr, folder)


def test_right_kernels_conform(tmp_path: Path) -> None:
    found = judge(tmp_path)
    assert found.code == 0, found.said
    assert found.case.outcome is Outcome.PASSED
    assert found.case.backend == "TRITON_ATTN"
    assert {f"{RAN}cache_write", f"{RAN}unified_2d"} <= found.case.counts.keys()
    measures = found.case.measures
    assert 0 < measures["error_over_bound"] <= 1
    assert 0 < measures["lse_error_over_bound"] <= 1
    assert {"max_error", "bound_at_max", "torch_error", "seconds"} <= measures.keys()
    (report,) = (tmp_path / "results").glob("junit-*.xml")
    (case,) = ET.parse(report).iter("testcase")
    properties = {p.get("name"): p.get("value") for p in case.iter("property")}
    assert properties["requirement"] == found.case.requirement
    assert properties["platform"] == "device interpreter"
    assert properties[f"counts.{RAN}unified_2d"] == "1"


def test_wrong_kernels_do_not_and_the_report_says_where(tmp_path: Path) -> None:
    first = judge(tmp_path / "first", WRONG)
    assert first.code == 1, first.said
    assert first.case.outcome is Outcome.FAILED
    for part in ("error/bound", "sequence ", "head", "log-sum-exp", "kernels: cache_write"):
        assert part in first.case.message
    (report,) = (tmp_path / "first" / "results").glob("junit-*.xml")
    (failure,) = ET.parse(report).iter("failure")
    assert "reproduce: rocm-conformance run" in f"{failure.get('message')}{failure.text}"
    words = shlex.split(first.case.reproduce)
    assert words[0] == "rocm-conformance"
    again = ended([*words[1:], "--cell", CELL, "-n", "1"], tmp_path / "again", (WRONG,))
    assert again.code == 1, again.said
    assert again.case.message == first.case.message
    assert first.case.findings
    assert first.case.message == "; ".join([*first.case.findings, *kernels_of(first.case)])


def test_a_backend_that_raises_has_failed(tmp_path: Path) -> None:
    found = judge(tmp_path, RAISES)
    assert found.code == 1, found.said
    assert found.case.outcome is Outcome.FAILED
    assert "TRITON_ATTN refused a problem that it admits" in found.case.message
    assert "NotImplementedError: not on Tuesdays" in found.case.message
    assert "backends/triton_attn.py" in found.case.detail


def test_a_worker_that_dies_is_no_verdict(tmp_path: Path) -> None:
    found = judge(tmp_path, DIES)
    assert found.code == 75, found.said
    assert found.case.outcome is Outcome.ERRORED
    assert "died" in found.case.message


# ---- every kernel is reached -----------------------------------------------------------------


def parity_case(ran: tuple[str, ...], **changes: object) -> CaseResult:
    case = CaseResult(
        suite="parity",
        name="PAR-003 TRITON_ATTN [a problem]",
        outcome=Outcome.PASSED,
        cells=(CELL,),
        subject="reference",
        subject_version="0.19",
        edition="0.19",
        requirement="PAR-003",
        source="",
        target="",
        platform="device interpreter",
        simulated=True,
        counts={f"{RAN}{kernel}": 1 for kernel in ran},
        backend="TRITON_ATTN",
    )
    return replace(case, **changes)  # type: ignore[arg-type] # any field


ALL = REFERENCE_KERNELS["TRITON_ATTN"]


def test_every_kernel_reached() -> None:
    cases = [parity_case(ALL[:2]), parity_case(ALL[2:])]
    (closing,) = kernels_reached(cases, "source")
    assert (closing.requirement, closing.outcome) == ("PAR-090", Outcome.PASSED)


@pytest.mark.parametrize("missing", ALL)
def test_a_kernel_that_is_not_reached(missing: str) -> None:
    ran = tuple(kernel for kernel in ALL if kernel != missing)
    (closing,) = kernels_reached([parity_case(ran)], "source")
    assert closing.outcome is Outcome.FAILED
    assert closing.message == f"TRITON_ATTN: no problem made it run {missing}"


@pytest.mark.parametrize("subject", ["vllm", "vllm==0.19.0", "/opt/python/bin/python"])
def test_every_spelling_of_a_vllm_is_held_to_vllm_s_kernels(subject: str) -> None:
    (closing,) = kernels_reached([parity_case(ALL, subject=subject)], "source")
    assert closing.outcome is Outcome.FAILED
    assert "triton_unified_attention.kernel_unified_attention_3d" in closing.message


def test_a_program_that_only_selects_has_no_kernels_to_reach() -> None:
    assert list(kernels_reached([parity_case(ALL, subject="worker:x")], "source")) == []


def test_a_backend_with_errored_cases_is_not_blamed_for_kernels() -> None:
    cases = [parity_case(()), parity_case((), outcome=Outcome.ERRORED)]
    assert list(kernels_reached(cases, "source")) == []


def test_a_backend_that_only_stopped_with_errors_is_not_blamed_for_kernels_too() -> None:
    """One problem that came to its end is enough to ask."""
    stopped = parity_case((), outcome=Outcome.FAILED, identities=(Identity("raised"),))
    left = parity_case((), outcome=Outcome.UNSUPPORTED)
    assert list(kernels_reached([stopped, left], "source")) == []
    wrong = parity_case((), outcome=Outcome.FAILED, identities=(Identity("wrong-value"),))
    for ended in (wrong, parity_case(ALL[:1])):
        (closing,) = kernels_reached([stopped, ended], "source")
        assert closing.outcome is Outcome.FAILED


# ---- what the suite stands on ----------------------------------------------------------------

PROBLEMS = """
import hashlib, json
from conformance.problems.families import backends, problems_for
for tier in ("quick", "standard"):
    made = [p.to_json() for b in backends() for p in problems_for(b, tier)]
    print(len(made), hashlib.sha256(json.dumps(made).encode()).hexdigest())
"""


def test_problems_are_the_same_in_every_process() -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROBLEMS],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    first, second = (process.communicate()[0] for process in started)
    assert len(first.splitlines()) == 2
    assert first == second


@pytest.mark.parametrize("repaired", [False, True])
def test_the_interpreter_has_bfloat16_and_fp8_only_once_repaired(repaired: bool) -> None:
    command = [sys.executable, str(CHECKOUT / "tests/devices/interpreter_arithmetic.py")]
    said = subprocess.run(
        [*command, *(["repaired"] if repaired else [])], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(said) == {
        "cast": repaired,
        "widen": True,
        "arithmetic": repaired,
        "comparison": repaired,
        "dot": repaired,
        "sum": repaired,
        "blocks": repaired,
        "masks": repaired,
        "float8": repaired,
    }


def test_lengths_that_do_not_fit_are_told() -> None:
    with pytest.raises(SuiteError, match="context_lens and query_lens differ in length"):
        replace(PROBLEM, query_lens=(1,)).check()
