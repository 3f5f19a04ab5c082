"""Selections per second, measured side by side in one run."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from conformance.matrix.requests import AITER, Ask, Platform, Request
from conformance.subjects import request_lines
from conformance.subjects.base import Options
from conformance.subjects.protocol import BATCH, encode
from conformance.subjects.reference import edition_table, selector_on
from conformance.subjects.spellings import parse_subject
from conformance.subjects.workers import WorkerSubject
from conformance.suites.selection import sampling

PLATFORM = Platform.make("gfx942", aiter=True, env={AITER: "1"})


@dataclass(frozen=True)
class Measurement:
    """A rate and its unit: the best of several rounds."""

    name: str
    per_second: float
    note: str = ""


def measure(edition: str, spec: str, count: int) -> list[Measurement]:
    """Measures the library, the ``select`` stream, and a worker beside the subject's own calls.

    The protocol's cost is the worker process's time for the same requests with and without it.
    """
    table = edition_table(edition)
    asks = list(sampling.requests(0, count, table))
    selector = selector_on(table, PLATFORM)
    requests = [(ask.question, ask.backend) for ask in asks if isinstance(ask.question, Request)]

    def library() -> None:
        for request, backend in requests:
            selector.select(request, backend)

    found = [Measurement("reference selector, library", count / _best(library))]
    found.append(Measurement("reference selector, select", count / _best(_stream(edition, asks))))
    return found + _worker(edition, spec, asks)


def _stream(edition: str, asks: Sequence[Ask]) -> Callable[[], None]:
    session = parse_subject("reference", Options(edition)).open(PLATFORM)
    known = {"attention": list(edition_table(edition).backends)}
    lines = [
        json.dumps({"id": i, "request": asdict(ask.question), "backend": ask.backend})
        for i, ask in enumerate(asks)
    ]

    def stream() -> None:
        sink = io.StringIO()
        for answer in request_lines.answer_lines(lines, session, known):
            sink.write(json.dumps(answer) + "\n")

    return stream


def _worker(edition: str, spec: str, asks: Sequence[Ask]) -> list[Measurement]:
    subject = parse_subject(spec, Options(edition))
    if not isinstance(subject, WorkerSubject):
        return []
    try:
        session = subject.open(PLATFORM)
        list(session.ask(asks))
        wall = _best(lambda: list(session.ask(asks)))
        rounds = [(_bare(subject, asks), _busy(subject, asks)) for _ in range(3)]
    finally:
        subject.close()
    bare, busy = (min(seconds) for seconds in zip(*rounds, strict=True))
    over = (busy / bare - 1) * 100
    return [
        Measurement(f"{spec}, its own calls alone", len(asks) / bare),
        Measurement(f"{spec}, worker process", len(asks) / busy, f"protocol adds {over:.0f} %"),
        Measurement(f"{spec}, as the suite sees it", len(asks) / wall),
    ]


def _busy(subject: WorkerSubject, asks: Sequence[Ask]) -> float:
    """CPU seconds of the worker, one batch at a time: the suite's own work does not overlap."""
    before = float(subject.call("cpu")["seconds"])
    for first in range(0, len(asks), BATCH):
        op, fields, rows = encode(asks[first : first + BATCH])
        subject.call(op, fields=fields, rows=rows)
    return float(subject.call("cpu")["seconds"]) - before


def _bare(subject: WorkerSubject, asks: Sequence[Ask]) -> float:
    _, fields, rows = encode(asks)
    return float(subject.call("bare", fields=fields, rows=rows)["seconds"])


def _best(action: Callable[[], Any], rounds: int = 3) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)
