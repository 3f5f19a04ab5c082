"""The folder for everything that is downloaded or compiled."""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

CACHE_VARIABLE = "ROCM_CONFORMANCE_CACHE"
TRITON_VARIABLE = "TRITON_CACHE_DIR"
# A kernel has 100 KiB to 1 MiB: the standard tier on five targets.
TRITON_BYTES = 4 << 30
# What was made so recently is left alone: whoever made it may be reading it.
_RECENT_SECONDS = 3600.0


def cache_root() -> Path:
    """The suite's cache folder: ``CACHE_VARIABLE`` if set, else the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    return user_cache_path("rocm-attention-conformance", appauthor=False)


def compiled_python() -> Path:
    """Where compiled Python is kept: in this Python's own place, if it has one, else the cache."""
    return Path(sys.pycache_prefix) if sys.pycache_prefix else cache_root() / "bytecode"


def keep_compiled() -> None:
    """Keeps what this process compiles from now on, where nothing is to be written beside sources.

    torch alone compiles for seconds.
    """
    if sys.dont_write_bytecode:
        sys.pycache_prefix = str(compiled_python())
        sys.dont_write_bytecode = False


def triton_cache() -> Path:
    """Where compiled Triton kernels are kept: where Triton's own variable says, or in the cache."""
    return Path(os.environ.get(TRITON_VARIABLE) or cache_root() / "triton")


def prune(folder: Path, limit: int) -> None:
    """Removes a folder's oldest subfolders, until no more than ``limit`` bytes are left.

    Each disappears at once, so that no reader finds half of it. What another process removes
    meanwhile is no error.
    """
    entries = []
    with suppress(OSError):
        entries = sorted((entry.stat().st_mtime, entry) for entry in folder.iterdir())
    sizes = {entry: _bytes_of(entry) for _, entry in entries}
    total = sum(sizes.values())
    for made, entry in entries:
        if total <= limit or time.time() - made < _RECENT_SECONDS:
            return
        gone = entry.with_name(f".gone-{os.getpid()}-{entry.name}")
        with suppress(OSError):
            entry.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        total -= sizes[entry]


def _bytes_of(folder: Path) -> int:
    total = 0
    with suppress(OSError):
        for path in folder.iterdir():
            total += path.stat().st_size
    return total
