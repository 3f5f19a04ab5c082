"""The judge's side of the worker protocol.

A worker is a process that reads JSON lines on stdin and answers each on stdout. The messages and
answers of every op are types in ``conformance.worker.contract``; a session looks like this::

    {"id": 1, "op": "start", "protocol": 1, "platform": {...}, "simulate": "auto",
     "backends": [...]}                           -> {"id": 1, "ok": {"version": "0.19.0", ...}}
    {"id": 2, "op": "attention", "fields": [...], "rows": [[...], ...]}
        -> {"id": 2, "ok": {"outcomes": [[selected, error, [[backend, [reasons]], ...]], ...],
                            "answers": [index of an outcome per row], "messages": {row: text}}}
    {"id": 3, "op": "stop"}                            -> {"id": 3, "ok": {}}

A worker that dies, hangs, prints anything else on stdout or answers out of order is an
:class:`InfrastructureError` that carries its stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from conformance.errors import (
    InfrastructureError,
    OtherMachineError,
    OutOfMemoryError,
    WorkerDiedError,
)
from conformance.matrix.requests import (
    Ask,
    PagedAttention,
    Platform,
    Question,
    Request,
    Selection,
    Vit,
    candidate,
)
from conformance.worker.contract import (
    PROTOCOL,
    Op,
    Selecting,
    StartAnswer,
    Value,
)

OPS: dict[type[Question], Selecting] = {
    Request: "attention",
    PagedAttention: "paged_attention",
    Vit: "vit",
}
BATCH = 512  # questions in a message
STDERR_TAIL = 64 * 1024  # bytes


class Worker:
    """A worker process; one session (one platform) at a time."""

    def __init__(self, command: Sequence[str], env: dict[str, str], timeout: float) -> None:
        """Starts the process, which may take ``timeout`` seconds for each answer."""
        self._command = list(command)
        self.timeout = timeout
        self._next_id = 0
        self._buffer = b""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=env,
                start_new_session=True,
            )
        except OSError as error:
            raise InfrastructureError(f"cannot start {self._command[0]}: {error}") from error

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def call(self, op: Op, **payload: object) -> Any:
        """Sends one message and returns its answer, whose type in the contract depends on the op.

        Raises:
            InfrastructureError: the worker died, hung or refused, or sent no such answer.
        """
        return self.receive(self.send(op, **payload))

    def send(self, op: Op, **payload: object) -> int:
        """Sends a message without waiting; returns the id that :meth:`receive` takes."""
        self._next_id += 1
        line = json.dumps({"id": self._next_id, "op": op, **payload}, separators=(",", ":"))
        # A dead worker's last answers are read first; then :meth:`receive` says how it died.
        with contextlib.suppress(OSError):
            self._write(line.encode() + b"\n")
        return self._next_id

    def receive(self, number: int) -> dict[str, Any]:
        """The answer to message ``number``, which must be the next one to come."""
        line = self._read_line()
        try:
            answer = json.loads(line)
            answered = answer["id"]
        except (ValueError, TypeError, KeyError):
            shown = line[:200].decode(errors="replace")
            raise self._failure(f"printed something that is no answer: {shown!r}") from None
        if answered != number:
            raise self._failure(f"answered message {answered!r} where {number} was due")
        if "error" in answer:
            raise self._refusal(answer["error"])
        ok = answer.get("ok")
        if not isinstance(ok, dict):
            raise self._failure("sent an answer with neither 'ok' nor 'error'")
        return ok

    def close(self) -> None:
        """Ends the process and everything it started."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def stderr(self) -> str:
        """The end of what the worker wrote to stderr."""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - STDERR_TAIL))
        return self._stderr.read().decode(errors="replace")

    def _write(self, data: bytes) -> None:
        """Writes all of ``data``, reading answers meanwhile: neither side may block the other."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        left = memoryview(data)
        deadline = time.monotonic() + self.timeout
        with selectors.DefaultSelector() as selector:
            selector.register(stdin, selectors.EVENT_WRITE)
            selector.register(stdout, selectors.EVENT_READ)
            while left:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise self._failure(f"read nothing for {self.timeout:g} s")
                for key, _ in ready:
                    if key.fileobj is stdin:
                        left = left[os.write(stdin.fileno(), left[: select.PIPE_BUF]) :]
                    elif data_in := os.read(stdout.fileno(), 1 << 20):
                        self._buffer += data_in
                    else:
                        selector.unregister(stdout)

    def _read_line(self) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None
        deadline = time.monotonic() + self.timeout
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise self._failure(f"gave no answer within {self.timeout:g} s")
                data = os.read(stdout.fileno(), 1 << 20)
                if not data:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self._process.wait(5)
                    raise self._death()
                self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def _death(self) -> WorkerDiedError:
        status = self._process.poll()
        failure = self._failure(f"died ({_ending(status)})")
        by = -status if status is not None and status < 0 else None
        return WorkerDiedError(str(failure.args[0]), failure.stderr, by)

    def _failure(self, what: str) -> InfrastructureError:
        name = Path(self._command[0]).name
        stderr = self.stderr()
        self.close()
        return InfrastructureError(f"the worker ({name}) {what}", stderr)

    def _refusal(self, error: object) -> InfrastructureError:
        """What to raise for an answer that is an error: the worker lives on."""
        fields = error if isinstance(error, dict) else {}
        message = str(fields.get("message", error))
        if fields.get("kind") == "other_machine":
            return OtherMachineError(message)
        stderr = f"{self.stderr()}{fields.get('traceback', '')}"
        kind = OutOfMemoryError if fields.get("kind") == "out_of_memory" else InfrastructureError
        return kind(message, stderr)


def _ending(status: int | None) -> str:
    if status is None:
        return "it closed its stdout"
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


def start(
    worker: Worker, platform: Platform, simulate: str, backends: Sequence[str]
) -> StartAnswer:
    """Opens a session on a platform; the answer says what the subject is."""
    answer: StartAnswer = worker.call(
        "start",
        protocol=PROTOCOL,
        platform=platform.as_json(),
        simulate=simulate,
        backends=list(backends),
    )
    return answer


def ask_all(worker: Worker, asks: Sequence[Ask]) -> Iterator[Selection]:
    """Answers in the order asked, a batch at a time, so that those before a failure are kept."""
    batches = [asks[i : i + BATCH] for i in range(0, len(asks), BATCH)]
    waiting: list[tuple[int, int]] = []
    for batch in batches:
        op, fields, rows = encode(batch)
        waiting.append((worker.send(op, fields=fields, rows=rows), len(batch)))
        if len(waiting) > 1:
            yield from _decode(worker, *waiting.pop(0))
    for number, size in waiting:
        yield from _decode(worker, number, size)


def encode(batch: Sequence[Ask]) -> tuple[Selecting, list[str], list[tuple[Value, ...]]]:
    """The op, the fields and the rows of asks that are all of one kind."""
    question = batch[0].question
    kind = type(question)
    op = OPS[kind]
    if any(type(ask.question) is not kind for ask in batch):
        raise ValueError("one batch holds one kind of question")
    names = [field.name for field in fields(question)]
    read = attrgetter(*names)
    rows = [(*read(ask.question), ask.backend) for ask in batch]
    return op, [*names, "backend"], rows


def _decode(worker: Worker, number: int, size: int) -> Iterator[Selection]:
    answer = worker.receive(number)
    try:
        outcomes = [_selection(*outcome) for outcome in answer["outcomes"]]
        messages = {int(row): str(text) for row, text in answer["messages"].items()}
        indexes = answer["answers"]
        if len(indexes) != size:
            raise ValueError(f"{len(indexes)} answers to {size} questions")
        if min(indexes, default=0) < 0:
            raise IndexError(f"outcome {min(indexes)}")
        selections = [outcomes[index] for index in indexes]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InfrastructureError(
            f"the worker's answer {number} is malformed: {type(error).__name__}: {error}",
            worker.stderr(),
        ) from None
    for row, selection in enumerate(selections):
        message = messages.get(row)
        yield selection if message is None else _with_message(selection, message)


def _selection(
    selected: str | None, error: str | None, candidates: Sequence[tuple[str, Sequence[str]]]
) -> Selection:
    return Selection(
        selected=selected,
        candidates=tuple([candidate(name, tuple(reasons)) for name, reasons in candidates]),
        error=error,
    )


def _with_message(selection: Selection, message: str) -> Selection:
    return Selection(selection.selected, selection.candidates, selection.error, message)
