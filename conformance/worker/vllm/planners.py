"""Stands in for what aiter does when a metadata builder asks it to plan a decode.

Its MLA kernels are persistent: before a launch, ``get_mla_metadata_info_v1`` says how large the
buffers of a schedule must be, and ``get_mla_metadata_v1`` fills them
(https://github.com/ROCm/aiter/blob/main/aiter/ops/attention.py). What vLLM passes to either is what
can be judged without a GPU; what would be filled in is aiter's.
"""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import torch

from ..metadata_contract import PlannedCall
from .snapshots import fields_of

SIZES = (
    *("batch_size", "max_seqlen_qo", "num_head_qo", "q_dtype", "kv_dtype"),
    *("is_sparse", "fast_mode", "num_kv_splits", "intra_batch_mode"),
)
PLAN = (
    *("seqlens_qo_indptr", "seqlens_kv_indptr", "kv_last_page_lens"),
    *("num_heads_per_head_k", "num_heads_k", "is_causal"),
    *("work_metadata_ptrs", "work_info_set", "work_indptr"),
    *("reduce_indptr", "reduce_final_map", "reduce_partial_map"),
)
# The schedule's buffers, in the order in which aiter gives their sizes. No two are alike, so that
# one that is passed for another shows.
BUFFERS = (
    *("work_meta_data", "work_indptr", "work_info_set"),
    *("reduce_indptr", "reduce_final_map", "reduce_partial_map"),
)


class Planner:
    """Notes every call; ``step`` is the number of the builder's call that makes it."""

    def __init__(self, fp8: torch.dtype) -> None:
        self.calls: list[PlannedCall] = []
        self.step = -1
        self._fp8 = fp8

    def install(self) -> None:
        """Puts the functions, and the names of dtypes, into the simulated ``aiter``."""
        aiter = importlib.import_module("aiter")
        by_name = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp8": self._fp8}
        by_name |= {"fp32": torch.float32, "i32": torch.int32, "u32": torch.uint32}
        dtypes = SimpleNamespace(d_dtypes=by_name, **by_name)
        vars(aiter).update(
            dtypes=dtypes,
            get_mla_metadata_info_v1=self.sizes,
            get_mla_metadata_v1=self.plan,
        )

    def sizes(self, *given: object, **named: object) -> tuple[tuple[object, torch.dtype], ...]:
        """A size and a dtype for each of ``BUFFERS``."""
        self._note("sizes", SIZES, given, named)
        return (
            ((11,), torch.uint64),
            ((13,), torch.int32),
            ((17, 8), torch.int32),
            ((19,), torch.int32),
            ((23, 2), torch.int32),
            ((29,), torch.int32),
        )

    def plan(self, *given: object, **named: object) -> None:
        """Fills the schedule's last buffer with the number of the call."""
        self._note("plan", PLAN, given, named)

    def _note(
        self,
        function: str,
        names: tuple[str, ...],
        given: tuple[object, ...],
        named: dict[str, object],
    ) -> None:
        arguments = {**dict(zip(names, given, strict=False)), **named}
        self.calls.append(
            {"step": self.step, "function": function, "arguments": fields_of(arguments)}
        )
