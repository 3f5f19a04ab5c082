"""vLLM's ROCM_FLASHMLA_SPARSE_DSV4 behind the ``attend`` op: DeepSeek-V4's layers on ROCm.

The backend's class has no implementation: the model's layer calls the kernels (``forward_mqa`` of
models/deepseek_v4/amd/rocm.py), and so it is called here, with the harness's own description of a
batch. Two caches of ``fp8_ds_mla`` are attended in one go. That of the window is written by a HIP
operator of vLLM's, for which the harness stands; in that of compressed keys vLLM's Triton kernel
stores the first keys of each sequence as if the compressor had made them. Sources are below
https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/models/deepseek_v4/.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from ..attend import packed_bytes
from ..contract import ProblemFields
from ..errors import Refused
from ..guarded_memory import fill
from ..interfaces import Batch, Dispatch, Geometry, Layer, Paged
from . import simulated_gpu
from .backend import VllmBackend, with_tokens_only
from .metadata import LAYER, made_of
from .objects import current_platform
from .sparse_mla import decodes_first, positions_of
from .stand_ins import StandIn, describing

if TYPE_CHECKING:
    from .kernels import VllmKernels

ROCM = "vllm.models.deepseek_v4.amd.rocm"
STORES = "vllm.models.deepseek_v4.common.ops"
WORKSPACE = "vllm.v1.worker.workspace"
WINDOW_LAYER = "the layer's window"
WRITES_WINDOW = "harness for HIP fused_deepseek_v4_qnorm_rope_kv_rope_quant_insert"
CODED, ROTARY, GROUP, SCALE_BYTES = 448, 64, 64, 8
ROW = CODED + 2 * ROTARY  # bytes of a key before the scales of its block
ALIGNED = 576  # what vLLM makes the bytes of a block a multiple of
WINDOW_BLOCK = 64  # keys of a block of the window's cache
LEAST = 1e-4  # the largest magnitude of a group that a scale is made for
# What the largest magnitude of a group becomes: vLLM leaves out a step of E4M3FNUZ.
PEAK = {torch.float8_e4m3fn: 448.0, torch.float8_e4m3fnuz: 224.0}
CHUNK = 4  # sequences that a prefill gathers at a time, as vLLM has it
SCRATCH = 1 << 24  # bytes of the workspace, poisoned beforehand


@dataclass(frozen=True)
class Chosen:
    """What a step's decodes and prefills see of compressed keys: positions [T, topk], -1 behind."""

    local: torch.Tensor
    slots: torch.Tensor
    lens: torch.Tensor


class WindowedBackend(VllmBackend):
    """Attention over the keys of a window and over chosen ones."""

    def __init__(self, kernels: VllmKernels, name: str) -> None:
        super().__init__(kernels, name)
        self._window = self._topk = self._block_size = self._num_blocks = self._pad = 0
        self._longest = 1
        self._poison = "nan"
        self._rows = torch.empty(0)

    def check(self, problem: ProblemFields) -> None:
        super().check(problem)
        self._window, self._topk = problem["window"][0] + 1, problem["topk"]
        self._block_size, self._poison = problem["block_size"], problem["poison"]
        self._pad = problem["block_pad"]

    @property
    def _ratio(self) -> int:
        """Tokens that a compressed key stands for (``Problem.tokens_of_a_chosen_key``)."""
        return 2 * self._window

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        self._num_blocks = num_blocks
        self._rows = torch.zeros(
            (num_blocks * geometry.block_size, geometry.head_size),
            dtype=geometry.dtype,
            device=device,
        )
        parts = geometry.block_size // WINDOW_BLOCK
        return _pages(num_blocks * parts, WINDOW_BLOCK, geometry, self._pad, device)

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,  # noqa: ARG002 - the key is the value
        cache: torch.Tensor,
        slots: torch.Tensor,
        layer: Layer,  # noqa: ARG002 - nothing is scaled
    ) -> Dispatch:
        stored = slots >= 0
        rows, slots = key[: len(slots), 0][stored], slots[stored]
        self._rows[slots] = rows
        _store(rows, cache, slots, current_platform().fp8_dtype())
        return [WRITES_WINDOW]

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        assert given.selected is not None
        batch, tokens_at = decodes_first(with_tokens_only(given.batch)[0])
        table = batch.block_table.clamp(0, self._num_blocks - 1).contiguous()
        batch = replace(batch, block_table=table)
        module = importlib.import_module(ROCM)
        compressed = _pages(
            self._num_blocks,
            self._block_size // self._ratio,
            layer.geometry,
            self._pad,
            given.query.device,
        )
        fill(compressed, self._poison)
        chosen = self._chosen(given.selected[tokens_at], batch)
        in_order = bool((tokens_at.diff() == 1).all())
        whole = slice(int(tokens_at[0]), int(tokens_at[-1]) + 1)
        query = given.query[whole] if in_order else given.query[tokens_at]
        out = given.out[whole] if in_order else torch.empty_like(query)
        with self._in_a_step(module, batch, chosen), self.launches.watch() as ran:
            self._compress(batch, compressed)
            attention = self._layer(module, layer, chosen, given.cache, compressed)
            positions = positions_of(batch)
            attention.forward_mqa(query, None, positions, out)
        if not in_order:
            given.out[tokens_at] = out
        return ran

    def _layer(
        self,
        module: ModuleType,
        layer: Layer,
        chosen: Chosen,
        window: torch.Tensor,
        compressed: torch.Tensor,
    ) -> Any:
        """The model's layer as far as its attention reads it; another pass rotates outputs."""
        cls = module.DeepseekV4ROCMAiterMLAAttention
        made: Any = StandIn(
            "its attention layer",
            prefix=LAYER,
            kv_cache=compressed,
            swa_cache_layer=SimpleNamespace(prefix=WINDOW_LAYER, kv_cache=window),
            compress_ratio=self._ratio,
            window_size=self._window,
            topk_indices_buffer=chosen.local,
            attn_sink=layer.scores.sinks,
            scale=layer.scores.scale,
            head_dim=CODED + ROTARY,
            nope_head_dim=CODED,
            rope_head_dim=ROTARY,
            n_local_heads=layer.geometry.num_heads,
            rotary_emb=SimpleNamespace(cos_sin_cache=None),
            max_model_len=self._longest,
            max_num_batched_tokens=len(chosen.local),
            max_image_tokens=0,
            kv_cache_dtype=self._cache_type,
            PREFILL_CHUNK_SIZE=CHUNK,
            _has_kv_transfer=False,
            _use_aiter_sparse_mla=False,
            _wo_a_fp8_weight=chosen.local,
        )
        for name in ("forward_mqa", "_forward_decode", "_forward_prefill"):
            setattr(made, name, partial(getattr(cls, name), made))
        return made

    def _compress(self, batch: Batch, compressed: torch.Tensor) -> None:
        """Stores a sequence's first keys as compressed ones, as many as there are to be."""
        size, per_block = self._block_size, self._block_size // self._ratio
        slots, sources = [], []
        for keys, table in zip(batch.seq_lens.tolist(), batch.block_table, strict=True):
            position = torch.arange(keys // self._ratio, device=table.device)
            slots.append(table[position // per_block] * per_block + position % per_block)
            sources.append(table[position // size] * size + position % size)
        where = torch.cat(slots).long()
        if not len(where):
            return
        store: Any = importlib.import_module(STORES).quantize_and_insert_k_cache
        rows = self._rows[torch.cat(sources).long()].contiguous()
        with self._seen_on_gpu():
            store(rows, compressed, where, block_size=per_block)

    def _chosen(self, selected: torch.Tensor, batch: Batch) -> Chosen:
        """Which compressed keys tokens see.

        Raises:
            Refused: not as many as vLLM's indexer chooses.
        """
        lens = ((positions_of(batch) + 1) // self._ratio).clamp(max=self._topk).int()
        front = torch.arange(self._topk, device=selected.device) < lens[:, None]
        if bool((front != (selected >= 0)).any()):
            raise Refused("vLLM's indexer chooses all keys that there are, or as many as it may")
        per_block = self._block_size // self._ratio
        of_token = batch.block_table[_sequence_of(batch)]
        blocks = of_token.gather(1, selected.clamp(min=0).long() // per_block)
        slots = torch.where(front, blocks * per_block + selected % per_block, -1)
        return Chosen(selected.int().contiguous(), slots.int().contiguous(), lens)

    @contextlib.contextmanager
    def _in_a_step(self, module: ModuleType, batch: Batch, chosen: Chosen) -> Iterator[None]:
        """What surrounds the layer in a step of vLLM's: its metadata, and a workspace of NaN."""
        self._longest = max(batch.max_seq_len, 1)
        decodes = int((batch.query_start_loc.diff() == 1).sum())
        with describing(f"a batch of {self.name}"):
            metadata = {
                LAYER: self._of_chosen(batch, chosen, decodes),
                WINDOW_LAYER: self._of_window(module, batch, decodes),
            }
        context = StandIn("a step's context", attn_metadata=metadata)
        workspace = importlib.import_module(WORKSPACE)
        workspace.reset_workspace_manager()
        workspace.init_workspace_manager(torch.device(self.device))
        with contextlib.ExitStack() as stack:
            enter = stack.enter_context
            stack.callback(workspace.reset_workspace_manager)
            enter(mock.patch.object(module, "get_forward_context", lambda: context))
            if self.kernels.simulated:
                enter(mock.patch.object(torch.accelerator, "empty_cache", lambda: None))
            manager = workspace.current_workspace_manager()
            manager.get_simultaneous(((SCRATCH,), torch.uint8))[0].fill_(0xFF)
            enter(self._seen_on_gpu())
            yield

    def _seen_on_gpu(self) -> contextlib.AbstractContextManager[object]:
        """Around a launch: kernels are not launched with tensors of the host."""
        return simulated_gpu.SeenOnGpu() if self.kernels.simulated else contextlib.nullcontext()

    def _of_chosen(self, batch: Batch, chosen: Chosen, decodes: int) -> object:
        return StandIn(
            "its chosen keys",
            block_size=self._block_size,
            block_table=batch.block_table,
            for_cudagraph_capture=False,
            c128a_global_decode_topk_indices=chosen.slots[:decodes, None],
            c128a_decode_topk_lens=chosen.lens[:decodes],
            c128a_decode_topk_ragged_indices=None,
            c128a_decode_topk_ragged_indptr=None,
            c128a_prefill_topk_indices=chosen.local[decodes:],
        )

    def _of_window(self, module: ModuleType, batch: Batch, decodes: int) -> object:
        """vLLM's own description of the window's keys; its fields are found by name."""
        parts = self._block_size // WINDOW_BLOCK
        numbers = torch.arange(parts, device=batch.block_table.device, dtype=torch.int32)
        table = (batch.block_table[..., None] * parts + numbers).flatten(1).contiguous()
        positions, sequence = positions_of(batch), _sequence_of(batch)
        lens = (positions + 1).clamp(max=self._window)
        offsets = torch.arange(self._window, device=lens.device)
        there = (positions - lens + 1)[:, None] + offsets
        inside = offsets < lens[:, None]
        blocks = table[sequence].gather(1, torch.where(inside, there, 0) // WINDOW_BLOCK)
        slots = torch.where(inside, blocks * WINDOW_BLOCK + there % WINDOW_BLOCK, -1).int()
        queries, keys = batch.query_start_loc.diff()[decodes:], batch.seq_lens[decodes:]
        tokens = len(positions)
        known = {
            "block_table": table,
            "slot_mapping": torch.zeros(tokens, dtype=torch.int64, device=lens.device),
            "block_size": WINDOW_BLOCK,
            "seq_lens": batch.seq_lens,
            "query_start_loc": batch.query_start_loc,
            "query_start_loc_cpu": batch.query_start_loc.cpu(),
            "is_valid_token": torch.ones(tokens, dtype=torch.bool, device=lens.device),
            "token_to_req_indices": sequence.int(),
            "decode_swa_indices": slots[:decodes, None].contiguous(),
            "decode_swa_lens": lens[:decodes].int(),
            "decode_swa_width": self._window,
            "num_decodes": decodes,
            "num_prefills": len(keys),
            "num_decode_tokens": decodes,
            "num_prefill_tokens": tokens - decodes,
            "prefill_seq_lens": keys.contiguous(),
            "prefill_seq_lens_cpu": keys.cpu(),
            "prefill_gather_lens": queries + (keys - queries).clamp(max=self._window - 1),
            "prefill_query_lens_cpu": queries.cpu(),
            "prefill_window_size": self._window,
            "prefill_max_model_len": self._longest,
            "prefill_max_num_batched_tokens": tokens,
        }
        return made_of(module.DeepseekV4ROCMAiterSparseSWAMetadata, known)


def _sequence_of(batch: Batch) -> torch.Tensor:
    """The sequence of each query token."""
    lens = batch.query_start_loc.diff()
    return torch.arange(len(lens), device=lens.device).repeat_interleave(lens)


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


def _pages(
    blocks: int, keys: int, geometry: Geometry, pad: int, device: torch.device
) -> torch.Tensor:
    """An uninitialised cache [blocks, keys, bytes] whose blocks are as far apart as vLLM's."""
    row = packed_bytes(geometry.packing, geometry.head_size)
    step = _aligned(keys * row) + _aligned(pad)
    raw = torch.empty(blocks * step, dtype=torch.uint8, device=device)
    return raw.as_strided((blocks, keys, row), (step, row, 1))


def _store(
    rows: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor, encoding: torch.dtype
) -> None:
    """Stores keys [T, 512] in a cache of this encoding: codes and rotary columns, then scales."""
    blocks, keys, _ = cache.shape
    grouped = rows[:, :CODED].double().view(len(rows), CODED // GROUP, GROUP)
    largest = grouped.abs().amax(2).clamp_min(LEAST)
    exponent = torch.ceil(torch.log2(largest / PEAK[encoding]))
    codes = torch.ldexp(grouped, -exponent[..., None]).flatten(1).float().to(encoding)
    rotary = rows[:, CODED:].contiguous().view(torch.uint8)
    row = torch.cat([codes.view(torch.uint8), rotary], 1)
    scales = torch.zeros((len(rows), SCALE_BYTES), dtype=torch.uint8, device=rows.device)
    scales[:, : exponent.shape[1]] = (exponent + 127).to(torch.uint8)
    flat = cache.as_strided((blocks, cache.stride(0)), (cache.stride(0), 1))
    block, place = (slots // keys)[:, None], (slots % keys)[:, None]
    flat[block, place * ROW + torch.arange(ROW, device=rows.device)] = row
    behind = keys * ROW + place * SCALE_BYTES
    flat[block, behind + torch.arange(SCALE_BYTES, device=rows.device)] = scales
