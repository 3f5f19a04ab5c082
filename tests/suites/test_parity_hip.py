"""vLLM's ROCM_ATTN as deployed, on an emulated MI300X: its HIP cache write and its HIP decode."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from conformance.cache import cache_root
from conformance.devices.hip.clang import VARIABLE
from conformance.matrix.requests import Platform
from conformance.problems.tensors import materialise
from conformance.subjects.kernels import KernelWorker
from conformance.subjects.vllm.environment import prepare, source_tree
from conformance.subjects.workers import vllm_worker
from conformance.suites.parity.case import ParityCase
from conformance.suites.parity.judging import arithmetic_of, verdict
from conformance.worker.contract import HIP_CACHE, HIP_SOURCES
from tests.kernels.kernel_faults.problems import ROCM, decode

PROBLEM = replace(
    decode(ROCM),
    head_size=128,
    v_head_size=128,
    block_size=16,
    dtype="float16",
    kv_cache_dtype="auto",
)
CASE = ParityCase(
    *("parity", "parity", "vllm==0.19.0", "PAR-001"),
    Platform.make("gfx942"),
    (),
    Platform.make("gfx942"),
    problem=PROBLEM,
    backend="ROCM_ATTN",
    device="isa:gfx942,poison",
)
FEW = "paged_attention_ll4mi_QKV_mfma4_kernel"
MANY = "paged_attention_ll4mi_QKV_mfma16_kernel"
PATIENCE = 900  # seconds: a cold cache is compiled into


@contextmanager
def vllm(**environment: str) -> Iterator[KernelWorker]:
    path = os.pathsep.join(map(str, prepare("0.19.0").path))
    given = {"PYTHONPATH": path, **environment}
    worker = KernelWorker(vllm_worker(), "isa:gfx942,poison", PATIENCE, given)
    try:
        yield worker
    finally:
        worker.close()


def hip() -> dict[str, str]:
    return {HIP_SOURCES: str(source_tree("0.19.0")), HIP_CACHE: str(cache_root() / "hip")}


# `make isa-vllm` runs these kernels for every change; this says which decided.
@pytest.mark.vllm
@pytest.mark.slow
def test_the_hip_kernels_decide() -> None:
    tensors = materialise(PROBLEM)
    with vllm(**hip()) as worker:
        right = worker.attend(PROBLEM, tensors, wants_lse=False, cache_filling="zero")
        assert (right.raised, right.refused) == ("", "")
        assert verdict(CASE, right, tensors).wrong == ()
        functions = [name.split()[1] for name in right.dispatch]
        assert functions[0] == "vllm::reshape_and_cache_kernel"
        assert functions[1] in (FEW, MANY)
        assert functions[2] == "paged_attention_ll4mi_reduce_kernel"
        assert all("(csrc/" in name and ", clang " in name for name in right.dispatch)
        assert {entry["name"].partition("<")[0] for entry in right.emulated} == set(functions)
        # A fault of 0.19.0's own: 0 times what stands in an unused slot.
        poisoned = worker.attend(PROBLEM, tensors, wants_lse=False)
        (finding,) = verdict(CASE, poisoned, tensors).found
        assert (finding[1].kind, finding[1].deviations) == ("non-finite", ("unused-slots-decode",))
        assert "vllm::reshape_and_cache_kernel" in finding[1].kernels


@pytest.mark.vllm
@pytest.mark.slow
def test_without_clang_or_sources_it_says_so() -> None:
    tensors = materialise(PROBLEM)
    with vllm(**hip(), **{VARIABLE: "no-clang-here"}) as worker:
        told = worker.attend(PROBLEM, tensors, wants_lse=False).refused
        assert "unsupported here: paged_attention_rocm: HIP kernels are compiled by clang" in told
        assert "make install-hip" in told
    with vllm() as worker:
        told = worker.attend(PROBLEM, tensors, wants_lse=False).refused
        assert "the sources of this vLLM's HIP kernels are not at hand" in told


def test_partial_outputs_may_be_rounded_as_often_as_the_kernel_does() -> None:
    many = [f"HIP {MANY} (csrc/rocm/attention.cu, clang 22.1.8)"]
    few = [f"HIP {FEW} (csrc/rocm/attention.cu, clang 22.1.8)"]
    bf16 = replace(CASE, problem=replace(PROBLEM, dtype="bfloat16"))
    assert arithmetic_of(CASE, many).partial_roundings == 1
    assert arithmetic_of(CASE, few).partial_roundings == 4
    assert arithmetic_of(bf16, few).partial_roundings == 7
    assert arithmetic_of(CASE, ["prefix_prefill._fwd_kernel"]).partial_roundings == 0
    assert arithmetic_of(replace(CASE, subject="reference"), few).partial_roundings == 0
