"""What the cache holds and how much, and what of it can go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from conformance.cache import CACHE_VARIABLE, cache_root
from conformance.commands.machine_checks import Check
from conformance.subjects.vllm.cached_folders import damage

# The folders of the cache, and what each is for.
_HOLDS = {
    "vllm": "Python files of vLLM releases",
    "dependencies": "what vLLM imports",
    "sources": "source distributions of vLLM",
    "checkouts": "checkouts of vLLM",
    "bytecode": "compiled Python",
    "triton": "compiled Triton kernels",
    "hip": "compiled HIP kernels",
    "native": "the emulator's native code",
}
# Made anew in moments, unlike what is fetched.
_COMPILED = ("bytecode", "triton", "native")
_FETCHED = ("vllm", "dependencies", "sources")


def cache_checks() -> Iterator[Check]:
    """The cache as a whole, then each folder of it with its size."""
    root = cache_root()
    if not root.is_dir():
        yield Check("cache", True, f"{root}: nothing yet")
        return
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir())
    sizes = {folder: _bytes(folder) for folder in folders}
    advice = f"{CACHE_VARIABLE} names another folder; doctor --clean frees what is made in moments"
    yield Check("cache", True, f"{root}: {_size(sum(sizes.values()))}", advice)
    for folder, size in sizes.items():
        wrong = list(_damaged(folder))
        found = f"{_size(size)}, {_HOLDS.get(folder.name, 'of another version of the suite')}"
        if wrong:
            names = ", ".join(entry.name for entry, _ in wrong)
            advice = "nothing: replaced at the next use; doctor --clean removes them now"
            yield Check(f"cache: {folder.name}", False, f"{found}; damaged: {names}", advice)
        else:
            yield Check(f"cache: {folder.name}", True, found)


def clean_cache() -> Iterator[str]:
    """Removes what is damaged, half made or compiled; says of each what it was.

    What another process is making, and so holds the lock of, is left alone.
    """
    root = cache_root()
    for name in _COMPILED:
        if (folder := root / name).is_dir():
            yield _remove(folder, "compiled")
    for folder in (root / name for name in _FETCHED):
        for entry, why in _damaged(folder):
            if _is_free(entry):
                yield _remove(entry, why)


def _damaged(folder: Path) -> Iterator[tuple[Path, str]]:
    """The entries of a folder of fetched things that are not whole, each with why."""
    if folder.name not in _FETCHED or not folder.is_dir():
        return
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir():
            continue
        if entry.name.startswith("."):
            if ".making-" in entry.name:
                yield entry, "half made, by a process that is gone"
        elif (why := damage(entry)) is not None:
            yield entry, why


def _is_free(entry: Path) -> bool:
    name = entry.name.removeprefix(".").partition(".making-")[0]
    try:
        with FileLock(entry.parent / f".{name}.lock").acquire(timeout=0):
            return True
    except Timeout:
        return False


def _remove(folder: Path, why: str) -> str:
    size = _bytes(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return f"removed {folder} ({why}): {_size(size)}"


def _bytes(folder: Path) -> int:
    total = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(directory, name).lstat().st_size
            except OSError:
                continue  # another process removed it
    return total


def _size(number: int) -> str:
    """Bytes in the unit that people read: 1.4 GB."""
    value = float(number)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
