"""How vLLM's kernels misread problems: what ``deviations`` are made of.

A reading that deviates is made from one without, on a target, so that several can be put together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from conformance.matrix.targets import TARGETS
from conformance.oracle.arithmetic import Arithmetic
from conformance.oracle.attention import Reading, by_row, pieces, sequences
from conformance.oracle.bound import bound, inputs_of
from conformance.oracle.judgement import Truth
from conformance.problems import head_scaled
from conformance.problems.problem import Problem
from conformance.problems.tensors import FLOAT8, SHIFT, Tensors, stored

# Lanes of HIP's reshape_and_cache, each of which stores 16 bytes of a token's keys.
CACHE_WRITE_BYTES = 512 * 16
EXP_OVERFLOWS = 88.8  # in float32
LEAST_TILE = 16  # keys of the shortest tile of vLLM's unified kernels
ASSEMBLY_TILE = 256  # keys
OCTAVE_TILE, OCTAVE_AT_ONCE = 16, 4  # keys, query tokens
# Of vLLM's HIP decode: keys whose values a wave multiplies at a time, and bytes that a lane loads.
# Of aiter's unified kernel: keys of a tile that is no block, and the most that are not in segments.
UNIFIED_TILE, UNSEGMENTED = 64, 512
# Of aiter's plan of a latent decode: keys of a piece, what it costs besides in pieces, and the
# compute units of the smallest of its targets, gfx950.
PIECE, PIECE_OVERHEAD, FEWEST_WORKGROUPS = 16, 16, 256
# Roundings that a sum of a latent vector's 576 products passes through: numpy adds 16 blocks of 8
# in order and the rest in pairs, AMD's lanes a few in order and the rest in pairs.
ADDITIONS = 40
MOST_OFF = 30.0  # beyond it a weight is anything

# ---- readings --------------------------------------------------------------------------------


def reading_as(
    change: Callable[[Problem, int], Problem],
) -> Callable[[Reading, str], Reading]:
    """A reading in which a sequence's problem is another one."""

    def made(reading: Reading, _target: str) -> Reading:
        return replace(reading, of=lambda problem, s: change(reading.of(problem, s), s))

    return made


def one_key_short(problem: Problem, _s: int) -> Problem:
    left, right = problem.window
    if left < 0:
        return problem
    return replace(problem, window=(left - 1, right) if left else (-1, right))


def no_window_in_prefills(problem: Problem, s: int) -> Problem:
    return replace(problem, window=(-1, -1)) if problem.query_lens[s] > 1 else problem


def zero_is_no_window(problem: Problem, _s: int) -> Problem:
    left, right = (side or -1 for side in problem.window)
    return replace(problem, window=(left, right))


def no_prefix(problem: Problem, _s: int) -> Problem:
    return replace(problem, mm_prefix=())


def no_model_window(problem: Problem, _s: int) -> Problem:
    """R-SWA's window is the model's, not the layer's: without it every key is seen."""
    return replace(problem, prompts=(), window=(-1, problem.window[1]))


def causal(problem: Problem, _s: int) -> Problem:
    return replace(problem, causal=True)


def _e4m3_on(target: str) -> str:
    """The encoding that vLLM stores as fp8 on a target."""
    fnuz = target in TARGETS and TARGETS[target].fp8 == "fnuz"
    return "fp8_e4m3fnuz" if fnuz else "fp8_e4m3fn"


def stored_as_e4m3(reading: Reading, target: str) -> Reading:
    encoding = _e4m3_on(target)
    return reading_as(lambda p, _s: replace(p, kv_cache_dtype=encoding))(reading, target)  # type: ignore[arg-type] # one of the two


def e4m3_read_as_e5m2(reading: Reading, target: str) -> Reading:
    """The cache holds e4m3's bytes, and e5m2 is read."""
    encoding = FLOAT8[_e4m3_on(target)]

    def of_bytes(x: torch.Tensor, _problem: Problem, scale: float) -> torch.Tensor:
        limit = torch.finfo(encoding).max
        written = (x.float() / scale).clamp(-limit, limit).to(encoding).view(torch.float8_e5m2)
        return written.double() * float(torch.tensor(scale, dtype=torch.float32))

    return replace(reading, stored=of_bytes)


def rounded_twice(reading: Reading, _target: str) -> Reading:
    """The quotient by the scale is rounded to the keys' dtype before it is rounded to fp8."""

    def divided(x: torch.Tensor, problem: Problem, scale: float) -> torch.Tensor:
        quotient = (x.float() / scale).to(x.dtype)
        return stored(quotient, problem, 1.0) * scale

    return replace(reading, stored=divided)


def cut_off_codes(reading: Reading, _target: str) -> Reading:
    """int8 codes are quotients by a row's scale, in float32, cut off towards zero."""

    def cut_off(x: torch.Tensor, problem: Problem, _scale: float) -> torch.Tensor:
        scale = head_scaled.scales(x, problem.kv_cache_dtype)
        codes = (x.float() * (1.0 / scale.float())).clamp(-128, 127).trunc()
        return codes.double() * scale

    return replace(reading, stored=cut_off)


def from_first_query(reading: Reading, _target: str) -> Reading:
    """ALiBi's distances are counted from the first query of a sequence, for all of its queries."""

    def distance(problem: Problem, s: int, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        first = problem.seq_lens[s] - problem.query_lens[s]
        return (j[None, :] - first).double().expand(len(i), -1)

    return replace(reading, distance=distance)


def values_outside_are_zero(reading: Reading, _target: str) -> Reading:
    """Values outside of the window of a block's first query count as 0, shown or not."""

    def weighs(problem: Problem, s: int, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        first = problem.seq_lens[s] - problem.query_lens[s]
        rows = query_block(problem)
        start = first + (i - first) // rows * rows
        return start[:, None] - j[None, :] <= problem.window[0]

    return replace(reading, weighs=weighs)


def sees_a_piece_without_keys(reading: Reading, _target: str) -> Reading:
    """A query that sees no key of a sequence's last piece sees all of that piece."""

    def sees(problem: Problem, s: int, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        first = (problem.seq_lens[s] - 1) // PIECE * PIECE
        return (i[:, None] < first) & (j[None, :] >= first)

    return replace(reading, sees=sees)


def has_pieces_without_keys(problem: Problem) -> bool:
    """Whether aiter plans a piece for every 16 keys, and some query sees none of the last.

    It does so while there are workgroups enough, as :mod:`conformance.worker.aiter.latent_plan`
    says: a decode of a few thousand keys in all.
    """
    blocks = sum(-(-n // PIECE) + PIECE_OVERHEAD for n in problem.seq_lens)
    lens = zip(problem.seq_lens, problem.query_lens, strict=True)
    return blocks <= FEWEST_WORKGROUPS and any(
        n > PIECE and (n - 1) % PIECE + 1 < q for n, q in lens
    )


# ---- truths ----------------------------------------------------------------------------------


def scaled_by_values(problem: Problem, _tensors: Tensors, truth: Truth) -> Truth:
    """Latent values are multiplied by the values' scale, and the keys' is the right one."""
    factor = problem.v_scale / problem.k_scale
    return replace(truth, output=truth.output * factor, bound=truth.bound * factor)


def values_unscaled(problem: Problem, _tensors: Tensors, truth: Truth) -> Truth:
    """Latent values are as they are stored, with no scale; logits are right."""
    factor = 1 / problem.k_scale
    return replace(truth, output=truth.output * factor, bound=truth.bound * factor)


def added_in_16_bits(problem: Problem, tensors: Tensors, truth: Truth) -> Truth:
    """Products of queries and keys are rounded to 16 bits, and so is each of their sums.

    A score is off by at most so many roundings of what its products' sizes add up to, which moves
    its weight by that factor, and by the factor that all weights together are off by.
    """
    rounding = ADDITIONS * torch.finfo(tensors.query.dtype).eps / 2
    moved = torch.zeros_like(truth.output)
    for s, operands in sequences(problem, tensors):
        for piece in pieces(problem, tensors, s, operands):
            value = piece.operands.value
            sizes = piece.query.abs() @ piece.operands.key.abs().transpose(1, 2)
            off = (rounding * problem.softmax_scale * sizes).clamp(max=MOST_OFF).exp()
            off *= (piece.weight * off).sum(-1, keepdim=True)
            apart = (value[:, None] - piece.output[:, :, None]).abs()
            more = torch.einsum("gmn,gmnv->gmv", piece.weight * (off - 1), apart)
            most = (value.amax(1) - value.amin(1))[:, None]
            moved[piece.rows] = by_row(torch.minimum(more, most), problem)
    return replace(truth, bound=truth.bound + moved)


def suffix_at_prefix_stride(problem: Problem, tensors: Tensors, truth: Truth) -> Truth:
    """The new tokens' part is read where it would lie if its heads were as far apart as values.

    Flash attention's rows are as wide as keys, padded with zeros; those of merged chunks are not.
    """
    wide = (problem.num_tokens, problem.num_heads, problem.head_size)
    rows = torch.zeros(wide, dtype=torch.float64, device=truth.output.device)
    share = torch.zeros_like(truth.lse)
    for s, operands in sequences(problem, tensors):
        context = problem.context_lens[s]
        for piece in pieces(problem, tensors, s, operands):
            weight, value = piece.weight[..., context:], piece.operands.value[:, context:]
            total = by_row(weight.sum(-1, keepdim=True), problem)
            share[piece.rows] = total[..., 0]
            mean = by_row(torch.bmm(weight, value), problem) / total
            rows[piece.rows, :, : problem.v_head_size] = mean
    right = rows[..., : problem.v_head_size]
    wrong = rows.flatten()[: right.numel()].view_as(right)
    output = truth.output + share[..., None] * (wrong - right)
    return replace(truth, output=output, bound=truth.bound + truth.bound.amax())


def causal_from_the_first_key(problem: Problem, tensors: Tensors, truth: Truth) -> Truth:
    """Query ``i`` of a long prefill sees the first ``i + 1`` keys, however long its context is."""
    output, limits = truth.output.clone(), truth.bound.clone()
    for s, operands in sequences(problem, tensors):
        count = problem.query_lens[s]
        if operands.dense:
            first = replace(operands, key=operands.key[:, :count], value=operands.value[:, :count])
            contexts = tuple(0 if at == s else n for at, n in enumerate(problem.context_lens))
            alone = replace(problem, context_lens=contexts)
            inputs = inputs_of(alone, first, Arithmetic())
            for piece in pieces(alone, tensors, s, first):
                output[piece.rows] = by_row(piece.output, problem)
                limits[piece.rows] = by_row(bound(alone, piece, inputs, Arithmetic())[0], problem)
    return replace(truth, output=output, bound=limits)


# ---- elements --------------------------------------------------------------------------------


def is_long_after_a_context(problem: Problem) -> bool:
    """Whether keys are taken out of a packed cache before some sequence attends."""
    return problem.is_packed and any(
        problem.reads_computed(s) and problem.context_lens[s] for s in range(problem.num_sequences)
    )


def query_block(problem: Problem) -> int:
    """Query tokens of a block of vLLM's unified kernels."""
    rows = 16 if problem.group <= 16 else 1 << (problem.group - 1).bit_length()
    return rows // problem.group


def _rows_where(
    problem: Problem, holds: Callable[[int, int], bool], heads: int = 1
) -> torch.Tensor:
    """[T, heads]: the rows where ``holds(sequence, number of its query token)``."""
    flat = [holds(s, row) for s, count in enumerate(problem.query_lens) for row in range(count)]
    return torch.tensor(flat, dtype=torch.bool).reshape(-1, 1).expand(-1, heads)


def octave_tiles_with_unused_slots(problem: Problem) -> torch.Tensor:
    """Rows of ROCM_OCTAVE's decodes that share a tile of 16 keys with unused slots.

    Up to four query tokens of a sequence are taken at once, by the keys of the last of them.
    """

    def holds(s: int, row: int) -> bool:
        keys = problem.seq_lens[s]
        first = keys - problem.query_lens[s] + row  # the query token's position
        reached = min(first + OCTAVE_AT_ONCE - 1, keys - 1)
        in_last = reached // OCTAVE_TILE == (keys - 1) // OCTAVE_TILE
        return keys % OCTAVE_TILE != 0 and in_last and not problem.reads_computed(s)

    return _rows_where(problem, holds)


def decodes_with_unused_slots(problem: Problem) -> torch.Tensor:
    def holds(s: int, _row: int) -> bool:
        return problem.query_lens[s] == 1 and problem.seq_lens[s] % problem.block_size != 0

    return _rows_where(problem, holds)


def decodes_with_unused_blocks(problem: Problem) -> torch.Tensor:
    """Decodes in float16 whose keys end within a tile."""

    def holds(s: int, _row: int) -> bool:
        return problem.query_lens[s] == 1 and problem.seq_lens[s] % ASSEMBLY_TILE != 0

    return _rows_where(problem, holds)


def with_blocks_given_up(problem: Problem) -> torch.Tensor:
    """Rows of sequences of which blocks before the window are gone."""
    return _rows_where(problem, lambda s, _row: problem.kept_from(s) > 0)


def in_whole_tiles(problem: Problem) -> torch.Tensor:
    """Rows of sequences with unused slots, where aiter's unified kernel masks no key of a tile.

    A tile is a block of the cache where every sequence decodes, and where keys are in segments; it
    has 64 keys in all else.
    """
    decodes = max(problem.query_lens, default=0) <= 1
    in_segments = problem.window[0] < 0 and max(problem.seq_lens, default=0) > UNSEGMENTED
    whole = decodes or in_segments or problem.block_size == UNIFIED_TILE
    return _rows_where(
        problem, lambda s, _row: whole and problem.seq_lens[s] % problem.block_size != 0
    )


def with_a_tile_given_up(problem: Problem) -> torch.Tensor:
    """Rows whose first tile begins in blocks that are gone, in aiter's unified kernel."""
    decodes = max(problem.query_lens, default=0) <= 1

    def holds(s: int, _row: int) -> bool:
        return not decodes and problem.kept_from(s) % UNIFIED_TILE != 0

    return _rows_where(problem, holds)


def blocks_given_up_seen(problem: Problem) -> torch.Tensor:
    """Rows of such sequences, if a window of the token itself is taken for none: what stands in
    those blocks has a weight then."""
    return _rows_where(problem, lambda s, _row: problem.window[0] == 0 < problem.kept_from(s))


def capped_beyond_exp(problem: Problem) -> torch.Tensor:
    """All rows, if logits are so many times the soft cap that exp of the quotient is infinite."""
    beyond = problem.large_logits and 0 < problem.soft_cap < SHIFT / EXP_OVERFLOWS
    return _rows_where(problem, lambda _s, _row: beyond)


def behind_a_hidden_tile(problem: Problem) -> torch.Tensor:
    """Rows whose window begins behind the first tile that their query block reads, in heads whose
    logits are so far below 0 that exp of them is 0."""
    return _behind_a_hidden_tile(problem, query_block(problem))


def behind_any_hidden_tile(problem: Problem) -> torch.Tensor:
    """The same where a sequence's query tokens may all be one block."""
    return _behind_a_hidden_tile(problem, max(1, *problem.query_lens))


def _behind_a_hidden_tile(problem: Problem, block: int) -> torch.Tensor:
    left = problem.window[0]
    capped = 0 < problem.soft_cap < EXP_OVERFLOWS
    reached = problem.kind == "paged" and problem.large_logits and not capped and not problem.sinks

    def holds(s: int, row: int) -> bool:
        context = problem.seq_lens[s] - problem.query_lens[s]
        first = 0 if problem.mm_prefix else max(0, context + row // block * block - left)
        return reached and left >= 0 and (context + row - left) // LEAST_TILE > first // LEAST_TILE

    rows = _rows_where(problem, holds, problem.num_heads)
    return rows & (torch.arange(problem.num_heads) % 2 == 1)


def in_chunks(problem: Problem) -> bool:
    """Whether some context is gathered in several chunks."""
    return 0 < problem.at_once // problem.num_sequences < max(problem.context_lens)


def without_a_context(problem: Problem) -> torch.Tensor:
    """Rows without a context, in a batch of which others have one of several chunks."""
    chunked = in_chunks(problem)
    return _rows_where(problem, lambda s, _row: chunked and problem.context_lens[s] == 0)


def blocks_past_the_end(problem: Problem) -> torch.Tensor:
    """Rows of query blocks whose last row, filled up, stands past the sequence's end."""
    block = query_block(problem)
    launched = 16 if problem.group <= 16 else 1 << (problem.group - 1).bit_length()

    def holds(s: int, row: int) -> bool:
        context = problem.seq_lens[s] - problem.query_lens[s]
        last = (launched - 1) // problem.group
        return context + row // block * block + last + 1 > problem.seq_lens[s]

    return _rows_where(problem, holds)


def all_rows(problem: Problem) -> torch.Tensor:
    return _rows_where(problem, lambda _s, _row: True)


def in_ranges_past_the_keys(problem: Problem) -> torch.Tensor:
    def holds(s: int, row: int) -> bool:
        place = problem.seq_lens[s] - problem.query_lens[s] + row
        return any(a <= place <= b and b >= problem.seq_lens[s] for a, b in problem.mm_prefix[s])

    return _rows_where(problem, holds)


def before_the_first_key(problem: Problem) -> torch.Tensor:
    """Queries that a causal mask leaves no key: there are more of them than keys."""
    return _rows_where(
        problem, lambda s, row: problem.seq_lens[s] - problem.query_lens[s] + row < 0
    )


def without_keys(problem: Problem) -> torch.Tensor:
    return _rows_where(problem, lambda s, _row: problem.seq_lens[s] == 0)


def heads_not_stored(problem: Problem) -> torch.Tensor:
    size = torch.finfo(getattr(torch, problem.dtype)).bits // 8
    stored_heads = CACHE_WRITE_BYTES // size // problem.head_size
    heads = torch.arange(problem.num_heads) // problem.group >= stored_heads
    return heads.expand(problem.num_tokens, -1)
