"""Removes a run's containers after the run has ended in any way, even killed.

    python -m conformance.containers.reaper URL RUN_ID

waits until its stdin is closed, which the kernel does even when the run is killed, and then removes
the containers that are left. It has a process session of its own, so a signal to the run's process
group does not reach it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from types import TracebackType

import docker  # type: ignore[import-untyped] # the SDK ships no types

from conformance.containers.container_options import RUN_LABEL
from conformance.containers.engine import CALL_SECONDS, TROUBLE, Engine, remove
from conformance.errors import InfrastructureError

# A restarting engine is back within this time. After that, the next run removes the leftovers.
PATIENCE_SECONDS = 120.0
DONE = b"done\n"


class Reaper:
    """The watchdog process of a run; lives as long as the ``with`` block."""

    def __init__(self, url: str, run_id: str) -> None:
        self._command = [sys.executable, "-m", "conformance.containers.reaper", url, run_id]

    def __enter__(self) -> Reaper:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Tells the watchdog that nothing is left; it checks by itself if it hears nothing."""
        if self._process.stdin is None:
            return
        with contextlib.suppress(OSError):  # the watchdog is gone already
            if kind is None:
                self._process.stdin.write(DONE)
            self._process.stdin.close()


def reap(engine: Engine, run_id: str) -> bool:
    """Removes every container of a run; returns whether none is left."""
    found = engine.containers(f"{RUN_LABEL}={run_id}")
    gone = [remove(container) for container in found]
    return all(gone)


def main(url: str, run_id: str) -> None:
    """Waits for the end of the run, then removes its containers."""
    if os.read(sys.stdin.fileno(), len(DONE)) == DONE:
        return
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            client = docker.DockerClient(base_url=url, version="auto", timeout=CALL_SECONDS)
            if reap(Engine(client, url), run_id):
                return
        except (*TROUBLE, InfrastructureError):
            pass  # the engine may be restarting: try again
        time.sleep(1)


if __name__ == "__main__":
    main(*sys.argv[1:3])
