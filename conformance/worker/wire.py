"""The worker's side of the protocol: JSON lines in, JSON lines out, one fork per platform.

vLLM settles target, aiter and variables when it is imported, so every platform needs a process in
which it was not imported before. The server forks one at each ``start``. Third-party modules that
sessions need are imported in the server, so that most sessions start in half a second: those that
the caller knows of before the first session, and after it all that it needed.

Messages have an ``id``, an ``op`` and the op's own fields; the answer repeats the ``id`` and holds
``ok`` or ``error``. The subject's own prints go to stderr: stdout belongs to the protocol.
"""

import contextlib
import gc
import importlib
import inspect
import json
import os
import resource
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from .contract import PROTOCOL

Message = dict[str, Any]


class WorkerError(Exception):
    """A failure that says nothing about the subject's conformance; the message is for the user."""


class OtherMachineError(WorkerError):
    """A real machine was asked for what another machine is or has."""


class NoMemoryError(WorkerError):
    """The device had no memory left for what was asked."""


KINDS: dict[type[WorkerError], str] = {
    OtherMachineError: "other_machine",
    NoMemoryError: "out_of_memory",
}


class Session(Protocol):
    """One platform's life in one process."""

    info: Message

    def handle(self, op: str, message: Message) -> Message:
        """Answers one message."""
        ...

    def modules_to_share(self) -> list[str]:
        """Names of modules that the next platform's process may find already imported."""
        ...


class Channel:
    """Unbuffered lines over file descriptors, so that a forked child takes over at a line's end."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink
        self._pending = b""

    def read(self) -> Message | None:
        while b"\n" not in self._pending:
            data = os.read(self._source, 1 << 16)
            if not data:
                return None
            self._pending += data
        line, self._pending = self._pending.split(b"\n", 1)
        message: Message = json.loads(line)
        return message

    def write(self, message: Message) -> None:
        data = memoryview(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        while data:
            data = data[os.write(self._sink, data) :]


def serve(
    open_session: Callable[[Message], Session],
    needed: Callable[[Message], Iterable[str]] | None = None,
) -> int:
    """Serves sessions one after another until stdin ends; returns the exit status.

    ``needed`` names modules that a session will import and may share with others.
    """
    sink = os.dup(1)
    os.dup2(2, 1)
    channel = Channel(0, sink)
    while (message := channel.read()) is not None:
        if message["op"] != "start":
            error = {"kind": "usage", "message": f"no session: {message['op']!r} before 'start'"}
            channel.write({"id": message["id"], "error": error})
            continue
        if message.get("protocol") != PROTOCOL:
            text = f"this worker speaks protocol {PROTOCOL}, the suite {message.get('protocol')}"
            channel.write({"id": message["id"], "error": {"kind": "usage", "message": text}})
            continue
        if needed is not None:
            _preload(needed(message))
        _run_in_child(channel, message, open_session)
    return 0


def _run_in_child(
    channel: Channel, start: Message, open_session: Callable[[Message], Session]
) -> None:
    report_from, report_to = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(report_from)
        status = 70
        try:
            status = _session(channel, start, open_session, report_to)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    os.close(report_to)
    with os.fdopen(report_from, encoding="utf-8") as report:
        shared = report.read().split()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        # The client sees the end of the stream as the death of the worker it is.
        sys.stderr.write(f"the session's process ended with status {code}\n")
        sys.stderr.flush()
        if code < 0:
            # Ends as it ended: a compiler's abort is told from a kill.
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.kill(os.getpid(), -code)
        os._exit(71)
    _preload(shared)


def _session(
    channel: Channel, start: Message, open_session: Callable[[Message], Session], report_to: int
) -> int:
    gc.disable()
    session = _answer(channel, start["id"], lambda: open_session(start))
    _keep_everything()
    while session is not None and (message := channel.read()) is not None:
        if message["op"] == "stop":
            with os.fdopen(report_to, "w", encoding="utf-8") as report:
                report.write("\n".join(session.modules_to_share()))
            channel.write({"id": message["id"], "ok": {}})
            return 0
        _answer(channel, message["id"], partial(session.handle, message["op"], message))
    return 0


def _answer(channel: Channel, number: int, action: Callable[[], Any]) -> Any:
    try:
        result = action()
    except WorkerError as error:
        refusal = {"kind": KINDS.get(type(error), "worker"), "message": str(error)}
        channel.write({"id": number, "error": refusal})
        return None
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        trace = traceback.format_exc()
        kind = {"kind": "internal", "message": text, "traceback": trace}
        channel.write({"id": number, "error": kind})
        return None
    channel.write({"id": number, "ok": result if isinstance(result, dict) else result.info})
    return result


def _preload(names: Iterable[str]) -> None:
    missing = [name for name in names if name not in sys.modules]
    if not missing:
        return
    for name in missing:
        # A module that cannot be imported alone is imported by the session that needs it.
        with contextlib.suppress(BaseException):
            importlib.import_module(name)
    # inspect looks up the file of every module once a process; sessions inherit what it found.
    inspect.getmodule(compile("", "<no module's file>", "exec"))
    _keep_everything()


def _keep_everything() -> None:
    """Imported modules are never garbage: no collection need look through them."""
    gc.freeze()
    gc.enable()
