"""Runs tests of the folder that it is started in, each set in a fork of a process that is warm.

A program of its own, which imports nothing of the suite: a fork must find the suite's modules not
imported, because their files change from one set of tests to the next. It reads JSON lines::

    {"tests": ["tests/emulator/test_lds.py::test_reads[1]", ...], "files": ["tests/emulator"],
     "seconds": 60, "first": true}
        -> {"ran": {"tests/...": {"seconds": 0.1, "lines": {"file.py": [1, 2]}, "starts": false}},
            "failed": "tests/...", "message": "...", "failing": ["tests/..."], "broken": "",
     "imported": {"file.py": [1, 2]}}

``tests``: those to run, in this order; empty: all of ``files``. ``first``: whether to stop at the
first failure. ``failed``: what failed first, and ``failing`` all that did. ``lines``: those that
marked themselves in the module ``LINES_MODULE``; what other processes run is not known, and
``starts`` says whether a test started any. ``imported``: the lines that ran before any test, when
modules were imported: what they made may be used by every test. ``broken``: why there is no
result, such as "timeout".
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

# What tests import besides the suite; where one is missing, a fork finds that out for itself.
WARM = ("numpy", "torch", "llvmlite.binding", "hypothesis", "pydantic", "click", "rich", "pytest")
LINES_MODULE = "rocm_conformance_lines"
FILES: dict[str, set[int]] = {}
STARTING = ("os.fork", "os.posix_spawn", "subprocess.Popen")
# pytest's codes where it ran what was asked for: all passed, some failed, there is nothing to run.
TESTED = (0, 1, 5)


def empty() -> dict[str, Any]:
    """An answer that tells nothing yet."""
    return {"ran": {}, "failed": "", "message": "", "failing": [], "broken": "", "imported": {}}


def marked() -> dict[str, list[int]]:
    """The lines that marked themselves so far, by file."""
    return {file: sorted(numbers) for file, numbers in FILES.items() if numbers}


class Plugin:
    """Chooses and orders the tests, and notes what became of them."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._places = {name: place for place, name in enumerate(order["tests"])}
        self._began = 0.0
        self._starts = False
        sys.addaudithook(self._heard)
        self.told: dict[str, Any] = empty()

    def _heard(self, event: str, _arguments: tuple[object, ...]) -> None:
        self._starts |= event in STARTING

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if self._places:
            items[:] = [item for item in items if item.nodeid in self._places]
            items.sort(key=lambda item: self._places[item.nodeid])

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.told["failed"] = self.told["failed"] or f"collecting {report.nodeid}"
            self.told["message"] = self.told["message"] or str(report.longrepr)[-300:]

    def pytest_collection_finish(self) -> None:
        self.told["imported"] = marked()

    def pytest_runtest_logstart(self) -> None:
        self._began = time.monotonic()
        self._starts = False
        for lines in FILES.values():
            lines.clear()

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.told["failing"].append(report.nodeid)
            self.told["failed"] = self.told["failed"] or report.nodeid
            self.told["message"] = self.told["message"] or str(report.longrepr)[-300:]

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        took = time.monotonic() - self._began
        self.told["ran"][nodeid] = {
            "seconds": round(took, 4),
            "lines": marked(),
            "starts": self._starts,
        }


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Runs tests here, in a fork."""
    import pytest  # noqa: PLC0415 - the fork has it already

    plugin = Plugin(order)
    named = {name.partition("::")[0]: None for name in order["tests"]}
    words = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *(["-x"] if order["first"] else [])]
    code = pytest.main([*words, *(named or order["files"])], plugins=[plugin])
    if code not in TESTED and not plugin.told["failed"]:
        plugin.told["broken"] = f"pytest ended with {int(code)}"
    return plugin.told


def forked(order: dict[str, Any]) -> dict[str, Any]:
    """Runs tests in a fork; what it started ends with it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(reading)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        with contextlib.suppress(BaseException):
            told = run(order)
            with os.fdopen(writing, "w", encoding="utf-8") as pipe:
                json.dump(told, pipe)
        os._exit(0)
    os.close(writing)
    data, until = b"", time.monotonic() + order["seconds"]
    while True:
        ready, _, _ = select.select([reading], [], [], max(0.0, until - time.monotonic()))
        chunk = os.read(reading, 1 << 20) if ready else b""
        data += chunk
        if not chunk:
            break
    os.close(reading)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if not data:
        broken = "timeout" if time.monotonic() >= until else "the process died"
        return {**empty(), "broken": broken}
    result: dict[str, Any] = json.loads(data)
    return result


def main() -> None:
    own = Path(__file__).resolve().parent
    kept = [entry for entry in sys.path if Path(entry or ".").resolve() != own]
    sys.path[:] = [str(Path.cwd()), *kept]
    module = ModuleType(LINES_MODULE)
    module.__dict__["files"] = FILES
    sys.modules[LINES_MODULE] = module
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for name in WARM:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        answers.write(json.dumps(forked(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
