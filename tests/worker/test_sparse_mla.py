"""Sparse MLA of a release: what its Triton kernels do is driven, what AITER's do is refused."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from conformance.worker.errors import Refused
from conformance.worker.vllm.sparse_mla import SPARSE_LAYER, SparseBackend

NAME = "ROCM_AITER_MLA_SPARSE"


def backend(monkeypatch: pytest.MonkeyPatch, **members: object) -> SparseBackend:
    """The backend of a release whose module has these members."""
    module = ModuleType("a_sparse_backend")
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    cls = type("Sparse", (), {"__module__": module.__name__})
    kernels: Any = SimpleNamespace(
        device=torch.device("cpu"), launches=None, simulated=True, class_of=lambda _name: cls
    )
    return SparseBackend(kernels, NAME)


def problem(**fields: object) -> Any:
    return {"kind": "mla_sparse", "topk": 128, **fields}


def test_a_release_without_the_kernel_needs_an_amd_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match=r"needs an AMD GPU: aiter\.mla\.mla_decode_fwd"):
        backend(monkeypatch).check(problem())


def test_so_does_the_indexer(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = backend(monkeypatch, rocm_sparse_attn_prefill=None)
    with pytest.raises(Refused, match="needs an AMD GPU"):
        newer.check(problem(kind="indexer"))


def test_chosen_keys_are_looked_up_in_whole_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = backend(monkeypatch, rocm_sparse_attn_prefill=None)
    with pytest.raises(Refused, match="128 chosen keys at a time"):
        newer.check(problem(topk=40))


class Ops:
    """AITER's operators, as vLLM has them."""

    @staticmethod
    def mla_decode_fwd() -> str:
        return "aiter's"


def test_what_aiter_does_is_refused_and_only_here(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: dict[str, dict[str, object]] = {
        "vllm": {},
        "vllm._aiter_ops": {"rocm_aiter_ops": Ops},
        SPARSE_LAYER: {"get_tensor_model_parallel_world_size": lambda: 8},
    }
    for name, members in parts.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "aiter", raising=False)
    layer = sys.modules[SPARSE_LAYER]
    with backend(monkeypatch)._without_aiter():
        aiter = importlib.import_module("aiter")
        assert len(aiter.get_mla_metadata_info_v1(1, is_sparse=True)) == 6
        assert layer.get_tensor_model_parallel_world_size() == 1
        for call in (aiter.get_mla_metadata_v1, Ops.mla_decode_fwd):
            with pytest.raises(Refused, match="mla_decode_fwd"):
                call()
        assert torch.ones(1).is_cuda
    assert Ops.mla_decode_fwd() == "aiter's"
    assert layer.get_tensor_model_parallel_world_size() == 8
    assert "aiter" not in sys.modules
