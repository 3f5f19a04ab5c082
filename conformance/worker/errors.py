"""The errors with which a worker says that it has no result."""

from __future__ import annotations


class WorkerError(Exception):
    """A failure that says nothing about the subject's conformance; the message is for the user."""


class OtherMachineError(WorkerError):
    """A real machine was asked to be another: its GPU or its packages differ."""


class UnknownError(WorkerError, AttributeError):
    """The harness does not know something that the subject needs of it.

    An AttributeError too, because a release may ask for something that it can do without.
    """


class NoMemoryError(WorkerError):
    """The device had too little memory."""


class Refused(Exception):  # noqa: N818 - it is no error
    """A backend does not claim to compute a problem, or cannot run here; the message says why."""


KINDS: dict[type[WorkerError], str] = {
    OtherMachineError: "other_machine",
    NoMemoryError: "out_of_memory",
}
