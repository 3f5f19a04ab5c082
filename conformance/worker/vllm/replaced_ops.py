"""Torch replacements for the ops that vLLM's attention calls and that are not Triton kernels.

They are used where there is no AMD GPU. Each does what the op that it replaces is documented to do,
and what ran names it as the harness's, so that no result is taken for vLLM's. Decoding is never
replaced. Sources: https://github.com/vllm-project/vllm/tree/v0.19.0, csrc/cache_kernels.cu and
csrc/rocm/attention.cu.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch

from ..errors import Refused, UnknownError
from ..launches import Launches
from .needs import needs
from .objects import current_platform
from .stand_ins import answering

HARNESS = "harness for HIP "
# FlashAttention as vLLM calls it: gives the output, with ``return_attn_probs`` the log-sum-exp too.
Attention = Callable[..., torch.Tensor | tuple[torch.Tensor, torch.Tensor, None]]


def install(launches: Launches, why_not: str = "", *, hip: bool = False) -> None:
    """Installs the replacements where vLLM, in this process, calls its compiled ops.

    ``hip``: the HIP ops run here as vLLM has them, but for the gather and the merge.
    ``why_not``: why they do not, on a device that could run them.
    """
    ops = vars(importlib.import_module("vllm._custom_ops"))
    replaced = _ReplacedOps(launches, why_not)
    # ``merge_attn_states`` is a HIP op on CDNA3 and later from 0.32 on, Triton's elsewhere.
    for name in ("gather_and_maybe_dequant_cache", "merge_attn_states"):
        ops[name] = answering(getattr(replaced, name))
    if hip:
        return
    for name in (
        "reshape_and_cache",
        "reshape_and_cache_flash",
        "concat_and_cache_mla",
        "paged_attention_rocm",
    ):
        ops[name] = answering(getattr(replaced, name))
    # FLEX_ATTENTION calls the op itself, not its wrapper, and compiles for the GPU.
    vars(torch.ops._C_cache_ops)["reshape_and_cache_flash"] = ops["reshape_and_cache_flash"]


def eager_flex_attention(launches: Launches) -> None:
    """Makes FLEX_ATTENTION call torch's flex attention without compiling it to a kernel."""
    module = importlib.import_module("vllm.v1.attention.backends.flex_attention")
    flex = importlib.import_module("torch.nn.attention.flex_attention")
    vars(flex)["_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"] = True

    def attend(*arguments: object, **options: object) -> object:
        launches.add("torch flex_attention, not compiled")
        return flex.flex_attention(*arguments, **options)

    vars(module).update(
        flex_attention_compiled=attend, create_block_mask_compiled=flex.create_block_mask
    )


def _stored_at(
    slot_mapping: torch.Tensor, size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which tokens are stored; and the block (of ``size`` slots) and the slot in it of each."""
    kept = slot_mapping >= 0
    return kept, slot_mapping[kept] // size, slot_mapping[kept] % size


class _ReplacedOps:
    def __init__(self, launches: Launches, why_not: str = "") -> None:
        self._launches = launches
        self._why_not = why_not

    def reshape_and_cache(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        key_cache: torch.Tensor,
        value_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
        kv_cache_dtype: str,
        k_scale: torch.Tensor,
        v_scale: torch.Tensor,
        interleaved_v: bool = False,
    ) -> None:
        """Stores keys in [blocks, G, D/x, block size, x], values in [blocks, G, D, block size].

        Interleaved values are in [blocks, G, block size/x, D, x] (csrc/cache_kernels.cu of 0.33).
        """
        self._ran("reshape_and_cache")
        size, x = key_cache.shape[3:]
        kept, block, offset = _stored_at(slot_mapping, size)
        rows = _stored(key[: len(kept)][kept], key_cache, kv_cache_dtype, k_scale)
        key_cache[block, :, :, offset] = rows.reshape(*rows.shape[:-1], rows.shape[-1] // x, x)
        rows = _stored(value[: len(kept)][kept], value_cache, kv_cache_dtype, v_scale)
        if interleaved_v:
            packs = value_cache.view(*value_cache.shape[:2], size // x, -1, x)
            packs[block, :, offset // x, :, offset % x] = rows
        else:
            value_cache[block, :, :, offset] = rows

    def reshape_and_cache_flash(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        key_cache: torch.Tensor,
        value_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
        kv_cache_dtype: str,
        k_scale: torch.Tensor,
        v_scale: torch.Tensor,
    ) -> None:
        """Stores keys and values in [blocks, block size, G, D]."""
        self._ran("reshape_and_cache_flash")
        size = key_cache.shape[1]
        kept, block, offset = _stored_at(slot_mapping, size)
        for x, cache, scale in ((key, key_cache, k_scale), (value, value_cache, v_scale)):
            cache[block, offset] = _stored(x[: len(kept)][kept], cache, kv_cache_dtype, scale)

    def concat_and_cache_mla(
        self,
        kv_c: torch.Tensor,
        k_pe: torch.Tensor,
        kv_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
        kv_cache_dtype: str,
        scale: torch.Tensor,
        skip_scale: bool = False,
    ) -> None:
        """Stores the latent vector, followed by the rope part, in [blocks, block size, D]."""
        if skip_scale:
            raise UnknownError("the harness does not know how a latent cache leaves out its scale")
        self._ran("concat_and_cache_mla")
        size = kv_cache.shape[1]
        kept, block, offset = _stored_at(slot_mapping, size)
        rows = torch.cat([kv_c, k_pe], -1)[: len(kept)][kept]
        kv_cache[block, offset] = _stored(rows, kv_cache, kv_cache_dtype, scale)

    def gather_and_maybe_dequant_cache(
        self,
        src_cache: torch.Tensor,
        dst: torch.Tensor,
        block_table: torch.Tensor,
        cu_seq_lens: torch.Tensor,
        token_to_seq: torch.Tensor,
        num_tokens: int,
        kv_cache_dtype: str,
        scale: torch.Tensor,
        seq_starts: torch.Tensor | None = None,
    ) -> None:
        """Copies each sequence's cached rows, dequantised and packed, to the first of ``dst``."""
        self._ran("gather_and_maybe_dequant_cache")
        size = src_cache.shape[1]
        token = torch.arange(int(num_tokens), device=dst.device)
        sequence = token_to_seq[: len(token)].long()
        position = token - cu_seq_lens[sequence]
        if seq_starts is not None:
            position = position + seq_starts[sequence]
        block = block_table[sequence, position // size].long()
        stored = src_cache.view(torch.uint8) if kv_cache_dtype.startswith("fp8") else src_cache
        rows = stored[block, position % size]
        if kv_cache_dtype.startswith("fp8"):
            rows = rows.view(_encoding(kv_cache_dtype)).float() * scale
        dst[: len(token)] = rows.to(dst.dtype)

    def merge_attn_states(
        self,
        output: torch.Tensor,
        prefix_output: torch.Tensor,
        prefix_lse: torch.Tensor,
        suffix_output: torch.Tensor,
        suffix_lse: torch.Tensor,
        output_lse: torch.Tensor | None = None,
        prefill_tokens_with_context: int | None = None,
        output_scale: torch.Tensor | None = None,
    ) -> None:
        """Joins two parts [T, H, V] of an attention by their log-sum-exps [H, T].

        Of tokens from ``prefill_tokens_with_context`` on there is the second part alone.
        """
        self._ran("merge_attn_states")
        if output_scale is not None:
            raise UnknownError("the harness does not know how to merge into an fp8 output")
        both = torch.stack([prefix_lse, suffix_lse]).float()
        # A part without keys says infinity in FlashAttention's convention, or minus infinity.
        both = both.masked_fill(both == float("inf"), float("-inf"))
        if prefill_tokens_with_context is not None:
            both[0, :, prefill_tokens_with_context:] = float("-inf")
        total = both.logsumexp(0)
        weights = (both - total).exp().nan_to_num(0.0).transpose(1, 2)[..., None]
        parts = torch.stack([prefix_output, suffix_output]).float()
        merged = torch.where(weights > 0, weights * parts, 0.0).sum(0)
        output.copy_(merged)
        if output_lse is not None:
            output_lse.copy_(total)

    def paged_attention_rocm(
        self, *_: object, query_start_loc: torch.Tensor, **_others: object
    ) -> None:
        """Refuses to decode; has nothing to do for sequences of more than one query token."""
        if bool((query_start_loc.diff() == 1).any()):
            if self._why_not:
                raise Refused(f"unsupported here: paged_attention_rocm: {self._why_not}")
            raise needs("paged_attention_rocm")
        self._launches.add("HIP paged_attention_rocm, with nothing to decode")

    def flash_attn_varlen_func(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cu_seqlens_q: torch.Tensor,
        cu_seqlens_k: torch.Tensor,
        softmax_scale: float,
        causal: bool,
        return_attn_probs: bool = False,
        **_others: object,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor, None]:
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


def flash_attention(launches: Launches) -> Attention:
    """The replacement of ``flash_attn.flash_attn_varlen_func``."""
    return _ReplacedOps(launches).flash_attn_varlen_func


def _encoding(kv_cache_dtype: str) -> torch.dtype:
    """What a cache of one of vLLM's "fp8" dtypes holds."""
    if kv_cache_dtype == "fp8_e5m2":
        return torch.float8_e5m2
    return current_platform().fp8_dtype()


def _stored(
    rows: torch.Tensor, cache: torch.Tensor, kv_cache_dtype: str, scale: torch.Tensor
) -> torch.Tensor:
    """Rows [T, G, D] as the cache holds them: ``round(x / scale)``, saturated, where it is fp8.

    ``scale`` is one for all, or one a head.
    """
    if not kv_cache_dtype.startswith("fp8"):
        return rows.to(cache.dtype)
    if kv_cache_dtype == "fp8_e5m2":
        # It is not known what the HIP kernels store then: they are written for e4m3.
        raise needs("reshape_and_cache")
    encoding = _encoding(kv_cache_dtype)
    limit = torch.finfo(encoding).max
    scale = scale.view(-1, 1) if scale.numel() > 1 else scale
    return (rows.float() / scale).clamp(-limit, limit).to(encoding).view(cache.dtype)
