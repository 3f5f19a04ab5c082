"""Interrupts from outside: Ctrl-C, and the SIGTERM with which CI systems cancel."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN = 1.0  # seconds


@contextmanager
def interruptible(again: float = 0.0) -> Iterator[Callable[[], None]]:
    """Ends a block with ``KeyboardInterrupt`` at SIGINT and SIGTERM; yields a function.

    Python swallows an exception that is raised while a destructor or a callback of the garbage
    collector runs: it prints it, and the block goes on. With ``again`` the interrupt is therefore
    raised once more after that many seconds, until the block ends or calls the yielded function to
    acknowledge it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    seconds = again

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        raise KeyboardInterrupt

    def heard() -> None:
        nonlocal seconds
        seconds = 0.0
        signal.setitimer(signal.ITIMER_REAL, 0.0)

    signals = [signal.SIGINT, signal.SIGTERM, *([signal.SIGALRM] if again else [])]
    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield heard
    finally:
        heard()
        for number, handler in before.items():
            signal.signal(number, handler)
