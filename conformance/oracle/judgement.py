"""Compares an output with the exact one, in units of the error bound."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

import torch

from conformance.oracle.arithmetic import UNIT, Arithmetic, dot_error, gamma
from conformance.oracle.attention import (
    AS_MEANT,
    Piece,
    Reading,
    by_row,
    indexer_scores,
    pieces,
    sequences,
)
from conformance.oracle.bound import bound, inputs_of
from conformance.oracle.octave import octave_bound, octave_inputs
from conformance.oracle.rotated import rotated_bound, rotated_inputs
from conformance.problems.problem import Problem
from conformance.problems.tensors import Tensors, dtype_of


@dataclass(frozen=True)
class Truth:
    """The exact result of a problem, and the bounds of a correct kernel's error, in float64.

    ``output``, ``bound`` [T, H, V]; ``lse``, ``lse_bound`` [T, H]; without padding rows.
    ``torch_error``: the largest error of plain torch in the problem's dtype, for comparison.
    """

    output: torch.Tensor
    bound: torch.Tensor
    lse: torch.Tensor
    lse_bound: torch.Tensor
    torch_error: float = math.nan


@dataclass(frozen=True)
class OutputElement:
    """An element of an output, and what it should have been."""

    sequence: int
    token: int
    head: int
    element: int | None
    got: float
    expected: float
    error: float
    bound: float

    def __str__(self) -> str:
        what = "log-sum-exp" if self.element is None else f"element {self.element}"
        return (
            f"sequence {self.sequence}, query token {self.token}, head {self.head}, {what}: "
            f"{self.got:.6g} instead of {self.expected:.6g}, off by {self.error:.3g} "
            f"where {self.bound:.3g} is proven"
        )


@dataclass(frozen=True)
class Judgement:
    """How an output compares with the truth. A ``ratio`` above 1 proves a fault.

    ``ratio``: the largest error / bound, infinite for NaN and for wrong values that must be exact;
    ``wrong``: the number of elements beyond their bound; ``not_finite``: how many of them are NaN
    or infinite.
    """

    ratio: float
    worst: OutputElement | None
    lse_ratio: float
    lse_worst: OutputElement | None
    wrong: int
    not_finite: int
    max_error: float
    torch_error: float

    @property
    def passed(self) -> bool:
        return self.ratio <= 1 and self.lse_ratio <= 1

    def __str__(self) -> str:
        parts = [f"error/bound {max(self.ratio, self.lse_ratio):.3g}"]
        parts.append(f"largest error {self.max_error:.3g} (torch {self.torch_error:.3g})")
        if self.wrong:
            parts.append(f"{self.wrong} elements beyond their bound")
        if self.not_finite:
            parts.append(f"{self.not_finite} of them NaN or infinite")
        bad = self.lse_worst if self.ratio <= 1 < self.lse_ratio else self.worst
        return "; ".join([*parts, str(bad)] if bad else parts)


def solve(
    problem: Problem,
    tensors: Tensors,
    arithmetic: Arithmetic | None = None,
    with_torch: bool = True,
    reading: Reading = AS_MEANT,
) -> Truth:
    """The exact result and its bounds, on the tensors' device.

    ``reading``: another one of the problem, whose result is then the exact one.
    """
    arithmetic = arithmetic or Arithmetic()
    device = tensors.query.device
    shape = (problem.num_tokens, problem.num_heads, problem.v_head_size)
    output = torch.zeros(shape, dtype=torch.float64, device=device)
    limits, lse = torch.zeros_like(output), torch.zeros_like(output[..., 0])
    lse_limits, worst = torch.zeros_like(lse), 0.0
    for s, operands in sequences(problem, tensors, reading):
        read = reading.of(problem, s)
        of_inputs, of_piece = inputs_of, bound
        if read.turns_heads:
            of_inputs, of_piece = rotated_inputs, rotated_bound
        elif read.is_octave:
            of_inputs, of_piece = octave_inputs, octave_bound
        inputs = of_inputs(read, operands, arithmetic)
        for piece in pieces(problem, tensors, s, operands, reading):
            allowed, lse_allowed = of_piece(read, piece, inputs, arithmetic)
            exact = by_row(piece.output, problem)
            output[piece.rows], limits[piece.rows] = exact, by_row(allowed, problem)
            lse[piece.rows] = by_row(piece.lse, problem)[..., 0]
            lse_limits[piece.rows] = by_row(lse_allowed, problem)[..., 0]
            if with_torch:
                plain = by_row(plain_torch(problem, piece), problem).double()
                worst = max(worst, (plain - exact).abs().nan_to_num(math.inf).amax().item())
    return Truth(output, limits, lse, lse_limits, worst if with_torch else math.nan)


def plain_torch(problem: Problem, piece: Piece) -> torch.Tensor:
    """A piece's output [G, M, V] from a few lines of torch in the problem's dtype.

    Logits are rounded to the dtype and the softmax is in float32, as in model code without a fused
    kernel. Its error is shown for comparison; nothing is judged by it.
    """
    query, key, value = (
        x.to(dtype_of(problem)) for x in (piece.query, piece.operands.key, piece.operands.value)
    )
    logit = torch.bmm(query, key.transpose(1, 2)) * problem.softmax_scale
    if problem.soft_cap:
        logit = problem.soft_cap * torch.tanh(logit / problem.soft_cap)
    if piece.bias is not None:
        logit = logit + piece.bias.to(logit.dtype)
    logit = logit.float().masked_fill(~piece.seen, -math.inf)
    if piece.sink is not None:
        logit = torch.cat([logit, piece.sink.float()], -1)
    weight = torch.softmax(logit, -1)[..., : key.shape[1]]
    weight = weight.masked_fill(piece.lse == -math.inf, 0.0)
    return torch.bmm(weight.to(value.dtype), value)


def judge(
    problem: Problem, truth: Truth, output: torch.Tensor, lse: torch.Tensor | None = None
) -> Judgement:
    """Compares an output [>= T, H, V] (and a log-sum-exp [>= T, H]) with the truth."""
    rows = slice(0, problem.num_tokens)
    got = output[rows].to(truth.output.device).double()
    error = (got - truth.output).abs()
    ratio, flat = _worst(error, got, truth.output, truth.bound)
    lse_ratio, lse_worst = 0.0, None
    if lse is not None:
        lse_got = lse[rows].to(truth.lse.device).double()
        lse_error = torch.where(lse_got == truth.lse, 0.0, (lse_got - truth.lse).abs())
        lse_ratio, where = _worst(lse_error, lse_got, truth.lse, truth.lse_bound)
        if where is not None:
            lse_worst = _element(problem, where, lse_got, truth.lse, lse_error, truth.lse_bound)
    finite = got.isfinite()
    return Judgement(
        ratio=ratio,
        worst=None
        if flat is None
        else _element(problem, flat, got, truth.output, error, truth.bound),
        lse_ratio=lse_ratio,
        lse_worst=lse_worst,
        wrong=int((~(error <= truth.bound)).sum()),
        not_finite=int((~finite).sum()),
        max_error=error.nan_to_num(math.inf).amax().item() if error.numel() else 0.0,
        torch_error=truth.torch_error,
    )


def _worst(
    error: torch.Tensor, got: torch.Tensor, expected: torch.Tensor, limit: torch.Tensor
) -> tuple[float, int | None]:
    """The largest error / limit and its flat index; infinite for NaN and for a wrong exact 0."""
    if not error.numel():
        return 0.0, None
    right = (got == expected) | (error == 0)
    ratio = torch.where(right, 0.0, error / limit).nan_to_num(math.inf, math.inf)
    index = int(ratio.argmax())
    return ratio.flatten()[index].item(), index


def _element(
    problem: Problem,
    flat: int,
    got: torch.Tensor,
    expected: torch.Tensor,
    error: torch.Tensor,
    limit: torch.Tensor,
) -> OutputElement:
    """The element of [T, H, V] or [T, H] at a flat index."""
    # torch.unravel_index imports sympy, which takes as long as many problems.
    columns = got.shape[2] if got.dim() == 3 else 1
    before, column = divmod(flat, columns)
    row, head = divmod(before, got.shape[1])
    sequence = bisect_right(problem.query_starts, row) - 1
    return OutputElement(
        sequence=sequence,
        token=row - problem.query_starts[sequence],
        head=head,
        element=column if got.dim() == 3 else None,
        got=got.flatten()[flat].item(),
        expected=expected.flatten()[flat].item(),
        error=error.flatten()[flat].item(),
        bound=limit.flatten()[flat].item(),
    )


@dataclass(frozen=True)
class IndexerTruth:
    """The indexer's exact scores [T, longest] (-inf: not visible) and their bounds, in float64."""

    score: torch.Tensor
    bound: torch.Tensor


def solve_indexer(problem: Problem, tensors: Tensors, rounded: str = "") -> IndexerTruth:
    """Exact scores and their bounds: errors of the dot products, through max(x, 0), and of a sum.

    Queries, keys and weights are exact; a key's scale may be applied at any point. ``rounded``: the
    dtype that each head's dot product is rounded to before, "" for none.
    """
    assert tensors.weights is not None
    shape = (problem.num_tokens, max(problem.seq_lens, default=0))
    score = torch.full(shape, -math.inf, dtype=torch.float64, device=tensors.query.device)
    limit = torch.zeros_like(score)
    relative = dot_error(problem.head_size) + gamma(problem.num_heads + 4, UNIT["float32"])
    # What is rounded is the computed product: its own error is rounded, too.
    unit = UNIT[rounded] if rounded else 0.0
    for rows, exact, magnitude, sizes in indexer_scores(problem, tensors):
        score[rows, : exact.shape[1]] = exact
        limit[rows, : exact.shape[1]] = (1 + unit) * relative * magnitude + unit * sizes
    return IndexerTruth(score, limit)


def judge_topk(problem: Problem, truth: IndexerTruth, indices: torch.Tensor) -> list[str]:
    """Describes what is wrong with chosen positions (integers [>= T, topk], -1: none).

    A token must choose ``min(topk, visible)`` distinct visible keys, and no key left out may have a
    score that is certainly higher than that of a chosen one.
    """
    findings = []
    for row in range(problem.num_tokens):
        sequence = bisect_right(problem.query_starts, row) - 1
        where = f"sequence {sequence}, query token {row - problem.query_starts[sequence]}"
        chosen = [int(i) for i in indices[row] if i >= 0]
        score, limit = truth.score[row], truth.bound[row]
        seen = score > -math.inf
        wanted = min(problem.topk, int(seen.sum()))
        outside = [i for i in chosen if i >= len(score) or not seen[i]]
        if len(set(chosen)) != len(chosen) or len(chosen) != wanted:
            findings.append(f"{where}: {len(set(chosen))} distinct of {len(chosen)}, not {wanted}")
        elif outside:
            findings.append(f"{where}: position {outside[0]} is not visible")
        elif 0 < wanted < int(seen.sum()):
            taken = torch.zeros_like(seen)
            taken[chosen] = True
            low = torch.where(taken, score + limit, math.inf).min()
            high = torch.where(seen & ~taken, score - limit, -math.inf)
            if high.max() > low:
                better = int(high.argmax())
                findings.append(
                    f"{where}: position {better} with score {score[better]:.6g} is left out for "
                    f"one of at most {low:.6g}"
                )
    return findings
