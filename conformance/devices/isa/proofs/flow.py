"""Follows what may hold through the blocks of a kernel, until nothing new arrives anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..code import Code
from ..native.plan import successors

State = TypeVar("State")


def follow(
    code: Code,
    first: State,
    block: Callable[[int, State], State],
    joined: Callable[[State, State], State],
) -> None:
    """Runs ``block`` on each block of a kernel, by its start and what may hold there.

    ``first`` holds where the kernel begins. ``block`` gives what holds behind a block, and leaves
    what it was given as it is. ``joined`` is what may hold where two ways meet: equal to its first
    argument if the second says nothing new.
    """
    entering = {0: first}
    todo = [0]
    while todo:
        start = todo.pop()
        leaving = block(start, entering[start])
        for goal in successors(code, start):
            known = entering.get(goal)
            may_hold = leaving if known is None else joined(known, leaving)
            if known is None or may_hold != known:
                entering[goal] = may_hold
                todo.append(goal)
