"""Trees of draft tokens behind the ``attend`` op, in vLLM's unified attention kernel.

TREE_ATTN makes the bias between query tokens itself, from the tree that the engine is configured
with; it left vLLM in 0.21
(https://github.com/vllm-project/vllm/blob/v0.20.2/vllm/v1/attention/backends/tree_attn.py). The
kernel that it shared with TRITON_ATTN still takes such a bias, as ``qq_bias`` of
``unified_attention``, and no backend gives it one
(https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/v1/attention/ops/triton_unified_attention.py).
There TRITON_ATTN is called as TREE_ATTN called the kernel: with the bias for the sequences that are
verified, and without it for those behind them.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import torch

from ..contract import ProblemFields
from ..errors import Refused, UnknownError
from ..interfaces import Batch, Dispatch, Geometry, Layer, Paged
from .dense import DenseBackend
from .objects import Config
from .stand_ins import StandIn

KERNEL, BIAS = "unified_attention", "qq_bias"


class TreeBackend(DenseBackend):
    """TREE_ATTN, whose metadata builder makes the bias."""

    not_scratch = ("tree_attn_bias",)
    _tree: Sequence[int] = ()

    def check(self, problem: ProblemFields) -> None:
        super().check(problem)
        self._tree = problem["tree"]

    def _engine_for(self, geometry: Geometry) -> Config:
        config: Any = super()._engine_for(geometry)
        if self._tree:
            spelled = str(branches(self._tree))
            config.speculative_config = StandIn(
                "its speculative decoding", speculative_token_tree=spelled
            )
        made: Config = config
        return made


class BiasedBackend(DenseBackend):
    """TRITON_ATTN of a vLLM in which no backend has trees."""

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        bias = layer.scores.query_bias
        if bias is None:
            return super().attend(given, layer)
        module = importlib.import_module(self.kernels.class_of(self.name).__module__)
        kernel = getattr(module, KERNEL, None)
        if kernel is None:
            raise UnknownError(f"the harness does not know how this vLLM's {self.name} attends")
        if BIAS not in inspect.signature(kernel).parameters:
            raise Refused(f"this vLLM's {KERNEL} takes no bias between query tokens")
        lens = given.batch.query_start_loc.diff()
        count = int((lens <= len(bias)).cumprod(0).sum())
        biased = functools.partial(kernel, **{BIAS: bias.contiguous()})
        with mock.patch.object(module, KERNEL, biased):
            ran = list(super().attend(part_of(given, 0, count), layer))
        if count < len(lens):
            ran += super().attend(part_of(given, count, len(lens)), layer)
        return ran


def branches(tree: Sequence[int]) -> list[tuple[int, ...]]:
    """The tree as vLLM spells it: of each draft the choices that lead to it from the root."""
    paths: list[tuple[int, ...]] = [()]
    children = [0] * (len(tree) + 1)
    for parent in tree:
        paths.append((*paths[parent], children[parent]))
        children[parent] += 1
    return paths[1:]


def part_of(given: Paged, first: int, last: int) -> Paged:
    """The sequences from ``first`` to ``last``, without the padding rows behind them."""
    batch = given.batch
    starts = batch.query_start_loc[first : last + 1]
    begin, end = int(starts[0]), int(starts[-1])

    def rows(x: torch.Tensor | None) -> torch.Tensor | None:
        return None if x is None else x[begin:end]

    some = Batch(
        query_start_loc=starts - starts[0],
        seq_lens=batch.seq_lens[first:last],
        block_table=batch.block_table[first:last],
        max_query_len=int(starts.diff().max()),
        max_seq_len=int(batch.seq_lens[first:last].max()),
        max_context_len=int((batch.seq_lens[first:last] - starts.diff()).max()),
    )
    return replace(
        given,
        query=given.query[begin:end],
        key=rows(given.key),
        value=rows(given.value),
        out=given.out[begin:end],
        batch=some,
    )
