"""How many processes are worth having at a time."""

from __future__ import annotations

import os


def usable() -> int:
    """The processors that this process may use; in a container often fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
