"""Runs pytest's cases under a limit, a sample of them, and records how each ends and why.

A record is a file of JSON lines: ``{"begun": case}`` before a case, and after it
``{"case", "ended", "message", "detail", "violations", "seconds", "kernels"}``. A case that has
begun and not ended took its process along.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .endings import DeviceViolation, Ending, ending_of_error
from .process import DEVICES

if TYPE_CHECKING:
    from ..kernel_device import KernelDevice

VARIABLE = "ROCM_CONFORMANCE_CASES"
GIB = 1 << 30


class TooSlowError(BaseException):
    """A case is past its limit; no Exception, so that the code under test does not catch it."""


@dataclass
class Asked:
    """What the environment asks for: seconds and GiB are limits (0: none), ``sample`` the cases of
    each test function (0: all), drawn by ``seed``; ``record`` a file."""

    seconds: float = 0.0
    sample: int = 0
    seed: int = 0
    gib: int = 0
    record: str = ""


@dataclass(eq=False)
class Cases:
    """The plugin's hooks."""

    asked: Asked
    device: KernelDevice | None = None
    late: bool = False
    ends: dict[str, Ending] = field(default_factory=dict)

    @classmethod
    def of_environment(cls) -> Cases:
        asked = Asked(**json.loads(os.environ.get(VARIABLE, "{}")))
        if asked.gib:
            resource.setrlimit(resource.RLIMIT_AS, (asked.gib * GIB, asked.gib * GIB))
        return cls(asked, DEVICES[0] if DEVICES else None)

    # -- which ------------------------------------------------------------------------------
    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        """A sample of each function's cases: the same ones for the same seed, in their order."""
        if not self.asked.sample:
            return
        of_function: dict[str, list[str]] = {}
        for item in items:
            of_function.setdefault(item.nodeid.partition("[")[0], []).append(item.nodeid)
        kept = {name for names in of_function.values() for name in self._drawn(names)}
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in kept])
        items[:] = [item for item in items if item.nodeid in kept]

    def _drawn(self, names: list[str]) -> list[str]:
        def rank(name: str) -> bytes:
            return hashlib.sha256(f"{self.asked.seed} {name}".encode()).digest()

        return sorted(names, key=rank)[: self.asked.sample]

    def pytest_collectreport(self, report: Any) -> None:
        """A file that cannot be imported here is a case of its own."""
        if report.failed:
            message = str(report.longrepr).strip().splitlines()[-1:]
            why = f"cannot be collected: {' '.join(message)}"
            ending = Ending("unsupported", why, str(report.longrepr))
            self._write(case=report.nodeid, **ending.as_json())
        elif report.skipped:
            reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
            self._write(case=report.nodeid, **Ending("skipped", str(reason)).as_json())

    # -- how --------------------------------------------------------------------------------
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[Any]:
        self._write(begun=item.nodeid)
        self.ends.pop(item.nodeid, None)
        self.late = False
        started = time.process_time()
        if self.device is not None:
            self.device.begin_case()
        try:
            return (yield)
        finally:
            if "torch" in sys.modules:
                # A test that sets it may not set it back.
                sys.modules["torch"].set_default_device(None)
            with contextlib.suppress(KeyError):
                ending = self.ends[item.nodeid]
                self._write(
                    case=item.nodeid,
                    **ending.as_json(),
                    seconds=round(time.process_time() - started, 3),
                    kernels=[] if self.device is None else self.device.kernels_of_case(),
                )

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: Any) -> Iterator[Any]:
        del item
        with self._limited():
            result = yield
        if self.device is not None and (found := self.device.violations()):
            # Tests that pass although a kernel left its tensors: the device is who saw it.
            raise DeviceViolation("; ".join(found))
        return result

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        """Ends what takes longer; again each second, as what is interrupted may go on.

        The limit is in seconds of the processor, which are the same on a busy machine; what waits
        is ended too, after twenty times as long.
        """

        def ring(*_: object) -> None:
            self.late = True
            raise TooSlowError(f"took more than {self.asked.seconds:g} s")

        clocks = ((signal.SIGPROF, signal.ITIMER_PROF, 1), (signal.SIGALRM, signal.ITIMER_REAL, 20))
        before = [signal.signal(number, ring) for number, _, _ in clocks]
        for _, clock, times in clocks:
            signal.setitimer(clock, times * self.asked.seconds, 1.0)
        try:
            yield
        finally:
            for (number, clock, _), handler in zip(clocks, before, strict=True):
                signal.setitimer(clock, 0)
                signal.signal(number, handler)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: Any, call: Any) -> Iterator[Any]:
        report = yield
        ending = self._ending(report, call)
        known = self.ends.get(item.nodeid)
        if known is None or (known.ended == "passed" and ending.ended != "passed"):
            self.ends[item.nodeid] = ending
        return report

    def _ending(self, report: Any, call: Any) -> Ending:
        if report.skipped and hasattr(report, "wasxfail"):
            return Ending("skipped", f"expected to fail: {report.wasxfail}")
        if report.skipped:
            reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else ""
            return Ending("skipped", str(reason).removeprefix("Skipped: "))
        if report.passed:
            return Ending("passed")
        if self.late:
            return Ending("too-slow", f"took more than {self.asked.seconds:g} s")
        error = call.excinfo.value if call.excinfo is not None else None
        violations = [] if self.device is None else self.device.violations()
        ending = ending_of_error(error, violations)
        return replace(ending, detail=report.longreprtext)

    def _write(self, **line: Any) -> None:
        if self.asked.record:
            with Path(self.asked.record).open("a", encoding="utf-8") as stream:
                print(json.dumps(line), file=stream)
