r"""The error bound over a cache of ROCM_OCTAVE's, which holds rotated keys and values.

With ``R`` the rotation of keys and ``S`` that of values, a kernel computes ``o' = softmax(q R . k')
v'`` over what the cache holds, and rotates ``o'`` back. Codes and scales are exact. What moves a
key's weight moves ``o`` as it does without a rotation: the bound of ``conformance.oracle.bound``,
with logits of rotated vectors, and weights in float16. What else there is:

- a query is rotated in float32 and becomes float16; a decode rounds it to whole numbers of steps,
  as its ``OctaveDecode`` says: ``|q . k'|`` is off by ``dq . |k'|``;
- a prefill rounds it to 8 bits for the keys of the context. That is the exact result's part
  (``octave_cache.rounded_query``), but for coordinates next to the middle of two numbers;
- a prefill's own keys and values are rotated and become float16, and so is its rotated output;
- sums over a value's entries to which a number was added have terms that are so much larger;
- an error of an element of ``o'`` reaches every element of ``o``: ``e' |S|``.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from conformance.oracle.arithmetic import SMALLEST, UNIT, Arithmetic, dot_error
from conformance.oracle.attention import Operands, Piece
from conformance.oracle.bound import Bounds, Inputs, bound
from conformance.problems import octave_cache
from conformance.problems.problem import Problem

HALF, SMALLEST_HALF = UNIT["float16"], SMALLEST["float16"]


def octave_inputs(problem: Problem, operands: Operands, arithmetic: Arithmetic) -> Inputs:
    """The inputs of rotated keys, and of values; ``operands`` are not rotated."""
    assert operands.value_scale is not None
    of_key, of_value = _rotations(problem, operands.key)
    key, value = operands.key @ of_key, operands.value @ of_value
    key_moved, value_moved = torch.zeros_like(key), torch.zeros_like(value)
    if operands.computed_from is not None:
        new = slice(operands.computed_from, None)
        key_moved[:, new] = _turned_error(operands.key[:, new], of_key)
        value_moved[:, new] = _turned_error(operands.value[:, new], of_value)
    added = 2 * arithmetic.octave.added if operands.computed_from is None else 0.0
    terms = value.abs() + added * operands.value_scale[..., None]
    return Inputs(
        key.abs(),
        operands.value.abs(),
        key_moved,
        value_moved @ of_value.abs().T,
        value_added=terms @ of_value.abs().T,
    )


def octave_bound(problem: Problem, piece: Piece, inputs: Inputs, arithmetic: Arithmetic) -> Bounds:
    """Bounds for a piece's output [G, M, V] and log-sum-exp [G, M, 1]."""
    of_key, of_value = _rotations(problem, piece.query)
    query, query_moved = piece.query @ of_key, _turned_error(piece.query, of_key)
    first = piece.operands.computed_from
    if first is None:
        largest = (query.abs() + query_moved).amax(-1, keepdim=True)
        query_moved = query_moved + arithmetic.octave.query * largest
    reach = (inputs.key + inputs.key_moved)[:, : piece.seen.shape[-1]].transpose(1, 2)
    logit_moved = torch.bmm(query_moved, reach)
    if piece.query_moved is not None:
        logit_moved[..., :first] += torch.bmm(piece.query_moved, reach[..., :first])
    moved, lse_moved = bound(
        problem,
        replace(piece, query=query, query_moved=None, logit_moved=logit_moved),
        inputs,
        arithmetic,
    )
    turned = (piece.output @ of_value).abs() + moved @ of_value.abs()
    rounded = 0.0 if first is None else HALF
    back = rounded + dot_error(octave_cache.HEAD_SIZE)
    moved = moved + (back * turned + rounded * SMALLEST_HALF) @ of_value.abs().T
    moved = moved + rounded * (piece.output.abs() + moved) + rounded * SMALLEST_HALF
    return moved.masked_fill(~piece.seen.any(-1, keepdim=True), 0.0), lse_moved


def _rotations(problem: Problem, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    of_key = octave_cache.of_keys(problem.kv_cache_dtype)
    return of_key.to(like.device), octave_cache.of_values().to(like.device)


def _turned_error(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """How far rows may be off that become float16, are rotated, and become float16 again."""
    spread = turn.abs()
    size = int((turn[0] != 0).sum())
    moved = (x.abs() * dot_error(size) + SMALLEST_HALF) @ spread
    moved = moved + torch.where(x.half().double() == x, 0.0, HALF * x.abs()) @ spread
    rounded: torch.Tensor = moved + HALF * ((x @ turn).abs() + moved) + SMALLEST_HALF
    return rounded
