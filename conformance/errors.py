"""The two ways a run ends without a verdict, and the exit codes of the whole suite."""

from __future__ import annotations

import difflib
import signal
from enum import IntEnum

# What a process brings on itself. SIGKILL comes from others: the kernel, short of memory.
ABORTS = (
    signal.SIGABRT,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGILL,
    signal.SIGFPE,
    signal.SIGTRAP,
)


class ExitCode(IntEnum):
    """What the process says to a pipeline; only ``INFRASTRUCTURE`` is worth a retry."""

    CONFORMANT = 0
    NOT_CONFORMANT = 1
    USAGE = 2
    INTERNAL = 70
    INFRASTRUCTURE = 75


class SuiteError(Exception):
    """An error with a message meant for the user: what was wrong, what was expected, what to do."""

    exit_code = ExitCode.INTERNAL


class UsageError(SuiteError):
    """The user asked for something that does not exist or does not fit together."""

    exit_code = ExitCode.USAGE


class InfrastructureError(SuiteError):
    """The verdict could not be reached: a worker died, a download failed, a module is missing.

    ``stderr`` holds what the failing process wrote, so that no report loses it.
    """

    exit_code = ExitCode.INFRASTRUCTURE

    def __init__(self, message: str, stderr: str = "") -> None:
        super().__init__(message)
        self.stderr = stderr

    def __str__(self) -> str:
        message = str(self.args[0])
        return (
            f"{message}\n--- stderr ---\n{self.stderr.rstrip()}" if self.stderr.strip() else message
        )


class OtherMachineError(InfrastructureError):
    """A subject on a real machine cannot be asked about a machine that this one is not."""


class OutOfMemoryError(InfrastructureError):
    """A GPU had no memory left for what was asked of it."""


class WorkerDiedError(InfrastructureError):
    """A worker's process ended before it answered. ``signal``: what ended it, if one did."""

    def __init__(self, message: str, stderr: str = "", signal: int | None = None) -> None:
        super().__init__(message, stderr)
        self.signal = signal

    @property
    def aborted(self) -> bool:
        """Whether the process ended itself: a crash or an abort, not somebody's kill."""
        return self.signal in ABORTS


def one_of(kind: str, name: str, known: list[str]) -> UsageError:
    """The error for an unknown name: says what is allowed, and what was probably meant."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return UsageError(f"unknown {kind} {name!r}.{hint} Allowed: {', '.join(known)}")
