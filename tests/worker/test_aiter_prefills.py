"""aiter's prefills in assembly: what is launched, and contexts merged with new tokens."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from conformance.worker.aiter import flash_assembly
from conformance.worker.aiter.flash_assembly import (
    Packed,
    attend_after_contexts,
    attend_packed,
    file_for,
    why_not,
)
from conformance.worker.errors import Refused
from tests.worker.test_aiter_assembly import scores

HEADS, SIZE = 4, 128


class Objects:
    """What a launch asks of aiter's code objects: computed from the arguments alone."""

    target = "gfx942"

    def __init__(self) -> None:
        self.launched: list[tuple[str, tuple[int, int, int]]] = []

    def launch(
        self, file: str, _symbol: str, grid: tuple[int, int, int], values: tuple[Any, ...]
    ) -> str:
        self.launched.append((file, grid))
        out, query, key, value, sums, scale = values[:6]
        starts, key_starts = values[27], values[28]
        assert len(values) == 32
        assert values[7] == query.stride(0) * 2
        assert values[11] == query.shape[1] // key.shape[1]
        for s in range(grid[1]):
            rows = slice(int(starts[s]), int(starts[s + 1]))
            keys = slice(int(key_starts[s]), int(key_starts[s + 1]))
            got, total = attended(query[rows], key[keys], value[keys], scale, "causal" in file)
            out[rows], sums[:, rows] = got, total.T
        return file


def attended(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of one sequence in float64: the output [T, H, V] and the log-sum-exp [T, H]."""
    factor = query.shape[1] // key.shape[1]
    k, v = (each.double().repeat_interleave(factor, 1) for each in (key, value))
    logits = torch.einsum("qhd,khd->qhk", query.double(), k) * scale
    if causal:
        ends = torch.arange(len(query)) + len(key) - len(query)
        logits.masked_fill_((torch.arange(len(key)) > ends[:, None])[:, None], -math.inf)
    return torch.einsum("qhk,khd->qhd", logits.softmax(-1), v), logits.logsumexp(-1)


def drawn(lens: list[int], contexts: list[int]) -> tuple[Packed, list[Any], torch.Tensor]:
    """New tokens, contexts, and what is right."""
    made = torch.Generator().manual_seed(4)

    def rows(count: int, heads: int) -> torch.Tensor:
        return torch.randn((count, heads, SIZE), generator=made).bfloat16()

    new = Packed(rows(sum(lens), HEADS), rows(sum(lens), 2), rows(sum(lens), 2), lens, lens)
    before = [(rows(n, 2), rows(n, 2)) if n else None for n in contexts]
    right, at = [], 0
    for length, context in zip(lens, before, strict=True):
        key, value = (each[at : at + length] for each in (new.key, new.value))
        if context is not None:
            key, value = torch.cat([context[0], key]), torch.cat([context[1], value])
        right.append(attended(new.query[at : at + length], key, value, 0.1, causal=True)[0])
        at += length
    return new, before, torch.cat(right)


def test_contexts_are_merged_with_new_tokens() -> None:
    objects = Objects()
    new, contexts, right = drawn([5, 3, 2], [0, 40, 7])
    out, _, ran = attend_after_contexts(objects, new, contexts, 0.1)  # type: ignore[arg-type] # a stand-in
    assert (out.double() - right).abs().max() < 0.02
    causal, plain = (f"fmha_v3_fwd/MI300/fwd_hd128_bf16{c}_rtna_group.co" for c in ("_causal", ""))
    assert objects.launched == [(causal, (HEADS, 3, 1)), (plain, (HEADS, 2, 1))]
    assert ran == [causal, plain, "harness torch_gather", "harness torch_merge"]


def test_a_context_that_is_left_out_shows() -> None:
    new, contexts, right = drawn([5, 3, 2], [0, 40, 7])
    out, _, ran = attend_after_contexts(Objects(), new, [None, None, contexts[2]], 0.1)  # type: ignore[arg-type] # a stand-in
    assert (out.double() - right).abs().max() > 0.1
    assert len(ran) == 4
    assert len(attend_after_contexts(Objects(), new, [None] * 3, 0.1)[2]) == 1  # type: ignore[arg-type] # a stand-in


def test_the_grid_is_of_pairs_of_tiles_where_it_is_causal() -> None:
    objects = Objects()
    new, _, _ = drawn([600], [0])
    for causal in (True, False):
        attend_packed(objects, new, 0.1, causal=causal)  # type: ignore[arg-type] # a stand-in
    one = Packed(new.query[:1], new.key[:1], new.value[:1], [1], [1])
    attend_packed(objects, one, 0.1, causal=True)  # type: ignore[arg-type] # a stand-in
    assert [grid for _, grid in objects.launched] == [(4, 1, 2), (4, 1, 3), (4, 1, 1)]
    assert "causal" not in objects.launched[2][0]


def test_files_are_those_of_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    assert file_for("gfx950", 192, causal=True) == (
        "fmha_v3_fwd/fwd_hd192_hd128_bf16_causal_group.co",
        "_ZN5aiter38fmha_fwd_hd192_hd128_bf16_causal_groupE",
    )
    monkeypatch.setattr(flash_assembly, "_FOLDERS", {})
    with pytest.raises(Refused, match="no fmha_v3 for a gfx942 with 304 compute units"):
        file_for("gfx942", 128, causal=True)


@pytest.mark.parametrize(
    ("fields", "shape", "reason"),
    [
        ({}, ("gfx942", 128, 128, torch.bfloat16), ""),
        ({}, ("gfx950", 192, 128, torch.bfloat16), ""),
        ({}, ("gfx942", 192, 128, torch.bfloat16), "heads of 192 and 128 elements"),
        ({}, ("gfx950", 128, 64, torch.bfloat16), "heads of 128 and 64 elements"),
        ({}, ("gfx942", 128, 128, torch.float16), "with float16 aiter prefills by CK"),
        ({"window": (5, 0)}, ("gfx942", 128, 128, torch.bfloat16), "a window"),
        ({"sinks": torch.zeros(4)}, ("gfx942", 128, 128, torch.bfloat16), "sinks"),
    ],
)
def test_what_is_left_to_ck(fields: dict[str, Any], shape: Any, reason: str) -> None:
    target, size, value_size, kind = shape
    said = why_not(target, scores(**fields), size, value_size, kind)
    assert reason in said if reason else not said
