"""The folder of a run's results."""

from __future__ import annotations

import os
from pathlib import Path

from conformance.errors import InfrastructureError

RESULTS = "results.jsonl"
PYTEST_LOG = "pytest.log"
CONTAINER_LOG = "container.log"


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
        for stale in (*(folder / name for name in names), *folder.glob("junit-*.xml")):
            stale.unlink(missing_ok=True)  # another user's file could not be written over
        if owner is not None:
            os.chown(folder, owner, owner)
    except OSError as error:
        raise InfrastructureError(
            f"cannot write results to {folder}: {error.strerror or error}; give a folder that can "
            "be written and has space left"
        ) from error
