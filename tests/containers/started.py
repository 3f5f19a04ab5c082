"""Runs in containers, started as a user starts them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conformance.results import Run, read_results

ROOT = Path(__file__).resolve().parents[2]
CELL = "rocm72-noaiter-nomha"
# A busy machine takes minutes to the first case: how fast it is is not what is drilled.
PATIENCE = 300.0


@dataclass(frozen=True)
class Ended:
    """A command line that ended, and the record it left."""

    code: int
    words: str
    folder: Path

    @property
    def record(self) -> Run:
        return read_results(self.folder / "results.jsonl")

    def said(self, *parts: str) -> bool:
        """Whether all parts were said, however the lines were broken."""
        text = " ".join(self.words.split())
        return all(part in text for part in parts)


@dataclass
class Started:
    """A run in containers, as a user starts one."""

    process: subprocess.Popen[str]
    folder: Path

    def until_cases(self, count: int = 5) -> None:
        """Waits until some cases are on disk; ends a run that has none, as CI systems cancel."""
        path = self.folder / "results.jsonl"
        try:
            wait_for(lambda: path.is_file() and len(path.read_bytes().splitlines()) > count)
        except AssertionError as error:
            self.process.terminate()
            raise AssertionError(f"no {count} cases:\n{self.end().words}") from error

    def end(self) -> Ended:
        words = self.process.communicate(timeout=2 * PATIENCE)[0]
        return Ended(self.process.returncode, words, self.folder)


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Polls until something is so; fails when it does not come to be."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not come to be within {seconds} s"
        time.sleep(0.1)


def start(folder: Path, *arguments: str, cell: str = CELL) -> Started:
    command = [sys.executable, "-m", "conformance", "run", "--runner", "docker", "--cell", cell]
    command += ["--results", str(folder), "-n", "2", "--suite", "selection", *arguments]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    return Started(process, folder)
