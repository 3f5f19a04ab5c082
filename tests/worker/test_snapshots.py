"""Metadata as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from conformance.worker.vllm.planners import BUFFERS, Planner
from conformance.worker.vllm.snapshots import FEW, fields_of


class Totals(NamedTuple):
    tokens: int


@dataclass
class Part:
    starts: torch.Tensor
    span: slice = field(default_factory=lambda: slice(2, 5))
    totals: Totals = field(default_factory=lambda: Totals(7))


@dataclass
class Whole:
    parts: list[Part]
    lens: list[int]
    dtype: torch.dtype = torch.bfloat16
    nothing: None = None
    _hidden: int = 1


def test_every_field_has_a_path() -> None:
    starts = torch.tensor([[0, 3], [1, 4]], dtype=torch.int32)
    whole = Whole([Part(starts[:, 1])], [1, 2])
    whole.later = {"scale": torch.ones(3)}  # type: ignore[attr-defined] # builders set some later
    fields = fields_of(whole)
    assert fields["parts.0.starts"] == {
        "shape": [2],
        "stride": [2],
        "dtype": "int32",
        "address": starts.data_ptr() + 4,
        "room": 3,
        "value": [3, 4],
    }
    assert fields["parts.0.span"] == {"value": [2, 5]}
    assert fields["parts.0.totals.tokens"] == {"value": 7}
    assert fields["lens"] == {"value": [1, 2]}
    assert fields["dtype"] == {"value": "bfloat16"}
    assert fields["nothing"] == {"value": None}
    assert "value" not in fields["later.scale"]
    assert "_hidden" not in fields


def test_elements_of_large_tensors_stay_where_they_are() -> None:
    fields = fields_of({"large": torch.zeros(FEW + 1, dtype=torch.int32)})
    assert fields["large"]["shape"] == [FEW + 1]
    assert "value" not in fields["large"]


def test_what_is_asked_of_a_planner_is_noted_by_aiters_names() -> None:
    planner = Planner(torch.float8_e4m3fnuz)
    sizes = planner.sizes(4, 1, 16, torch.bfloat16, torch.bfloat16, is_sparse=False)
    assert len(sizes) == len({size for size, _ in sizes}) == len(BUFFERS)
    planner.step = 2
    planner.plan(torch.arange(3), max_seqlen_qo=1)
    first, second = planner.calls
    assert (first["function"], first["step"]) == ("sizes", -1)
    assert first["arguments"]["num_head_qo"] == {"value": 16}
    assert (second["function"], second["step"]) == ("plan", 2)
    assert second["arguments"]["seqlens_qo_indptr"]["value"] == [0, 1, 2]
    assert second["arguments"]["max_seqlen_qo"] == {"value": 1}
