"""What a case of the suite ends as, and ``results.jsonl``: the stable record of a run.

A results file is a header line, one line per case, and a footer line that counts them. A file
without its footer was cut short, and every reader says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Outcome(str, Enum):
    """How a case ends. ``ERRORED`` is infrastructure: it says nothing about the subject."""

    PASSED = "passed"
    FAILED = "failed"
    UNSUPPORTED = "unsupported"
    WAIVED = "waived"
    ERRORED = "errored"


@dataclass(frozen=True)
class CaseResult:
    """One case's end, in every cell that shares its platform.

    ``name`` is unique within (subject, suite); ``message`` is one human sentence or more;
    ``detail`` may hold long text (stderr, tracebacks); ``seconds`` is wall time.
    """

    suite: str
    name: str
    outcome: Outcome
    cells: tuple[str, ...]
    subject: str
    subject_version: str
    edition: str
    requirement: str
    source: str
    target: str
    platform: str
    simulated: bool
    seed: int | None = None
    message: str = ""
    detail: str = ""
    reproduce: str = ""
    waiver: str = ""
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
