"""Attention in float64: what a kernel must compute.

The logit of a query at position ``i`` and a key at position ``j``::

    x = scale * q . k;  x = soft_cap * tanh(x / soft_cap) if soft_cap
    s = x + slope * (j - i)   (linear)   or   x - slope * sqrt(max(i - j, 0))   (sqrt)

over the keys that the query sees; ``p = exp(s) / (sum exp(s) + exp(sink))``, the output is
``sum p v`` and the log-sum-exp is the logarithm of the denominator. Keys and values are those in
the cache; fp8 ones are dequantised.

Written for clarity: one sequence at a time, in pieces of rows so that long sequences fit in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from conformance.problems import head_scaled, octave_cache, packed_caches, trees
from conformance.problems.packing import packing_of
from conformance.problems.problem import Problem
from conformance.problems.tensors import Tensors, stored

# Elements of a piece's logits, of 8 bytes; the bound needs a dozen such arrays.
PIECE = {"cpu": 2**21, "cuda": 2**26}


@dataclass(frozen=True)
class Operands:
    """Keys and values of one sequence in float64: ``key`` [G, N, D], ``value`` [G, N, V].

    ``G`` counts heads that share nothing: KV heads, or all heads if MLA projects up.
    ``latent`` [N, rank] and ``projection`` [H, D' + V, rank] are what MLA's come from. ``dense``:
    they may have been taken out of a packed cache before they are used. ``value_scale`` [G, N]:
    what a stored value's codes are multiplied by, where each token and head has its own. ``zero``,
    of keys and of values [G, N]: what is taken from such a product, so that 0 is 0.
    ``computed_from``: keys and values from there on are as computed, where that matters; None: all
    are as stored.
    """

    key: torch.Tensor
    value: torch.Tensor
    latent: torch.Tensor | None = None
    projection: torch.Tensor | None = None
    dense: bool = False
    value_scale: torch.Tensor | None = None
    zero: tuple[torch.Tensor, torch.Tensor] | None = None
    computed_from: int | None = None


@dataclass(frozen=True)
class Reading:
    """How a problem is read; the default is what its fields mean.

    Another reading says what a kernel computes that takes an option for something else, so that a
    wrong output can be told from another. ``of`` gives the problem that stands for a sequence,
    ``stored`` what a cache holds of keys or values, dequantised, and ``distance`` what ALiBi slopes
    are multiplied by [R, N]. ``weighs`` says where a key's value counts with its weight [R, N]:
    elsewhere it counts as 0; None: everywhere. ``sees`` says which keys are seen besides [R, N].
    """

    of: Callable[[Problem, int], Problem] = lambda problem, _sequence: problem
    stored: Callable[[torch.Tensor, Problem, float], torch.Tensor] = stored
    distance: Callable[[Problem, int, torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    weighs: Callable[[Problem, int, torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    sees: Callable[[Problem, int, torch.Tensor, torch.Tensor], torch.Tensor] | None = None


AS_MEANT = Reading()


@dataclass(frozen=True)
class Piece:
    """Some rows of one sequence, with the exact numbers behind output and bound.

    ``rows`` index the output. ``query`` [G, M, D] with M = heads of the group times rows;
    ``seen`` [M, N]; ``product`` [G, M, N] is scale * q . k; ``logit`` and ``weight`` (p)
    likewise; ``top``, ``lse`` [G, M, 1] (the sink counts); ``output`` [G, M, V]. ``sink``,
    ``slope`` [G, M, 1] and the ALiBi terms, ``bias`` [G, M, N], where the problem has them.
    ``query_moved`` [G, M, D]: how far rotated queries may be off that are rounded to 8 bits.
    ``logit_moved`` [G, M, N]: how far ``q . k`` may be off besides.
    """

    rows: slice
    operands: Operands
    query: torch.Tensor
    seen: torch.Tensor
    product: torch.Tensor
    logit: torch.Tensor
    weight: torch.Tensor
    top: torch.Tensor
    lse: torch.Tensor
    output: torch.Tensor
    sink: torch.Tensor | None
    slope: torch.Tensor | None
    bias: torch.Tensor | None
    query_moved: torch.Tensor | None = None
    logit_moved: torch.Tensor | None = None


def attention(problem: Problem, tensors: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [T, H, V] and log-sum-exp [T, H] of the query tokens, without padding rows."""
    device = tensors.query.device
    output = torch.zeros(
        problem.num_tokens, problem.num_heads, problem.v_head_size, dtype=torch.float64
    ).to(device)
    lse = torch.zeros(output.shape[:2], dtype=torch.float64, device=device)
    for s, operands in sequences(problem, tensors):
        for piece in pieces(problem, tensors, s, operands):
            output[piece.rows] = by_row(piece.output, problem)
            lse[piece.rows] = by_row(piece.lse, problem)[..., 0]
    return output, lse


def by_row(x: torch.Tensor, problem: Problem) -> torch.Tensor:
    """[G, M, ...] of a piece as [rows, H, ...]."""
    rows = x.shape[0] * x.shape[1] // problem.num_heads
    return x.reshape(problem.num_heads, rows, x.shape[-1]).transpose(0, 1)


def sequences(
    problem: Problem, tensors: Tensors, reading: Reading = AS_MEANT
) -> Iterator[tuple[int, Operands]]:
    """The sequences that have queries, with their keys and values."""
    for s, count in enumerate(problem.query_lens):
        if count:
            yield s, sequence_operands(reading.of(problem, s), tensors, s, reading)


def pieces(
    problem: Problem,
    tensors: Tensors,
    s: int,
    operands: Operands,
    reading: Reading = AS_MEANT,
) -> Iterator[Piece]:
    """The query tokens of a sequence, in pieces that fit in memory."""
    problem = reading.of(problem, s)
    count, budget = problem.query_lens[s], PIECE["cuda" if tensors.query.is_cuda else "cpu"]
    step = max(1, budget // (problem.num_heads * max(1, problem.seq_lens[s])))
    for first in range(0, count, step):
        yield _piece(problem, tensors, operands, s, first, min(first + step, count), reading)


def sequence_operands(
    problem: Problem, tensors: Tensors, s: int, reading: Reading = AS_MEANT
) -> Operands:
    """The keys and values that a sequence's queries attend over."""
    span = slice(problem.key_starts[s], problem.key_starts[s + 1])
    if problem.is_packed:
        return _packed_operands(problem, tensors.keys[span], tensors.values[span], s)
    key = _as_read(problem, tensors.keys[span], s, problem.k_scale, reading)
    if problem.kind != "mla_prefill":
        if problem.is_latent:
            value = key[..., : problem.v_head_size]
        else:
            value = _as_read(problem, tensors.values[span], s, problem.v_scale, reading)
        made = Operands(key.transpose(0, 1), value.transpose(0, 1))
        return _with_scales(problem, tensors, span, made) if problem.is_head_scaled else made
    assert tensors.kv_b_proj is not None
    projection, latent = tensors.kv_b_proj.double(), key[:, 0, : problem.latent_rank]
    up = torch.matmul(latent, projection.transpose(1, 2))
    nope = problem.head_size - problem.rope_size
    rope = key[:, 0, problem.latent_rank :].expand(problem.num_heads, -1, -1)
    return Operands(torch.cat([up[..., :nope], rope], -1), up[..., nope:], latent, projection)


def _with_scales(problem: Problem, tensors: Tensors, span: slice, made: Operands) -> Operands:
    """The operands with what a cache keeps for each token and head."""
    name, keys, values = problem.kv_cache_dtype, tensors.keys[span], tensors.values[span]
    zero = None
    if problem.turns_heads:
        zero = (head_scaled.zeros(keys)[..., 0].T, head_scaled.zeros(values)[..., 0].T)
    return replace(made, value_scale=head_scaled.scales(values, name)[..., 0].T, zero=zero)


def _packed_operands(problem: Problem, key: torch.Tensor, value: torch.Tensor, s: int) -> Operands:
    """The operands of a sequence whose cache packs keys and values into rows of bytes."""
    name = problem.kv_cache_dtype
    packing = packing_of(name)
    read_key, read_value = packing.stored_key(key, name), packing.stored_value(value, name)
    if problem.reads_computed(s):
        context = problem.context_lens[s]
        read_key = torch.cat([read_key[:context], key[context:].double()])
        read_value = torch.cat([read_value[:context], value[context:].double()])
    made = Operands(read_key.transpose(0, 1), read_value.transpose(0, 1))
    if problem.is_octave:
        return _with_steps(problem, value, s, made)
    return replace(made, dense=problem.reads_computed(s) and problem.context_lens[s] > 0)


def _with_steps(problem: Problem, value: torch.Tensor, s: int, made: Operands) -> Operands:
    """The operands with what the entries of ROCM_OCTAVE's codebooks are multiplied by."""
    coded = octave_cache.coded_value(value, problem.kv_cache_dtype)
    step = coded.scale.double()[..., 0, 0] / octave_cache.ONE
    first = problem.context_lens[s] if problem.reads_computed(s) else None
    if first is not None:
        step[first:] = 1.0
    return replace(made, value_scale=step.T, computed_from=first)


def _as_read(
    problem: Problem, x: torch.Tensor, s: int, scale: float, reading: Reading
) -> torch.Tensor:
    """Keys or values of a sequence as a kernel reads them: from the cache or as computed."""
    read = reading.stored(x, problem, scale)
    if problem.reads_computed(s):
        context = problem.context_lens[s]
        read = torch.cat([read[:context], x[context:].double()])
    return read


def visible(problem: Problem, s: int, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    """Which keys, at positions ``j`` [N], the queries at positions ``i`` [R] of a sequence see."""
    query, key = i[:, None], j[None, :]
    left, right = problem.window
    seen = torch.ones(len(i), len(j), dtype=torch.bool, device=j.device)
    if problem.causal:
        seen &= key <= query
    if left >= 0 and problem.kind != "mla_sparse":
        near = key >= query - left
        seen &= near | (key < problem.prompts[s]) if problem.prompts else near
    if right >= 0:
        seen &= key <= query + right
    if problem.verified[s]:
        seen &= _in_branch(problem, s, i, j)
    for start, end in problem.mm_prefix[s] if problem.mm_prefix else ():
        if start < end:
            inside = (start <= query) & (query <= end) & (start <= key) & (key <= end)
            seen |= inside
    return seen


def _in_branch(problem: Problem, s: int, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    """Which keys are of the context, or of a draft's own branch: [R, N]."""
    context = problem.context_lens[s]
    rows = torch.tensor(trees.rows_seen(problem.tree), device=j.device)
    known = (j - context).clamp(0, len(rows) - 1)
    return (j < context)[None, :] | rows[i - context][:, known]


def _over_octaves(
    problem: Problem, query: torch.Tensor, operands: Operands, product: torch.Tensor
) -> torch.Tensor:
    """Puts products of rounded queries with cached keys into ``product``: how far they moved."""
    groups, past = operands.key.shape[0], operands.computed_from
    rounded, moved = octave_cache.rounded_query(query, problem.kv_cache_dtype)
    turned = rounded @ octave_cache.of_keys(problem.kv_cache_dtype).T.to(query.device)
    cached = torch.bmm(_by_group(turned, groups), operands.key[:, :past].transpose(1, 2))
    product[..., :past] = cached * problem.softmax_scale
    return _by_group(moved, groups)


def _piece(
    problem: Problem,
    tensors: Tensors,
    operands: Operands,
    s: int,
    first: int,
    last: int,
    reading: Reading,
) -> Piece:
    keys, count = problem.seq_lens[s], problem.query_lens[s]
    device = tensors.query.device
    i = torch.arange(first, last, device=device) + keys - count
    if problem.causal and not problem.mm_prefix:
        keys = max(0, keys - count + last)
        operands = replace(operands, key=operands.key[:, :keys], value=operands.value[:, :keys])
    j = torch.arange(keys, device=device)
    rows = slice(problem.query_starts[s] + first, problem.query_starts[s] + last)
    groups = operands.key.shape[0]
    repeat = problem.num_heads // groups
    query, query_moved = tensors.query[rows].double(), None
    if problem.rounds_query(s):
        query, query_moved = packed_caches.rounded_query(tensors.query[rows])
        query = query @ packed_caches.rotation(problem.head_size).to(device)
        query_moved = _by_group(query_moved, groups)
    query = _by_group(query, groups)
    product = torch.bmm(query, operands.key.transpose(1, 2)) * problem.softmax_scale
    if problem.is_octave and operands.computed_from:
        query_moved = _over_octaves(problem, tensors.query[rows], operands, product)
    seen = visible(problem, s, i, j)
    if reading.sees is not None:
        seen |= reading.sees(problem, s, i, j)
    if problem.kind == "mla_sparse":
        chosen = _chosen(tensors, rows, keys)
        if problem.window[0] >= 0:
            chosen |= j[None, :] >= i[:, None] - problem.window[0]
        seen &= chosen
    logit = product
    if problem.soft_cap:
        logit = problem.soft_cap * torch.tanh(logit / problem.soft_cap)
    slope = _per_head(tensors.alibi_slopes, groups, len(i))
    bias = None
    if slope is not None:
        far = reading.distance(problem, s, i, j) if reading.distance else _distance(problem, i, j)
        bias = slope * far.repeat(repeat, 1)
        logit = logit + bias
    seen = seen.repeat(repeat, 1)
    sink = _per_head(tensors.sinks, groups, len(i))
    logit = logit.masked_fill(~seen, -math.inf)
    terms = logit if sink is None else torch.cat([logit, sink], -1)
    if terms.shape[-1] == 0:
        terms = torch.full((*logit.shape[:2], 1), -math.inf, dtype=torch.float64, device=device)
    top, lse = terms.amax(-1, keepdim=True), torch.logsumexp(terms, -1, keepdim=True)
    weight = torch.where(lse == -math.inf, 0.0, torch.exp(logit - lse.clamp_min(-1e300)))
    counted = weight
    if reading.weighs is not None:
        counted = weight * reading.weighs(problem, s, i, j).repeat(repeat, 1)
    output = torch.bmm(counted, operands.value)
    return Piece(
        *(rows, operands, query, seen, product, logit, weight, top, lse, output, sink, slope, bias),
        query_moved=query_moved,
    )


def _by_group(x: torch.Tensor, groups: int) -> torch.Tensor:
    """[R, H, D] as [G, M, D]."""
    return x.transpose(0, 1).reshape(groups, -1, x.shape[-1])


def _distance(problem: Problem, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    """The distances that ALiBi slopes are multiplied by."""
    distance = (j[None, :] - i[:, None]).double()
    return -torch.sqrt((-distance).clamp_min(0)) if problem.alibi == "sqrt" else distance


def _per_head(x: torch.Tensor | None, groups: int, rows: int) -> torch.Tensor | None:
    """A float per head as [G, M, 1]."""
    if x is None:
        return None
    return x.double().reshape(groups, -1, 1).repeat_interleave(rows, 1)


def _chosen(tensors: Tensors, rows: slice, keys: int) -> torch.Tensor:
    """Which keys the indices of tokens choose: [R, N]."""
    assert tensors.topk_indices is not None
    indices = tensors.topk_indices[rows].long()
    chosen = torch.zeros(len(indices), keys + 1, dtype=torch.bool, device=indices.device)
    chosen.scatter_(1, torch.where((indices < 0) | (indices >= keys), keys, indices), value=True)
    return chosen[:, :keys]


def indexer_scores(
    problem: Problem, tensors: Tensors
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yields rows, the indexer's scores of all keys for them, and the sums of magnitudes: of the
    products of elements, and of the heads' logits.

    Float64 [R, N]: ``sum over heads of weight * max(q . k, 0)``, -inf where the key is not
    visible; DeepSeek-V3.2's indexer (vllm/v1/attention/ops/rocm_aiter_mla_sparse.py at v0.19.0).
    """
    assert tensors.weights is not None
    for s, count in enumerate(problem.query_lens):
        rows = slice(problem.query_starts[s], problem.query_starts[s] + count)
        keys = tensors.keys[problem.key_starts[s] : problem.key_starts[s + 1], 0].double()
        query, weight = tensors.query[rows].double(), tensors.weights[rows].double()[..., None]
        logits = torch.matmul(query, keys.T)
        score = (logits.clamp_min(0) * weight).sum(1)
        sizes = (logits.abs() * weight.abs()).sum(1)
        magnitude = (torch.matmul(query.abs(), keys.abs().T) * weight.abs()).sum(1)
        j = torch.arange(len(keys), device=keys.device)
        i = torch.arange(count, device=keys.device) + len(keys) - count
        yield rows, score.masked_fill(j[None, :] > i[:, None], -math.inf), magnitude, sizes
