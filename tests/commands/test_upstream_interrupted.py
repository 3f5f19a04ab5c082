"""An interrupt ends what `upstream` started, at once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from conformance.subjects.workers import WorkerSubject
from conformance.suites.upstream import machine, running
from conformance.suites.upstream.running import Order, Ran, run_rows
from conformance.suites.upstream.table import Chosen

SLEEP = 60


def test_the_processes_of_other_rows_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []

    @contextlib.contextmanager
    def tests_of(_build: object) -> Iterator[Path]:
        yield tmp_path

    def run(_build: object, row: Any, _order: object, log: Path, folder: Path) -> Ran:
        if row == "interrupted":
            deadline = time.monotonic() + SLEEP
            while not running._RUNNING and time.monotonic() < deadline:
                time.sleep(0.01)
            raise KeyboardInterrupt
        codes.append(running._ended(["sleep", str(SLEEP)], folder, {}, log, SLEEP))
        raise AssertionError("nobody waits for this row")

    monkeypatch.setattr(machine, "tests_of", tests_of)
    monkeypatch.setattr(running, "_run", run)
    rows = cast("list[Chosen]", [Row("interrupted"), Row("sleeps"), Row("may begin")])
    order = Order("gfx942", "interpreter", 1, processes=2)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_rows(cast("WorkerSubject", None), rows, order, tmp_path / "logs", lambda _: None)
    assert time.monotonic() - began < SLEEP / 2
    assert set(codes) == {-9}
    assert not running._RUNNING


class Row(str):
    """A row of the table, as far as its log is named after it."""

    __slots__ = ()

    @property
    def files(self) -> tuple[str, ...]:
        return (f"{self}.py",)
