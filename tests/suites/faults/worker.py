"""Serves a wrong selector to the suite: ``python worker.py FAULT [FOLDER]``.

``FOLDER`` is the installed package of the pretended build. The fault ``none`` is the reference
selector as it is: what the suite says of it shows that it is the faults that are caught.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from conformance.matrix.requests import PagedAttention, Platform, Request
from conformance.worker.wire import Message, WorkerError, serve

# Run as a program, this file's folder is on the path, and not the checkout.
sys.path.insert(0, str(Path(__file__).parents[3]))
from tests.suites.faults.catalogue import CONFORMING, FAULTS
from tests.suites.faults.fault import RELEASE, Fault


class FaultySession:
    """One platform of a build with a fault."""

    def __init__(self, fault: Fault, root: str | None, start: Message) -> None:
        machine = start["platform"]
        platform = Platform.make(
            machine["target"],
            aiter=machine["aiter"],
            flash_attn=machine["flash_attn"],
            env=machine["env"],
        )
        self._fault = fault
        self._selector = fault.selector_on(platform)
        self.info: Message = {
            "subject": "fake",
            "version": RELEASE,
            "simulated": True,
            "root": root,
            "fields": [f.name for f in fields(Request)],
        }

    def handle(self, op: str, message: Message) -> Message:
        if op == "variable":
            return {"variables": {name: self._variable(name) for name in message["names"]}}
        answer = {
            "attention": self._attention,
            "paged_attention": self._paged_attention,
            "vit": self._vit,
        }.get(op)
        if answer is None:
            raise WorkerError(f"a faulty selector has no answer to {op!r}")
        return _batch(answer(row) for row in _rows(message))

    def modules_to_share(self) -> list[str]:
        return []

    def _attention(self, row: Message) -> tuple[Any, ...]:
        backend = row.pop("backend")
        return tuple(self._selector.select(Request(**row), backend))

    def _paged_attention(self, row: Message) -> tuple[Any, ...]:
        row.pop("backend")
        return (self._selector.paged_attention(PagedAttention(**row)), (), None, "")

    def _vit(self, row: Message) -> tuple[Any, ...]:
        return tuple(self._selector.vit(row["dtype"], row["backend"]))

    def _variable(self, name: str) -> Message:
        registered = name in self._fault.variables
        value = self._fault.variables.get(name, self._fault.unregistered.get(name))
        return {"registered": registered, "value": value}


def _rows(message: Message) -> Iterator[Message]:
    for row in message["rows"]:
        yield dict(zip(message["fields"], row, strict=True))


def _batch(answers: Iterator[tuple[Any, ...]]) -> Message:
    """Each distinct outcome once, then its index a question."""
    outcomes: dict[Any, int] = {}
    indexes: list[int] = []
    messages: dict[int, str] = {}
    for selected, candidates, error, text in answers:
        if text:
            messages[len(indexes)] = text
        indexes.append(outcomes.setdefault((selected, error, candidates), len(outcomes)))
    return {"outcomes": list(outcomes), "answers": indexes, "messages": messages}


def main(arguments: list[str]) -> int:
    name, root = (*arguments, None)[:2]
    fault = next(fault for fault in (CONFORMING, *FAULTS) if fault.name == name)
    return serve(lambda start: FaultySession(fault, root, start))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
