"""How long processors have worked for this process and for those that it started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
# Of /proc/PID/stat, after the name: user and system time, of it and of its children that ended.
_TIMES = slice(11, 15)


def processor_seconds() -> float:
    """Of this process, of its descendants that live, and of those that were waited for.

    Only the difference between two readings means anything; a process that ended unseen in between
    is missing. Where there is no /proc, it is this process alone.
    """
    if not _PROC.joinpath("self").exists():
        return sum(os.times()[:4])
    return sum(_spent(pid) for pid in _family(os.getpid())) / os.sysconf("SC_CLK_TCK")


def _spent(pid: int) -> int:
    """The clock ticks of a process, and of its children that ended."""
    with suppress(OSError, ValueError):
        told = _PROC.joinpath(str(pid), "stat").read_text().rpartition(")")[2].split()
        return sum(map(int, told[_TIMES]))
    return 0


def _family(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    with suppress(OSError):
        for task in _PROC.joinpath(str(pid), "task").iterdir():
            for child in task.joinpath("children").read_text().split():
                yield from _family(int(child))
