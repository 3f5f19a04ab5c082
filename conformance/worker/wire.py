"""The worker's side of the protocol: JSON lines in, JSON lines out, one fork for each platform.

vLLM settles target, aiter and variables when it is imported, so every platform needs a process in
which it was not imported before. The server forks one at each ``start``. Third-party modules that
sessions need are imported in the server, so that most sessions start in half a second: those that
the subject names before its first session, and after it all that the session imported.

:mod:`contract` has the messages and their answers. What the subject prints goes to stderr: stdout
belongs to the protocol.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import inspect
import json
import os
import resource
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Protocol

from .contract import PROTOCOL, Error, Message, StartAnswer, StartMessage
from .errors import KINDS, WorkerError

# What an op answers with: one of the contract's answers.
Answer = Mapping[str, object]


class Handler(Protocol):
    """Answers the messages of one session, which is one platform in a process of its own."""

    info: StartAnswer

    def handle(self, message: Message) -> Answer:
        """Answers one message."""
        ...

    def modules_to_share(self) -> list[str]:
        """Names of modules that the next platform's process may find already imported."""
        ...


Opener = Callable[[StartMessage], Handler]


class Channel:
    """Lines over file descriptors, unbuffered: a forked child takes over after any of them."""

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

    def write(self, message: Answer) -> None:
        data = memoryview(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        while data:
            data = data[os.write(self._sink, data) :]


def serve(
    open_session: Opener,
    needed: Callable[[StartMessage], Iterable[str]] | None = None,
) -> int:
    """Serves sessions one after another until stdin ends; returns the exit status.

    ``needed`` names modules that a session will import and may share with others.
    """
    sink = os.dup(1)
    os.dup2(2, 1)
    channel = Channel(0, sink)
    while (message := channel.read()) is not None:
        if message["op"] != "start":
            text = f"no session: {message['op']!r} before 'start'"
            channel.write({"id": message["id"], "error": Error(kind="usage", message=text)})
            continue
        if message.get("protocol") != PROTOCOL:
            text = f"this worker speaks protocol {PROTOCOL}, the suite {message.get('protocol')}"
            channel.write({"id": message["id"], "error": Error(kind="usage", message=text)})
            continue
        if needed is not None:
            _preload(needed(message))
        _run_in_child(channel, message, open_session)
    return 0


def _run_in_child(channel: Channel, start: StartMessage, open_session: Opener) -> None:
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
        # The judge takes the end of the stream for the worker's death, which it is.
        sys.stderr.write(f"the session's process ended with status {code}\n")
        sys.stderr.flush()
        if code < 0:
            # Ends by the same signal, so that the judge can tell an abort from a kill.
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.kill(os.getpid(), -code)
        os._exit(71)
    _preload(shared)


def _session(channel: Channel, start: StartMessage, open_session: Opener, report_to: int) -> int:
    gc.disable()
    opened: list[Handler] = []

    def begin() -> Answer:
        opened.append(open_session(start))
        return opened[0].info

    answer(channel, start["id"], begin)
    _keep_everything()
    while opened and (message := channel.read()) is not None:
        if message["op"] == "stop":
            with os.fdopen(report_to, "w", encoding="utf-8") as report:
                report.write("\n".join(opened[0].modules_to_share()))
            channel.write({"id": message["id"], "ok": {}})
            return 0
        answer(channel, message["id"], partial(opened[0].handle, message))
    return 0


def answer(channel: Channel, number: int, action: Callable[[], Answer]) -> None:
    """Answers message ``number`` with what an action gives, or with the error that it raises."""
    try:
        result = action()
    except WorkerError as error:
        refusal = Error(kind=KINDS.get(type(error), "worker"), message=str(error))
        channel.write({"id": number, "error": refusal})
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        failure = Error(kind="internal", message=text, traceback=traceback.format_exc())
        channel.write({"id": number, "error": failure})
    else:
        channel.write({"id": number, "ok": result})


def _preload(names: Iterable[str]) -> None:
    missing = [name for name in names if name not in sys.modules]
    if not missing:
        return
    for name in missing:
        # If this fails, the session that needs the module imports it.
        with contextlib.suppress(BaseException):
            importlib.import_module(name)
    # inspect looks up every module's file once in a process; sessions inherit the result.
    inspect.getmodule(compile("", "<no module's file>", "exec"))
    _keep_everything()


def _keep_everything() -> None:
    """Keeps the garbage collector from going through imported modules, which are never garbage."""
    gc.freeze()
    gc.enable()
