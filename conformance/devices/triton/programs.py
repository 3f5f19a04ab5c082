"""What Triton's interpreter does with the programs of a launch: their order, and what they touch.

A GPU runs the programs of a grid in no order. The interpreter's is always the same: a program that
also writes its neighbour's rows is set right again by the neighbour, if that one comes later. So a
problem says whether programs run forwards, backwards, or shuffled.

A kernel may touch the elements of the tensors that it was given, and nothing between or around
them; ``isa`` devices hold it to that, and so does this. An access outside is left out, so that it
does no harm to this process, and told.

Needs nothing but numpy and Triton: it runs in the subject's own Python.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any

from .abreast import Abreast

FORWARDS = "forwards"
BACKWARDS = "backwards"
TOLD = 20  # violations at most, each of another kernel and tensor


class Programs:
    """The programs of every launch from :meth:`install` on."""

    def __init__(self) -> None:
        self._order = FORWARDS
        self._seed = 0
        self._places: Any = None
        self._spans: _Spans | None = None
        self._violations: dict[tuple[str, ...], str] = {}
        self._abreast: Abreast | None = None

    def begin(self, order: str, seed: int) -> None:
        """From here on launches run in this order; what was found is forgotten."""
        self._order, self._seed = order, seed
        self._violations = {}

    def violations(self) -> list[str]:
        """What programs touched since the beginning and must not have, a sentence each."""
        return [*self._violations.values()]

    def install(self, interpreter: Any) -> None:
        """Wraps the interpreter's grid and its loads, stores and atomics."""
        self._abreast = Abreast.of(interpreter)
        self._order_programs(interpreter.InterpreterBuilder)
        self._watch_launches(interpreter.GridExecutor)
        self._watch_accesses(interpreter.InterpreterBuilder, interpreter.TensorHandle)

    # -- order ------------------------------------------------------------------------------
    def _order_programs(self, builder: Any) -> None:
        dim_upstream, place_upstream = builder.set_grid_dim, builder.set_grid_idx

        def set_grid_dim(it: Any, nx: int, ny: int, nz: int) -> None:
            self._places = self._permuted(nx * ny * nz)
            dim_upstream(it, nx, ny, nz)

        def set_grid_idx(it: Any, x: int, y: int, z: int) -> None:
            if self._places is not None:
                _, ny, nz = it.grid_dim
                rest, z = divmod(int(self._places[(x * ny + y) * nz + z]), nz)
                x, y = divmod(rest, ny)
            place_upstream(it, x, y, z)

        builder.set_grid_dim, builder.set_grid_idx = set_grid_dim, set_grid_idx

    def _permuted(self, count: int) -> Any:
        """Which program runs as the n-th, or None for all in order."""
        import numpy as np  # noqa: PLC0415 - Triton's, in the subject's Python

        if self._order == FORWARDS:
            return None
        if self._order == BACKWARDS:
            return np.arange(count)[::-1]
        return np.random.default_rng(self._seed).permutation(count)

    # -- accesses ---------------------------------------------------------------------------
    def _watch_launches(self, executor: Any) -> None:
        upstream = executor.__call__

        def call(it: Any, *args: Any, **kwargs: Any) -> Any:
            before = self._spans
            named = {**dict(zip(it.arg_names, args, strict=False)), **kwargs}
            self._spans = _Spans(str(getattr(it.fn, "__name__", it.fn)), named)
            if self._abreast is not None:
                it.fn = self._abreast.kernel(it.fn)
            try:
                return upstream(it, *args, **kwargs)
            finally:
                self._spans = before

        executor.__call__ = call

    def _watch_accesses(self, builder: Any, handle: Any) -> None:
        load, store = builder.create_masked_load, builder.create_masked_store
        update = builder.create_atomic_rmw

        def inside(it: Any, ptr: Any, mask: Any, verb: str) -> Any:
            """The mask without what lies outside of every tensor."""
            if self._spans is None:
                return mask
            size = ptr.get_element_ty().primitive_bitwidth + 7 >> 3
            extent = _extent(ptr.data, mask.data, size)
            if extent is None:
                return mask
            if self._abreast is not None:
                self._abreast.touched(*extent, reads=verb == "reads")
            kept = self._spans.kept(ptr.data, mask.data, size, extent)
            if kept is None:
                return mask
            if self._abreast is not None:
                self._abreast.alone()
            self._tell(verb, ptr.data, mask.data & ~kept, size, it.grid_idx)
            return handle(mask.data & kept, mask.dtype)

        def together(*handles: Any) -> tuple[Any, ...]:
            return handles if self._abreast is None else self._abreast.together(*handles)

        def masked_load(it: Any, ptrs: Any, mask: Any, other: Any, *rest: Any, **more: Any) -> Any:
            ptrs, mask, other = together(ptrs, mask, other)
            return load(it, ptrs, inside(it, ptrs, mask, "reads"), other, *rest, **more)

        def masked_store(it: Any, ptrs: Any, value: Any, mask: Any, *rest: Any, **more: Any) -> Any:
            ptrs, value, mask = together(ptrs, value, mask)
            return store(it, ptrs, value, inside(it, ptrs, mask, "writes"), *rest, **more)

        def atomic_rmw(it: Any, op: Any, ptr: Any, val: Any, mask: Any, *rest: Any) -> Any:
            return update(it, op, ptr, val, inside(it, ptr, mask, "updates"), *rest)

        builder.create_masked_load, builder.create_masked_store = masked_load, masked_store
        builder.create_atomic_rmw = atomic_rmw

    def _tell(self, verb: str, pointers: Any, outside: Any, size: int, place: Any) -> None:
        assert self._spans is not None
        wrong = pointers[outside]
        where = self._spans.where(int(wrong.min()), size)
        key = (self._spans.kernel, verb, where.partition(" bytes ")[2])
        if len(self._violations) < TOLD and key not in self._violations:
            self._violations[key] = (
                f"{self._spans.kernel} {verb} outside of its tensors: {wrong.size} elements in "
                f"program {tuple(int(i) for i in place)}, the first {where}"
            )


class _Spans:
    """The memory of a launch's tensors: from the first element of each to its last."""

    def __init__(self, kernel: str, arguments: Mapping[str, Any]) -> None:
        import numpy as np  # noqa: PLC0415 - as above

        self.kernel = kernel
        found = sorted(span for name, value in arguments.items() for span in _spans_of(name, value))
        self._named = found
        joined: list[list[int]] = []
        for start, end, _ in found:
            if joined and start <= joined[-1][1]:
                joined[-1][1] = max(joined[-1][1], end)
            else:
                joined.append([start, end])
        self._starts = [start for start, _ in joined]
        self._ends = [end for _, end in joined]
        self._bounds = tuple(np.array(side, dtype=np.uint64) for side in (self._starts, self._ends))

    def kept(self, pointers: Any, mask: Any, size: int, extent: tuple[int, int]) -> Any:
        """Which of the elements, in an extent, lie in a tensor, or None if all that count do."""
        import numpy as np  # noqa: PLC0415 - as above

        low, high = extent
        place = bisect_right(self._starts, low) - 1
        if place >= 0 and high <= self._ends[place]:
            return None
        starts, ends = self._bounds
        if not len(starts):
            return np.zeros_like(mask)
        places = np.searchsorted(starts, pointers, side="right")
        kept = (places > 0) & (pointers <= ends[np.maximum(places, 1) - 1] - np.uint64(size))
        return None if bool(kept[mask].all()) else kept

    def where(self, address: int, size: int) -> str:
        """An address by the tensor that is nearest to it."""
        if not self._named:
            return "anywhere: it was given none"

        def distance(span: tuple[int, int, str]) -> int:
            start, end, _ = span
            return start - address if address < start else address + size - end

        start, end, name = min(self._named, key=distance)
        if address < start:
            return f"{start - address} bytes before {name}"
        return f"{address - end} bytes past the end of {name}"


def _extent(pointers: Any, mask: Any, size: int) -> tuple[int, int] | None:
    """From the first byte of the elements that count to the end of the last; None: none does."""
    counted = pointers if mask.all() else pointers[mask]
    return (int(counted.min()), int(counted.max()) + size) if counted.size else None


def _spans_of(name: str, value: Any) -> Iterator[tuple[int, int, str]]:
    if isinstance(value, tuple):
        for place, part in enumerate(value):
            yield from _spans_of(f"{name}[{place}]", part)
    elif hasattr(value, "base") and hasattr(value, "block_shape"):  # a tensor descriptor
        yield from _spans_of(name, value.base)
    elif hasattr(value, "data_ptr") and hasattr(value, "stride") and value.numel():
        start = int(value.data_ptr())
        steps = zip(value.shape, value.stride(), strict=True)
        last = sum((size - 1) * stride for size, stride in steps)
        yield start, start + (last + 1) * value.element_size(), name
