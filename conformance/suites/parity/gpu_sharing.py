"""Who uses a GPU's memory: several processes together, or one of them alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import ReadWriteLock

from conformance.cache import cache_root


@contextmanager
def using(card: str, *, alone: bool = False) -> Iterator[None]:
    """Holds a lock on a GPU: shared with this user's other processes, or exclusive (``alone``).

    A process that waits for the exclusive lock goes before later ones. The lock of a killed process
    is released. ``card`` is the GPU as the environment names it; "" means none, and no lock.
    """
    if not card:
        yield
        return
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    lock = ReadWriteLock(root / f"card-{card.replace('/', '-')}.db")
    with lock.write_lock() if alone else lock.read_lock():
        yield
