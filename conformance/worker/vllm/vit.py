"""vLLM's TORCH_SDPA of vision models behind the ``attend`` op: packed sequences, no cache."""

from __future__ import annotations

import importlib

import torch

from ..contract import ProblemFields
from ..errors import Refused
from ..interfaces import Dispatch, Layer, Varlen
from .backend import VllmBackend


class VitSdpa(VllmBackend):
    """``torch_sdpa_wrapper``: torch's own attention, a sequence at a time."""

    def check(self, problem: ProblemFields) -> None:
        """Admits every problem: there is no class to ask, and torch takes every dtype and size."""

    def attend_varlen(self, given: Varlen, layer: Layer) -> Dispatch:
        if not torch.equal(given.query_start_loc, given.key_start_loc):
            raise Refused("vLLM's vision attention has one length for queries and keys")
        ops = importlib.import_module("vllm.v1.attention.ops.vit_attn_wrappers")
        tokens = int(given.query_start_loc[-1])
        rows = [x[None, :tokens] for x in (given.query, given.key, given.value)]
        # Called directly, because it is registered with torch for the GPU only.
        attended = ops.torch_sdpa_wrapper(
            *rows,
            scale=layer.scores.scale,
            cu_seqlens=given.query_start_loc,
            enable_gqa=given.query.shape[1] != given.key.shape[1],
        )
        given.out[:tokens] = attended[0]
        return ["torch_sdpa"]
