"""vLLM's TORCH_SDPA of vision models behind the ``attend`` op: packed sequences, no cache."""

import importlib
from typing import Any

import torch

from ..attend import Refused
from .kernels import Driver


class VitSdpa(Driver):
    """``torch_sdpa_wrapper``: torch's own attention, a sequence at a time."""

    def check(self, problem: Any) -> None:
        """There is no class to ask: the operation takes every dtype and head size of torch."""

    def attend_varlen(
        self,
        query: Any,
        key: Any,
        value: Any,
        query_start_loc: Any,
        key_start_loc: Any,
        _max_query_len: int,
        _max_key_len: int,
        _geometry: Any,
        scores: Any,
        out: Any,
        _lse: Any,
    ) -> list[str]:
        if not torch.equal(query_start_loc, key_start_loc):
            raise Refused("vLLM's vision attention has one length for queries and keys")
        ops = importlib.import_module("vllm.v1.attention.ops.vit_attn_wrappers")
        tokens = int(query_start_loc[-1])
        rows = [x[None, :tokens] for x in (query, key, value)]
        # The function itself: it is registered with torch for the GPU only.
        found = ops.torch_sdpa_wrapper(
            *rows,
            scale=scores.scale,
            cu_seqlens=query_start_loc,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        out[:tokens] = found[0]
        return ["torch_sdpa"]
