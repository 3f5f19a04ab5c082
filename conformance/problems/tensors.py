"""The tensors of a problem, made from its seed: the same bits on every machine.

Everything is drawn on the CPU and moved to the device. Parts of inputs that must not be read are
poisoned here; the unused slots of the cache are poisoned by the worker, which allocates it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from itertools import pairwise

import torch

from conformance.problems import ds_mla, head_scaled, trees
from conformance.problems.packing import packing_of
from conformance.problems.problem import Problem

FLOAT8 = {
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e4m3fnuz": torch.float8_e4m3fnuz,
    "fp8_e5m2": torch.float8_e5m2,
}
_QUERY_LEAN = 8.0  # length of the queries' common component; that of the random part is sqrt(D)
SHIFT = 120.0  # beyond exp's range in float16 and float32 (11 and 88)
_OVERFLOWS = (2**31 - 1, -1, -(2**31))  # what is past the end of a sequence's block table
_MARGIN = 64  # elements before and after every table
# What stands there: it does harm where it is used. Floats are NaN.
_MARGINS = {
    "block_table": -(2**31),
    "query_start_loc": -(2**31),
    "key_start_loc": -(2**31),
    "seq_lens": -(2**31),
    "mm_prefix": 2**30,  # a range that is not empty, if its end is read and not its start
    "prompt_lens": 2**30,
    # Slots and positions that there are.
    "slot_mapping": 0,
    "context_slots": 0,
    "topk_indices": 0,
}


@dataclass(frozen=True)
class Tensors:
    """The logical tensors of a problem, with the letters of ``rocm_reference.attention``.

    K is all keys, packed. ``query`` [T, H, D]; ``key`` [T, G, D] and ``value`` [T, G, V] of the
    query tokens (None in cross attention and without a cache). All may be strided and have
    poisoned padding. ``keys`` [K, G, D], ``values`` [K, G, V]: of every position of every
    sequence, as computed, in the problem's dtype; ``key_start_loc`` int32 [S+1] finds a sequence's.
    ``context_key``, ``context_value``, ``context_slots`` (int64): what is in the cache before the
    query tokens are; rows with slot -1 are poison. ``slot_mapping`` int64 [T]: of the query
    tokens. ``block_table`` int32 [S, blocks], garbage past each sequence's end.
    ``query_start_loc`` int32 [S+1], ``seq_lens`` int32 [S]; ``sinks``, ``alibi_slopes`` float32
    [H]; ``mm_prefix`` int32 [S, R, 2]; ``prompt_lens`` int32 [S]. ``query_bias`` float32 [R, R]:
    what is added to the logits of a sequence's query tokens, no more than R, and their own keys.

    MLA: the value is the key's first ``V`` columns; ``value`` is None. ``kv_b_proj``
    [H, 128 + V, latent rank] gives the key's first 128 columns, then the value, from the latent
    vector (``mla_prefill``). ``topk_indices`` int32 [T, topk]: positions in the token's sequence,
    -1 where there are fewer. ``weights`` float32 [T, H]: of the indexer's heads, whose queries are
    fp8 and whose keys are exact in fp8 with a power of two as scale.
    """

    query: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    query_start_loc: torch.Tensor
    key_start_loc: torch.Tensor
    seq_lens: torch.Tensor
    key: torch.Tensor | None = None
    value: torch.Tensor | None = None
    context_key: torch.Tensor | None = None
    context_value: torch.Tensor | None = None
    context_slots: torch.Tensor | None = None
    slot_mapping: torch.Tensor | None = None
    block_table: torch.Tensor | None = None
    sinks: torch.Tensor | None = None
    alibi_slopes: torch.Tensor | None = None
    mm_prefix: torch.Tensor | None = None
    prompt_lens: torch.Tensor | None = None
    query_bias: torch.Tensor | None = None
    kv_b_proj: torch.Tensor | None = None
    topk_indices: torch.Tensor | None = None
    weights: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Tensors:
        """The same tensors on a device; strides are kept."""
        return Tensors(**{name: _move(tensor, device) for name, tensor in self.named().items()})

    def named(self) -> dict[str, torch.Tensor]:
        """The tensors that the problem has, by name."""
        pairs = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: tensor for name, tensor in pairs if tensor is not None}


def dtype_of(problem: Problem) -> torch.dtype:
    """The dtype of queries, keys, values and outputs."""
    dtype = getattr(torch, problem.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def materialise(problem: Problem, device: torch.device | str = "cpu") -> Tensors:
    """The tensors of a problem on a device."""
    problem.check()
    draw = torch.Generator().manual_seed(problem.seed)
    query, keys = (
        _indexer_rows(problem, draw) if problem.kind == "indexer" else _rows(problem, draw)
    )
    if problem.is_latent or problem.kind == "indexer":
        values = keys[..., : problem.latent_rank]
    else:
        values = _normal((*keys.shape[:2], problem.v_head_size), draw).to(keys.dtype)
        values = _fp8_edges(values, problem) if problem.fp8_edges else values
        if problem.is_packed:
            values = packing_of(problem.kv_cache_dtype).settled_value(
                values, problem.kv_cache_dtype
            )
        if problem.is_head_scaled:
            values = head_scaled.settled(head_scaled.spread(values), problem.kv_cache_dtype)
        values = _settle(values, problem, problem.v_scale)
    tensors = {
        "query": _laid_out(query, problem),
        "keys": keys if problem.has_cache else _laid_out(keys, problem, 1),
        "values": values if problem.has_cache else _laid_out(values, problem, 2),
        "query_start_loc": torch.tensor(problem.query_starts, dtype=torch.int32),
        "key_start_loc": torch.tensor(problem.key_starts, dtype=torch.int32),
        "seq_lens": torch.tensor(problem.seq_lens, dtype=torch.int32),
        **_masks(problem, draw),
        **(_paging(problem, keys, values, draw) if problem.has_cache else {}),
        **_sparse(problem, draw),
    }
    if problem.kind == "mla_prefill":
        nope = problem.head_size - problem.rope_size
        shape = (problem.num_heads, nope + problem.v_head_size, problem.latent_rank)
        weight = _normal(shape, draw) * problem.latent_rank**-0.5
        tensors["kv_b_proj"] = weight.to(dtype_of(problem))
    held = {name: _between_margins(name, tensor) for name, tensor in tensors.items()}
    return Tensors(**held).to(device)


def stored(x: torch.Tensor, problem: Problem, scale: float) -> torch.Tensor:
    """The keys or values that a cache holds, dequantised (float64): what attention reads.

    An fp8 cache holds ``round(x / scale)``, to nearest even, saturated; one with a scale per token
    and head has scales of its own.
    """
    if problem.kv_cache_dtype == "auto" or problem.kind == "indexer":
        return x.double()
    if problem.is_head_scaled:
        return head_scaled.stored(x, problem.kv_cache_dtype)
    if problem.is_ds_mla:
        return ds_mla.stored(x)
    return quantise(x, problem, scale).double() * float(torch.tensor(scale, dtype=torch.float32))


def quantise(x: torch.Tensor, problem: Problem, scale: float) -> torch.Tensor:
    """``round(x / scale)`` in the cache's encoding, to nearest even, saturated."""
    dtype = FLOAT8[problem.kv_cache_dtype]
    limit = torch.finfo(dtype).max
    # The float32 quotient is rounded once more; _settle avoids values for which that matters.
    return (x.float() / scale).clamp(-limit, limit).to(dtype)


def _fp8_edges(values: torch.Tensor, problem: Problem) -> torch.Tensor:
    """Values whose conversion to fp8 is on an edge, in columns of like magnitude.

    The magnitudes are the numbers of the encoding and the ties between neighbours; then, between
    the largest number and the next that it would have, what is rounded down to it, and what is
    saturated. Neighbouring keys have neighbouring magnitudes, so that an error of one place is not
    small beside what else a column adds up. Signs alternate by key.
    """
    codes = torch.arange(128, dtype=torch.uint8).view(FLOAT8[problem.kv_cache_dtype]).float()
    numbers = codes[codes.isfinite()].double()
    step = numbers[-1] - numbers[-2]
    ties = (numbers[1:] + numbers[:-1]) / 2
    beyond = numbers[-1] + step * torch.tensor([0.25, 0.5, 0.75, 1.0, 1.5, 4.0])
    edges = torch.cat([numbers, ties, beyond]).sort().values * problem.v_scale
    edges = edges[edges <= float(torch.finfo(values.dtype).max)]
    keys, heads, size = values.shape
    key, column = torch.arange(keys)[:, None, None], torch.arange(heads * size).view(heads, size)
    # Columns begin evenly spread over the edges; a key's row is a few edges further on.
    first = column * len(edges) // (heads * size)
    at = (first + key * 5 % 11).clamp_max(len(edges) - 1)
    sign = 1 - 2 * (key % 2)
    return (edges[at] * sign).to(values.dtype)


def _settle(x: torch.Tensor, problem: Problem, scale: float) -> torch.Tensor:
    """Replaces values whose rounding to fp8 depends on how a kernel divides by the scale.

    ``x / scale`` and ``x * (1 / scale)`` differ in the last bit of float32. If that changes the
    stored value, ``x`` becomes the stored value. With a scale that is a power of two there is no
    such difference, and exact ties stay: they must be rounded to even.
    """
    if problem.kv_cache_dtype not in FLOAT8 or math.frexp(scale)[0] == 0.5:
        return x
    low, high = (quantise(x.double() * f, problem, scale) for f in (1 - 2**-20, 1 + 2**-20))
    middle = (high.float() * scale).to(x.dtype)
    return torch.where(low.float() == high.float(), x, middle)


def _rows(problem: Problem, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and all keys: normal, plus a common direction that controls the logits.

    Queries have a component along one direction, to which keys are made orthogonal. A dominant key
    gets a component large enough for most of the weight; for large logits, every key gets one.
    """
    rows, keys = problem.num_tokens, problem.key_starts[-1]
    query = _normal((rows, problem.num_heads, problem.head_size), draw)
    key = _normal((keys, problem.num_kv_heads, problem.key_size), draw)
    key = ds_mla.spread(key) if problem.is_ds_mla else key
    direction = torch.zeros(problem.key_size)
    free = problem.rope_size if problem.kind == "mla_prefill" else problem.key_size
    direction[-free:] = _normal((free,), draw)
    direction /= direction.norm().clamp_min(1e-6)
    key -= (key @ direction)[..., None] * direction
    shared = direction[-min(problem.head_size, problem.key_size) :]
    shared = torch.nn.functional.pad(shared, (problem.head_size - len(shared), 0))
    sign = torch.ones(problem.num_heads)
    if problem.large_logits:
        sign[1::2] = -1
        key += direction * (SHIFT / (problem.softmax_scale * _QUERY_LEAN))
    query += _QUERY_LEAN * sign[:, None] * shared
    for sequence, position in problem.dominant:
        logit = math.log(problem.seq_lens[sequence] + 1) + 1.5
        key[problem.key_starts[sequence] + position] += direction * (
            logit / (problem.softmax_scale * _QUERY_LEAN)
        )
    query, key = query.to(dtype_of(problem)), key.to(dtype_of(problem))
    if problem.is_packed:
        return query, packing_of(problem.kv_cache_dtype).settled_key(key, problem.kv_cache_dtype)
    if problem.is_head_scaled:
        return query, head_scaled.settled(key, problem.kv_cache_dtype)
    if problem.is_ds_mla:
        return query, ds_mla.settled(key)
    return query, _settle(key, problem, problem.k_scale)


def _indexer_rows(problem: Problem, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """fp8 queries, and keys that fp8 represents exactly.

    The largest element of every key is 224 or 448 times a power of two, which the indexer's cache
    takes as its scale (vllm/v1/attention/ops/rocm_aiter_mla_sparse.py at v0.19.0); the others are
    fp8 values times that power. The first key of each sequence is zero, of which the scale is not
    to be 0: all its scores are 0.
    """
    fp8 = FLOAT8[problem.kv_cache_dtype]
    query = _normal((problem.num_tokens, problem.num_heads, problem.head_size), draw).to(fp8)
    peak = 224.0 if problem.kv_cache_dtype == "fp8_e4m3fnuz" else 448.0
    key = _normal((problem.key_starts[-1], 1, problem.head_size), draw)
    key = (key * (peak / 5)).clamp(-peak, peak).to(fp8).float()
    where = torch.randint(problem.head_size, (*key.shape[:2], 1), generator=draw)
    key.scatter_(2, where, peak)
    exponent = torch.randint(-9, -5, (*key.shape[:2], 1), generator=draw)
    key = torch.ldexp(key, exponent)
    key[[n for n, end in pairwise(problem.key_starts) if n < end]] = 0
    return query, key.to(dtype_of(problem))


def _masks(problem: Problem, draw: torch.Generator) -> dict[str, torch.Tensor]:
    """Sinks, slopes and prefix ranges, if the problem has them."""
    masks: dict[str, torch.Tensor] = {}
    heads = torch.arange(problem.num_heads)
    if problem.sinks:
        sinks = _normal((problem.num_heads,), draw) + 1
        if problem.large_logits:
            sinks += SHIFT * (1 - 2 * (heads % 2))
        masks["sinks"] = sinks
    if problem.alibi != "none":
        masks["alibi_slopes"] = torch.exp2(-8.0 * (heads + 1) / problem.num_heads).float()
    if problem.mm_prefix:
        most = max(1, *(len(ranges) for ranges in problem.mm_prefix))
        padded = [[*ranges, *[(0, 0)] * (most - len(ranges))] for ranges in problem.mm_prefix]
        masks["mm_prefix"] = torch.tensor(padded, dtype=torch.int32)
    if problem.prompts:
        masks["prompt_lens"] = torch.tensor(problem.prompts, dtype=torch.int32)
    if problem.tree:
        masks["query_bias"] = _tree_bias(problem)
    return masks


def _tree_bias(problem: Problem) -> torch.Tensor:
    """0 where a row of the tree sees another and minus infinity elsewhere, in wider rows of NaN."""
    seen = torch.tensor(trees.rows_seen(problem.tree))
    count = len(seen)
    around = torch.full((count + 2, count + 3), math.nan)
    around[1:-1, :count] = torch.where(seen, 0.0, -math.inf)
    return around[1:-1, :count]


def _paging(
    problem: Problem, keys: torch.Tensor, values: torch.Tensor, draw: torch.Generator
) -> dict[str, torch.Tensor]:
    """Which sequence owns which block, and where the context and the query tokens are written."""
    size = problem.block_size
    first = problem.num_blocks - problem.blocks if problem.high_blocks else 0
    span = problem.blocks if problem.high_blocks else problem.num_blocks
    dealt = torch.randperm(span, generator=draw) if problem.shuffled else torch.arange(span)
    counts = [-(-n // size) for n in problem.seq_lens]
    table = torch.tensor(_OVERFLOWS, dtype=torch.int64).repeat(max([*counts, 0]) // 3 + 2)
    columns = max([*counts, 0]) + problem.table_spare
    table = table.repeat(problem.num_sequences, 1)[:, :columns]
    slots, is_new, kept, taken = [], [], [], 0
    for s, count in enumerate(counts):
        table[s, :count] = dealt[taken : taken + count] + first
        taken += count
        position = torch.arange(problem.seq_lens[s])
        slots.append(table[s][position // size] * size + position % size)
        is_new.append(position >= problem.seq_lens[s] - problem.query_lens[s])
        kept.append(position >= problem.kept_from(s))
    where, new = torch.cat(slots), torch.cat(is_new)
    if not problem.has_new_keys:
        new = torch.zeros_like(new)
    wider = torch.nn.functional.pad(table.int(), (0, 3), value=_OVERFLOWS[0])
    tensors = {"block_table": wider[:, :-3]}
    past = ~new & torch.cat(kept)
    rows, context_slots = _with_skipped(problem, torch.where(past)[0], where[past], draw)
    tensors["context_slots"] = context_slots
    tensors["context_key"] = _padded(_gather(problem, keys, rows), problem, 3)
    if not (problem.is_latent or problem.kind == "indexer"):
        tensors["context_value"] = _padded(_gather(problem, values, rows), problem, 4)
    if problem.has_new_keys:
        tensors["key"] = _laid_out(keys[new], problem, 1)
        if "context_value" in tensors:
            tensors["value"] = _laid_out(values[new], problem, 2)
        # The slots of some padding rows are -1, and the mapping ends before the others.
        padding = torch.full((problem.extra_rows // 2,), -1, dtype=torch.int64)
        tensors["slot_mapping"] = torch.cat([where[new], padding])
    return tensors


def _with_skipped(
    problem: Problem, rows: torch.Tensor, slots: torch.Tensor, draw: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Context rows and slots in random order, with rows to skip among them (row -1, slot -1)."""
    skipped = torch.full((problem.skipped_writes,), -1, dtype=torch.int64)
    order = torch.randperm(len(rows) + len(skipped), generator=draw)
    return torch.cat([rows, skipped])[order], torch.cat([slots, skipped])[order]


def _gather(problem: Problem, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Rows of ``x``; row -1 is poison."""
    taken = x[rows.clamp_min(0)] if len(x) else x.new_zeros((len(rows), *x.shape[1:]))
    taken[rows < 0] = poison_value(problem, x.dtype)
    return taken


def _sparse(problem: Problem, draw: torch.Generator) -> dict[str, torch.Tensor]:
    """The chosen positions of sparse attention, or the weights of the indexer's heads.

    In odd rows a dominant key is the token's last choice; in even rows it is not chosen. So an
    index too many or too few shows.
    """
    tokens = problem.num_tokens + problem.extra_rows
    if problem.kind == "indexer":
        return {"weights": _normal((tokens, problem.num_heads), draw)}
    if problem.kind != "mla_sparse":
        return {}
    table = torch.full((tokens, problem.topk), -1, dtype=torch.int32)
    for s, (rows, keys) in enumerate(zip(problem.query_lens, problem.seq_lens, strict=True)):
        dominant = [p for which, p in problem.dominant if which == s]
        for i in range(rows):
            position, row = keys - rows + i, problem.query_starts[s] + i
            if problem.is_ds_mla:
                # As an indexer has them: all that there are or as many as it may, at the front.
                count = (position + 1) // problem.tokens_of_a_chosen_key
                chosen = torch.randperm(count, generator=draw)[: problem.topk]
                table[row, : len(chosen)] = chosen.int()
                continue
            chosen = torch.randperm(position + 1, generator=draw)
            marked = torch.isin(chosen, torch.tensor(dominant, dtype=torch.int64))
            ordinary = chosen[~marked][: problem.topk]
            if row % 2 and bool(marked.any()):
                ordinary = torch.cat([ordinary, chosen[marked][:1]])[-problem.topk :]
            table[row, : len(ordinary)] = ordinary.int()
            # Positions past the sequence's end are none, wherever they stand among the others.
            past = torch.tensor([keys, keys + 1, 2**31 - 1], dtype=torch.int32)
            past = past[: problem.topk - len(ordinary)]
            table[row, len(ordinary) : len(ordinary) + len(past)] = past
            table[row] = table[row, torch.randperm(problem.topk, generator=draw)]
    return {"topk_indices": table}


def _between_margins(name: str, x: torch.Tensor) -> torch.Tensor:
    """A dense tensor in the middle of a longer one; others have unused elements around them."""
    if x.untyped_storage().nbytes() > x.numel() * x.itemsize:
        return x
    around = torch.full((x.numel() + 2 * _MARGIN,), _MARGINS.get(name, math.nan), dtype=x.dtype)
    around[_MARGIN:-_MARGIN] = x.flatten()
    return around[_MARGIN:-_MARGIN].view(x.shape)


def _laid_out(x: torch.Tensor, problem: Problem, nth: int = 0) -> torch.Tensor:
    """The rows of ``x`` in a wider, poisoned buffer; the view shows the padding rows.

    Tensors of different ``nth`` have different strides, unless the problem has no padding.
    """
    return _padded(x, problem, nth, problem.extra_rows)


def _padded(x: torch.Tensor, problem: Problem, nth: int, extra_rows: int = 0) -> torch.Tensor:
    """The rows of ``x`` between poison: before the first, after each head and row, and at the end.

    What lies before and after is as long as a row, so that a kernel that is one off reads it.
    """
    rows, heads, size = x.shape
    row_pad = problem.row_pad + nth if problem.row_pad or problem.head_pad else 0
    shape = (rows + extra_rows + 2, heads + row_pad, size + problem.head_pad)
    buffer = torch.full(shape, poison_value(problem, x.dtype), dtype=torch.float32).to(x.dtype)
    buffer[1 : rows + 1, :heads, :size] = x
    return buffer[1:-1, :heads, :size]


def poison_value(problem: Problem, dtype: torch.dtype) -> float:
    """The poison of a problem as a number that ``dtype`` can hold."""
    huge = float(torch.finfo(dtype).max)
    if problem.poison == "inf" and dtype.itemsize > 1:
        return math.inf
    return huge if problem.poison == "huge" else math.nan


def _normal(shape: tuple[int, ...], draw: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=draw)


def _move(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """A copy on a device with the same strides; the whole storage is moved, padding included."""
    if tensor.device == torch.device(device):
        return tensor
    size = tensor.untyped_storage().nbytes() // tensor.itemsize
    flat = torch.as_strided(tensor, (size,), (1,), 0)
    return flat.to(device).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
