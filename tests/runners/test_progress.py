"""Progress off a terminal: how far, how long so far, and about how long still."""

from __future__ import annotations

import pytest

from conformance.runners.local import Progress
from conformance.runners.progress import ProgressLine, in_minutes


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_says_how_long_it_took_and_will_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr("conformance.runners.progress.time.monotonic", clock)
    line = ProgressLine()
    clock.now += 60  # collecting: no part of the pace
    line.show(Progress(0, 100, 0, 0))
    clock.now += 20
    line.show(Progress(20, 100, 3, 1))
    clock.now += 90
    line.show(Progress(100, 100, 3, 1))
    assert capsys.readouterr().err.splitlines() == [
        "0/100 done, 0 failed, 0 errored, 1:00 elapsed",
        "20/100 done, 3 failed, 1 errored, 1:20 elapsed, about 1:20 left",
        "100/100 done, 3 failed, 1 errored, 2:50 elapsed",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (83.9, "1:23"), (3600, "60:00")])
def test_minutes(seconds: float, text: str) -> None:
    assert in_minutes(seconds) == text
