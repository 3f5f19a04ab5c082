"""The facts of AMD targets, from the suite's own table, which is loaded by its path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import WorkerError
from .suite_devices import FOLDER, load_by_path

if TYPE_CHECKING:
    from ..devices.targets import TargetFacts


def target_facts(name: str) -> TargetFacts:
    """A target's row.

    Raises:
        WorkerError: the table has no such target; says which facts are missing.
    """
    table = load_by_path("conformance_targets", FOLDER / "targets.py")
    try:
        facts: TargetFacts = table.target_facts(name)
    except table.UnknownTargetError as error:
        raise WorkerError(str(error)) from None
    return facts
