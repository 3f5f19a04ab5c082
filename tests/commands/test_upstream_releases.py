"""``upstream`` on two releases' own tests, from their source distributions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from conformance.cli import run_cli
from conformance.results import Outcome, read_results
from conformance.subjects.vllm.environment import prepare
from conformance.suites.upstream import machine
from tests.suites.released_kernels import Change, broken_copy

DECODE = "tests/kernels/attention/test_triton_decode_attention.py"
LATENT = "tests/v1/attention/test_mla_backends.py"
RIGHT = "acc / e_sum,\n        mask=mask_d,\n    )\n    lse_val"


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.parametrize("device", ["interpreter", "isa:gfx942"])
@pytest.mark.parametrize("release", ["0.19.0", "0.33.0"])
def test_a_release_s_decode_tests_run(release: str, device: str, tmp_path: Path) -> None:
    words = ["upstream", "--subject", f"vllm=={release}", "--device", device]
    size = ["--file", DECODE, "--sample", "2", "--limit", "120", "--results", str(tmp_path)]
    assert run_cli([*words, *size]) == 0
    cases = read_results(tmp_path / "results.jsonl").cases
    assert {case.name.partition("::")[0] for case in cases} == {DECODE}
    assert any(case.outcome is Outcome.PASSED for case in cases)


@pytest.mark.slow
@pytest.mark.vllm
def test_a_fault_in_a_release_s_kernel_ends_it_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own tests of MLA pass, until what adds up the parts of a decode does it wrongly."""
    words = ["upstream", "--subject", "vllm==0.19.0", "--device", "interpreter", "-n", "1"]
    words += ["--file", LATENT, "--limit", "240", "--results", str(tmp_path / "r")]
    assert run_cli(words) == 0
    wrong = RIGHT.replace("e_sum", "e_sum * 1.5", 1)
    fault = Change("triton_decode_attention.py", RIGHT, wrong)
    broken_copy(prepare("0.19.0").root, tmp_path / "broken", [fault])
    real = machine.environment

    def with_fault(*arguments: Any) -> dict[str, str]:
        made = real(*arguments)
        return made | {
            "PYTHONPATH": os.pathsep.join([str(tmp_path / "broken"), made["PYTHONPATH"]])
        }

    monkeypatch.setattr(machine, "environment", with_fault)
    assert run_cli(words) == 1
    failed = [
        case
        for case in read_results(tmp_path / "r" / "results.jsonl").cases
        if case.outcome is Outcome.FAILED
    ]
    assert failed and all(case.counts == {"failed": 1} for case in failed)
    # The page that is written of it says so, too.
    page = ["upstream", "--results", str(tmp_path / "r"), "--page", str(tmp_path)]
    assert run_cli(page) == 1
    assert "**not explained**" in (tmp_path / "upstream-results.md").read_text(encoding="utf-8")
