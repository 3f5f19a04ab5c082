"""How a worker says that it has no result, and why that is nobody's failure."""

from __future__ import annotations


class WorkerError(Exception):
    """A failure that says nothing about the subject's conformance; the message is for the user."""


class OtherMachineError(WorkerError):
    """A real machine was asked for what another machine is or has."""


class NoMemoryError(WorkerError):
    """The device had no memory left for what was asked."""


class Refused(Exception):  # noqa: N818 - not an error: the subject does not claim this
    """A backend is not made for a problem, or cannot run it here; the message says why."""


KINDS: dict[type[WorkerError], str] = {
    OtherMachineError: "other_machine",
    NoMemoryError: "out_of_memory",
}
