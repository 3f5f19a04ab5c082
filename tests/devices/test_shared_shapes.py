"""Types and tensors of Triton's interpreter share what their shape decides, and nothing else."""

from __future__ import annotations

from importlib import import_module

import pytest

import tests.devices.interpreter  # noqa: F401 - before Triton, so that it interprets

tl = import_module("triton.language")


def test_types_of_one_shape_share_it() -> None:
    of_floats, of_pointers = (
        tl.block_type(element, [4, tl.constexpr(8)])
        for element in (tl.float32, tl.pointer_type(tl.float32))
    )
    assert of_floats.shape is of_pointers.shape
    assert [*of_floats.shape] == [4, 8]
    assert of_floats.numel == 32
    assert (of_floats.element_ty, of_pointers.element_ty.element_ty) == (tl.float32, tl.float32)
    assert of_floats != of_pointers
    assert tl.block_type(tl.float32, [8, 4]).shape is not of_floats.shape
    assert (str(of_floats), str(tl.block_type(tl.int8, [4, 8]))) != (str(of_pointers), "")


@pytest.mark.parametrize(
    ("shape", "error"), [([3], ValueError), ([], TypeError), ([tl.float32], TypeError)]
)
@pytest.mark.parametrize("again", [False, True])
def test_a_shape_that_triton_refuses_is_refused(
    shape: list[object], error: type[Exception], again: bool
) -> None:
    if again:
        with pytest.raises(error):
            tl.block_type(tl.float32, shape)
    with pytest.raises(error):
        tl.block_type(tl.float32, shape)


def test_tensors_of_one_shape_keep_their_own_values() -> None:
    block = tl.block_type(tl.int32, [4])
    one, other = tl.tensor("one", block), tl.tensor("other", tl.block_type(tl.float16, [4]))
    assert (one.handle, one.dtype, one.type) == ("one", tl.int32, block)
    assert (other.handle, other.dtype) == ("other", tl.float16)
    assert one.shape is other.shape
    assert one.numel.value == 4
    scalar = tl.tensor("scalar", tl.int32)
    assert (scalar.handle, [*scalar.shape], scalar.numel.value) == ("scalar", [], 1)
