"""Progress messages of long downloads."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]

_STEP = 20


def silent(message: str) -> None:
    """Reports nothing."""


class Percentage:
    """Reports a percentage, a few times in all."""

    def __init__(self, what: str, total: int, progress: Progress) -> None:
        """``total`` in any unit; if it is 0 (unknown), nothing is reported."""
        self._what, self._total, self._progress = what, total, progress
        self._done = 0
        self._said = 0

    def add(self, amount: int) -> None:
        """Counts ``amount`` more units as done."""
        self._done += amount
        if not self._total:
            return
        reached = min(100, 100 * self._done // self._total) // _STEP * _STEP
        if reached > self._said:
            self._said = reached
            self._progress(f"{self._what}: {reached} %")
