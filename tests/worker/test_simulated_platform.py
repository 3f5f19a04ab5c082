"""The simulated platform: a process sees that machine's packages, and none of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conformance.devices.targets import target_facts
from conformance.worker.vllm import machine

PROGRAM = """
import importlib, json, sys
from importlib.util import find_spec
from conformance.worker.vllm import simulated_platform as simulation

target, present = json.loads(sys.argv[1])
simulation.install(target, present)
out = {{}}
{body}
print(json.dumps(out))
"""


def simulated(
    body: str,
    tmp_path: Path,
    target: str = "gfx942",
    *,
    aiter: bool = False,
    flash_attn: bool = False,
    installed: tuple[str, ...] = (),
) -> dict[str, Any]:
    """What ``body`` left in ``out`` in a simulated process; ``installed``: packages that it has."""
    for name in installed:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("REAL = True\n")
    present = {"aiter": aiter, "flash_attn": flash_attn}
    program = PROGRAM.format(body=body)
    first = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", first + program, json.dumps([target, present])],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


STATED = ("aiter", "flash_attn")
FIND = "out = {name: find_spec(name) is not None for name in simulation.STATED}"


@pytest.mark.parametrize("aiter", [True, False])
@pytest.mark.parametrize("flash_attn", [True, False])
@pytest.mark.parametrize("installed", [(), STATED], ids=["bare", "installed"])
def test_exactly_the_packages_that_the_platform_states_are_found(
    aiter: bool, flash_attn: bool, installed: tuple[str, ...], tmp_path: Path
) -> None:
    found = simulated(FIND, tmp_path, aiter=aiter, flash_attn=flash_attn, installed=installed)
    assert found == {"aiter": aiter, "flash_attn": flash_attn}


def test_a_hidden_package_cannot_be_imported_although_installed(tmp_path: Path) -> None:
    body = """
for name in ("aiter", "aiter.ops"):
    try:
        importlib.import_module(name)
    except ImportError as error:
        out[name] = type(error).__name__
"""
    found = simulated(body, tmp_path, installed=("aiter",))
    assert found == {"aiter": "ModuleNotFoundError", "aiter.ops": "ModuleNotFoundError"}


def test_a_package_that_was_imported_before_is_hidden_too(tmp_path: Path) -> None:
    body = """
sys.modules["aiter"] = json
simulation.install(target, present)
out["left"] = "aiter" in sys.modules
"""
    assert simulated(body, tmp_path) == {"left": False}


def test_a_stand_in_takes_the_place_of_what_is_installed(tmp_path: Path) -> None:
    body = """
import aiter
from aiter.ops.triton import unified_attention
out["real"] = "REAL" in vars(aiter)
out["below"] = sys.modules["aiter.ops.triton"].__name__
"""
    found = simulated(body, tmp_path, aiter=True, installed=("aiter",))
    assert found == {"real": False, "below": "aiter.ops.triton"}


def test_real_work_with_a_stand_in_raises_and_names_it(tmp_path: Path) -> None:
    body = """
import aiter
import aiter.ops.mha as mha
for used in (aiter.rms_norm, mha.flash_attn_func):
    try:
        used(1, key=2)
    except RuntimeError as error:
        out[used.__name__] = str(error)
out["dunder"] = hasattr(aiter, "__version__")
"""
    found = simulated(body, tmp_path, aiter=True)
    assert found == {
        "rms_norm": "aiter.rms_norm is simulated: it cannot compute",
        "flash_attn_func": "aiter.ops.mha.flash_attn_func is simulated: it cannot compute",
        "dunder": False,
    }


def test_the_aiter_that_is_stood_in_for_is_new_enough_for_every_release(tmp_path: Path) -> None:
    """vLLM 0.30 reads from this signature whether latent decode can be other than causal."""
    body = """
import inspect
from aiter.mla import mla_decode_fwd
out["parameters"] = list(inspect.signature(mla_decode_fwd).parameters)
try:
    mla_decode_fwd(causal=False)
except RuntimeError as error:
    out["used"] = str(error)
"""
    assert simulated(body, tmp_path, aiter=True) == {
        "parameters": ["causal"],
        "used": "aiter.mla.mla_decode_fwd is simulated: it cannot compute",
    }


def test_no_gpu_is_visible_in_either_makers_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM keeps Triton on where the variable that it reads is empty: HIP's from 0.25 on."""
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "3")
    # What the call sets and takes away is put back.
    monkeypatch.setattr(os, "environ", dict(os.environ))
    machine.set_environment({}, simulated=True)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == os.environ["HIP_VISIBLE_DEVICES"] == ""
    os.environ["HIP_VISIBLE_DEVICES"] = "3"
    machine.set_environment({}, simulated=False)
    assert os.environ["HIP_VISIBLE_DEVICES"] == "3"


@pytest.mark.parametrize("target", ["gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1201"])
def test_amdsmi_shows_one_gpu_of_the_target(target: str, tmp_path: Path) -> None:
    body = """
import amdsmi
amdsmi.amdsmi_init()
handles = amdsmi.amdsmi_get_processor_handles()
out["gpus"] = len(handles)
out["asic"] = amdsmi.amdsmi_get_gpu_asic_info(handles[0])
amdsmi.amdsmi_shut_down()
try:
    amdsmi.amdsmi_get_power_info(handles[0])
except RuntimeError as error:
    out["unstated"] = str(error)
"""
    found = simulated(body, tmp_path, target)
    assert found["gpus"] == 1
    assert found["asic"]["target_graphics_version"] == target
    assert found["asic"]["market_name"] == target_facts(target).market_name
    assert found["unstated"] == "amdsmi.amdsmi_get_power_info is simulated: it cannot compute"


def test_nvidias_library_is_absent_although_installed(tmp_path: Path) -> None:
    body = """
import pynvml
out["real"] = hasattr(pynvml, "REAL")
for use in (pynvml.nvmlInit, pynvml.nvmlShutdown):
    try:
        use()
    except Exception as error:
        out[type(error).__name__.lower()] = isinstance(error, pynvml.NVMLError)
"""
    found = simulated(body, tmp_path, installed=("pynvml",))
    assert found == {"real": False, "nvmlerror": True}


def test_other_packages_and_their_metadata_are_untouched(tmp_path: Path) -> None:
    body = """
from importlib.metadata import version
importlib.invalidate_caches()
out["other"] = find_spec("other") is not None
out["similar"] = find_spec("aiterate") is not None
out["pytest"] = version("pytest")
"""
    found = simulated(body, tmp_path, installed=("other", "aiterate"))
    assert found == {"other": True, "similar": True, "pytest": pytest.__version__}
