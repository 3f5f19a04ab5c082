"""Ends from outside: an interrupt that Python loses, one that pytest cannot show."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from conformance.cli import run_cli
from conformance.runners.interrupts import interruptible


class LosesInterrupt:
    """What is raised in a destructor is printed and forgotten."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)


LOST = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@LOST
def test_a_lost_interrupt_is_raised_again() -> None:
    with interruptible():
        LosesInterrupt()
        time.sleep(0.3)
    with pytest.raises(KeyboardInterrupt), interruptible(again=0.1):
        LosesInterrupt()
        time.sleep(60)


@LOST
def test_an_interrupt_that_was_heard_is_not_raised_again() -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with interruptible(again=0.1) as heard:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        heard()
        time.sleep(0.3)
    assert signal.getsignal(signal.SIGTERM) == handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("interrupted", [True, False])
def test_an_interrupt_that_pytest_cannot_show_is_no_error(
    interrupted: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(_arguments: list[str], plugins: list[Any]) -> int:
        if interrupted:
            with pytest.raises(KeyboardInterrupt) as told:
                raise KeyboardInterrupt
            plugins[0].pytest_keyboard_interrupt(told)
        raise TypeError("a place without a line")

    monkeypatch.setattr(pytest, "main", fails)
    arguments = ["--suite", "selection", "--cell", "rocm62-noaiter", "-n", "1"]
    code = run_cli(["run", *arguments, "--results", str(tmp_path)])
    assert code == (130 if interrupted else 70)
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert last_line.startswith("interrupted;" if interrupted else "internal error:")
