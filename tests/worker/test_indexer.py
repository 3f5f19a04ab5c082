"""An indexer of a release: what it does by itself is driven, what AITER does is refused."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from conformance.worker.errors import Refused, UnknownError
from conformance.worker.interfaces import Geometry
from conformance.worker.vllm.indexer import (
    BACKEND,
    OPERATOR,
    OPS,
    WRITES,
    Indexer,
    top_k_per_row_decode,
    top_k_per_row_prefill,
)
from conformance.worker.vllm.stand_ins import answering

SCORES = torch.tensor([[9.0, 1.0, 5.0, 2.0, 8.0], [3.0, 7.0, 1.0, 6.0, torch.nan]])


def by_itself() -> None:
    indexer_k_quant_and_cache_triton()  # type: ignore[name-defined] # noqa: F821 - its name alone


def by_others() -> None:
    """An operator that stores keys by a HIP kernel."""


def indexer(monkeypatch: pytest.MonkeyPatch, ops: dict[str, object]) -> Indexer:
    """The indexer of a release whose module of operators has these."""
    backend = SimpleNamespace(
        get_supported_kernel_block_sizes=lambda: [1, SimpleNamespace(base=16)]
    )
    members: dict[str, dict[str, object]] = {
        "vllm": {},
        "vllm.platforms": {
            "current_platform": SimpleNamespace(fp8_dtype=lambda: torch.float8_e4m3fn)
        },
        OPS: ops,
        BACKEND: {"DeepseekV32IndexerBackend": backend},
    }
    for name, found in members.items():
        module = ModuleType(name)
        vars(module).update(found)
        monkeypatch.setitem(sys.modules, name, module)
        for parent in (name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1)):
            if parent not in sys.modules:
                monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
    kernels: Any = SimpleNamespace(device="cpu", target="gfx950", simulated=True)
    return Indexer(kernels)


def problem(**fields: object) -> Any:
    given = {"kv_cache_dtype": "fp8_e4m3fn", "block_size": 64, "topk": 8}
    return {**given, **fields}


def test_an_indexer_that_does_without_aiter_is_driven(monkeypatch: pytest.MonkeyPatch) -> None:
    own = indexer(monkeypatch, {OPERATOR: by_itself, WRITES: None})
    own.check(problem())
    fp8 = torch.float8_e4m3fn
    cache = own.allocate(3, Geometry(8, 1, 128, 128, fp8, fp8, 64), torch.device("cpu"))
    assert (cache.shape, cache.dtype) == ((3, 64, 132), torch.uint8)


@pytest.mark.parametrize("operators", [{}, {OPERATOR: by_others}], ids=["none", "HIP"])
def test_others_need_an_amd_gpu(
    operators: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Refused, match="needs an AMD GPU"):
        indexer(monkeypatch, operators).check(problem())


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("kv_cache_dtype", "fp8_e4m3fnuz", "stores fp8_e4m3fn"),
        ("kv_cache_dtype", "auto", "stores fp8_e4m3fn"),
        ("block_size", 24, "no blocks of 24"),
    ],
)
def test_what_it_does_not_take_is_refused(
    field: str, value: object, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Refused, match=reason):
        indexer(monkeypatch, {OPERATOR: by_itself}).check(problem(**{field: value}))


def test_a_prefills_choice_counts_from_its_sequences_first_key() -> None:
    chosen = torch.zeros(2, 3, dtype=torch.int32)
    starts, ends = torch.tensor([1, 0]), torch.tensor([5, 2])
    top_k_per_row_prefill(SCORES, starts, ends, chosen, 2, 5, 1, 3)
    assert chosen.tolist() == [[3, 1, 2], [1, 0, -1]]


@pytest.mark.parametrize("lens", [[[4], [4]], [[3, 4]]], ids=["of sequences", "of rows"])
def test_a_decodes_choice(lens: list[list[int]]) -> None:
    """Two sequences of a row each, or two rows of one, whose second sees a key more."""
    chosen = torch.zeros(2, 2, dtype=torch.int32)
    top_k_per_row_decode(SCORES, len(lens[0]), torch.tensor(lens), chosen, 2, 5, 1, 2)
    assert chosen.tolist() == [[0, 2], [1, 3]]


def test_rows_of_one_sequence_see_a_key_more_each() -> None:
    chosen = torch.zeros(2, 2, dtype=torch.int32)
    top_k_per_row_decode(SCORES, 2, torch.tensor([2]), chosen, 2, 5, 1, 2)
    assert chosen.tolist() == [[0, -1], [1, 0]]


def test_a_call_of_the_choice_that_is_not_known_is_the_harnesss() -> None:
    with pytest.raises(UnknownError, match="top_k_per_row_decode"):
        answering(top_k_per_row_decode)(SCORES)
