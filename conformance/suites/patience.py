"""When to stop asking: a worker that keeps dying or hanging costs seconds or minutes each time."""

from __future__ import annotations

from collections import defaultdict

from conformance.errors import InfrastructureError

# Failures in a row in one place, and places in a row, until the rest is given up.
TRIES = 3


class Patience:
    """Counts the failures of each subject, since its last answer.

    A place is a platform, as results name it. After ``TRIES`` failures the place is given up, after
    ``TRIES`` places the subject: the cases that are left end errored at once, with what the worker
    said last.
    """

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str], list[InfrastructureError]] = defaultdict(list)
        self._lost: dict[str, list[str]] = defaultdict(list)

    def check(self, spec: str, place: str) -> None:
        """Lets a subject be asked in a place.

        Raises:
            InfrastructureError: the place or the subject was given up.
        """
        lost = self._lost[spec]
        given_up = lost[-1] if len(lost) >= TRIES else place
        failures = self._failures[spec, given_up]
        if len(failures) < TRIES:
            return
        where = "this platform" if given_up == place else f"{TRIES} platforms"
        last = failures[-1]
        raise InfrastructureError(
            f"given up after {TRIES} failures in a row on {where}: {last.args[0]}", last.stderr
        )

    def failed(self, spec: str, place: str, error: InfrastructureError) -> None:
        """Takes note of a case that ended in an error; one error may end several cases."""
        failures = self._failures[spec, place]
        if len(failures) >= TRIES or any(error is known for known in failures):
            return
        failures.append(error)
        if len(failures) == TRIES:
            self._lost[spec].append(place)

    def answered(self, spec: str, place: str) -> None:
        """Takes note of a case that the subject answered."""
        self._failures[spec, place].clear()
        self._lost[spec].clear()
