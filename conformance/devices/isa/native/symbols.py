"""Arrays that record what numpy does to them.

A symbol has the shape that the interpreter's arrays have with one wave: (1, lanes) or (lanes,) a
value per lane, (1, 1) or (1,) one value. The rule of tracing: ``.any()`` is true and ``.all()`` is
false, so whatever a test on values skips must be neutral where it is not skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..primitives import Symbolic

Kind = np.dtype[Any]


class UntraceableError(Exception):
    """The function asks for what is not known before the kernel runs: it is interpreted."""


class Symbol(np.lib.mixins.NDArrayOperatorsMixin, Symbolic):
    """One operation on others: ``op`` its name, ``attr`` what else it needs to be known by."""

    __slots__ = ("args", "attr", "dtype", "op", "shape")

    def __init__(
        self,
        op: str,
        args: tuple[Symbol, ...],
        dtype: Any,
        shape: tuple[int, ...],
        attr: Any = None,
    ) -> None:
        self.op, self.args, self.shape, self.attr = op, args, shape, attr
        self.dtype: Kind = np.dtype(dtype)

    # -- what an array is asked for ---------------------------------------------------------
    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def itemsize(self) -> int:
        return int(self.dtype.itemsize)

    @property
    def strides(self) -> tuple[int, ...]:
        return (self.itemsize,) * self.ndim

    @property
    def is_lane(self) -> bool:
        """Whether every lane has its own value."""
        return self.size > 1

    def astype(self, dtype: Any, **_: Any) -> Symbol:
        kind = np.dtype(dtype)
        return self if kind == self.dtype else Symbol("cast", (self,), kind, self.shape)

    def view(self, dtype: Any) -> Symbol:
        kind = np.dtype(dtype)
        if kind == self.dtype:
            return self
        if kind.itemsize != self.itemsize or "b" in (kind.kind, self.dtype.kind):
            raise UntraceableError(f"a view of {self.dtype} as {kind}")
        return Symbol("bits", (self,), kind, self.shape)

    def copy(self) -> Symbol:
        return Symbol("same", (self,), self.dtype, self.shape)

    def any(self, *_: Any, **__: Any) -> bool:
        return True

    def all(self, *_: Any, **__: Any) -> bool:
        return False

    def reshape(self, *shape: Any) -> Symbol:
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        shape = np.broadcast_to(0, self.shape).reshape(wanted).shape
        return Symbol("same", (self,), self.dtype, shape)

    def __bool__(self) -> bool:
        raise UntraceableError("a branch on a value")

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, *_: Any, **__: Any) -> Any:
        """Lanes that access memory pick every lane of a constant: the mask says which count."""
        if self.op == "lanes":
            return np.arange(self.size)
        raise UntraceableError("a value as an array")

    def __index__(self) -> int:
        raise UntraceableError("a value as an index")

    def __getitem__(self, key: Any) -> Symbol:
        if isinstance(key, Symbol) and key.op == "lanes":
            return Symbol("chosen", (self, key), self.dtype, self.shape)
        if isinstance(key, slice) and key == slice(None):
            return self
        if not isinstance(key, tuple) or len(key) != 2:
            raise UntraceableError(f"an element {key!r}")
        rows, columns = key
        if isinstance(rows, slice) and rows == slice(None):
            if columns is None:
                return Symbol("same", (self,), self.dtype, (1, 1))
            if isinstance(columns, np.ndarray):
                order = tuple(int(lane) for lane in columns)
                return Symbol("permute", (self,), self.dtype, self.shape, order)
            if isinstance(columns, (int, np.integer)):
                return read_lane(self, columns)
        if isinstance(rows, np.ndarray) and rows.size == 1:
            return read_lane(self, columns)
        raise UntraceableError(f"an element {key!r}")

    def __setitem__(self, key: Any, value: Any) -> None:
        """``rows[arange(n), lane] = value`` on a copy, which becomes the row with that lane set."""
        if self.op != "same" or not isinstance(key, tuple) or not isinstance(key[0], np.ndarray):
            raise UntraceableError("an element that is set")
        here = lift(np.arange(self.shape[-1], dtype=np.uint32)[None]) == key[1]
        new = _where(here, value, self.args[0])
        self.op, self.args = new.op, new.args

    # -- numpy's protocols --------------------------------------------------------------------
    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **given: Any) -> Any:
        out, dtype = given.pop("out", None), given.pop("dtype", None)
        given.pop("casting", None)
        if method != "__call__" or given or ufunc.nin > 3:
            raise UntraceableError(f"{ufunc.__name__}.{method}")
        if out is not None and dtype is None and len(out) == 1:
            dtype = out[0].dtype
        return operation(ufunc, inputs, dtype)

    def __array_function__(
        self, function: Any, _types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        known = _FUNCTIONS.get(function)
        if known is None:
            raise UntraceableError(f"numpy.{function.__name__}")
        return known(*args, **kwargs)

    def primitive(self, name: str, args: tuple[Any, ...]) -> Any:
        maker = PRIMITIVES.get(name)
        if maker is None:
            raise UntraceableError(name)
        return maker(*args)


class Rows(list[Any]):
    """Several words of each lane: what ``np.stack`` of symbols gives."""

    def __rshift__(self, count: Any) -> Rows:
        return Rows(row >> count for row in self)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise UntraceableError("words of lanes as an array")


def constant(value: Any, dtype: Any, shape: tuple[int, ...]) -> Symbol:
    kind = np.dtype(dtype)
    return Symbol("const", (), kind, shape, kind.type(value))


def lift(value: Any, dtype: Any = None) -> Symbol:
    """A value as a symbol: one constant, or a table of constants, one a lane."""
    if isinstance(value, Symbol):
        return value
    array = np.asarray(value, dtype=dtype)
    if array.dtype == object:
        raise UntraceableError(f"{type(value).__name__} among values")
    if array.size > 1 and not (array == array.flat[0]).all():
        return Symbol("table", (), array.dtype, array.shape, array.reshape(-1).tobytes())
    return constant(array.flat[0], array.dtype, array.shape or (1,))


def plain(value: Symbol) -> Symbol:
    """The symbol behind changes of shape."""
    while value.op in ("same", "chosen"):
        value = value.args[0]
    return value


def read_lane(value: Symbol, lane: Any) -> Symbol:
    number = lift(lane, np.int64 if isinstance(lane, int) else None)
    return Symbol("readlane", (value, number), value.dtype, (1,))


# -- ufuncs ---------------------------------------------------------------------------------------
@lru_cache(maxsize=4096)
def _resolved(ufunc: Any, kinds: tuple[Any, ...], dtype: Any) -> tuple[Kind, ...]:
    """The types a ufunc computes in, as numpy says."""
    if dtype is not None:
        signature = (None,) * ufunc.nin + (dtype,) * ufunc.nout
        found = ufunc.resolve_dtypes(
            (*kinds, *[None] * ufunc.nout), signature=signature, casting="same_kind"
        )
    else:
        found = ufunc.resolve_dtypes((*kinds, *[None] * ufunc.nout))
    return tuple(found)


def _kind(value: Any) -> Any:
    if isinstance(value, (Symbol, np.ndarray, np.generic)):
        return value.dtype
    if type(value) in (bool, np.bool_):
        return np.dtype(np.bool_)
    if type(value) in (int, float):
        return type(value)
    raise UntraceableError(f"{type(value).__name__} among values")


def operation(ufunc: Any, inputs: Sequence[Any], dtype: Any = None) -> Any:
    if any(isinstance(value, Rows) for value in inputs):
        raise UntraceableError("arithmetic on words of lanes")
    kinds = tuple(_kind(value) for value in inputs)
    resolved = _resolved(ufunc, kinds, None if dtype is None else np.dtype(dtype))
    args = tuple(
        _cast(lift(value, kind if type(value) in (int, float, bool) else None), kind)
        for value, kind in zip(inputs, resolved[: ufunc.nin], strict=True)
    )
    shape = np.broadcast_shapes(*[arg.shape for arg in args])
    results = resolved[ufunc.nin :]
    if all(arg.op == "const" for arg in args):
        with np.errstate(all="ignore"):
            values = ufunc(*[arg.attr for arg in args])
        values = values if ufunc.nout > 1 else (values,)
        made = [constant(v, kind, shape) for v, kind in zip(values, results, strict=True)]
    elif ufunc.nout > 1:
        made = [
            Symbol(f"{ufunc.__name__}{number}", args, kind, shape)
            for number, kind in enumerate(results)
        ]
    else:
        made = [Symbol(ufunc.__name__, args, results[0], shape)]
    return made[0] if ufunc.nout == 1 else tuple(made)


def _cast(value: Symbol, dtype: Any) -> Symbol:
    """The value as a type; of a constant the constant."""
    kind = np.dtype(dtype)
    if value.dtype == kind:
        return value
    if value.op == "const":
        with np.errstate(all="ignore"):
            return constant(np.asarray(value.attr).astype(kind), kind, value.shape)
    return value.astype(kind)


# -- functions ----------------------------------------------------------------------------------
def _where(condition: Any, one: Any, two: Any) -> Symbol:
    kinds = [_kind(value) for value in (one, two)]
    known = [np.dtype(k) if isinstance(k, type) else k for k in kinds]
    weak = [isinstance(k, type) for k in kinds]
    if weak[0] == weak[1]:
        common = np.result_type(*known)
    else:
        typed = zip((one, two), weak, known, strict=True)
        common = np.result_type(*[value if is_weak else kind for value, is_weak, kind in typed])
    flag = _cast(lift(condition), np.bool_)
    chosen = [_cast(lift(value), common) for value in (one, two)]
    shape = np.broadcast_shapes(flag.shape, chosen[0].shape, chosen[1].shape)
    return Symbol("where", (flag, *chosen), common, shape)


def _clip(value: Symbol, low: Any, high: Any, **_: Any) -> Symbol:
    kind = value.dtype
    ends = [constant(np.asarray(end).astype(kind), kind, (1,)) for end in (low, high)]
    raised = Symbol("clip_low", (value, ends[0]), kind, value.shape)
    return Symbol("clip_high", (raised, ends[1]), kind, value.shape)


def _select(conditions: Sequence[Any], values: Sequence[Any], default: Any = 0) -> Symbol:
    kinds = [np.dtype(k) if isinstance(k, type) else k for k in map(_kind, (*values, default))]
    common = np.result_type(*kinds)
    out = _cast(lift(default), common)
    for condition, value in zip(reversed(conditions), reversed(values), strict=True):
        out = _where(condition, _cast(lift(value), common), out)
    return out


def _broadcast_to(value: Symbol, shape: tuple[int, ...], **_: Any) -> Symbol:
    if value.shape == shape:
        return value
    return Symbol("same", (value,), value.dtype, tuple(shape))


def _broadcast_arrays(*values: Any) -> list[Any]:
    shape = np.broadcast_shapes(*[np.shape(v) for v in values])
    return [
        _broadcast_to(v, shape) if isinstance(v, Symbol) else np.broadcast_to(v, shape)
        for v in values
    ]


def _take_along_axis(data: Any, index: Any, axis: int) -> Symbol:
    del axis  # the last of two
    values, places = lift(data), lift(index)
    return Symbol(
        "gather", (values, places), values.dtype, np.broadcast_shapes(values.shape, places.shape)
    )


def _argmax(value: Symbol, axis: int | None = None) -> Symbol:
    del axis
    if value.op != "mask":
        raise UntraceableError("the first of a mask that is no register")
    return Symbol("first", (value,), np.int64, (1,))


def _roll(value: Symbol, by: int, axis: int) -> Symbol:
    del axis
    lanes = value.shape[-1]
    order = tuple((lane - by) % lanes for lane in range(lanes))
    return Symbol("permute", (value,), value.dtype, value.shape, order)


def _flatnonzero(mask: Symbol) -> Symbol:
    return Symbol("lanes", (mask,), np.int64, (mask.size,))


def _nan_to_num(value: Symbol, **_: Any) -> Symbol:
    limits = np.finfo(value.dtype)
    finite = _where(np.isnan(value), value.dtype.type(0), value)
    return _clip(finite, limits.min, limits.max)


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.where: _where,
    np.clip: _clip,
    np.select: _select,
    np.broadcast_to: _broadcast_to,
    np.broadcast_arrays: _broadcast_arrays,
    np.take_along_axis: _take_along_axis,
    np.argmax: _argmax,
    np.roll: _roll,
    np.flatnonzero: _flatnonzero,
    np.nan_to_num: _nan_to_num,
    np.stack: lambda rows, axis=0: Rows(rows) if axis == 0 else _no_stack(),
    np.shape: lambda value: value.shape,
}


def _no_stack() -> Any:
    raise UntraceableError("numpy.stack along lanes")


# -- primitives ----------------------------------------------------------------------------------
def _like(name: str, dtype: Any, takes: Any = None) -> Callable[..., Symbol]:
    """A primitive on values: its result's type, and the type that its arguments are brought to."""

    def make(*values: Any) -> Symbol:
        args = tuple(lift(value) for value in values)
        if takes is not None:
            args = tuple(_cast(arg, takes) for arg in args)
        return Symbol(name, args, dtype, np.broadcast_shapes(*[arg.shape for arg in args]))

    return make


def _decode(codec: Any, codes: Any) -> Symbol:
    """A look-up in 256 values."""
    places = lift(codes)
    return Symbol("lookup", (places,), np.float32, places.shape, codec.values.tobytes())


def _lds_load(m: Any, wanted: Any, start: Any, size: int) -> list[Symbol]:
    words: list[Symbol] = m.lds_load(wanted, start, size)
    return words


def _lds_store(m: Any, wanted: Any, start: Any, values: Any, size: int) -> None:
    m.lds_store(wanted, start, values, size)


PRIMITIVES: dict[str, Callable[..., Any]] = {
    "fma32": _like("fma", np.float32, np.float32),
    "to_half": _like("to_half", np.uint32),
    "decode_fp8": _decode,
    "lds_load": _lds_load,
    "lds_store": _lds_store,
}
