"""vLLM's indexer of sparse attention on ROCm: its cache write, its batches and its scores.

It is called as the layer's operator is: vLLM's metadata builder describes the batch,
``SparseAttnIndexer.forward_hip`` passes it on or says that it needs AITER, and the operator gathers
keys and scores them, by a Triton kernel or by torch. The choice among the scores is a HIP kernel:
without an AMD GPU the harness's own stands for it. Sources are below
https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/:
model_executor/layers/sparse_attn_indexer.py, v1/attention/backends/mla/indexer.py,
v1/attention/ops/rocm_aiter_mla_sparse.py.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from ..contract import ProblemFields
from ..errors import Refused
from ..interfaces import Batch, Dispatch, Geometry
from . import simulated_gpu
from .caches import SHORT
from .metadata import LAYER, cache_spec, common_metadata, engine_config
from .needs import needs
from .objects import current_platform
from .stand_ins import StandIn, answering, describing

if TYPE_CHECKING:
    from .kernels import VllmKernels

OPS = "vllm.v1.attention.ops.rocm_aiter_mla_sparse"
BACKEND = "vllm.v1.attention.backends.mla.indexer"
LAYERS = "vllm.model_executor.layers.sparse_attn_indexer"
OPERATOR = "rocm_aiter_sparse_attn_indexer"
WRITES = "indexer_k_quant_and_cache_triton"
# What scores in torch, by vLLM's name; what it is called where it is said what ran.
IN_TORCH = ("fp8_mqa_logits_torch", "fp8_paged_mqa_logits_torch")
WORKSPACE = "vllm.v1.worker.workspace"
SCALE_BYTES = 4
SCALE_FORMAT = "ue8m0"  # DeepSeek-V3.2's: scales are powers of 2
FACTOR = 5  # of the workspace of a prefill, as vLLM's configuration has it by default
AITERS = ("aiter.mla.mla_decode_fwd", "top_k_per_row")


class Indexer:
    """One layer's indexer for one problem."""

    def __init__(self, kernels: VllmKernels) -> None:
        self._kernels = kernels
        self._num_blocks = 0
        self._topk = 0
        self._geometry: Geometry | None = None

    def check(self, problem: ProblemFields) -> None:
        """Refuses what this vLLM's indexer does not store, and the choice where a GPU has it."""
        own = f"fp8_{SHORT[current_platform().fp8_dtype()]}"
        if problem["kv_cache_dtype"] != own:
            raise Refused(f"vLLM's indexer on {self._kernels.target} stores {own}")
        module = importlib.import_module(OPS)
        operator = vars(module).get(OPERATOR)
        if not self._kernels.simulated or operator is None or WRITES not in _names_of(operator):
            raise needs(*AITERS)
        taken = importlib.import_module(BACKEND).DeepseekV32IndexerBackend
        sizes = taken.get_supported_kernel_block_sizes()
        size = problem["block_size"]
        if not any(size % getattr(one, "base", size + 1) == 0 or size == one for one in sizes):
            raise Refused(f"vLLM's indexer takes no blocks of {size}")
        self._topk = problem["topk"]

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        """A cache of bytes: of each block all values, then a float32 scale for each slot."""
        self._num_blocks, self._geometry = num_blocks, geometry
        width = geometry.head_size + SCALE_BYTES
        shape = (num_blocks, geometry.block_size, width)
        return torch.empty(shape, dtype=torch.uint8, device=device)

    def write(self, rows: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> Dispatch:
        store = getattr(importlib.import_module(OPS), WRITES)
        with self._kernels.launches.watch() as ran:
            store(rows[: len(slots)].contiguous(), cache, slots, rows.shape[1], SCALE_FORMAT)
        return ran

    def select(
        self,
        query: torch.Tensor,
        weights: torch.Tensor,
        cache: torch.Tensor,
        batch: Batch,
        tokens_at: torch.Tensor,
        out: torch.Tensor,
    ) -> Dispatch:
        """``batch`` has decodes first; its tokens are those at ``tokens_at`` of the tensors."""
        tokens, device = len(tokens_at), out.device
        buffer = torch.full((tokens, self._topk), -1, dtype=torch.int32, device=device)
        layer = StandIn(
            "its indexer",
            k_cache=SimpleNamespace(prefix=LAYER, kv_cache=cache),
            quant_block_size=query.shape[2],
            scale_fmt=SCALE_FORMAT,
            topk_tokens=self._topk,
            head_dim=query.shape[2],
            max_model_len=_whole(batch.max_seq_len),
            max_total_seq_len=_whole(int(batch.seq_lens.sum())),
            topk_indices_buffer=buffer,
            skip_k_cache_insert=True,
            use_fp4_cache=False,
            compress_ratio=1,
            candidate_blocks=None,
            candidate_block_size=0,
            candidate_write=False,
        )
        given = query[tokens_at].contiguous(), None, weights[tokens_at].contiguous()
        hidden = torch.empty((tokens, 1), dtype=torch.bfloat16, device=device)
        with self._in_a_step(self._describe(batch)), self._kernels.launches.watch() as ran:
            importlib.import_module(LAYERS).SparseAttnIndexer.forward_hip(layer, hidden, *given)
        out[tokens_at] = buffer
        return ran

    def _describe(self, batch: Batch) -> object:
        assert self._geometry is not None
        batch = replace(batch, block_table=batch.block_table.clamp(0, self._num_blocks - 1))
        geometry = replace(
            self._geometry,
            head_size=self._geometry.head_size + SCALE_BYTES,
            v_head_size=self._geometry.head_size + SCALE_BYTES,
            num_kv_heads=1,
        )
        cls = importlib.import_module(BACKEND).DeepseekV32IndexerBackend
        made = cls.get_builder_cls()
        with describing("a batch of the indexer"), simulated_gpu.Pageable():
            hf = SimpleNamespace(index_topk=self._topk)
            config: Any = engine_config(
                geometry, self._num_blocks, "auto", hf_text_config=hf, hf_config=hf
            )
            config.scheduler_config.max_num_seqs = len(batch.seq_lens)
            config.scheduler_config.max_num_batched_tokens = int(batch.query_start_loc[-1])
            attention = config.attention_config
            if getattr(attention, "sparse_mla_prefill_workspace_factor", FACTOR) is None:
                attention.sparse_mla_prefill_workspace_factor = FACTOR
            known: dict[str, Any] = {
                "kv_cache_spec": cache_spec(cls, "MLAAttention", geometry, "auto"),
                "layer_names": [LAYER],
                "vllm_config": config,
                "device": torch.device(self._kernels.device),
            }
            if getattr(made, "requires_block_table_width", False):
                known["block_table_width"] = batch.block_table.shape[1]
            metadata: object = made(**known).build(0, common_metadata(batch, causal=True))
        return metadata

    @contextlib.contextmanager
    def _in_a_step(self, metadata: object) -> Iterator[None]:
        """What surrounds the operator in a step of vLLM's; and what is done in its kernels' place.

        Where vLLM says that the operator needs AITER, the problem is refused in its words.
        """
        module = importlib.import_module(OPS)
        modes = importlib.import_module("vllm.config").CUDAGraphMode
        context = StandIn(
            "a step's context", attn_metadata={LAYER: metadata}, cudagraph_runtime_mode=modes.NONE
        )
        workspace = importlib.import_module(WORKSPACE)
        if not workspace.is_workspace_manager_initialized():
            workspace.init_workspace_manager(torch.device(self._kernels.device))
        with contextlib.ExitStack() as stack:
            enter = stack.enter_context
            enter(mock.patch.object(module, "get_forward_context", lambda: context))
            enter(mock.patch.object(torch.accelerator, "empty_cache", lambda: None))
            for name in IN_TORCH:
                enter(mock.patch.object(module, name, self._said(name, getattr(module, name))))
            of_vllm, of_c = vars(torch.ops.vllm), vars(torch.ops._C)
            enter(mock.patch.dict(of_vllm, {OPERATOR: getattr(module, OPERATOR)}))
            enter(mock.patch.dict(of_c, {one.__name__: self._chosen_by(one) for one in CHOICES}))
            try:
                yield
            except RuntimeError as error:
                if "AITER" in str(error):
                    raise Refused(f"unsupported here: vLLM: {error}") from error
                raise

    def _said(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def said(*arguments: object, **named: object) -> Any:
            self._kernels.launches.add(f"torch {name}")
            return function(*arguments, **named)

        return said

    def _chosen_by(self, function: Callable[..., None]) -> Callable[..., None]:
        choose = answering(function)

        def chosen(*arguments: object, **named: object) -> None:
            self._kernels.launches.add(f"harness for HIP {function.__name__}")
            choose(*arguments, **named)

        return chosen


def top_k_per_row_prefill(
    logits: torch.Tensor,
    row_starts: torch.Tensor,
    row_ends: torch.Tensor,
    indices: torch.Tensor,
    num_rows: int,
    stride0: int,  # noqa: ARG001 - the tensor knows its strides
    stride1: int,  # noqa: ARG001 - likewise
    top_k: int,
) -> None:
    """The highest of ``logits[row, start:end]``, as positions from ``start`` on; -1 behind them."""
    for row in range(num_rows):
        start, end = int(row_starts[row]), int(row_ends[row])
        _highest(logits[row, start:end], indices[row], top_k)


def top_k_per_row_decode(
    logits: torch.Tensor,
    next_n: int,
    seq_lens: torch.Tensor,
    indices: torch.Tensor,
    num_rows: int,
    stride0: int,  # noqa: ARG001 - the tensor knows its strides
    stride1: int,  # noqa: ARG001 - likewise
    top_k: int,
) -> None:
    """The same from position 0 on. ``seq_lens``: of each sequence, or of each of its rows."""
    lens = seq_lens.reshape(-1).tolist()
    for row in range(num_rows):
        if len(lens) == num_rows:
            end = lens[row]
        else:
            end = lens[row // next_n] - next_n + row % next_n + 1
        _highest(logits[row, : max(end, 0)], indices[row], top_k)


CHOICES = (top_k_per_row_prefill, top_k_per_row_decode)


def _highest(scores: torch.Tensor, into: torch.Tensor, most: int) -> None:
    taken = min(most, len(scores))
    into[:most] = -1
    into[:taken] = scores.topk(taken).indices.to(into.dtype)


def _names_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names that a function's code has."""
    code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
    return code.co_names if code else ()


def _whole(keys: int) -> int:
    """A model's length that has room for so many keys."""
    return max(64, -(-keys // 64) * 64)
