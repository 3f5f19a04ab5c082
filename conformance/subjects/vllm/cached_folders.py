"""Folders of the cache: each is made once, and exists completely or not at all.

A folder is built beside its final place under a lock, and renamed when it is complete. The next
process removes what a killed one left behind. A marker file lists the contents, so that a folder
that somebody emptied by hand is noticed and made again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from conformance.cache import CACHE_VARIABLE
from conformance.errors import InfrastructureError
from conformance.subjects.vllm.progress import Progress

MARKER = ".complete.json"
FORMAT = 1
LONGEST_WAIT = 1800.0
_HALF_MADE = ".making-"


@dataclass(frozen=True)
class Marker:
    """A folder's contents: where they came from, and every file's size in bytes."""

    format: int
    facts: dict[str, str]
    files: dict[str, int]


_MARKER = TypeAdapter(Marker)


def damage(folder: Path) -> str | None:
    """What is wrong with a folder, or None.

    Looks at names and sizes only, which takes milliseconds.
    """
    try:
        marker = _MARKER.validate_json((folder / MARKER).read_bytes())
    except OSError:
        return "its marker file is missing"
    except ValidationError:
        return "its marker file is not readable"
    if marker.format != FORMAT:
        return "it was made by another version of the suite"
    for name, size in marker.files.items():
        try:
            found = os.lstat(folder / name).st_size
        except OSError:
            return f"{name} is missing"
        if found != size:
            return f"{name} has {found} bytes instead of {size}"
    return None


def made_once(
    folder: Path,
    make: Callable[[Path], Mapping[str, str]],
    *,
    what: str,
    progress: Progress,
) -> Path:
    """Returns ``folder``, made by ``make`` if it is missing or damaged.

    ``make`` gets an empty folder to fill and returns facts for the marker (versions, hashes). If
    several processes want the same folder, one makes it and the others wait.
    """
    if damage(folder) is None:
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _held(folder, what, progress):
            wrong = damage(folder)
            if wrong is not None:
                _sweep(folder)
                _discard(folder, wrong, what, progress)
                _make(folder, make)
    except OSError as error:
        raise InfrastructureError(
            f"cannot make {what} in {folder.parent}: {error}. Free space there, or name another "
            f"folder in the environment variable {CACHE_VARIABLE}."
        ) from error
    return folder


def _make(folder: Path, make: Callable[[Path], Mapping[str, str]]) -> None:
    half = folder.parent / f".{folder.name}{_HALF_MADE}{os.getpid()}"
    half.mkdir()
    try:
        facts = make(half)
        marker = Marker(FORMAT, dict(facts), dict(_files(half)))
        (half / MARKER).write_bytes(_MARKER.dump_json(marker))
        half.rename(folder)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    for directory, _, names in os.walk(folder):
        for name in sorted(names):
            file = Path(directory, name)
            yield file.relative_to(folder).as_posix(), file.lstat().st_size


def _discard(folder: Path, wrong: str, what: str, progress: Progress) -> None:
    if folder.exists():
        progress(f"{what}: the copy in the cache is damaged ({wrong}) and is made again")
        shutil.rmtree(folder)


def _sweep(folder: Path) -> None:
    """Removes what killed processes left beside ``folder``.

    A process holds its lock while it is alive, so a partial folder with a free lock is abandoned.
    """
    for half in folder.parent.glob(f".*{_HALF_MADE}*"):
        name = half.name.removeprefix(".").rpartition(_HALF_MADE)[0]
        if name == folder.name:
            shutil.rmtree(half)
            continue
        lock = FileLock(_lock_file(folder.parent / name))
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(half)
        except Timeout:
            continue


def _lock_file(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.lock"


@contextmanager
def _held(folder: Path, what: str, progress: Progress) -> Iterator[None]:
    lock = FileLock(_lock_file(folder))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"{what}: waiting for another process that is making it")
        try:
            lock.acquire(timeout=LONGEST_WAIT)
        except Timeout as error:
            raise InfrastructureError(
                f"another process has been making {what} for {LONGEST_WAIT / 60:.0f} minutes. "
                f"End it, or name another cache folder in {CACHE_VARIABLE}."
            ) from error
    try:
        yield
    finally:
        lock.release()
