"""Removes a run's containers when the run is gone, however it went.

    python -m conformance.containers.reaper URL RUN_ID

reads from stdin until its other end is closed, which the kernel does even for a killed process, and
then removes what the run left. In a session of its own, so that what kills the run's whole process
group does not kill this too.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from types import TracebackType

import docker  # type: ignore[import-untyped] # the SDK ships no types

from conformance.containers.engine import CALL_SECONDS, TROUBLE, Engine, remove
from conformance.containers.options import RUN_LABEL
from conformance.errors import InfrastructureError

# An engine that is being restarted comes back within this time; later the next run's sweep is it.
PATIENCE_SECONDS = 120.0
DONE = b"done\n"


class Reaper:
    """The watchdog process of a run, for as long as the ``with`` lasts."""

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
        """Tells it that the run removed its containers by itself; after trouble it looks itself."""
        if self._process.stdin is None:
            return
        with contextlib.suppress(OSError):  # it is gone: then there is nothing to tell
            if kind is None:
                self._process.stdin.write(DONE)
            self._process.stdin.close()


def reap(engine: Engine, run_id: str) -> bool:
    """Removes every container of a run; whether none is left."""
    found = engine.containers(f"{RUN_LABEL}={run_id}")
    gone = [remove(container) for container in found]
    return all(gone)


def main(url: str, run_id: str) -> None:
    """Waits for the end of the run, and reaps."""
    if os.read(sys.stdin.fileno(), len(DONE)) == DONE:
        return
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            client = docker.DockerClient(base_url=url, version="auto", timeout=CALL_SECONDS)
            if reap(Engine(client, url), run_id):
                return
        except (*TROUBLE, InfrastructureError):
            pass  # the engine may be starting again: the next try tells
        time.sleep(1)


if __name__ == "__main__":
    main(*sys.argv[1:3])
