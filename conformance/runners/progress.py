"""Progress on stderr: a bar on a terminal, an occasional plain line elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from conformance.runners.local import Progress

QUIET_SECONDS = 10.0


class ProgressLine:
    """Shows how far a run has come, until the ``with`` block ends."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        if sys.stderr.isatty():
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("about"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("starting", total=None)
        self._started = self._last = time.monotonic()
        self._first: tuple[float, int] | None = None

    def __enter__(self) -> ProgressLine:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, progress: Progress) -> None:
        """Shows a run's progress."""
        words = f"{progress.failed} failed, {progress.errored} errored"
        if progress.total and not self._first:
            self._first = (time.monotonic(), progress.done)
        if self._bar:
            self._bar.update(
                self._task, completed=progress.done, total=progress.total, description=words
            )
            return
        now = time.monotonic()
        if now - self._last >= QUIET_SECONDS or progress.done == progress.total:
            self._last = now
            text = f"{progress.done}/{progress.total} done, {words}, {self._clock(progress)}"
            print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress is this line's purpose

    def _clock(self, progress: Progress) -> str:
        """How long the run has taken, and about how long the rest will, at the pace so far."""
        elapsed = time.monotonic() - self._started
        text = f"{in_minutes(elapsed)} elapsed"
        since, before = self._first or (self._started, 0)
        done, left = progress.done - before, progress.total - progress.done
        if done > 0 and left > 0:
            text += f", about {in_minutes((time.monotonic() - since) / done * left)} left"
        return text


def in_minutes(seconds: float) -> str:
    """83 seconds as 1:23."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
