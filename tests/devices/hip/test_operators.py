"""A release's own host code chooses, and its kernels run, on every family of targets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conformance.cache import cache_root
from conformance.devices.hip.sources import Unit, device_source, host_functions, schema_of, unit_of
from tests.devices.hip.on_device import RELEASE

PROGRAM = Path(__file__).parent / "on_device.py"


def on_device(device: str, **told: Any) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), device, str(cache_root() / "hip"), json.dumps(told)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


# A workgroup of 20 x 3 lanes is part of a wave of 64, or one and a part of 32; the shape is a
# structure by value, LDS is allocated at launch.
@pytest.mark.parametrize("target", ["gfx90a", "gfx942", "gfx1100", "gfx1201"])
def test_the_host_code_chooses_the_kernel_and_its_launch(target: str) -> None:
    answer = on_device(
        f"isa:{target},poison", dtype="float16", kind="padded", bias=True, columns=60
    )
    assert answer["raised"] == ""
    assert answer["right"]
    assert answer["kernels"] == ["reversed_kernel<_Float16, 4>"]
    assert answer["origins"][0].startswith("csrc/cache_kernels.cu clang ")
    (ran,) = answer["collected"]["kernels"]
    assert ran["launches"] == 1
    assert ran["num_warps"] == (1 if target.startswith("gfx9") else 2)
    assert ran["resources"]["lds"] == 4 * 64
    assert ran["executed"] > 0


def test_another_dtype_and_kind_is_another_kernel() -> None:
    answer = on_device("isa:gfx942,poison")
    assert answer["right"]
    assert answer["kernels"] == ["reversed_kernel<float, 0>"]


def test_workgroups_of_several_waves_wait_for_each_other() -> None:
    answer = on_device("isa:gfx942,poison,serial", columns=300)
    assert answer["right"]
    assert answer["collected"]["kernels"][0]["num_warps"] == 5


def test_a_compile_only_device_compiles_and_runs_nothing() -> None:
    answer = on_device("aot:gfx942")
    assert answer["raised"] == ""
    assert not answer["right"]
    (compiled,) = answer["collected"]["kernels"]
    assert compiled["launches"] == 1
    assert compiled["executed"] == 0
    assert compiled["resources"]["vgprs"] > 0


def test_a_check_of_the_host_code_speaks_for_itself() -> None:
    strided = on_device("isa:gfx942", strided=True)
    assert "rows must follow one another, strides are 61" in strided["raised"]
    assert strided["kernels"] == []
    other = on_device("isa:gfx942", dtype="float64")
    assert "is not implemented for ScalarType" in other["raised"]


def test_arguments_must_be_those_of_the_operator() -> None:
    assert "takes 6 arguments and was given 5" in on_device("isa:gfx942", too_few=True)["raised"]


def test_an_access_outside_the_tensors_is_a_violation() -> None:
    answer = on_device("isa:gfx942", rows_less=1)
    assert "past the end of out by workgroup (" in answer["raised"]
    assert answer["collected"]["violations"][0]["kernel"] == "reversed_kernel<float, 0>"


def test_a_barrier_that_is_gone_is_seen(tmp_path: Path) -> None:
    release = tmp_path / "release"
    shutil.copytree(RELEASE, release)
    path = release / "csrc" / "cache_kernels.cu"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("__syncthreads();", ""), encoding="utf-8")
    whole = on_device("isa:gfx942,poison,serial", columns=300)
    broken = on_device("isa:gfx942,poison,serial", columns=300, release=str(release))
    assert whole["right"]
    assert broken["raised"] == ""
    assert not broken["right"]


def test_schemas_are_those_that_the_release_declares() -> None:
    assert schema_of(RELEASE, "reshape_and_cache") == (
        "reshape_and_cache(Tensor! out, Tensor in, str kind, float factor, int across, "
        "Tensor? bias) -> ()"
    )


def test_device_code_is_without_host_functions() -> None:
    unit = unit_of(RELEASE, "reshape_and_cache")
    assert unit == Unit(RELEASE, "csrc/cache_kernels.cu")
    assert host_functions(unit.text) == ["other", "reshape_and_cache"]
    source = device_source(unit, "void reversed_kernel<float, 0>(float*, float const*)")
    assert "template __global__ void reversed_kernel<float, 0>(float*, float const*);" in source


def test_what_a_macro_cannot_hide_is_not_hidden() -> None:
    text = (
        "void plain(int a) {}\n"
        "template <int N>\nvoid of_template(int a) {}\n"
        "__global__\nvoid kernel(int a) {}\n"
        "// said before\nvoid after_comment(int a) {}\n"
        "void as_kernel(int a) { k::as_kernel<int><<<1, 1>>>(a); }\n"
        "#define X 1\nvoid after_macro(\n    int a) {}\n"
    )
    assert host_functions(text) == ["plain", "after_comment", "after_macro"]
