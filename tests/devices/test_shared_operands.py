"""Operands come out of Triton's checks as they did before the interpreter remembered any."""

from __future__ import annotations

import itertools
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import tests.devices.interpreter  # noqa: F401 - before Triton, so that it interprets
from conformance.devices.triton import shared_operands, shared_shapes

tl = import_module("triton.language")
interpreter = import_module("triton.runtime.interpreter")
SEMANTIC = interpreter.interpreter_semantic
CHECKED = type(SEMANTIC).binary_op_type_checking_impl
UPSTREAM = next(
    cell.cell_contents
    for name, cell in zip(CHECKED.__code__.co_freevars, CHECKED.__closure__, strict=True)
    if name == "upstream"
)
ARITHMETIC, DIVISION, BITS = (True, True), (False, False, True, True), (False, False, False)
NUMBERS = (0, 1, -1, 300, 2**40, True, False, 0.0, -0.0, 1.0, 0.1, 1e300, float("inf"))
SCALARS = (tl.int1, tl.int32, tl.uint32, tl.int64, tl.float16, tl.bfloat16, tl.float32, tl.float64)


def operand(kind: Any, shape: tuple[int, ...]) -> Any:
    """A tensor of ones."""
    data = np.ones(shape or (1,), interpreter._get_np_dtype(kind))
    handle = interpreter.TensorHandle(data, kind)
    return tl.tensor(handle, tl.block_type(kind, [*shape]) if shape else kind)


def told(check: Any, pair: tuple[Any, Any], flags: tuple[bool, ...]) -> Any:
    """What comes out, to the last bit, or the error."""
    try:
        return [
            (str(each.type), str(each.handle.dtype), data.dtype, data.shape, data.tobytes())
            for each in check(SEMANTIC, *pair, *flags)
            for data in (each.handle.data,)
        ]
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("flags", [ARITHMETIC, DIVISION, BITS], ids=str)
@pytest.mark.parametrize("kind", SCALARS, ids=str)
def test_numbers_beside_tensors(kind: Any, flags: tuple[bool, ...]) -> None:
    for shape, number, _again in itertools.product([(), (4,), (2, 4)], NUMBERS, range(2)):
        for pair in ((operand(kind, shape), number), (number, operand(kind, shape))):
            assert told(CHECKED, pair, flags) == told(UPSTREAM, pair, flags), (shape, number)


@pytest.mark.parametrize("flags", [ARITHMETIC, DIVISION, BITS], ids=str)
def test_tensors_beside_tensors(flags: tuple[bool, ...]) -> None:
    kinds = (*SCALARS, tl.pointer_type(tl.float32), tl.pointer_type(tl.int8))
    shapes = [(), (4,), (1, 4), (2, 1), (2, 4), (8,)]
    operands = [operand(kind, shape) for kind in kinds for shape in shapes]
    for one, other in itertools.product(operands, repeat=2):
        for _again in range(2):
            assert told(CHECKED, (one, other), flags) == told(UPSTREAM, (one, other), flags)


def test_what_stays_as_it_is_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Semantic:
        builder = None

        def binary_op_type_checking_impl(self, lhs: Any, rhs: Any, *_flags: Any) -> Any:
            asked.append(rhs)
            return lhs, operand(tl.int32, (4,)) if isinstance(rhs, int | float) else rhs

    monkeypatch.setattr(shared_shapes, "MOST", 3)
    shared_operands.share_operands(tl, Semantic)
    check = Semantic().binary_op_type_checking_impl
    ones = operand(tl.int32, (4,))
    first = check(ones, 7)
    assert check(operand(tl.int32, (4,)), 7)[1] is first[1]
    assert check(ones, operand(tl.int32, (4,)))[0] is ones
    check(ones, operand(tl.int32, (4,)))
    assert len(asked) == 2
    for number in (8, 9, 10):  # more than are kept
        check(ones, number)
    check(ones, 7)
    assert len(asked) == 6
