"""What vLLM's attention calls that is no Triton kernel, done in torch where no AMD GPU is.

Each stand-in does what the operation that it stands for is documented to do, and is named as the
harness's in what ran, so that no result claims it for vLLM's. Decoding is never stood in for.
Sources: https://github.com/vllm-project/vllm/tree/v0.19.0, csrc/cache_kernels.cu and
csrc/rocm/attention.cu.
"""

import importlib
from typing import Any

import torch

from ..launches import Launches
from .needs import needs

HARNESS = "harness for HIP "


def install(launches: Launches) -> None:
    """Puts the stand-ins where this process's vLLM calls its compiled operations."""
    ops: Any = importlib.import_module("vllm._custom_ops")
    stand_ins = _StandIns(launches)
    for name in ("reshape_and_cache", "reshape_and_cache_flash", "concat_and_cache_mla"):
        setattr(ops, name, getattr(stand_ins, name))
    ops.gather_and_maybe_dequant_cache = stand_ins.gather_and_maybe_dequant_cache
    ops.paged_attention_rocm = stand_ins.paged_attention_rocm
    # FLEX_ATTENTION calls the operation itself, not its wrapper, and compiles for the GPU.
    compiled: Any = torch.ops._C_cache_ops
    compiled.reshape_and_cache_flash = stand_ins.reshape_and_cache_flash


def eager_flex_attention(launches: Launches) -> None:
    """torch's flex attention as it is written, instead of the kernel that torch makes of it."""
    module: Any = importlib.import_module("vllm.v1.attention.backends.flex_attention")
    flex: Any = importlib.import_module("torch.nn.attention.flex_attention")
    flex._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = True

    def attend(*arguments: Any, **options: Any) -> Any:
        launches.add("torch flex_attention, not compiled")
        return flex.flex_attention(*arguments, **options)

    module.flex_attention_compiled = attend
    module.create_block_mask_compiled = flex.create_block_mask


def _places(slot_mapping: Any, size: int) -> tuple[Any, Any, Any]:
    """Which tokens are stored, and for those the block, of ``size`` slots, and the slot in it."""
    kept = slot_mapping >= 0
    return kept, slot_mapping[kept] // size, slot_mapping[kept] % size


class _StandIns:
    def __init__(self, launches: Launches) -> None:
        self._launches = launches

    def reshape_and_cache(
        self,
        key: Any,
        value: Any,
        key_cache: Any,
        value_cache: Any,
        slot_mapping: Any,
        kv_cache_dtype: str,
        k_scale: Any,
        v_scale: Any,
    ) -> None:
        """Keys to [blocks, G, D/x, block size, x], values to [blocks, G, D, block size]."""
        self._ran("reshape_and_cache")
        size, x = key_cache.shape[3:]
        kept, block, offset = _places(slot_mapping, size)
        rows = _stored(key[: len(kept)][kept], key_cache, kv_cache_dtype, k_scale)
        key_cache[block, :, :, offset] = rows.unflatten(2, (-1, x))
        rows = _stored(value[: len(kept)][kept], value_cache, kv_cache_dtype, v_scale)
        value_cache[block, :, :, offset] = rows

    def reshape_and_cache_flash(
        self,
        key: Any,
        value: Any,
        key_cache: Any,
        value_cache: Any,
        slot_mapping: Any,
        kv_cache_dtype: str,
        k_scale: Any,
        v_scale: Any,
    ) -> None:
        """Keys and values to [blocks, block size, G, D]."""
        self._ran("reshape_and_cache_flash")
        size = key_cache.shape[1]
        kept, block, offset = _places(slot_mapping, size)
        for x, cache, scale in ((key, key_cache, k_scale), (value, value_cache, v_scale)):
            cache[block, offset] = _stored(x[: len(kept)][kept], cache, kv_cache_dtype, scale)

    def concat_and_cache_mla(
        self,
        kv_c: Any,
        k_pe: Any,
        kv_cache: Any,
        slot_mapping: Any,
        kv_cache_dtype: str,
        scale: Any,
    ) -> None:
        """The latent vector and the rope part, one after the other, to [blocks, block size, D]."""
        self._ran("concat_and_cache_mla")
        size = kv_cache.shape[1]
        kept, block, offset = _places(slot_mapping, size)
        rows = torch.cat([kv_c, k_pe], -1)[: len(kept)][kept]
        kv_cache[block, offset] = _stored(rows, kv_cache, kv_cache_dtype, scale)

    def gather_and_maybe_dequant_cache(
        self,
        src_cache: Any,
        dst: Any,
        block_table: Any,
        cu_seq_lens: Any,
        token_to_seq: Any,
        num_tokens: int,
        kv_cache_dtype: str,
        scale: Any,
        seq_starts: Any = None,
    ) -> None:
        """Cached rows of each sequence, packed and dequantised, to the first rows of ``dst``."""
        self._ran("gather_and_maybe_dequant_cache")
        size = src_cache.shape[1]
        token = torch.arange(int(num_tokens), device=dst.device)
        sequence = token_to_seq[: len(token)].long()
        place = token - cu_seq_lens[sequence]
        if seq_starts is not None:
            place = place + seq_starts[sequence]
        block = block_table[sequence, place // size].long()
        stored = src_cache.view(torch.uint8) if kv_cache_dtype.startswith("fp8") else src_cache
        rows = stored[block, place % size]
        if kv_cache_dtype.startswith("fp8"):
            rows = rows.view(_encoding(kv_cache_dtype)).float() * scale
        dst[: len(token)] = rows.to(dst.dtype)

    def paged_attention_rocm(self, *_: Any, query_start_loc: Any, **_others: Any) -> None:
        """Sequences of more than one query token are not its concern; of others it is needed."""
        if bool((query_start_loc.diff() == 1).any()):
            raise needs("paged_attention_rocm")
        self._launches.add("HIP paged_attention_rocm, with nothing to decode")

    def flash_attn_varlen_func(
        self,
        q: Any,
        k: Any,
        v: Any,
        cu_seqlens_q: Any,
        cu_seqlens_k: Any,
        softmax_scale: float,
        causal: bool,
        return_attn_probs: bool = False,
        **_others: Any,
    ) -> Any:
        """Exact attention of packed sequences, rounded once; log-sum-exp [H, T] in float32."""
        self._launches.add("harness for CK flash_attn_varlen_func")
        out = torch.zeros(*q.shape[:2], v.shape[2], dtype=q.dtype, device=q.device)
        lse = torch.full((q.shape[1], len(q)), float("-inf"), device=q.device)
        starts = zip(cu_seqlens_q.tolist(), cu_seqlens_k.tolist(), strict=True)
        at, key_at = next(starts)
        for end, key_end in starts:
            queries, keys, values = (
                x[slice(*part)].double().transpose(0, 1)
                for x, part in ((q, (at, end)), (k, (key_at, key_end)), (v, (key_at, key_end)))
            )
            logits = queries @ keys.transpose(1, 2) * softmax_scale
            if causal:
                ones = torch.ones(logits.shape[1:], dtype=torch.bool, device=q.device)
                hidden = ones.triu(1 + logits.shape[2] - logits.shape[1])
                logits = logits.masked_fill(hidden, float("-inf"))
            if key_end > key_at:
                lse[:, at:end] = logits.logsumexp(2).float()
                out[at:end] = (logits.softmax(2) @ values).transpose(0, 1).to(q.dtype)
            at, key_at = end, key_end
        return (out, lse, None) if return_attn_probs else out

    def _ran(self, name: str) -> None:
        self._launches.add(f"{HARNESS}{name}")


def flash_attention(launches: Launches) -> Any:
    """The stand-in for ``flash_attn.flash_attn_varlen_func``."""
    return _StandIns(launches).flash_attn_varlen_func


def _encoding(kv_cache_dtype: str) -> Any:
    platform = importlib.import_module("vllm.platforms").current_platform
    return torch.float8_e5m2 if kv_cache_dtype == "fp8_e5m2" else platform.fp8_dtype()


def _stored(rows: Any, cache: Any, kv_cache_dtype: str, scale: Any) -> Any:
    """Rows as the cache holds them: ``round(x / scale)``, saturated, where it is fp8."""
    if not kv_cache_dtype.startswith("fp8"):
        return rows.to(cache.dtype)
    if kv_cache_dtype == "fp8_e5m2":
        # What the HIP kernels then store is not known: they are written for e4m3.
        raise needs("reshape_and_cache")
    encoding = _encoding(kv_cache_dtype)
    limit = torch.finfo(encoding).max
    return (rows.float() / scale).clamp(-limit, limit).to(encoding).view(cache.dtype)
