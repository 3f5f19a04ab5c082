"""A run as the user asked for it: made once, at the command line, and handed down whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from conformance.config import RunConfig
from conformance.reports.console import Format
from conformance.runners.choice import RunnerOptions


@dataclass(frozen=True)
class RunPlan:
    """What is judged (``config``), where it runs (``runner``), and where its results go.

    ``folder`` is the results folder. ``waivers`` is a file of accepted deviations; None stands for
    the suite's own. ``processes`` is None for the default number. ``style`` is None for no summary,
    as in a container.
    """

    config: RunConfig
    folder: Path
    waivers: Path | None = None
    processes: int | None = None
    style: Format | None = None
    runner: RunnerOptions = field(default_factory=RunnerOptions)
