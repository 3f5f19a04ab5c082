"""Operations that numpy computes in its own way and native code as one: what tracing stops at.

The table of instructions is the only statement of what they do. Interpreted, its functions compute
with arrays; traced, the same functions are called with :class:`Symbolic` values, which record what
is done to them. A function marked as a primitive is recorded as one operation by its name, because
its body asks numpy for what cannot be recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


class Symbolic:
    """A value that is only known when the kernel runs; tracing has a subclass of it."""

    __slots__ = ()

    def primitive(self, name: str, args: tuple[Any, ...]) -> Any:
        """Records the primitive ``name`` of these arguments, this value among them."""
        raise NotImplementedError


def primitive(name: str) -> Callable[[F], F]:
    """Marks a function: with a symbolic argument it is recorded and not run."""

    def mark(function: F) -> F:
        @wraps(function)
        def call(*args: Any) -> Any:
            for one in args:
                if isinstance(one, Symbolic):
                    return one.primitive(name, args)
            return function(*args)

        return cast(F, call)

    return mark
