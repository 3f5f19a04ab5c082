"""``upstream`` on two releases' own tests, from their source distributions."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.cli import run_cli
from conformance.results import Outcome, read_results

DECODE = "tests/kernels/attention/test_triton_decode_attention.py"


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
