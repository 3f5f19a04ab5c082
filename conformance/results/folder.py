"""The folder of a run's results."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conformance.errors import InfrastructureError

RESULTS = "results.jsonl"
PYTEST_LOG = "pytest.log"
CONTAINER_LOG = "container.log"
SHRUNK = "shrunk"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a results folder until the block ends, or the process does.

    Raises:
        InfrastructureError: another run is writing there, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InfrastructureError(
                f"another run is writing its results to {folder}: wait for it, or give this run "
                "another folder with --results"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def _cannot_write(folder: Path, error: OSError) -> InfrastructureError:
    return InfrastructureError(
        f"cannot write results to {folder}: {error.strerror or error}; give a folder that can be "
        "written and has space left"
    )


def cleared(folder: Path, owner: int | None = None) -> None:
    """Creates a results folder, or removes an earlier run's files from it.

    Otherwise the files of a run that ends early would be mixed with those of another, and a report
    would take them for one run. ``owner`` is the user and group that will write to it.

    Raises:
        InfrastructureError: it cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = (RESULTS, PYTEST_LOG, CONTAINER_LOG)
        found = (*folder.glob("junit-*.xml"), *folder.glob(f"{SHRUNK}/*.json"))
        for stale in (*(folder / name for name in names), *found):
            stale.unlink(missing_ok=True)  # another user's file could not be written over
        if owner is not None:
            os.chown(folder, owner, owner)
    except OSError as error:
        raise _cannot_write(folder, error) from error
