"""Without a GPU: "cuda" tensors are the CPU's, and modules are met as they are imported."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.worker.without_gpu.after_import import after_import
from conformance.worker.without_gpu.endings import Ending, ending_of_error

ROOT = Path(__file__).parents[2]
LOADED = """
import importlib, runpy
runpy.run_path("conformance/worker/__main__.py")["load"]()
import torch
parts = {name: importlib.import_module(f"conformance_worker.without_gpu.{name}")
         for name in ("cuda_calls", "cpu_tensors")}
parts["cuda_calls"].install("gfx942")
parts["cpu_tensors"].install()
"""
ASKS = """
made = [
    torch.ones(2, device="cuda"), torch.ones(2, device="cuda:0"), torch.ones(2, device=0),
    torch.ones(2).to("cuda"), torch.ones(2).cuda(), torch.ones(2).pin_memory(),
    torch.ones(2).to(torch.device("cuda", 0), torch.float16), torch.ones(2, pin_memory=True),
    torch.ones(2).new_zeros(3, device="cuda"), torch.empty_like(torch.ones(2), device="cuda"),
    torch.tensor([1], device=torch.device("cuda")), torch.ones(2).to(device="cuda"),
    torch.rand(2, generator=torch.Generator(device="cuda"), device="cuda"),
]
with torch.device("cuda"):
    made.append(torch.ones(2))
torch.set_default_device("cuda")
made.append(torch.ones(2))
torch.set_default_device(None)
with torch.cuda.device(0), torch.cuda.stream(torch.cuda.Stream()):
    made.append(torch.arange(3, device="cuda") + 1)
torch.cuda.synchronize(); torch.cuda.manual_seed_all(0); torch.manual_seed(0)
assert {tensor.device.type for tensor in made} == {"cpu"}, made
assert not any(tensor.is_pinned() for tensor in made[:1])
assert torch.cuda.get_device_properties(0).gcnArchName == "gfx942"
assert torch.cuda.get_device_capability() == (9, 4)
start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
start.record(); end.record(); end.synchronize()
assert start.elapsed_time(end) >= 0
"""


def test_tensors_on_cuda_are_made_on_the_cpu() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LOADED + ASKS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_an_action_follows_the_import_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "met_later.py").write_text("value = 1", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = list(sys.meta_path)
    met: list[int] = []
    after_import("met_later", lambda module: met.append(module.value))
    assert importlib.util.find_spec("met_later") is not None
    assert met == []
    module = __import__("met_later")
    assert met == [1]
    assert sys.meta_path == before
    assert type(module.__loader__).__name__ == "SourceFileLoader"
    after_import("met_later", lambda _: met.append(2))
    assert met == [1, 2]
    del sys.modules["met_later"]


class Violation(Exception):  # noqa: N818 - the emulator's name
    pass


class UnknownInstructionError(Exception):
    pass


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "violations", "ended"),
    [
        (AssertionError("1 == 2"), [], "failed"),
        (ValueError("vLLM's own"), [], "failed"),
        (Violation("past the end"), [], "violated"),
        (AssertionError("values differ"), ["k: reads outside"], "violated"),
        (UnknownInstructionError("v_new_op"), [], "unsupported"),
        (MemoryError(), [], "unsupported"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), [], "unsupported"),
        (ModuleNotFoundError("No module", name="flashinfer"), [], "unsupported"),
        (ModuleNotFoundError("No module", name="vllm.gone"), [], "failed"),
        (RuntimeError("aiter.mha_fwd is simulated: it cannot compute"), [], "unsupported"),
    ],
)
def test_endings(error: BaseException, violations: list[str], ended: str) -> None:
    assert ending_of_error(raised(error), violations).ended == ended
    wrapped = raised(RuntimeError("launch failed"), raised(error))
    if ended in ("violated", "unsupported"):
        assert ending_of_error(wrapped, violations).ended == ended


def test_no_error_says_so() -> None:
    assert ending_of_error(None, []) == Ending("failed", "it ended without a reason")


REAL = """
import runpy, sys
sys.path[:0] = sys.argv[1:]
runpy.run_path("conformance/worker/__main__.py")["load"]()
from conformance_worker.vllm import simulated_platform
from conformance_worker.without_gpu import process
real = ("aiter",) if process.has_aiter() else ()
simulated_platform.install("gfx942", {"aiter": True, "flash_attn": False}, real)
import aiter.ops.triton.kernels as kernels
print(getattr(kernels, "made_here", "simulated"))
"""


@pytest.mark.parametrize(("folders", "found"), [(["real"], "really"), ([], "<function")])
def test_an_aiter_that_is_there_is_not_simulated(
    folders: list[str], found: str, tmp_path: Path
) -> None:
    package = tmp_path / "real" / "aiter" / "ops" / "triton"
    package.mkdir(parents=True)
    for folder in (package, *package.parents[:2]):
        (folder / "__init__.py").touch()
    (package / "kernels.py").write_text("made_here = 'really'", encoding="utf-8")
    paths = [str(tmp_path / folder) for folder in folders]
    said = subprocess.run(
        [sys.executable, "-c", REAL, *paths], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert said.startswith(found)
