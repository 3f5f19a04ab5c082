"""Problems that take gigabytes of a GPU's memory: one at a time on a card."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock

from conformance.cache import cache_root
from conformance.problems.problem import Problem

LARGE = 2**29  # elements of a cache, of which a worker holds two


@contextmanager
def memory_turn(problem: Problem, card: str) -> Iterator[None]:
    """Holds a card against every other large problem of this user; small ones do not wait.

    A card that a dozen processes share has room for one large cache, not for a dozen. The turn of
    a killed process ends with it. ``card``: as the environment names it; "" for no GPU.
    """
    if not card or problem.cache_elements < LARGE:
        yield
        return
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"card-{card.replace('/', '-')}.lock"):
        yield
