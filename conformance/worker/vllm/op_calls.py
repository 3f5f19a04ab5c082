"""vLLM's own Triton kernels, each called through its op's public function with real tensors.

A :class:`Call` is one configuration of one op. Running it makes the tensors from a seed, launches
vLLM's unmodified kernels on whatever device is active, and gives back the output together with
the keys and values it should have been computed from, so that a judge needs no knowledge of
caches. What needs HIP, CK or assembly kernels is not here: it runs on a ROCm host only.
"""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..contract import Call

OPS = "vllm.v1.attention.ops"


@dataclass
class Outcome:
    """What a call computed, and from what.

    ``out`` [T, H, V]; ``query`` [T, H, D]; ``keys`` and ``values`` per sequence [L, G, D] and
    [L, G, V], as stored (fp8 already rounded), all on the CPU; ``extra`` holds whatever else an
    op computes, under a name its judge knows.
    """

    out: Any
    query: Any
    keys: list[Any]
    values: list[Any]
    sinks: Any
    scale: float
    extra: dict[str, Any]


@dataclass
class Inputs:
    """Tensors of a call before they are laid out for an op."""

    query: Any
    keys: list[Any]
    values: list[Any]
    query_start: Any
    seq_lens: Any
    block_table: Any
    num_blocks: int
    sinks: Any
    scale: float
    max_query: int
    max_seq: int


def run_call(call: Call) -> Outcome:
    """Runs one call; raises what the op raises, and LookupError for an unknown op."""
    return _OPS[call.op](call)


def make_inputs(call: Call) -> Inputs:
    """Queries, keys and values of a call, and a block table in a shuffled order."""
    import torch  # noqa: PLC0415 - the subject's

    generator = torch.Generator().manual_seed(call.seed)
    dtype = getattr(torch, call.dtype)
    v_size = 512 if call.op == "mla_decode" else call.head_size

    def normal(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator).to(dtype)

    query_lens = [q for q, _ in call.sequences]
    query = normal(sum(query_lens), call.heads, call.head_size)
    keys = [normal(n, call.kv_heads, call.head_size) for _, n in call.sequences]
    values = [normal(n, call.kv_heads, v_size) for _, n in call.sequences]
    if call.op == "mla_decode":
        values = [k[..., :v_size].clone() for k in keys]
    blocks = [math.ceil(n / call.block_size) for _, n in call.sequences]
    order = torch.randperm(sum(blocks) + 2, generator=generator).to(torch.int32)
    table = torch.zeros(len(blocks), max(blocks), dtype=torch.int32)
    at = 0
    for row, count in enumerate(blocks):
        table[row, :count] = order[at : at + count]
        at += count
    starts = torch.tensor([0, *query_lens], dtype=torch.int32).cumsum(0).to(torch.int32)
    return Inputs(
        query=query,
        keys=keys,
        values=values,
        query_start=starts,
        seq_lens=torch.tensor([n for _, n in call.sequences], dtype=torch.int32),
        block_table=table,
        num_blocks=sum(blocks) + 2,
        sinks=torch.randn(call.heads, generator=generator).to(dtype) if call.sinks else None,
        scale=call.head_size**-0.5,
        max_query=max(query_lens),
        max_seq=max(n for _, n in call.sequences),
    )


def _store_dtype(call: Call) -> Any:
    import torch  # noqa: PLC0415 - the subject's

    if call.kv_dtype == "auto":
        return getattr(torch, call.dtype)
    platform = importlib.import_module("vllm.platforms").current_platform
    return platform.fp8_dtype()


def _paged(call: Call, given: Inputs, rows: list[Any]) -> Any:
    """The rows of every sequence in a cache [blocks, block size, G, D]; other slots hold NaN.

    vLLM 0.19.0's ``kernel_paged_attention_2d`` multiplies the values of slots past a sequence's end
    by a weight of 0 instead of not reading them, so that NaN there reaches the output; it gets a
    finite number.
    """
    import torch  # noqa: PLC0415 - the subject's

    dtype = _store_dtype(call)
    shape = (given.num_blocks, call.block_size, call.kv_heads, rows[0].shape[-1])
    cache = torch.full(shape, 77.0 if call.op == "paged_2d" else float("nan")).to(dtype)
    if call.kv_dtype != "auto":
        cache = torch.zeros(shape).to(dtype)
    for sequence, values in enumerate(rows):
        for position in range(values.shape[0]):
            block = int(given.block_table[sequence, position // call.block_size])
            cache[block, position % call.block_size] = values[position].float().to(dtype)
    return cache


def _outcome(call: Call, given: Inputs, out: Any, **extra: Any) -> Outcome:
    dtype = _store_dtype(call)
    keys = [k.float().to(dtype).float() for k in given.keys]
    values = [v.float().to(dtype).float() for v in given.values]
    return Outcome(out, given.query, keys, values, given.sinks, given.scale, extra)


def _one() -> Any:
    import torch  # noqa: PLC0415 - the subject's

    return torch.ones(1, dtype=torch.float32)


def _unified(call: Call, segments: int) -> Outcome:
    import torch  # noqa: PLC0415 - the subject's

    op = importlib.import_module(f"{OPS}.triton_unified_attention").unified_attention
    if segments:
        call = replace(call, sequences=tuple((1, n) for _, n in call.sequences))
    given = make_inputs(call)
    out = torch.full_like(given.query, float("nan"))
    tokens, padded = given.query.shape[0], 1 << (call.head_size - 1).bit_length()
    buffers: dict[str, Any] = {}
    if segments:
        rows = (tokens, call.heads, segments)
        buffers = {
            "seq_threshold_3D": 8,
            "num_par_softmax_segments": segments,
            "softmax_segm_output": torch.full((*rows, padded), float("nan")),
            "softmax_segm_max": torch.full(rows, float("nan")),
            "softmax_segm_expsum": torch.full(rows, float("nan")),
        }
    one = torch.ones(len(call.sequences), call.kv_heads)
    op(
        q=given.query,
        k=_paged(call, given, given.keys),
        v=_paged(call, given, given.values),
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
    return _outcome(call, given, out)


def _head_major(call: Call, given: Inputs) -> tuple[Any, Any]:
    """ROCM_ATTN's layout: keys [blocks, G, D/x, block size, x], values [blocks, G, D, size]."""
    keys = _paged(call, given, given.keys)
    values = _paged(call, given, given.values)
    x = 16 // keys.element_size()
    blocks, size, heads, width = keys.shape
    keys = keys.view(blocks, size, heads, width // x, x).permute(0, 2, 3, 1, 4).contiguous()
    return keys, values.permute(0, 2, 3, 1).contiguous()


def _query_rows(rows: list[Any], call: Call) -> Any:
    """The rows of the query tokens themselves, packed as [T, G, D]."""
    import torch  # noqa: PLC0415 - the subject's

    lengths = [q for q, _ in call.sequences]
    return torch.cat([r[r.shape[0] - q :] for r, q in zip(rows, lengths, strict=True)])


def _rocm_attn(call: Call, sequences: tuple[tuple[int, int], ...]) -> Outcome:
    """ROCM_ATTN's Triton path; a block size that the custom kernel does not take forces it."""
    import torch  # noqa: PLC0415 - the subject's

    op = importlib.import_module(f"{OPS}.chunked_prefill_paged_decode").chunked_prefill_paged_decode
    call = replace(call, sequences=sequences, block_size=64)
    given = make_inputs(call)
    out = torch.full_like(given.query, float("nan"))
    keys, values = _head_major(call, given)
    op(
        query=given.query,
        key=_query_rows(given.keys, call),
        value=_query_rows(given.values, call),
        output=out,
        kv_cache_dtype=call.kv_dtype,
        key_cache=keys,
        value_cache=values,
        block_table=given.block_table,
        query_start_loc=given.query_start,
        seq_lens=given.seq_lens,
        max_seq_len=given.max_seq,
        max_query_len=given.max_query,
        k_scale=_one(),
        v_scale=_one(),
        sliding_window=call.window,
        sm_scale=given.scale,
        sinks=given.sinks,
    )
    # Prefill reads the query tokens' own keys as computed, not from the cache.
    outcome = _outcome(call, given, out)
    for row, (queries, total) in enumerate(call.sequences):
        if queries > 1:
            outcome.keys[row][total - queries :] = given.keys[row][total - queries :].float()
            outcome.values[row][total - queries :] = given.values[row][total - queries :].float()
    return outcome


def _prefill(call: Call) -> Outcome:
    import torch  # noqa: PLC0415 - the subject's

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
    return _outcome(call, given, out)


def _decode(call: Call) -> Outcome:
    import torch  # noqa: PLC0415 - the subject's

    op = importlib.import_module(f"{OPS}.triton_decode_attention").decode_attention_fwd
    call = replace(call, sequences=((1, 37), (1, 21)))
    given = make_inputs(call)
    splits, v_size = 4, given.values[0].shape[-1]
    rows = len(call.sequences)
    keys = _paged(call, given, given.keys)
    values = keys[..., :v_size] if call.op == "mla_decode" else _paged(call, given, given.values)
    out = torch.full((rows, call.heads, v_size), float("nan"), dtype=given.query.dtype)
    lse = torch.full((rows, call.heads), float("nan"), dtype=given.query.dtype)
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
    )
    return _outcome(call, given, out, lse=lse)


def _merge(call: Call) -> Outcome:
    import torch  # noqa: PLC0415 - the subject's

    op = importlib.import_module(f"{OPS}.triton_merge_attn_states").merge_attn_states
    given = make_inputs(call)
    generator = torch.Generator().manual_seed(call.seed + 1)
    parts = [torch.randn(given.query.shape, generator=generator) for _ in range(2)]
    logs = [torch.randn(call.heads, given.query.shape[0], generator=generator) for _ in range(2)]
    parts = [part.to(given.query.dtype) for part in parts]
    logs[0][0, 0] = float("-inf")
    out, lse = torch.full_like(parts[0], float("nan")), torch.full_like(logs[0], float("nan"))
    op(out, parts[0], logs[0], parts[1], logs[1], lse)
    return _outcome(call, given, out, parts=parts, logs=logs, lse=lse)


def _cache_write(call: Call) -> Outcome:
    import torch  # noqa: PLC0415 - the subject's

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
    dtype = _store_dtype(call)
    shape = (given.num_blocks, call.block_size, call.kv_heads, call.head_size)
    caches = [torch.zeros(shape).to(dtype) for _ in range(2)]
    op(
        key,
        value,
        caches[0],
        caches[1],
        torch.tensor(slots, dtype=torch.int64),
        "auto" if call.kv_dtype == "auto" else "fp8",
        _one(),
        _one(),
    )
    return _outcome(call, given, caches[0], caches=caches, slots=slots, key=key, value=value)


_OPS: dict[str, Callable[[Call], Outcome]] = {
    "unified_2d": lambda call: _unified(call, 0),
    "unified_3d": lambda call: _unified(call, 4),
    "prefix_prefill": lambda call: _rocm_attn(call, ((5, 37), (3, 70))),
    "paged_2d": lambda call: _rocm_attn(call, ((1, 37), (1, 70))),
    "prefill": _prefill,
    "mla_decode": _decode,
    "mha_decode": _decode,
    "merge": _merge,
    "cache_write": _cache_write,
}
