"""Runs the rows of the table, each in a process of its own, some at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from conformance.matrix.requests import Platform
from conformance.subjects.workers import WorkerSubject
from conformance.suites.upstream import machine
from conformance.suites.upstream.machine import CaseOptions
from conformance.suites.upstream.recorded import Recorded, read_record
from conformance.suites.upstream.table import Chosen

# What importing vLLM and collecting a file may take, in seconds, and what a case may take of the
# clock for each second of its limit: the machine may be busy.
START, CLOCK = 600.0, 20.0
# Cases of one row that are waited for to end, at their limit: a process past that is ended.
MOST_CASES = 40


@dataclass(frozen=True)
class Order:
    """What a run of upstream tests is asked: ``sample``, ``limit`` and ``gib`` (0: as the table
    says, or none) are :class:`CaseOptions`'."""

    target: str
    device: str
    seed: int
    sample: int = 0
    limit: float = 0.0
    gib: int = 0
    processes: int = 1


@dataclass(frozen=True)
class Ran:
    """A row and how its cases ended; ``platform`` is the one that they saw."""

    row: Chosen
    platform: Platform
    cases: tuple[Recorded, ...]


Told = Callable[[Ran], None]


_RUNNING: set[subprocess.Popen[bytes]] = set()


def run_rows(
    build: WorkerSubject, rows: Sequence[Chosen], order: Order, log: Path, told: Told
) -> list[Ran]:
    """Every row's cases; ``told`` hears of each row.

    What pytest prints, and the record of each case as it ends, go to files in the folder ``log``.
    """
    log.mkdir(parents=True, exist_ok=True)

    def run(numbered: tuple[int, Chosen]) -> Ran:
        number, row = numbered
        name = f"{number:02}-{Path(row.files[0]).stem}.log"
        ran = _run(build, row, order, log / name, folder)
        told(ran)
        return ran

    with machine.tests_of(build) as folder, ThreadPoolExecutor(order.processes) as pool:
        futures = [pool.submit(run, numbered) for numbered in enumerate(rows, 1)]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # A thread may have begun another row meanwhile.
            while not all(future.done() for future in futures):
                for process in list(_RUNNING):
                    _kill(process)
                time.sleep(0.05)
            raise


def _run(build: WorkerSubject, row: Chosen, order: Order, log: Path, folder: Path) -> Ran:
    platform = Platform.make(order.target, aiter=row.aiter, flash_attn=row.flash_attn)
    if lost := [file for file in row.files if not (folder / file).is_file()]:
        said = "the release has no such file: mend tests.toml"
        return Ran(row, platform, tuple(Recorded(file, "errored", said) for file in lost))
    seconds = order.limit or row.limit
    with tempfile.TemporaryDirectory(prefix="rocm-conformance-") as made:
        record = log.with_suffix(".jsonl")
        record.unlink(missing_ok=True)
        sample, place = order.sample or row.sample, str(record.absolute())
        cases = CaseOptions(seconds, sample, order.seed, order.gib, place)
        chosen = ["-k", row.cases] if row.cases else []
        usual = ["-q", "--tb=short", "--continue-on-collection-errors"]
        command = ["pytest", *usual, *chosen, *row.files]
        words = machine.words(build, command, folder, plugin=True)
        models = Path(made) / "models"
        environment = machine.environment(build, platform, order.device, cases, models)
        code = _ended(words, folder, environment, log, START + CLOCK * MOST_CASES * seconds)
        found = tuple(_whole(read_record(record), code, row, log))
    return Ran(row, platform, found)


def _whole(cases: list[Recorded], code: int, row: Chosen, log: Path) -> Iterator[Recorded]:
    """The cases; and an error for what pytest did not get to."""
    yield from cases
    lost = any(case.ended == "errored" for case in cases)
    # 0 and 1: it ran them all; 2: some file could not be collected, which is a case; 5: none.
    if code in (0, 1) or lost or (code == 2 and cases) or (code == 5 and cases):
        return
    why = "was ended, because it took too long" if code < 0 else f"ended with {code}"
    yield Recorded(row.name, "errored", f"pytest {why}; it said: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "nothing"


def _ended(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path, seconds: float
) -> int:
    """The exit code; a process that takes longer is killed with all that it started."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            words,
            cwd=folder,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        _RUNNING.add(process)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            _RUNNING.discard(process)
            _kill(process)
            process.wait()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
