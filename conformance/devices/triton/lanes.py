"""Operations of Triton's interpreter on values that have lanes: see :mod:`abreast`.

A block's array has its lanes as the first axis, and a scalar's has no other. Where all lanes have
the same value there may be one. numpy does most operations for each lane as they stand: those that
are here make blocks, move their elements, or name an axis.

Needs nothing but numpy and triton: it runs in the subject's own Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import index
from typing import Any, NamedTuple

# What programs do in an order, or numpy does not do for each lane.
_ALONE = (
    *("create_atomic_cas", "create_atomic_rmw", "create_atomic_load", "create_atomic_store"),
    *("create_atomic_poll", "create_make_tensor_descriptor", "create_histogram", "create_print"),
    *("create_dot_scaled", "create_inline_asm", "create_extern_elementwise"),
)
_ELEMENTWISE = (
    *("binary_op", "ternary_op", "create_addptr", "create_idiv", "create_umulhi", "create_fma"),
    "create_dot",
)
# Elements of a value: with more, those of a kernel's values do not fit in a machine's memory.
MOST_ELEMENTS = 2**22
# Is given the interpreter's own method, which does the operation without lanes.
WithLanes = Callable[..., Any]


class PartedError(BaseException):
    """Lanes go different ways, by these values. No kernel catches it, nor Triton."""

    def __init__(self, values: Any) -> None:
        super().__init__()
        self.values = values


class AloneError(BaseException):
    """Programs must run one after another. No kernel catches it, nor Triton."""


class WideError(AloneError):
    """Fewer programs may run abreast: a value has too many elements."""


class Parts(NamedTuple):
    """What values are made of: the interpreter's handles, and types of ``triton.language``."""

    handle: Any
    numpy_type: Any
    block_type: Any
    truth: Any
    tensor: Any

    @classmethod
    def of(cls, interpreter: Any) -> Parts:
        import triton.language as tl  # noqa: PLC0415 - after it was chosen to interpret

        return cls(
            interpreter.TensorHandle,
            interpreter._get_np_dtype,
            tl.block_type,
            tl.int1,
            tl.core.tensor,
        )

    def made(self, data: Any, dtype: Any) -> Any:
        """A tensor of these elements."""
        kind = self.block_type(dtype, list(data.shape[1:])) if data.ndim > 1 else dtype
        return self.tensor(self.handle(data, dtype.scalar), kind)


def operations(parts: Parts) -> dict[str, WithLanes]:
    """The interpreter's operations with lanes, by the names of its own."""
    return {
        **dict.fromkeys(_ALONE, alone),
        **dict.fromkeys(_ELEMENTWISE, _elementwise),
        **_making_blocks(parts),
        **_moving_elements(parts),
    }


def _making_blocks(parts: Parts) -> dict[str, WithLanes]:
    import numpy as np  # noqa: PLC0415 - Triton's, in the subject's Python

    def make_range(upstream: Any, it: Any, *args: Any) -> Any:
        made = upstream(it, *args)
        return parts.handle(made.data[None], made.dtype)

    def splat(_upstream: Any, _it: Any, *args: Any) -> Any:
        # A handle, and a block's type or shape.
        (given,) = [each for each in args if isinstance(each, parts.handle)]
        (shape,) = [getattr(each, "shape", each) for each in args if each is not given]
        if given.data.ndim != 1:
            raise AloneError
        # As without lanes: the handle of a comparison has the type of what was compared.
        kind = parts.truth if given.data.dtype == np.bool_ else given.dtype
        lanes, extents = len(given.data), [index(extent) for extent in shape]
        data = np.empty((lanes, *extents), parts.numpy_type(kind))
        data[...] = given.data.reshape(lanes, *[1] * len(extents))
        return parts.handle(data, kind.scalar)

    def broadcast(_upstream: Any, _it: Any, given: Any, shape: Any) -> Any:
        if given.data.ndim != 1 + len(shape) and given.data.size != 1:
            raise AloneError
        wide = np.broadcast_to(given.data, (len(given.data), *shape))
        return parts.handle(wide, given.dtype.scalar)

    return {"create_make_range": make_range, "create_splat": splat, "create_broadcast": broadcast}


def _moving_elements(parts: Parts) -> dict[str, WithLanes]:
    import numpy as np  # noqa: PLC0415 - as above

    def like(given: Any, data: Any) -> Any:
        return parts.handle(data, given.dtype.scalar)

    def unsplat(_upstream: Any, _it: Any, given: Any) -> Any:
        return like(given, given.data.reshape(len(given.data), -1)[:, 0])

    def expand_dims(_upstream: Any, _it: Any, given: Any, axis: int) -> Any:
        return like(given, np.expand_dims(given.data, later(axis)))

    def reshape(_upstream: Any, _it: Any, given: Any, shape: Any, *_reorder: Any) -> Any:
        return like(given, given.data.reshape(len(given.data), *shape))

    def trans(_upstream: Any, _it: Any, given: Any, order: Any) -> Any:
        return like(given, np.transpose(given.data, (0, *[axis + 1 for axis in order])))

    def cat(_upstream: Any, _it: Any, one: Any, other: Any, *_reorder: Any) -> Any:
        return like(one, np.concatenate(_of_all_lanes(one, other), axis=1))

    def join(_upstream: Any, _it: Any, one: Any, other: Any) -> Any:
        return like(one, np.stack(_of_all_lanes(one, other), axis=-1))

    def gather(_upstream: Any, _it: Any, source: Any, indices: Any, axis: int) -> Any:
        of, at = _of_all_lanes(source, indices)
        return like(source, np.take_along_axis(of, at, axis=later(axis)))

    return {
        "create_unsplat": unsplat,
        "create_expand_dims": expand_dims,
        "create_reshape": reshape,
        "create_trans": trans,
        "create_cat": cat,
        "create_join": join,
        "create_gather": gather,
    }


def _elementwise(upstream: Any, it: Any, *args: Any) -> Any:
    """An operation that numpy does for each lane as it stands."""
    if args[0].data.size > MOST_ELEMENTS:
        raise WideError
    check([each for each in args if hasattr(each, "data")])
    return upstream(it, *args)


def alone(*_args: Any, **_more: Any) -> Any:
    """What is done without lanes alone."""
    raise AloneError


def check(handles: Sequence[Any]) -> None:
    """Sees to it that no axis of one operand is taken for the lanes of another.

    Raises:
        AloneError: that could be.
    """
    if len({each.data.ndim for each in handles if each.data.size != 1}) > 1:
        raise AloneError


def later(axis: int) -> int:
    """A block's axis in an array in which lanes come first."""
    return axis + 1 if axis >= 0 else axis


def together(handles: Sequence[Any]) -> tuple[Any, ...]:
    """Pointers, masks and values of an access in one shape; None stays None."""
    import numpy as np  # noqa: PLC0415 - as above

    given = [each for each in handles if each is not None]
    check(given)
    arrays = iter(np.broadcast_arrays(*[each.data for each in given]))
    return tuple(
        [None if each is None else type(each)(next(arrays), each.dtype) for each in handles]
    )


def _of_all_lanes(*handles: Any) -> list[Any]:
    """The arrays of blocks, which may differ in shape, with as many lanes each."""
    import numpy as np  # noqa: PLC0415 - as above

    lanes = max(len(each.data) for each in handles)
    return [np.broadcast_to(each.data, (lanes, *each.data.shape[1:])) for each in handles]


def to_row(parts: Parts, given: Any) -> Any:
    """A tensor as a row of its elements in their order, which is that of its array.

    Raises:
        AloneError: numpy would add them up in another.
    """
    data = given.handle.data
    if not data.flags.c_contiguous:
        raise AloneError
    return parts.made(data.reshape(len(data), -1), given.dtype)


def common(data: Any) -> Any:
    """The one value that all lanes have.

    Raises:
        PartedError: they differ.
        ValueError: a lane has several.
    """
    values = data.reshape(len(data))
    if (values != values[0]).any():
        raise PartedError(values)
    return values[0]
