"""A worker whose subject is a package in the folder of its first argument, imported at ``start``.

The package stands for a vLLM. ``variable`` answers with what it kept from its import and with what
the process has now; ``environment`` sets other variables, which the package reads by ``refresh``;
``cpu`` ends the session's process by a signal.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

from conformance.worker import wire
from conformance.worker.contract import StartAnswer, StartMessage
from conformance.worker.environment_watch import Reads, watched
from conformance.worker.vllm import machine
from conformance.worker.vllm.opening import Opening


class Handler:
    def __init__(self, start: StartMessage) -> None:
        machine.set_environment(start["platform"]["env"], simulated=True)
        reads = Reads()
        with watched(reads):
            self._package = importlib.import_module("vllm")
        self._opening = Opening(start, reads)
        self._opened_in = os.getpid()
        self._asked = 0
        self.info: StartAnswer = {"subject": "toy", "version": "0.19.0", "simulated": True}

    def handle(self, message: Any) -> wire.Answer:
        self._asked += 1
        if message["op"] == "cpu":
            os.kill(os.getpid(), signal.SIGABRT)
        if message["op"] == "environment":
            machine.set_environment(message["env"], simulated=True)
            self._package.refresh()
            return {}
        now = {name: os.environ.get(name) for name in message["names"]}
        return {
            "kept": getattr(self._package, "KEPT", None),
            "now": now,
            "opened_in": self._opened_in,
            "asked": self._asked,
        }

    def modules_to_share(self) -> list[str]:
        return []

    def suits(self, start: StartMessage) -> bool:
        return self._opening.suits(start)

    def go_on(self, start: StartMessage) -> None:
        self._opening.go_on(start)


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    raise SystemExit(wire.serve(Handler))
