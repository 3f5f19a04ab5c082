"""Exit codes, and the errors behind those that are no verdict."""

from __future__ import annotations

import difflib
import signal
from enum import IntEnum

# Signals of a process's own making. SIGKILL comes from outside, such as the OOM killer.
ABORTS = (
    signal.SIGABRT,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGILL,
    signal.SIGFPE,
    signal.SIGTRAP,
)


class ExitCode(IntEnum):
    """The exit codes of every command.

    Only ``INFRASTRUCTURE`` is worth a retry, and ``INTERRUPTED`` where a machine was taken away.
    """

    CONFORMANT = 0
    NOT_CONFORMANT = 1
    USAGE = 2
    INTERNAL = 70
    INFRASTRUCTURE = 75
    INTERRUPTED = 130


class SuiteError(Exception):
    """An error whose message is for the user: what was wrong, what was expected, what to do."""

    exit_code = ExitCode.INTERNAL


class UsageError(SuiteError):
    """The user asked for something that does not exist or cannot be combined."""

    exit_code = ExitCode.USAGE


class InfrastructureError(SuiteError):
    """There is no verdict: a worker died, a download failed, or a module is missing.

    ``stderr`` is what the failing process wrote; reports show it.
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
    """A subject that is not simulated was asked about another machine than this one."""


class OutOfMemoryError(InfrastructureError):
    """The GPU ran out of memory."""


class WorkerDiedError(InfrastructureError):
    """A worker process ended before it answered; ``signal`` is what killed it, if anything."""

    def __init__(self, message: str, stderr: str = "", signal: int | None = None) -> None:
        super().__init__(message, stderr)
        self.signal = signal

    @property
    def aborted(self) -> bool:
        """Whether the process crashed or aborted, as opposed to being killed from outside."""
        return self.signal in ABORTS


def nearest(name: str, known: list[str]) -> str:
    """A sentence on the known name that is closest to one; "" if none is close."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def one_of(kind: str, name: str, known: list[str]) -> UsageError:
    """The error for an unknown name, with the closest match and all allowed names."""
    return UsageError(f"unknown {kind} {name!r}.{nearest(name, known)} Allowed: {', '.join(known)}")
