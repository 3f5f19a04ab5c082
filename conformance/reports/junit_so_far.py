"""JUnit files that are written while cases still run: a run that is killed leaves what it knows."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from conformance.reports.junit_writer import Rendering, cells_of, write_rendered
from conformance.results import CaseResult, RunHeader

# The first files come after this long. Later ones wait a multiple of what the last ones took, so
# that a run spends a small part of its time on files that are written over.
FIRST_SECONDS = 15.0
TIMES_THE_LAST = 30.0
NOT_ENDED = "the run has not ended: these are the cases that were answered before"


class JUnitSoFar:
    """The JUnit files of a run that goes on.

    Until :meth:`finish` every file has an errored case that says that the run did not end: what is
    left of a killed run must not pass for a whole one.
    """

    def __init__(
        self, folder: Path, header: RunHeader, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._clock = folder, clock
        self._rendering = Rendering(header)
        self._cases: list[CaseResult] = []
        self._due = clock() + FIRST_SECONDS

    def add(self, case: CaseResult) -> None:
        """Takes one more case; writes the files if it is time to.

        Raises:
            InfrastructureError: the folder cannot be written.
        """
        self._cases.append(case)
        started = self._clock()
        if started >= self._due:
            self.write_unended()
            ended = self._clock()
            self._due = ended + max(FIRST_SECONDS, TIMES_THE_LAST * (ended - started))

    def write_unended(self) -> None:
        """Writes the files of a run that goes on, or that was interrupted."""
        if self._cases:
            cells = tuple(dict.fromkeys(cell for case in self._cases for cell in cells_of(case)))
            write_rendered([*self._cases, _not_ended(cells)], self._folder, self._rendering)

    def finish(self) -> list[Path]:
        """Writes the files of the whole run; returns them, sorted by cell and part."""
        return write_rendered(self._cases, self._folder, self._rendering)


def _not_ended(cells: tuple[str, ...]) -> CaseResult:
    return CaseResult.of_the_run("infrastructure", "the run ends", NOT_ENDED, cells=cells)
