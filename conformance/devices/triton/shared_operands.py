"""Makes Triton's interpreter quicker: what types alone decide about two operands is decided once.

Before it computes ``a + b``, ``triton.language`` finds the type to compute in, converts both to it,
makes a tensor of a number, fills it up to the other's shape, and compares shapes. What comes of all
that depends on the operands' types and on the number, of which a kernel has few, and it has them
hundreds of thousands of times (``binary_op_type_checking_impl`` in
``triton/language/semantic.py``). So it is kept what the interpreter's builder was asked to do.

Needs nothing but triton: it runs in the subject's own Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .shared_shapes import keep


def share_operands(core: Any, semantic: Any) -> None:
    """Patches the class of the interpreter's semantics; types are those that `share_shapes` gives.

    Two tensors are made into operands by the same steps for every pair of their types, and a number
    becomes the same tensor beside every tensor of a type that stays as it is.
    """
    upstream, tensor = semantic.binary_op_type_checking_impl, core.tensor
    # By the types' identities and what is allowed; the types are kept, so that no others take
    # their place.
    ways: dict[Any, _Way] = {}
    numbers: dict[Any, Any] = {}

    def of_tensors(self: Any, lhs: Any, rhs: Any, rest: tuple[Any, ...]) -> Any:
        key = (id(lhs.type), id(rhs.type), rest)
        way = ways.get(key)
        if way is not None:
            return way.go(self.builder, tensor, lhs, rhs)
        asked = _Asked(self.builder)
        self.builder = asked
        try:
            made = upstream(self, lhs, rhs, *rest)
        finally:
            self.builder = asked.builder
        # Of one tensor that is both operands it is not seen which of them a step is about.
        if lhs.handle is not rhs.handle:
            keep(ways, key, asked.way(lhs, rhs, made))
        return made

    def binary_op_type_checking_impl(self: Any, lhs: Any, rhs: Any, *rest: Any, **more: Any) -> Any:
        if more or type(lhs) is not tensor:
            return upstream(self, lhs, rhs, *rest, **more)
        kind = type(rhs)
        if kind is tensor:
            return of_tensors(self, lhs, rhs, rest)
        if kind not in (int, float):
            return upstream(self, lhs, rhs, *rest)
        # Zero has two signs, and NaN is not itself.
        number = rhs if kind is int else rhs.hex()
        # Where programs run abreast, a block of numbers has an axis more.
        lanes = getattr(self.builder, "has_lanes", False)
        number_key = (id(lhs.type), kind, number, lanes, rest)
        found = numbers.get(number_key)
        if found is not None:
            return lhs, found[1]
        left, right = upstream(self, lhs, rhs, *rest)
        if left is lhs:
            keep(numbers, number_key, (lhs.type, right))
        return left, right

    semantic.binary_op_type_checking_impl = binary_op_type_checking_impl


class _Way(NamedTuple):
    """How two tensors become operands.

    ``steps`` are a method of the builder and its arguments each; a handle among these is a
    `_Handle`. ``ends``: the number of each operand's handle and its type; None: it is the tensor
    itself. ``given``: the types of the two tensors.
    """

    steps: tuple[tuple[str, tuple[Any, ...]], ...]
    ends: tuple[tuple[int, Any] | None, ...]
    given: tuple[Any, Any]

    def go(self, builder: Any, tensor: Any, lhs: Any, rhs: Any) -> tuple[Any, Any]:
        """The operands of two tensors of these types."""
        if not self.steps:
            return lhs, rhs
        handles = [lhs.handle, rhs.handle]
        for name, args in self.steps:
            given = [handles[x.number] if type(x) is _Handle else x for x in args]
            handles.append(getattr(builder, name)(*given))
        left, right = (
            before if end is None else tensor(handles[end[0]], end[1])
            for before, end in zip((lhs, rhs), self.ends, strict=True)
        )
        return left, right


class _Handle(NamedTuple):
    """The handle of a tensor (0 and 1), or what a step before gave."""

    number: int


class _Asked:
    """A builder that notes what it is asked to do."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        self._calls: list[tuple[str, Sequence[Any], Any]] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.builder, name)
        return self._noted(name, found) if callable(found) else found

    def _noted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            made = method(*args)
            self._calls.append((name, args, made))
            return made

        return call

    def way(self, lhs: Any, rhs: Any, made: tuple[Any, Any]) -> _Way:
        """What was done with the handles of two tensors to make them operands."""
        handle = type(lhs.handle)
        numbers = {id(lhs.handle): 0, id(rhs.handle): 1}
        steps = []
        for name, args, result in self._calls:
            # The others give types.
            if type(result) is handle:
                known = (_Handle(numbers[id(x)]) if type(x) is handle else x for x in args)
                steps.append((name, tuple(known)))
                numbers[id(result)] = 1 + len(steps)
        ends = (
            None if after is before else (numbers[id(after.handle)], after.type)
            for before, after in zip((lhs, rhs), made, strict=True)
        )
        return _Way(tuple(steps), tuple(ends), (lhs.type, rhs.type))
