"""vLLM 0.19.0's own HIP kernels, by its own host code: right as released, and no fault unseen."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.cache import cache_root
from conformance.devices.hip.clang import find_clang
from conformance.devices.hip.kernels import HipCode
from conformance.devices.hip.sources import host_functions, schema_of, unit_of
from conformance.subjects.vllm.environment import source_tree
from conformance.worker.vllm.hip_ops import OPERATORS
from tests.devices.hip.attention_faults import FAULTS

PROGRAM = Path(__file__).parent / "attention_faults.py"
# Of what the kernels make without a fault: half a place of float16 of outputs that are about 1.
USUAL = {"decode": 6e-4, "fp8": 1.2e-3, "write": 1.0}
# How far above that an error is one: two problems differ by less.
CAUGHT = 1.5

pytestmark = [pytest.mark.vllm, pytest.mark.xdist_group("hip attention")]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    scratch = tmp_path_factory.mktemp("scratch")
    arguments = [str(source_tree("0.19.0")), str(scratch), str(cache_root() / "hip")]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["name"]: line for line in lines}


@pytest.mark.slow
def test_the_released_kernels_are_right(outcomes: dict[str, dict[str, dict[str, float]]]) -> None:
    assert {k: v for k, v in outcomes[""]["usual"].items() if v > USUAL[k]} == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught(name: str, outcomes: dict[str, dict[str, str]]) -> None:
    found = outcomes[name]
    ratio = float(found["ratio"])
    assert math.isinf(ratio) or ratio > CAUGHT
    assert found["raised"] == "" or found["raised"].startswith("Violation"), found["raised"]


@pytest.mark.parametrize("release", ["0.19.0", "0.30.0", "0.33.0"])
def test_what_is_asked_of_a_release_is_there(release: str) -> None:
    """Its host code is in torch's classic API or in the stable one, in one file or in many."""
    root = source_tree(release)
    for operator in OPERATORS:
        unit = unit_of(root, operator)
        assert schema_of(root, operator).startswith(f"{operator}(")
        assert operator in host_functions(unit.text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "release",
    [
        *("0.18.1", "0.19.0", "0.20.2", "0.21.0", "0.22.1", "0.23.0", "0.24.0", "0.25.1"),
        *("0.26.0", "0.27.1", "0.28.0", "0.29.0", "0.30.0", "0.31.0", "0.32.0", "0.33.0"),
    ],
)
def test_the_host_code_of_every_release_compiles(release: str) -> None:
    code = HipCode(source_tree(release), "gfx942", 64, find_clang(), cache_root() / "hip")
    for operator in OPERATORS:
        assert code.host(operator).is_file()


def errors_of(target: str, ratio: int, lengths: tuple[int, ...]) -> dict[str, list[float | None]]:
    """0.30.0's decode: what ``unused_slots.py`` prints."""
    words = [str(source_tree("0.30.0")), str(cache_root() / "hip"), target, str(ratio)]
    command = [sys.executable, str(PROGRAM.with_name("unused_slots.py")), *words]
    done = subprocess.run(
        [*command, *map(str, lengths)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[float | None]] = json.loads(done.stdout.splitlines()[-1])
    return found


def are_right(errors: list[float | None]) -> list[bool]:
    return [error is not None and error < 2 * USUAL["decode"] for error in errors]


@pytest.mark.slow
@pytest.mark.parametrize(("target", "ratio"), [("gfx942", 4), ("gfx1201", 8), ("gfx942,masked", 8)])
def test_unused_slots_are_masked_from_0_30_on(target: str, ratio: int) -> None:
    """On gfx942 with more than 4 heads if lanes that are off bring zeros to a matrix product."""
    for filling, errors in errors_of(target, ratio, (5, 40, 100, 300)).items():
        assert all(are_right(errors)), (filling, errors)


@pytest.mark.slow
def test_lanes_that_leave_a_product_out_bring_what_they_hold() -> None:
    """docs/explanation/parity.md: clang 19 to 22 alike, where the products are as AMD's manuals
    have them. Another clang may be right: then the page wants a new look."""
    errors = errors_of("gfx942", 8, (63, 64, 256, 40, 100))
    for filling in ("zeros", "numbers", "NaN"):
        assert are_right(errors[filling])[:3] == [True] * 3, errors
    assert are_right(errors["numbers"])[3:] == [False] * 2
    assert are_right(errors["NaN"])[3:] == [False] * 2
