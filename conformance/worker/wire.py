"""The worker's side of the protocol: JSON lines in, JSON lines out, one fork for each session.

vLLM settles target, aiter and variables when it is imported, so every platform needs a process in
which it was not imported before, or imported without a look at what differs. The server forks an
*opened* process, which imports the subject on a platform and is asked nothing; of this it forks
every session that it suits, and a fork takes no time. Third-party modules that sessions need are
imported in the server: those that the subject names before its first session, and after it all that
the session imported.

:mod:`contract` and :mod:`metadata_contract` have the messages and their answers. What the subject
prints goes to stderr: stdout belongs to the protocol.
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
from typing import Any, NoReturn, Protocol, cast, runtime_checkable

from . import kept_sources
from .contract import (
    PROTOCOL,
    AttendMessage,
    BareMessage,
    CompileMessage,
    DescribeMessage,
    EnvironmentMessage,
    Error,
    PlainMessage,
    SelectMessage,
    StartAnswer,
    StartMessage,
    VariableMessage,
)
from .errors import KINDS, WorkerError
from .metadata_contract import MetadataMessage

Message = (
    StartMessage
    | SelectMessage
    | BareMessage
    | VariableMessage
    | EnvironmentMessage
    | DescribeMessage
    | PlainMessage
    | AttendMessage
    | CompileMessage
    | MetadataMessage
)
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


@runtime_checkable
class Forking(Handler, Protocol):
    """A handler of which a fork can serve another session than the one that it was opened for."""

    def suits(self, start: StartMessage) -> bool:
        """Whether a process opened by this message would be as this one is.

        Not even for the message that it was opened by, where it must not be forked.
        """
        ...

    def go_on(self, start: StartMessage) -> None:
        """Takes the platform of a message that suits, in a fork."""
        ...


Opener = Callable[[StartMessage], Handler]


class Channel:
    """Lines over file descriptors, unbuffered: a forked child takes over after any of them."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink
        self._pending = b""

    def read(self) -> Message | None:
        """The next message; None at the end."""
        line = self.read_line()
        if line is None:
            return None
        message: Message = json.loads(line)
        return message

    def read_line(self) -> bytes | None:
        while b"\n" not in self._pending:
            data = os.read(self._source, 1 << 16)
            if not data:
                return None
            self._pending += data
        line, self._pending = self._pending.split(b"\n", 1)
        return line

    def write(self, message: Answer | Message) -> None:
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
    kept_sources.install()
    opened: _Opened | None = None
    while (message := channel.read()) is not None:
        if message["op"] != "start":
            text = f"no session: {message['op']!r} before 'start'"
            channel.write({"id": message["id"], "error": Error(kind="usage", message=text)})
            continue
        if message.get("protocol") != PROTOCOL:
            text = f"this worker speaks protocol {PROTOCOL}, the suite {message.get('protocol')}"
            channel.write({"id": message["id"], "error": Error(kind="usage", message=text)})
            continue
        if opened is not None and opened.serves(message):
            continue
        if opened is not None:
            opened.close()
        if needed is not None:
            _preload(needed(message))
        opened = _Opened(channel, message, open_session)
        if not opened.serves(message):
            _end_like(os.EX_SOFTWARE)
    if opened is not None:
        opened.close()
    return 0


class _Opened:
    """The server's side of a process in which the subject is imported on a platform.

    That process gets start messages, and answers each with whether it takes the session and, at its
    end, how the session ended.
    """

    def __init__(self, channel: Channel, start: StartMessage, open_session: Opener) -> None:
        orders_from, orders_to = os.pipe()
        report_from, report_to = os.pipe()
        self._process = _fork()
        if self._process == 0:
            os.close(orders_to)
            os.close(report_from)
            server = Channel(orders_from, report_to)
            _end_with(partial(_serve_opened, channel, server, start, open_session))
        os.close(orders_from)
        os.close(report_to)
        self._ends = (report_from, orders_to)
        self._channel = Channel(*self._ends)

    def serves(self, start: StartMessage) -> bool:
        """Serves a session to its end; False if this process does not suit it or has ended.

        A session that comes to a bad end ends the server likewise.
        """
        with contextlib.suppress(BrokenPipeError):
            self._channel.write(start)
        taken = self._report()
        if taken is None or not taken["taken"]:
            return False
        ended = self._report()
        code = self._ended() or os.EX_SOFTWARE if ended is None else int(ended["status"])
        if ended is None or code:
            self.close()
            _end_like(code)
        _preload(ended["modules"])
        kept_sources.keep(ended["known"])
        return True

    def close(self) -> None:
        """Ends the process."""
        for end in self._ends:
            with contextlib.suppress(OSError):
                os.close(end)
        with contextlib.suppress(ChildProcessError):
            self._ended()

    def _report(self) -> dict[str, Any] | None:
        line = self._channel.read_line()
        return None if line is None else cast("dict[str, Any]", json.loads(line))

    def _ended(self) -> int:
        _, status = os.waitpid(self._process, 0)
        return os.waitstatus_to_exitcode(status)


def _serve_opened(
    channel: Channel, server: Channel, start: StartMessage, open_session: Opener
) -> int:
    """Opens the subject, and serves sessions in forks until the server wants no more of them."""
    gc.disable()
    before = frozenset(sys.modules)
    handlers: list[Handler] = []

    def begin() -> Answer:
        handlers.append(open_session(start))
        return {}

    server.read_line()
    server.write({"taken": True})
    outcome = answer_to(start["id"], begin)

    def report(status: int, modules: list[str]) -> None:
        known = kept_sources.come_to_know(before)
        server.write({"status": status, "modules": modules, "known": known})

    if not handlers:
        channel.write(outcome)
        report(0, [])
        return 0
    (handler,) = handlers
    _keep_everything()
    if not isinstance(handler, Forking) or not handler.suits(start):
        report(0, _session(channel, start, handler))
        return 0
    report(*_in_fork(channel, start, handler))
    while (line := server.read_line()) is not None:
        later: StartMessage = json.loads(line)
        taken = handler.suits(later)
        server.write({"taken": taken})
        if taken:
            report(*_in_fork(channel, later, handler))
    return 0


def _in_fork(channel: Channel, start: StartMessage, handler: Forking) -> tuple[int, list[str]]:
    """Serves a session in a fork: how it ended, and the modules to share."""
    report_from, report_to = os.pipe()
    child = _fork()
    if child == 0:
        os.close(report_from)

        def session() -> int:
            handler.go_on(start)
            modules = _session(channel, start, handler)
            with os.fdopen(report_to, "w", encoding="utf-8") as report:
                report.write("\n".join(modules))
            return 0

        _end_with(session)
    os.close(report_to)
    with os.fdopen(report_from, encoding="utf-8") as report:
        modules = report.read().split()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), modules


def _session(channel: Channel, start: StartMessage, handler: Handler) -> list[str]:
    """Answers the messages of a session; returns the modules that others may share."""
    channel.write({"id": start["id"], "ok": handler.info})
    while (message := channel.read()) is not None:
        if message["op"] == "stop":
            modules = handler.modules_to_share()
            channel.write({"id": message["id"], "ok": {}})
            return modules
        channel.write(answer_to(message["id"], partial(handler.handle, message)))
    return []


def _fork() -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    return os.fork()


def _end_with(action: Callable[[], int]) -> NoReturn:
    """Ends this process, a fork, with the status of an action."""
    status = os.EX_SOFTWARE
    try:
        status = action()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _end_like(code: int) -> NoReturn:
    """Ends the server as a session's process ended: that is the worker's death to the judge."""
    sys.stderr.write(f"the session's process ended with status {code}\n")
    sys.stderr.flush()
    if code < 0:
        # Ends by the same signal, so that the judge can tell an abort from a kill.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), -code)
    os._exit(71)


def answer_to(number: int, action: Callable[[], Answer]) -> Answer:
    """The answer to message ``number``: what an action gives, or the error that it raises."""
    try:
        return {"id": number, "ok": action()}
    except WorkerError as error:
        refusal = Error(kind=KINDS.get(type(error), "worker"), message=str(error))
        return {"id": number, "error": refusal}
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        failure = Error(kind="internal", message=text, traceback=traceback.format_exc())
        return {"id": number, "error": failure}


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
