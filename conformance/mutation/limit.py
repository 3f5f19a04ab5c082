"""An end to what a mutant makes endless, in this process."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class OutOfTimeError(BaseException):
    """The time is up. No ``except Exception`` of the code that is judged catches it."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Gives what runs meanwhile so many seconds of the processor: a busy machine changes nothing.

    Raises:
        OutOfTimeError: it took longer.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
