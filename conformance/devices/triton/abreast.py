"""Makes Triton's interpreter quicker: programs of a launch run abreast, an operation for all.

The interpreter runs one program after another, and spends its time on looking at types and calling
numpy, not on numbers. Here every value has a first axis of *lanes*, one for each of some programs,
or a single one where they share it: an operation costs about as much for sixty programs as for one.

What comes out is the same to the last bit as one after another. Nothing is stored before all lanes
are through; then each lane's stores are carried out in the order of the programs. Where a condition
or the bound of a loop differs, the lanes are parted by it and begin anew. Where that would not do,
programs run one after another: a lane may read what one of them stores, accesses memory outside of
the launch's tensors, is atomic or ends with an error, or an operation has no lanes.

Needs nothing but numpy and triton: it runs in the subject's own Python.
"""

from __future__ import annotations

import inspect
from typing import Any

from . import lanes
from .lanes import AloneError, PartedError, Parts, WideError, WithLanes

# Programs that run abreast. With more, what a kernel computes with does not fit in a core's cache.
LANES = 64
# Launches of a kernel that had to begin anew, after which it is not tried again.
ENOUGH = 3
# What a program stores: pointers, values and a mask.
Store = tuple[Any, Any, Any]


class Abreast:
    """The programs of a Triton's interpreter that run abreast."""

    def __init__(self, interpreter: Any) -> None:
        self._builder = interpreter.interpreter_builder
        self._store = interpreter._interpreter.store
        # The places of the programs that run abreast [lanes, 3]; None: one runs alone.
        self._places: Any = None
        self._stores: list[Store] = []
        self._read: set[tuple[int, int]] = set()
        self._written: set[tuple[int, int]] = set()
        self._kernels: dict[Any, _Kernel] = {}

    @classmethod
    def of(cls, interpreter: Any) -> Abreast | None:
        """What runs this interpreter's programs abreast, or None if it is of another kind."""
        builder = interpreter.InterpreterBuilder
        # Before 3.4 Triton's semantics are functions.
        if not hasattr(interpreter, "interpreter_semantic") or not hasattr(builder, "ternary_op"):
            return None
        if not hasattr(builder, "abreast"):
            builder.abreast = cls(interpreter)
            builder.abreast._install(interpreter)
        found: Abreast = builder.abreast
        return found

    # -- launches ---------------------------------------------------------------------------
    def kernel(self, function: Any) -> Any:
        """A kernel that is called for each program of a launch, in order, and runs more at once."""
        if isinstance(function, _Kernel):
            return function
        found = self._kernels.get(function)
        if found is None:
            found = self._kernels[function] = _Kernel(self, function)
        found.begin()
        return found

    def places(self) -> Any:
        """The place of each program of the launch, in the order in which they run."""
        import numpy as np  # noqa: PLC0415 - Triton's, in the subject's Python

        builder, places = self._builder, []
        before = builder.grid_idx
        for place in np.ndindex(*builder.grid_dim):
            builder.set_grid_idx(*place)
            places.append(builder.grid_idx)
        builder.grid_idx = before
        return np.array(places, dtype=np.int32)

    def run(self, function: Any, arguments: dict[str, Any], places: Any) -> None:
        """Runs the programs at these places.

        Raises:
            AloneError: they must run one after another. Nothing is stored.
        """
        stored: dict[int, list[Store]] = {}
        self._read, self._written = set(), set()
        groups = [[*range(len(places))]]
        try:
            while groups:
                group = groups.pop()
                self._begin_lanes(places[group])
                try:
                    function(**arguments)
                except PartedError as parted:
                    groups += _parted(group, parted.values.tolist())
                    continue
                for lane, program in enumerate(group):
                    stored[program] = [_of_lane(store, lane) for store in self._stores]
        except Exception as error:
            raise AloneError from error
        finally:
            self._begin_lanes(None)
        if _meet(self._read, self._written):
            raise AloneError
        for _, stores in sorted(stored.items()):
            for store in stores:
                self._store(*store)

    def _begin_lanes(self, places: Any) -> None:
        self._places, self._stores = places, []
        self._builder.has_lanes = places is not None

    # -- memory -----------------------------------------------------------------------------
    def together(self, *handles: Any) -> tuple[Any, ...]:
        """Pointers, masks and values of an access in one shape, where values have lanes."""
        return handles if self._places is None else lanes.together(handles)

    def touched(self, low: int, high: int, *, reads: bool) -> None:
        """Notes that programs access bytes from ``low`` up to ``high``."""
        if self._places is not None:
            (self._read if reads else self._written).add((low, high))

    def alone(self) -> None:
        """What comes is for one program after another.

        Raises:
            AloneError: some run abreast.
        """
        if self._places is not None:
            raise AloneError

    # -- operations -------------------------------------------------------------------------
    def _install(self, interpreter: Any) -> None:
        builder, parts = interpreter.InterpreterBuilder, Parts.of(interpreter)

        def program_id(_upstream: Any, it: Any, axis: int) -> Any:
            return parts.handle(self._places[:, axis], it.get_int32(0).dtype)

        def masked_store(_up: Any, _it: Any, ptrs: Any, value: Any, mask: Any, *_how: Any) -> None:
            self._stores.append((ptrs.data, value.data, mask.data))

        own: dict[str, WithLanes] = {
            "create_get_program_id": program_id,
            "create_masked_store": masked_store,
        }
        for name, with_lanes in {**lanes.operations(parts), **own}.items():
            self._give_lanes(builder, name, with_lanes)
        self._reduce_lanes(interpreter, parts)
        self._part_lanes(interpreter, parts)

    def _give_lanes(self, owner: Any, name: str, with_lanes: WithLanes) -> None:
        """Puts an operation in a method's place where values have lanes."""
        upstream = getattr(owner, name, None)
        if upstream is not None:
            setattr(owner, name, self._either(upstream, with_lanes))

    def _either(self, upstream: Any, with_lanes: WithLanes) -> Any:
        def method(it: Any, *args: Any, **more: Any) -> Any:
            if self._places is None:
                return upstream(it, *args, **more)
            return with_lanes(upstream, it, *args, **more)

        return method

    def _reduce_lanes(self, interpreter: Any, parts: Parts) -> None:
        """Reductions and scans: along an axis of the block."""

        def to_tensor(_upstream: Any, _it: Any, result: Any, dtype: Any) -> Any:
            return parts.made(result.astype(parts.numpy_type(dtype)), dtype)

        def apply_impl(upstream: Any, it: Any, given: Any) -> Any:
            if it.axis is None:
                if getattr(it, "keep_dims", False):
                    raise AloneError
                given, it.axis = tuple([lanes.to_row(parts, each) for each in given]), 0
            it.axis = lanes.later(it.axis)
            return upstream(it, given)

        self._give_lanes(interpreter.ReduceScanOpInterface, "to_tensor", to_tensor)
        for kind, generic in (
            (interpreter.ReduceOps, "generic_reduce"),
            (interpreter.ScanOps, "generic_scan"),
        ):
            self._give_lanes(kind, "apply_impl", apply_impl)
            self._give_lanes(kind, generic, lanes.alone)

    def _part_lanes(self, interpreter: Any, parts: Parts) -> None:
        """What Python asks a tensor: all lanes give the same answer, or they part."""
        patch = interpreter._patch_lang_tensor

        def truth(_upstream: Any, it: Any) -> bool:
            data = it.handle.data
            # Of a block the interpreter says that it is true.
            return bool(lanes.common(data.astype(bool))) if data.size == len(data) else True

        def number(_upstream: Any, it: Any) -> int:
            return int(lanes.common(it.handle.data))

        def transposed(_upstream: Any, it: Any) -> Any:
            data = it.handle.data
            return parts.made(data.transpose(0, *range(data.ndim - 1, 0, -1)), it.dtype)

        def patch_and_part(tensor: Any, *scope: Any) -> Any:
            patched = patch(tensor, *scope)
            self._give_lanes(tensor, "__bool__", truth)
            self._give_lanes(tensor, "__index__", number)
            tensor.T = property(self._either(tensor.T.fget, transposed))
            return patched

        interpreter._patch_lang_tensor = patch_and_part


class _Kernel:
    """A kernel as Triton's ``GridExecutor`` calls it, with what that asks of a function."""

    def __init__(self, abreast: Abreast, function: Any) -> None:
        self.__name__, self.__globals__ = function.__name__, function.__globals__
        self.__signature__ = inspect.signature(function)
        self._abreast, self._function = abreast, function
        self._lanes, self._failed = LANES, 0
        self.begin()

    def begin(self) -> None:
        """Begins a launch."""
        self._places: Any = None
        self._next = self._done = 0
        self._together = self._failed < ENOUGH

    def __call__(self, **arguments: Any) -> None:
        """Runs the next program, and perhaps some of those after it, if it has not run yet."""
        number = self._next
        self._next += 1
        if number < self._done:
            return
        if not self._together or not self._run_abreast(number, arguments):
            self._function(**arguments)

    def _run_abreast(self, first: int, arguments: dict[str, Any]) -> bool:
        if self._places is None:
            self._places = self._abreast.places()
        while len(places := self._places[first : first + self._lanes]) > 1:
            try:
                self._abreast.run(self._function, arguments, places)
            except WideError:
                self._lanes //= 4
            except AloneError:
                self._failed += 1
                self._together = False
                return False
            else:
                self._done = first + len(places)
                return True
        return False


def _parted(group: list[int], values: list[Any]) -> list[list[int]]:
    """The programs of a group by the value that each has."""
    parts: dict[Any, list[int]] = {}
    for program, value in zip(group, values, strict=True):
        parts.setdefault(value, []).append(program)
    return [*parts.values()]


def _of_lane(store: Store, lane: int) -> Store:
    # Arrays of one lane, because not every Triton takes a number.
    pointers, value, mask = (part[lane : lane + 1] if len(part) > 1 else part for part in store)
    return pointers, value, mask


def _meet(read: set[tuple[int, int]], written: set[tuple[int, int]]) -> bool:
    """Whether a range that was read has bytes of one that was written."""
    return any(low < end and start < high for start, end in written for low, high in read)
