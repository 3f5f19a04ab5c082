"""Sparse MLA of a release: what its Triton kernels do is driven, what AITER's do is refused."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from conformance.worker.errors import Refused
from conformance.worker.interfaces import Batch
from conformance.worker.vllm.sparse_mla import (
    AITER_OPS,
    ATTENDS,
    SPARSE_LAYER,
    SparseBackend,
    as_an_indexer_has_them,
    decodes_first,
)

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


def test_chosen_keys_are_looked_up_in_whole_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = backend(monkeypatch, **{ATTENDS: None})
    with pytest.raises(Refused, match="128 chosen keys at a time"):
        newer.check(problem(topk=40))


class Ops:
    """AITER's operators, as vLLM has them."""

    @staticmethod
    def mla_decode_fwd() -> str:
        return "aiter's"

    @staticmethod
    def is_mla_enabled() -> bool:
        return True


def test_what_aiter_does_is_refused_and_only_here(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: dict[str, dict[str, object]] = {
        "vllm": {},
        AITER_OPS: {"rocm_aiter_ops": Ops},
        SPARSE_LAYER: {"get_tensor_model_parallel_world_size": lambda: 8},
    }
    for name, members in parts.items():
        module = ModuleType(name)
        vars(module).update(members, __spec__=object())
        monkeypatch.setitem(sys.modules, name, module)
    for name in SPARSE_LAYER.split(".")[1:-1]:
        parent = SPARSE_LAYER[: SPARSE_LAYER.index(name) + len(name)]
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
    monkeypatch.delitem(sys.modules, "aiter", raising=False)
    layer = sys.modules[SPARSE_LAYER]
    with backend(monkeypatch)._without_aiter():
        aiter = importlib.import_module("aiter")
        assert len(aiter.get_mla_metadata_info_v1(1, is_sparse=True)) == 6
        assert layer.get_tensor_model_parallel_world_size() == 1
        assert Ops.is_mla_enabled()
        for call in (aiter.get_mla_metadata_v1, Ops.mla_decode_fwd):
            with pytest.raises(Refused, match="mla_decode_fwd"):
                call()
    assert Ops.mla_decode_fwd() == "aiter's"
    assert layer.get_tensor_model_parallel_world_size() == 8
    assert "aiter" not in sys.modules


def batch(query_lens: list[int], seq_lens: list[int]) -> Batch:
    starts = torch.tensor([0, *query_lens], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    table = torch.arange(len(seq_lens), dtype=torch.int32)[:, None]
    lens = torch.tensor(seq_lens, dtype=torch.int32)
    return Batch(starts, lens, table, max(query_lens), max(seq_lens), 0)


def test_decodes_come_first() -> None:
    ordered, tokens_at = decodes_first(batch([3, 1, 2, 1], [9, 8, 7, 6]))
    assert ordered.seq_lens.tolist() == [8, 6, 9, 7]
    assert ordered.query_start_loc.tolist() == [0, 1, 2, 5, 7]
    assert ordered.block_table[:, 0].tolist() == [1, 3, 0, 2]
    assert tokens_at.tolist() == [3, 6, 0, 1, 2, 4, 5]


def test_chosen_positions_are_at_the_front() -> None:
    """Tokens that see 4 and 5 keys of which 4 may be chosen, and one of a sequence of 2."""
    chosen = torch.tensor([[1, 3, 0, 2], [4, 0, 3, 1], [7, 1, -1, 0]])
    found = as_an_indexer_has_them(chosen, batch([2, 1], [5, 2]))
    assert found.tolist() == [[1, 3, 0, 2], [4, 0, 3, 1], [1, 0, -1, -1]]
    assert found.dtype == torch.int32


@pytest.mark.parametrize("row", [[1, -1, 0, 2], [1, 3, 0, 4]], ids=["a key less", "a later key"])
def test_an_indexer_chooses_all_that_it_may(row: list[int]) -> None:
    with pytest.raises(Refused, match="chooses all keys"):
        as_an_indexer_has_them(torch.tensor([row]), batch([1], [4]))
