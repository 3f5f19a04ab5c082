"""What a process of tests wrote down about its cases."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENDINGS = ("passed", "failed", "violated", "too-slow", "unsupported", "skipped", "errored")


@dataclass(frozen=True)
class Recorded:
    """How one case ended; ``conformance/worker/without_gpu/endings.py`` says what each means.

    ``case`` is pytest's name of it, such as ``tests/a/test_b.py::test_c[1]``; ``violations`` are
    what the device proved, a sentence each.
    """

    case: str
    ended: str
    message: str = ""
    detail: str = ""
    violations: tuple[str, ...] = ()
    seconds: float = 0.0
    kernels: tuple[str, ...] = ()

    @property
    def found(self) -> tuple[str, ...]:
        """What is wrong with it, a sentence each."""
        return self.violations or (self.message,)

    @property
    def file(self) -> str:
        """The test's file."""
        return self.case.partition("::")[0]


def read_record(path: Path) -> list[Recorded]:
    """The cases of a record, in order; one that took its process along is ``errored``.

    A line that is not whole, as of a process that was killed while it wrote, is passed over: its
    case has begun.
    """
    begun: list[str] = []
    ended: dict[str, Recorded] = {}
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for line in text.splitlines():
        try:
            read = json.loads(line)
        except ValueError:
            continue
        if "begun" in read:
            begun.append(str(read["begun"]))
            continue
        ended[str(read["case"])] = _case(read)
    lost = "its process ended, or was ended, while it ran"
    unfinished = [Recorded(case, "errored", lost) for case in begun if case not in ended]
    return [*ended.values(), *unfinished]


def _case(read: Mapping[str, Any]) -> Recorded:
    return Recorded(
        case=str(read["case"]),
        ended=str(read["ended"]),
        message=str(read.get("message", "")),
        detail=str(read.get("detail", "")),
        violations=tuple(map(str, read.get("violations", ()))),
        seconds=float(read.get("seconds", 0.0)),
        kernels=tuple(map(str, read.get("kernels", ()))),
    )


def counted(cases: Iterable[Recorded]) -> dict[str, int]:
    """How many cases ended in each way."""
    found = Counter(case.ended for case in cases)
    return {ending: found[ending] for ending in ENDINGS}
