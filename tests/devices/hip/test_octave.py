"""ROCM_OCTAVE's kernels in vLLM 0.33.0, by its own host code: right, and no fault unseen."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.cache import cache_root
from conformance.devices.hip.sources import OCTAVE, Unit, device_source, schema_of, unit_of
from conformance.subjects.vllm.environment import source_tree
from tests.devices.hip.octave_faults import FAULTS, PROBLEMS

PROGRAM = Path(__file__).parent / "octave_faults.py"
RELEASE = "0.33.0"

pytestmark = [pytest.mark.vllm, pytest.mark.xdist_group("hip octave")]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    scratch = tmp_path_factory.mktemp("scratch")
    words = [str(source_tree(RELEASE)), str(scratch), str(cache_root() / "hip"), "gfx942"]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["name"] or line["problem"]: line for line in lines}


def is_right(found: dict[str, str]) -> bool:
    return not found["raised"] and not int(found["wrong"]) and float(found["ratio"]) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_released_kernels_are_right(problem: str, outcomes: dict[str, dict[str, str]]) -> None:
    assert is_right(outcomes[problem]), outcomes[problem]


@pytest.mark.slow
def test_each_kernel_is_reached(outcomes: dict[str, dict[str, str]]) -> None:
    ran = {kernel for problem in PROBLEMS for kernel in outcomes[problem]["kernels"]}
    assert ran == {
        *("octave::store_kernel", "octave::decode_kernel", "octave::rotate_kernel"),
        *("octave_mfma::decode_mfma", "octave_mfma::reduce_mfma"),
        *("octave_cdna::prefix_attn", "octave_cdna::chunk_attn"),
    }


@pytest.mark.slow
def test_unused_slots_reach_a_decode(outcomes: dict[str, dict[str, str]]) -> None:
    """The finding that PARITY-UNUSED-SLOTS-OCTAVE waives."""
    assert math.isinf(float(outcomes["unused"]["ratio"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught(name: str, outcomes: dict[str, dict[str, str]]) -> None:
    found = outcomes[name]
    assert not is_right(found), found
    assert not found["raised"] or found["raised"].startswith("Violation"), found["raised"]


def test_what_is_asked_of_a_release_is_there() -> None:
    root = source_tree(RELEASE)
    for operator in OCTAVE:
        unit = unit_of(root, operator)
        assert operator in unit.whole
        assert schema_of(root, operator).startswith(f"{operator}(")


def test_a_kernel_is_found_in_the_file_of_its_namespace() -> None:
    unit = unit_of(source_tree(RELEASE), "octave_prefill")
    folder = "csrc/attention/"
    for space, name, file in (
        ("octave_cdna", "chunk_attn", "octave_prefill_cdna.cu"),
        ("octave_pf", "chunk_attn", "octave_prefill_rdna3.cu"),
        ("octave_mfma", "decode_mfma<4, false>", "octave_decode_mfma_cdna.cu"),
        ("octave", "store_kernel<4, false, __half>", "octave_attn.cu"),
    ):
        found = unit.of_kernel(f"void {space}::{name}(int)")
        assert found == Unit(unit.root, f"{folder}{file}")


def test_device_code_ends_before_the_host_code() -> None:
    unit = Unit(source_tree(RELEASE), "csrc/attention/octave_attn.cu")
    source = device_source(unit, "void octave::store_kernel<4, false, __half>(int)")
    assert "store_kernel(" in source
    assert "void octave_cache_store(" not in source
    assert source.count("#if") == source.count("#endif")
    assert source.splitlines()[-1].startswith("template __global__ void octave::store_kernel<4")
