"""Notes which lines of the subject a problem ran, where its files were made to say so.

Such a file marks its lines in a set of the module ``LINES_MODULE``, which is made here; the judge
puts the marks in (``conformance/mutation/probes.py``).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from .contract import LINES_MODULE, LINES_TO

_FILES: dict[str, set[int]] = {}


def expect() -> None:
    """Lets the subject's files be imported that mark their lines."""
    module = ModuleType(LINES_MODULE)
    module.__dict__["files"] = _FILES
    sys.modules[LINES_MODULE] = module


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """Notes the lines that run meanwhile, where the environment asks for it."""
    into = os.environ.get(LINES_TO)
    if not into:
        yield
        return
    for lines in _FILES.values():
        lines.clear()
    yield
    told = {file: sorted(lines) for file, lines in _FILES.items() if lines}
    Path(into).write_text(json.dumps(told), encoding="utf-8")
