"""When to give up on a subject: a worker that dies or hangs costs seconds or minutes each time."""

from __future__ import annotations

from collections import defaultdict

from conformance.errors import InfrastructureError

# Failures in a row after which a platform is given up, and after which the subject is.
PLATFORM_TRIES = 3
SUBJECT_TRIES = 9


class FailureLimit:
    """Counts the failures of each subject since its last answer, per platform and in all.

    Further cases of what was given up end as errors at once, with what the worker said last.
    """

    def __init__(self) -> None:
        self._on_platform: dict[tuple[str, str], list[InfrastructureError]] = defaultdict(list)
        self._in_all: dict[str, list[InfrastructureError]] = defaultdict(list)

    def check(self, spec: str, platform: str) -> None:
        """Checks that a subject may be asked on a platform, which is named as results name it.

        Raises:
            InfrastructureError: the platform or the subject was given up.
        """
        for failures, tries, where in (
            (self._on_platform[spec, platform], PLATFORM_TRIES, "on this platform"),
            (self._in_all[spec], SUBJECT_TRIES, "on several platforms"),
        ):
            if len(failures) >= tries:
                last = failures[-1]
                raise GivenUpError(
                    f"given up after {tries} failures in a row {where}: {last.args[0]}", last.stderr
                )

    def failed(self, spec: str, platform: str, error: InfrastructureError) -> None:
        """Counts a case that ended in an error; one error may end several cases."""
        in_all = self._in_all[spec]
        if not isinstance(error, GivenUpError) and not any(error is known for known in in_all):
            in_all.append(error)
            self._on_platform[spec, platform].append(error)

    def answered(self, spec: str, platform: str) -> None:
        """Starts counting anew, because the subject answered a case."""
        self._on_platform[spec, platform].clear()
        self._in_all[spec].clear()


class GivenUpError(InfrastructureError):
    """A case that was not tried, because its platform or subject was given up."""
