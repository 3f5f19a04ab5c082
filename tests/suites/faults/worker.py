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
from conformance.worker.answers import Answers, rows
from conformance.worker.contract import (
    Choice,
    Questions,
    StartAnswer,
    StartMessage,
    Variable,
    VariablesAnswer,
)
from conformance.worker.errors import WorkerError
from conformance.worker.wire import Answer, Message, serve
from rocm_reference.selector import Decision

# Run as a program, this file's folder is on the path, and not the checkout.
sys.path.insert(0, str(Path(__file__).parents[3]))
from tests.suites.faults.catalogue import CONFORMING, FAULTS
from tests.suites.faults.fault import RELEASE, Fault


class FaultyHandler:
    """One platform of a build with a fault."""

    def __init__(self, fault: Fault, root: str | None, start: StartMessage) -> None:
        machine = start["platform"]
        platform = Platform.make(
            machine["target"],
            aiter=machine["aiter"],
            flash_attn=machine["flash_attn"],
            env=machine["env"],
        )
        self._fault = fault
        self._selector = fault.selector_on(platform)
        self.info: StartAnswer = {
            "subject": "fake",
            "version": RELEASE,
            "simulated": True,
            "root": root,
            "fields": [f.name for f in fields(Request)],
        }

    def handle(self, message: Message) -> Answer:
        answers = Answers()
        if message["op"] == "variable":
            known = {name: self._variable(name) for name in message["names"]}
            return VariablesAnswer(variables=known)
        if message["op"] == "attention":
            for row in _rows(message):
                backend = row.pop("backend")
                decision = self._selector.select(Request(**row), backend)
                answers.add(_choice(decision), decision.message)
        elif message["op"] == "paged_attention":
            for row in _rows(message):
                row.pop("backend")
                kernel = self._selector.paged_attention(PagedAttention(**row))
                answers.add((kernel, None, ()))
        elif message["op"] == "vit":
            for row in _rows(message):
                decision = self._selector.vit(row["dtype"], row["backend"])
                answers.add(_choice(decision), decision.message)
        else:
            raise WorkerError(f"a faulty selector has no answer to {message['op']!r}")
        return answers.as_json()

    def modules_to_share(self) -> list[str]:
        return []

    def _variable(self, name: str) -> Variable:
        registered = name in self._fault.variables
        value = self._fault.variables.get(name, self._fault.unregistered.get(name))
        return {"registered": registered, "value": value}


def _rows(message: Questions) -> Iterator[dict[str, Any]]:
    yield from rows(message)


def _choice(decision: Decision) -> Choice:
    return decision.selected, decision.error, decision.candidates


def main(arguments: list[str]) -> int:
    name, root = (*arguments, None)[:2]
    fault = next(fault for fault in (CONFORMING, *FAULTS) if fault.name == name)
    return serve(lambda start: FaultyHandler(fault, root, start))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
