r"""A forward error bound: how far a correct kernel's output may lie from the exact one.

**The kernel.** Any order of tiles, online softmax, any split into parts that are merged; products
and sums in float32 as matrix units do them; probabilities rounded to the dtype before they meet
the values; one rounding of the output. What else an algorithm may do is an `Arithmetic`. Letters:
``u32`` float32's unit roundoff, ``u`` the dtype's, ``p_j`` and ``o`` exact probabilities and
output over the visible keys ``j``, ``m`` the largest logit. A sink is a key whose value is 0.

**1. A common factor.** Whatever happens to a key's exponential before numerator and denominator
part is the same in both: it is as if its logit were ``s_j + d_j``, ``|d_j| <= e_j``:

- the dot product: ``dot_error(D) * scale * sum |q||k_j|`` (products of 16-bit numbers are exact);
- keys: ``scale * sum |q| dk_j`` where the key itself may be rounded, and queries: ``scale * sum dq
  |k_j|`` (see `Arithmetic`);
- ``LOGIT_ROUNDINGS * u32 * |x|``, then through the soft cap, whose slope at most is that at the
  nearest point to zero within the error, ``1 - tanh((|x| - e)/cap)**2``; plus ``cap * TANH``;
- ``ALIBI_ROUNDINGS * u32 * |slope| * N``;
- the exponent: ``EXPONENT_ROUNDINGS * u32 * (|s_j| + |m|)``. A running maximum, once the key was
  in it, lies between ``s_j`` and ``m``, so the differences of all later rescalings add up to
  ``m - s_j`` at most. A merge by log-sum-exp rounds once more each time, with ``log N`` added;
- exponentials: ``EXP`` for the key and for each rescaling after it. A rescaling is exactly 1
  unless the maximum moves, and then a key with a larger computed logit came: there are at most
  ``min(tiles, rank)`` of these. ``rank_j = #{i: s'_i > s'_j} <= sum_i exp(s'_i - s'_j)``, which is
  ``1/p_j`` up to the errors so far.

**2. What that does.** With ``w_j = p_j exp(d_j)``, since ``sum p_j (v_j - o) = 0``::

    sum w_j v_j / sum w_j - o = sum p_j (exp(d_j) - 1)(v_j - o) / sum w_j

``|exp(d) - 1| <= expm1(e)``, and by Jensen ``sum w_j >= exp(-sum p_j e_j) >= 1/F`` with
``F = sum p_j exp(e_j)``. So with ``a_j = p_j expm1(e_j)`` the shift is at most
``F sum a_j |v_j - o|``, and that is at most either of (triangle; Cauchy-Schwarz)::

    sum a_j |v_j| + |o| sum a_j        sqrt(sum a_j * sum a_j (v_j - o)**2)

**3. The numerator alone**, where ``w_j / sum w <= p_j exp(e_j) F =: w'_j``: the cast of the
probabilities, ``u`` relative or, where they are subnormal, half the smallest subnormal in a frame
whose largest weight is 1 (so divided by ``L = exp(lse - m)``; never more than the weight itself);
values that may be rounded, ``dv_j``; and the sum, ``sum_error(N)`` times the sum of magnitudes
(N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, section 3.1).

**4. The denominator**: a factor ``1 + t``, ``|t| <= sum_error(N)``; the division. **5. Roundings
of partial outputs**, if the algorithm has them: ``u sum w'_j |v_j|`` each. **6. The output**:
``u`` times what has become of it, and half the smallest subnormal.

**7. Log-sum-exp**: ``log sum p_j exp(d_j)`` lies within ``log F``; the sum's error, the
logarithm's, and two roundings.

A row that sees no key has bound 0: its output is exactly 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from conformance.oracle.arithmetic import (
    ALIBI_ROUNDINGS,
    DIVISION,
    EXP,
    EXPONENT_ROUNDINGS,
    LOG,
    LOGIT_ROUNDINGS,
    SMALLEST,
    SMALLEST_NORMAL,
    TANH,
    UNIT,
    Arithmetic,
    dot_error,
    eight_bit_rounding,
    flushed,
    gamma,
    merges,
    rounding_of,
    sum_error,
    tiles,
)
from conformance.oracle.attention import Operands, Piece
from conformance.problems import packed_caches
from conformance.problems.problem import Problem

U32 = UNIT["float32"]
# Of a piece's output [G, M, V] and of its log-sum-exp [G, M, 1].
Bounds = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Inputs:
    """Magnitudes of keys and values, and how far kernels may move them; shapes of `Operands`.

    ``key_added``, ``value_added``: the magnitudes that are added up, where they are larger.
    """

    key: torch.Tensor
    value: torch.Tensor
    key_moved: torch.Tensor
    value_moved: torch.Tensor
    key_added: torch.Tensor | None = None
    value_added: torch.Tensor | None = None

    def first(self, keys: int) -> Inputs:
        """The inputs of the first keys only."""
        given = {name: x[:, :keys] for name, x in vars(self).items() if x is not None}
        return replace(self, **given)


def bound(problem: Problem, piece: Piece, inputs: Inputs, arithmetic: Arithmetic) -> Bounds:
    """Bounds for a piece's output [G, M, V] and log-sum-exp [G, M, 1]."""
    keys = piece.seen.sum(-1, keepdim=True).double()
    inputs = inputs.first(piece.seen.shape[-1])
    error = _logit_error(problem, piece, inputs, arithmetic, keys)
    sink_error, sink_weight = _sink(piece)
    excess = piece.weight * torch.expm1(error)
    sink_excess = sink_weight * torch.expm1(sink_error)
    total = excess.sum(-1, keepdim=True) + sink_excess
    growth = 1 + total  # F

    size = piece.output.abs()
    moved = growth * _shift(piece, inputs, excess, total)
    weight = (piece.weight + excess) * growth
    magnitude = torch.bmm(weight, inputs.value)
    moved = moved + _numerator(problem, piece, inputs, arithmetic, weight, growth, keys)
    added = inputs.value if inputs.value_added is None else inputs.value_added
    moved = moved + merges(keys) * (DIVISION + 3 * U32) * torch.bmm(weight, added)
    relative = sum_error(keys)
    moved = (moved + relative * size) / (1 - relative)
    moved = moved + (DIVISION + 3 * U32) * (size + moved)
    unit = arithmetic.coarser * UNIT[problem.dtype]
    smallest = arithmetic.coarser * SMALLEST[problem.dtype] / 2
    moved = moved + arithmetic.partial_roundings * (unit * (magnitude + moved) + smallest)
    moved = moved + unit * (size + moved) + smallest

    lse_size = torch.where(piece.lse.isfinite(), piece.lse.abs() + piece.top.abs(), 0.0)
    lse_moved = torch.log(growth) - torch.log1p(-relative)
    lse_moved = lse_moved + LOG * (1 + torch.log2(keys.clamp_min(1))) + 4 * U32 * lse_size
    return moved.masked_fill(keys == 0, 0.0), lse_moved.masked_fill(piece.lse == -math.inf, 0.0)


def inputs_of(problem: Problem, operands: Operands, arithmetic: Arithmetic) -> Inputs:
    """How far a kernel may move keys and values before it multiplies by them."""
    key, value, dtype = operands.key, operands.value, problem.dtype
    dequantised = problem.kv_cache_dtype != "auto" and arithmetic.rounds_dequantised
    dequantised = dequantised and not problem.turns_heads
    if operands.dense:
        return Inputs(key.abs(), value.abs(), *_made_dense(problem, key, value))
    if operands.latent is None or operands.projection is None:
        key_moved = rounding_of(key, dtype) if dequantised else torch.zeros_like(key)
        value_moved = rounding_of(value, dtype) if dequantised else torch.zeros_like(value)
    else:
        key_moved, value_moved = _projected(problem, operands, dequantised)
    if problem.is_head_scaled:
        # A row's scale is a quotient in float32; of int4's, four bits are another number's.
        scale = DIVISION + (2.0**-19 if problem.turns_heads else 0.0)
        key_moved, value_moved = key_moved + scale * key.abs(), value_moved + scale * value.abs()
    if arithmetic.flushes_subnormals:
        key_moved = key_moved + flushed(key, dtype)
        value_moved = value_moved + flushed(value, dtype)
    return Inputs(key.abs(), value.abs(), key_moved, value_moved)


def _made_dense(
    problem: Problem, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """How far keys and values are moved that are taken out of a packed cache before they are used.

    They become float16, are rotated back by a matrix in float16 (whose entries, alike in magnitude,
    are rounded alike), the product becomes float16, and that is rounded to the dtype. What rounding
    rotated vectors does is in `_rotation_error`.
    """
    half, unit = UNIT["float16"], UNIT[problem.dtype]
    value_moved = half * value.abs() + SMALLEST["float16"] / 2
    value_moved = value_moved + unit * (value.abs() + value_moved)
    moved = half * key.abs() + SMALLEST["float16"] / 2
    if problem.rotates_keys:
        size = problem.head_size
        turned = (key @ packed_caches.rotation(size).to(key.device)).abs().sum(-1, keepdim=True)
        moved = moved + half * key.abs() + dot_error(size) * turned * size**-0.5
        moved = moved + size**0.5 * SMALLEST["float16"]
    return moved + unit * (key.abs() + moved), value_moved


def _projected(
    problem: Problem, operands: Operands, dequantised: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Errors of MLA's keys and values: dot products with the latent, rounded to the dtype."""
    assert operands.latent is not None and operands.projection is not None
    latent, weight = operands.latent, operands.projection.abs().transpose(1, 2)
    source = rounding_of(latent, problem.dtype) if dequantised else torch.zeros_like(latent)
    sums = torch.matmul(latent.abs() + source, weight)
    moved = dot_error(problem.latent_rank) * sums + torch.matmul(source, weight)
    nope = problem.head_size - problem.rope_size
    up = torch.cat([operands.key[..., :nope], operands.value], -1).abs()
    moved = moved + UNIT[problem.dtype] * (up + moved) + SMALLEST[problem.dtype] / 2
    rope = operands.key[..., nope:]
    rope_moved = rounding_of(rope, problem.dtype) if dequantised else torch.zeros_like(rope)
    return torch.cat([moved[..., :nope], rope_moved], -1), moved[..., nope:]


def _logit_error(
    problem: Problem, piece: Piece, inputs: Inputs, arithmetic: Arithmetic, keys: torch.Tensor
) -> torch.Tensor:
    """Step 1: ``e_j`` [G, M, N]; meaningless for masked keys."""
    scale, query = abs(problem.softmax_scale), piece.query.abs()
    reach = inputs.key + inputs.key_moved
    added = reach if inputs.key_added is None else inputs.key_added + inputs.key_moved
    error = torch.bmm(query, (dot_error(problem.head_size) * added).transpose(1, 2))
    if bool(inputs.key_moved.any()):
        error += torch.bmm(query, inputs.key_moved.transpose(1, 2))
    if arithmetic.eight_bit:
        # A row may be scaled by itself or with others of its group.
        largest = query.amax((1, 2), keepdim=True)
        moved = eight_bit_rounding(query, largest, arithmetic.eight_bit)
        error += torch.bmm(moved, reach.transpose(1, 2))
    if arithmetic.flushes_subnormals:
        error += torch.bmm(flushed(piece.query, problem.dtype), reach.transpose(1, 2))
    if problem.rotates_keys:
        error += _rotation_error(problem, piece)
    elif piece.query_moved is not None:
        error += torch.bmm(piece.query_moved, reach.transpose(1, 2))
    if piece.logit_moved is not None:
        error += piece.logit_moved
    error = error * scale + LOGIT_ROUNDINGS * U32 * piece.product.abs()
    if problem.soft_cap:
        cap = problem.soft_cap
        nearest = torch.tanh((piece.product.abs() - error).clamp_min(0) / cap)
        error = error * (1 - nearest**2) + cap * TANH
    if piece.slope is not None:
        error = error + ALIBI_ROUNDINGS * U32 * piece.slope.abs() * piece.logit.shape[-1]
    logit = piece.logit.masked_fill(~piece.seen, 0.0)
    parts = merges(keys)
    reached = logit.abs() + _finite(piece.top).abs()
    error = error + EXPONENT_ROUNDINGS * U32 * (reached + parts * (reached + _log(keys)))

    growth = torch.log1p((piece.weight * torch.expm1(error)).sum(-1, keepdim=True))
    rank = torch.exp((_finite(piece.lse) - logit + error + growth).clamp_max(60))
    rescalings = torch.minimum(rank, tiles(keys) + len(problem.mm_prefix))
    return error + (1 + rescalings) * EXP + parts * (EXP + LOG * (1 + _log(keys)))


def _rotation_error(problem: Problem, piece: Piece) -> torch.Tensor:
    """What a product costs more where queries and keys are rotated: [G, M, N].

    The query's rotation (a dot product of length D, whose weights are D ** -0.5 in magnitude), the
    product over rotated vectors, and the roundings of a key's coordinates: those of the codebook
    and of what gives them length 1, whose sum of squares is one more dot product. Queries that are
    rounded to fp8 may be rounded elsewhere instead.
    """
    turn = packed_caches.rotation(problem.head_size).to(piece.query.device)
    key = (piece.operands.key @ turn).abs()
    query = (piece.query @ turn).abs()
    relative = 2 * dot_error(problem.head_size) + gamma(8, U32)
    if piece.operands.dense:
        # Taken out of the cache as float16; or queries and new keys, rotated, rounded to the dtype.
        grouped = problem.kv_cache_dtype == "ultraquant_4bit"
        relative += 2 * UNIT[problem.dtype] if grouped else UNIT["float16"]
    error: torch.Tensor = torch.bmm(query, key.transpose(1, 2)) * relative
    spread = dot_error(problem.head_size) * problem.head_size**-0.5
    turned = piece.query.abs().sum(-1, keepdim=True) * spread
    error = error + turned * key.sum(-1)[:, None, :]
    if piece.query_moved is not None:
        error = error + torch.bmm(piece.query_moved, key.transpose(1, 2))
    return error


def _sink(piece: Piece) -> tuple[torch.Tensor, torch.Tensor]:
    """The errors of a sink's logit and weight; zeros without a sink. It is never rescaled late."""
    if piece.sink is None:
        zero = torch.zeros_like(piece.lse)
        return zero, zero
    keys = piece.seen.sum(-1, keepdim=True).double()
    reached = piece.sink.abs() + piece.top.abs()
    error = EXPONENT_ROUNDINGS * U32 * reached * (1 + merges(keys))
    return error + (1 + tiles(keys) + merges(keys)) * EXP, torch.exp(piece.sink - piece.lse)


def _shift(piece: Piece, inputs: Inputs, excess: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """Step 2, without the factor F: the better of the two estimates of sum a |v - o|."""
    value, output = piece.operands.value, piece.output
    triangle = torch.bmm(excess, inputs.value) + total * output.abs()
    squares = torch.bmm(excess, value**2)
    spread = squares - 2 * output * torch.bmm(excess, value) + total * output**2
    # float64's own rounding of that difference, which may be near zero.
    spread = spread.clamp_min(0) + 2.0**-44 * (squares + total * output**2)
    return torch.minimum(triangle, torch.sqrt(total * spread))


def _numerator(
    problem: Problem,
    piece: Piece,
    inputs: Inputs,
    arithmetic: Arithmetic,
    weight: torch.Tensor,
    growth: torch.Tensor,
    keys: torch.Tensor,
) -> torch.Tensor:
    """Step 3."""
    # ROCM_OCTAVE's kernels have float16 alone inside.
    dtype = "float16" if problem.is_octave else problem.dtype
    unit = 0.0 if dtype == "float32" else arithmetic.coarser * UNIT[dtype]
    smallest = SMALLEST_NORMAL["float32"] + arithmetic.coarser * SMALLEST[dtype] / 2
    if arithmetic.flushes_subnormals:
        smallest = SMALLEST_NORMAL[dtype]
    frame = torch.exp(_finite(piece.top) - _finite(piece.lse))  # 1 / L
    least = smallest * growth * frame
    if piece.operands.value_scale is not None:
        # Probabilities may be multiplied by a row's scale first, and the codes by that.
        own = piece.operands.value_scale[:, None, : weight.shape[-1]]
        least = least * (1 / own).clamp_min(1.0)
    cast = unit * weight + torch.minimum(weight, least)
    if arithmetic.eight_bit:
        cast = eight_bit_rounding(weight, growth * frame, arithmetic.eight_bit)
    if arithmetic.eight_bit_weights:
        kind, largest = arithmetic.eight_bit_weights, growth * frame
        cast = eight_bit_rounding(weight, largest, kind, peak=1.0)
    added = sum_error(keys) * (weight + cast)
    moved = torch.bmm(cast, inputs.value)
    moved = moved + torch.bmm(
        added, inputs.value if inputs.value_added is None else inputs.value_added
    )
    cast = cast + added
    if bool(inputs.value_moved.any()):
        moved = moved + torch.bmm(cast + weight, inputs.value_moved)
    return moved


def _finite(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x.isfinite(), x, 0.0)


def _log(keys: torch.Tensor) -> torch.Tensor:
    return torch.log2(keys.clamp_min(1))
