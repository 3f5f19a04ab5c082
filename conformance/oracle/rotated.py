r"""The error bound where keys and values are stored rotated and outputs rotated back: int4 caches.

With ``R`` the orthonormal rotation and ``q' = q R`` and so on, a kernel computes ``o' =
softmax(q' . k') v'`` and rotates that back. What moves a key's weight moves ``o`` as it does
without a rotation, because that is linear: the bound of ``conformance.oracle.bound``, with logits
of rotated vectors. A row's scale is one factor for all of its elements, and codes are whole
numbers, so values are not rounded. What else there is:

- queries are rounded to the dtype once more, after a dot product of a block's length;
- sums over codes, from which the sums over what stands for 0 are taken: their terms are as large
  as ``|k'| + 2 z``, with ``z`` the number of the step that stands for 0 times the scale. An error
  of an element of ``o'`` reaches every element of its block of ``o``: ``sum |R| e'``;
- so does the rounding of ``o'`` to the dtype; then one more dot product, and ``o`` is rounded.
"""

from __future__ import annotations

from dataclasses import replace

from conformance.oracle.arithmetic import SMALLEST, UNIT, Arithmetic, dot_error
from conformance.oracle.attention import Operands, Piece
from conformance.oracle.bound import Bounds, Inputs, bound, inputs_of
from conformance.problems import head_scaled
from conformance.problems.problem import Problem


def rotated_inputs(problem: Problem, operands: Operands, arithmetic: Arithmetic) -> Inputs:
    """The inputs of rotated keys, and of values; ``operands`` are not rotated."""
    turn = head_scaled.rotation(problem.head_size).to(operands.key.device)
    turned = operands.value @ turn
    inputs = inputs_of(problem, replace(operands, key=operands.key @ turn), arithmetic)
    assert operands.zero is not None
    # Rows are longer by the root of a block where they are stored; so are their steps.
    root = head_scaled.block_of(problem.head_size) ** -0.5
    of_key, of_value = (2 * root * zero[..., None] for zero in operands.zero)
    return replace(
        inputs,
        key_added=inputs.key + of_key,
        value_added=(turned.abs() + of_value) @ turn.abs().T,
    )


def rotated_bound(problem: Problem, piece: Piece, inputs: Inputs, arithmetic: Arithmetic) -> Bounds:
    """Bounds for a piece's output [G, M, V] and log-sum-exp [G, M, 1]."""
    turn = head_scaled.rotation(problem.head_size).to(piece.query.device)
    unit, smallest = UNIT[problem.dtype], SMALLEST[problem.dtype] / 2
    back = dot_error(head_scaled.block_of(problem.head_size))
    query = piece.query @ turn
    query_moved = back * (piece.query.abs() @ turn.abs())
    query_moved = query_moved + unit * (query.abs() + query_moved) + smallest
    moved, lse_moved = bound(
        problem, replace(piece, query=query, query_moved=query_moved), inputs, arithmetic
    )
    turned = (piece.output @ turn).abs() + moved @ turn.abs()
    moved = moved + ((unit + back) * turned + smallest) @ turn.abs().T
    moved = moved + unit * (piece.output.abs() + moved) + smallest
    return moved.masked_fill(~piece.seen.any(-1, keepdim=True), 0.0), lse_moved
