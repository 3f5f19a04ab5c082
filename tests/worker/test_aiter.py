"""aiter as a subject: found without being imported, its Triton kernels compiled and executed.

The aiter here is a few lines of this suite: a package that cannot be imported, like aiter without
ROCm, with one function and its Triton kernel below it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conformance.oracle.judgement import judge, solve
from conformance.problems.aiter import aiter_problems
from conformance.problems.families import backends
from conformance.problems.problem import Problem
from conformance.problems.tensors import materialise
from conformance.subjects.base import Options
from conformance.subjects.kernels import KernelWorker
from conformance.subjects.vllm.builds import other_interpreter
from conformance.subjects.workers import WORKER, WorkerSubject
from conformance.suites.parity.aiter_backends import ALONE, from_aiter
from conformance.worker import inventory

NEEDS_ROCM = 'raise ImportError("no ROCm here")\n'
KERNEL = """
import torch, triton
import triton.language as tl
from aiter.ops.triton.utils.arch import ARCH, UNITS

@triton.jit
def attention_kernel(q, k, v, out, table, starts, lens, scale, columns, FACTOR: tl.constexpr,
                     H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, B: tl.constexpr,
                     SEQS: tl.constexpr):
    token, head = tl.program_id(0), tl.program_id(1)
    seq = 0
    for s in range(1, SEQS):
        seq = tl.where(tl.load(starts + s) <= token, s, seq)
    last = tl.load(lens + seq) - tl.load(starts + seq + 1) + token
    d = tl.arange(0, D)
    row = tl.load(q + (token * H + head) * D + d).to(tl.float32)
    top, total, acc = float("-inf"), 0.0, tl.zeros([D], tl.float32)
    for j in range(0, last + 1):
        block = tl.load(table + seq * columns + j // B)
        at = ((block * B + j % B) * G + head // (H // G)) * D + d
        logit = tl.sum(row * tl.load(k + at).to(tl.float32), 0) * scale
        new = tl.maximum(top, logit)
        old, weight = tl.exp(top - new), tl.exp(logit - new)
        acc = acc * old + weight * tl.load(v + at).to(tl.float32)
        total = total * old + weight
        top = new
    tl.store(out + (token * H + head) * D + d, (acc / total * FACTOR).to(out.dtype.element_ty))

def unified_attention(q, k, v, out, cu_seqlens_q, seqused_k, softmax_scale, block_table, **_):
    assert (ARCH, UNITS) == ("gfx942", 304)
    rows, result = q.contiguous(), torch.empty(q.shape, dtype=q.dtype)
    attention_kernel[(q.shape[0], q.shape[1])](
        rows, k, v, result, block_table, cu_seqlens_q, seqused_k, softmax_scale,
        block_table.shape[1], FACTOR=1.0, H=q.shape[1], G=k.shape[2], D=q.shape[2], B=k.shape[1],
        SEQS=len(seqused_k))
    out.copy_(result)
"""
ARCH = """
import torch, triton
ARCH = triton.runtime.driver.active.get_current_target().arch
UNITS = torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count
"""
PROBLEM = Problem(
    "paged", "aiter.unified_attention", "small", 3, (1, 2), (19, 4), 2, 1, 16, 16, poison="nan"
)


def make_aiter(folder: Path, kernel: str = KERNEL) -> Path:
    """Writes the package into a folder, to be put on PYTHONPATH."""
    files = {
        "__init__.py": NEEDS_ROCM,
        "ops/__init__.py": NEEDS_ROCM,
        "ops/triton/__init__.py": "",
        "ops/triton/utils/arch.py": ARCH,
        "ops/triton/attention/unified_attention.py": kernel,
        "ops/triton/attention/mla.py": "import no_such_module",
    }
    for name, text in files.items():
        path = folder / "aiter" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def worker(folder: Path, device: str = "isa:gfx942") -> KernelWorker:
    env = {"PYTHONPATH": str(folder), "TRITON_DEFAULT_FP_FUSION": "1", "OMP_NUM_THREADS": "1"}
    return KernelWorker([sys.executable, str(WORKER), "aiter"], device, 100, env)


def test_its_kernels_are_executed_and_judged(tmp_path: Path) -> None:
    wrong = KERNEL.replace("FACTOR=1.0", "FACTOR=1.01")
    tensors = materialise(PROBLEM)
    truth = solve(PROBLEM, tensors)
    for name, kernel, right in (("right", KERNEL, True), ("wrong", wrong, False)):
        found = worker(make_aiter(tmp_path / name, kernel))
        try:
            attended = found.attend(PROBLEM, tensors, wants_lse=False)
            assert not attended.raised and not attended.violations, attended
            assert judge(PROBLEM, truth, attended.results["output"]).passed is right
            if right:
                (compiled,) = found.compile(PROBLEM, tensors)["kernels"]
                assert compiled["name"] == "attention_kernel" and compiled["wave_instructions"]
                missing = found.compile(next(p for p in MLA), materialise(MLA[0]))
                assert "cannot be imported here" in missing["refused"]
                assert "no_such_module" in missing["refused"] and not missing["kernels"]
        finally:
            found.close()


MLA = [p for p in aiter_problems("none") if p.backend == "aiter.mla"][:1]


def test_a_python_is_looked_through_without_importing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(folder: Path) -> dict[str, str]:
        monkeypatch.setenv("PYTHONPATH", str(folder))
        command = [sys.executable, str(WORKER / "inventory.py")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found: dict[str, str] = json.loads(done.stdout)
        return found

    assert of(make_aiter(tmp_path / "ours"))["aiter"] == ""
    other = tmp_path / "other" / "aiter"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text(NEEDS_ROCM, encoding="utf-8")
    assert "has no ops/triton" in of(other.parent)["aiter"]
    none = of(tmp_path / "none")["aiter"]
    assert "there is no aiter" in none and inventory.HOW in none


def test_a_python_with_aiter_alone_is_a_subject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(make_aiter(tmp_path)))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    subject = other_interpreter(python, Options("0.19"))
    try:
        assert subject.libraries["aiter"] == "" and "no vllm" in subject.libraries["vllm"]
        assert subject.release == "source tree"
    finally:
        subject.close()


@pytest.mark.parametrize(
    ("libraries", "taken"),
    [
        ({"aiter": "", "vllm": "there is no vllm"}, {*ALONE, "ROCM_AITER_FA", "ROCM_AITER_MLA"}),
        ({"aiter": "", "vllm": ""}, {"ROCM_AITER_UNIFIED_ATTN"}),
        ({"aiter": "there is no aiter", "vllm": ""}, set()),
    ],
)
def test_aiter_takes_a_vllms_problems_only_where_its_kernels_would(
    libraries: dict[str, str], taken: set[str]
) -> None:
    subject = WorkerSubject("/opt/bin/python", ["true"], Options("0.19"), libraries=libraries)
    config = SimpleNamespace(device="isa:gfx942")
    context: Any = SimpleNamespace(config=config, subject=lambda _: subject)
    assert {name for name in backends() if from_aiter(context, "/opt/bin/python", name)} == taken
    assert not any(from_aiter(context, "reference", name) for name in backends())
    config.device = "interpreter"
    assert not any(from_aiter(context, "/opt/bin/python", name) for name in backends())


def test_what_aiter_is_asked_is_distinct_and_of_all_its_modules() -> None:
    found = list(aiter_problems("fnuz"))
    assert len({p.id for p in found}) == len(found)
    assert {p.backend.partition(".")[2] for p in found} == {
        "unified_attention", "pa_decode", "mha", "mla", "mla_decode_rope", "pa_fwd_asm",
        "mla_decode_stage1_asm_fwd",
    }  # fmt: skip
