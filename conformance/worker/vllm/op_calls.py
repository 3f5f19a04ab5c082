"""vLLM's own Triton kernels, each called through its op's public function with real tensors.

Running a :class:`Call` makes its tensors from a seed, launches vLLM's unmodified kernels on
whatever device is active, and returns the output together with the keys and values that it should
have been computed from, so that a judge has to know nothing about caches. Ops that need HIP, CK or
assembly kernels are not here: they run on a ROCm host only.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ..contract import Call
from .op_inputs import Inputs, head_major, make_inputs, paged, query_rows, store_dtype

OPS = "vllm.v1.attention.ops"


@dataclass
class Computed:
    """What a call computed, and from what.

    ``out`` [T, H, V]; ``query`` [T, H, D]; ``keys`` and ``values`` per sequence [L, G, D] and
    [L, G, V], as stored (fp8 already rounded), all on the CPU; ``lse`` the natural log-sum-exp, by
    the op's own layout, where it gives one.
    """

    out: torch.Tensor
    query: torch.Tensor
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    sinks: torch.Tensor | None
    scale: float
    lse: torch.Tensor | None = None


@dataclass
class Merged:
    """The merge of two partial results: ``parts`` [T, H, V] and ``logs`` [H, T] are its inputs."""

    out: torch.Tensor
    lse: torch.Tensor
    parts: list[torch.Tensor]
    logs: list[torch.Tensor]


@dataclass
class Stored:
    """What a cache write stored: ``key`` and ``value`` [T, G, D] at ``slots`` of two ``caches``."""

    caches: list[torch.Tensor]
    slots: list[int]
    key: torch.Tensor
    value: torch.Tensor


Result = Computed | Merged | Stored


def run_call(call: Call) -> Result:
    """Runs one call.

    Raises:
        KeyError: an unknown op; and whatever the op raises.
    """
    return _OPS[call.op](call)


def _computed(
    call: Call, given: Inputs, out: torch.Tensor, lse: torch.Tensor | None = None
) -> Computed:
    dtype = store_dtype(call)
    keys = [k.float().to(dtype).float() for k in given.keys]
    values = [v.float().to(dtype).float() for v in given.values]
    return Computed(out, given.query, keys, values, given.sinks, given.scale, lse)


def _buffers(tokens: int, heads: int, segments: int, size: int) -> dict[str, object]:
    """What the unified ops take to divide keys: partial results of values of ``size`` columns."""
    rows, padded = (tokens, heads, segments), 1 << (size - 1).bit_length()
    return {
        "seq_threshold_3D": 8,
        "num_par_softmax_segments": segments,
        "softmax_segm_output": torch.full((*rows, padded), float("nan")),
        "softmax_segm_max": torch.full(rows, float("nan")),
        "softmax_segm_expsum": torch.full(rows, float("nan")),
    }


def _unified(call: Call, segments: int) -> Computed:
    op = importlib.import_module(f"{OPS}.triton_unified_attention").unified_attention
    if segments:
        call = replace(call, sequences=tuple((1, n) for _, n in call.sequences))
    given = make_inputs(call)
    out = torch.full_like(given.query, float("nan"))
    buffers = _buffers(len(given.query), call.heads, segments, call.head_size) if segments else {}
    one = torch.ones(len(call.sequences), call.kv_heads)
    op(
        q=given.query,
        k=paged(call, given, given.keys),
        v=paged(call, given, given.values),
        out=out,
        cu_seqlens_q=given.query_start,
        max_seqlen_q=given.max_query,
        seqused_k=given.seq_lens,
        max_seqlen_k=given.max_seq,
        softmax_scale=given.scale,
        causal=True,
        window_size=(call.window - 1, 0) if call.window else (-1, -1),
        block_table=given.block_table,
        softcap=call.soft_cap,
        q_descale=None,
        k_descale=one if call.kv_dtype != "auto" else None,
        v_descale=one if call.kv_dtype != "auto" else None,
        sinks=given.sinks,
        **buffers,
    )
    return _computed(call, given, out)


def _diffkv(call: Call, segments: int) -> Computed:
    """TRITON_ATTN_DIFFKV's op over a cache whose slots hold a key, then a value."""
    op = importlib.import_module(f"{OPS}.triton_unified_attention_diffkv").unified_attention_diffkv
    if segments:
        call = replace(call, sequences=tuple((1, n) for _, n in call.sequences))
    given = make_inputs(call)
    both = torch.cat([paged(call, given, given.keys), paged(call, given, given.values)], -1)
    tokens, v_size = len(given.query), given.values[0].shape[-1]
    out = torch.full((tokens, call.heads, v_size), float("nan"), dtype=given.query.dtype)
    more = _buffers(tokens, call.heads, segments, v_size) if segments else {}
    if call.kv_dtype != "auto":
        more |= {"k_descale": torch.ones(1), "v_descale": torch.ones(1)}
    op(
        q=given.query,
        k=both[..., : call.head_size],
        v=both[..., call.head_size :],
        out=out,
        cu_seqlens_q=given.query_start,
        max_seqlen_q=given.max_query,
        seqused_k=given.seq_lens,
        softmax_scale=given.scale,
        causal=True,
        window_size=(call.window - 1, 0) if call.window else (-1, -1),
        block_table=given.block_table,
        softcap=call.soft_cap,
        sinks=given.sinks,
        **more,
    )
    return _computed(call, given, out)


def _segmented(call: Call, queries: int) -> Computed:
    """ROCM_SEGMENTED_ATTN's op: ``queries`` tokens of each sequence after a context."""
    op = importlib.import_module(f"{OPS}.segmented_attention").run_segmented_attention
    given = make_inputs(replace(call, sequences=((queries, 300), (queries, 70))))
    out = torch.full_like(given.query, float("nan"))
    op(
        given.query,
        out,
        paged(call, given, given.keys),
        paged(call, given, given.values),
        given.block_table,
        given.query_start,
        given.seq_lens,
        given.max_query,
        given.max_seq,
        torch.ones(1),
        torch.ones(1),
        given.scale,
        sliding_window=call.window - 1 if call.window else -1,
        sinks=given.sinks,
    )
    return _computed(call, given, out)


def _rocm_attn(call: Call, sequences: tuple[tuple[int, int], ...]) -> Computed:
    """ROCM_ATTN's Triton path: the custom kernel does not take this block size."""
    op = importlib.import_module(f"{OPS}.chunked_prefill_paged_decode").chunked_prefill_paged_decode
    call = replace(call, sequences=sequences, block_size=64)
    given = make_inputs(call)
    out = torch.full_like(given.query, float("nan"))
    keys, values = head_major(call, given)
    op(
        query=given.query,
        key=query_rows(given.keys, call),
        value=query_rows(given.values, call),
        output=out,
        kv_cache_dtype=call.kv_dtype,
        key_cache=keys,
        value_cache=values,
        block_table=given.block_table,
        query_start_loc=given.query_start,
        seq_lens=given.seq_lens,
        max_seq_len=given.max_seq,
        max_query_len=given.max_query,
        k_scale=torch.ones(1),
        v_scale=torch.ones(1),
        sliding_window=call.window,
        sm_scale=given.scale,
        sinks=given.sinks,
    )
    # A prefill reads the query tokens' own keys as computed, not as stored in the cache.
    computed = _computed(call, given, out)
    for row, (queries, total) in enumerate(call.sequences):
        if queries > 1:
            computed.keys[row][total - queries :] = given.keys[row][total - queries :].float()
            computed.values[row][total - queries :] = given.values[row][total - queries :].float()
    return computed


def _prefill(call: Call) -> Computed:
    op = importlib.import_module(f"{OPS}.triton_prefill_attention").context_attention_fwd
    call = replace(call, sequences=((21, 21), (9, 9)))
    given = make_inputs(call)
    out = torch.full_like(given.query, float("nan"))
    op(
        given.query,
        torch.cat(given.keys),
        torch.cat(given.values),
        out,
        given.query_start[:-1],
        given.seq_lens,
        given.max_query,
        is_causal=True,
        softmax_scale=given.scale,
    )
    return _computed(call, given, out)


def _decode(call: Call) -> Computed:
    op = importlib.import_module(f"{OPS}.triton_decode_attention").decode_attention_fwd
    call = replace(call, sequences=((1, 37), (1, 21)))
    given = make_inputs(call)
    splits, v_size = 4, given.values[0].shape[-1]
    rows = len(call.sequences)
    keys = paged(call, given, given.keys)
    values = keys[..., :v_size] if call.op == "mla_decode" else paged(call, given, given.values)
    out = torch.full((rows, call.heads, v_size), float("nan"), dtype=given.query.dtype)
    lse = torch.full((rows, call.heads), float("nan"), dtype=given.query.dtype)
    # From 0.24 on an op that is told so reads values as the first columns of the keys.
    latent = {"is_mla": True} if call.op == "mla_decode" and _takes(op, "is_mla") else {}
    op(
        given.query,
        keys,
        values,
        out,
        lse,
        given.block_table,
        given.seq_lens,
        torch.full((rows, call.heads, splits, v_size + 1), float("nan")),
        splits,
        given.scale,
        call.block_size,
        **latent,
    )
    return _computed(call, given, out, lse=lse)


def _takes(op: Callable[..., object], name: str) -> bool:
    return name in inspect.signature(op).parameters


def _merge(call: Call) -> Merged:
    op = importlib.import_module(f"{OPS}.triton_merge_attn_states").merge_attn_states
    given = make_inputs(call)
    generator = torch.Generator().manual_seed(call.seed + 1)
    parts = [torch.randn(given.query.shape, generator=generator) for _ in range(2)]
    logs = [torch.randn(call.heads, given.query.shape[0], generator=generator) for _ in range(2)]
    parts = [part.to(given.query.dtype) for part in parts]
    logs[0][0, 0] = float("-inf")
    out, lse = torch.full_like(parts[0], float("nan")), torch.full_like(logs[0], float("nan"))
    op(out, parts[0], logs[0], parts[1], logs[1], lse)
    return Merged(out, lse, parts, logs)


def _cache_write(call: Call) -> Stored:
    op = importlib.import_module(
        f"{OPS}.triton_reshape_and_cache_flash"
    ).triton_reshape_and_cache_flash
    given = make_inputs(call)
    key, value = torch.cat(given.keys), torch.cat(given.values)
    slots = []
    for sequence, rows in enumerate(given.keys):
        for position in range(rows.shape[0]):
            block = int(given.block_table[sequence, position // call.block_size])
            slots.append(block * call.block_size + position % call.block_size)
    slots[3] = -1
    dtype = store_dtype(call)
    shape = (given.num_blocks, call.block_size, call.kv_heads, call.head_size)
    caches = [torch.zeros(shape).to(dtype) for _ in range(2)]
    op(
        key,
        value,
        caches[0],
        caches[1],
        torch.tensor(slots, dtype=torch.int64),
        "auto" if call.kv_dtype == "auto" else "fp8",
        torch.ones(1),
        torch.ones(1),
    )
    return Stored(caches, slots, key, value)


_OPS: dict[str, Callable[[Call], Result]] = {
    "unified_2d": lambda call: _unified(call, 0),
    "unified_3d": lambda call: _unified(call, 4),
    "diffkv_2d": lambda call: _diffkv(call, 0),
    "diffkv_3d": lambda call: _diffkv(call, 4),
    "segmented_prefill": lambda call: _segmented(call, 40),
    "segmented_decode": lambda call: _segmented(call, 1),
    "prefix_prefill": lambda call: _rocm_attn(call, ((5, 37), (3, 70))),
    "paged_2d": lambda call: _rocm_attn(call, ((1, 37), (1, 70))),
    "prefill": _prefill,
    "mla_decode": _decode,
    "mha_decode": _decode,
    "merge": _merge,
    "cache_write": _cache_write,
}
