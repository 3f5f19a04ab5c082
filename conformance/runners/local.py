"""Runs the suites on this machine, with pytest and its plugin, in several processes.

pytest's own output goes to ``pytest.log`` in the results folder; the user sees progress and the
summary. Every finished case is on disk before the next one starts.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import conformance
from conformance.config import RunConfig
from conformance.devices.hip import clang
from conformance.errors import InfrastructureError, SuiteError
from conformance.matrix.stacks import match_cells, platform_cells
from conformance.reports.junit_so_far import JUnitSoFar
from conformance.requirements.waivers import WaiverSet
from conformance.results import (
    CaseResult,
    Identity,
    JudgedSubject,
    Outcome,
    ResultsWriter,
    RunHeader,
)
from conformance.results.folder import PYTEST_LOG, RESULTS, cleared
from conformance.runners import processors
from conformance.runners.interrupts import AGAIN, interruptible
from conformance.runners.scheduling import ByGroup
from conformance.subjects.workers import compiled_kept
from conformance.suites.plugin import RECORD
from conformance.suites.registry import suites_named
from conformance.suites.shards import part

# The default number of processes.
PROCESSES = min(processors.usable(), 8)
# pytest's plugins that wrap every case and that no suite needs.
NEEDLESS = (
    *("cacheprovider", "logging", "doctest", "unittest", "pastebin", "junitxml", "stepwise"),
    *("warnings", "unraisableexception", "threadexception", "faulthandler"),
)
SUITES_FOLDER = Path(conformance.__file__).parent / "suites"


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    done: int
    total: int
    failed: int
    errored: int


@dataclass(frozen=True)
class RunOutcome:
    """A finished run: its header, its cases, and the exit code that follows from them.

    ``junit`` has its files, which are complete once it is told to finish.
    """

    header: RunHeader
    cases: tuple[CaseResult, ...]
    code: int
    junit: JUnitSoFar


def run(
    config: RunConfig,
    folder: Path,
    waivers: WaiverSet,
    *,
    processes: int,
    errored: Sequence[CaseResult] = (),
    on_progress: Callable[[Progress], None] = lambda _progress: None,
    say: Callable[[str], None] = lambda _text: None,
) -> RunOutcome:
    """Runs a configuration whose subjects are ready, and writes ``results.jsonl`` into ``folder``.

    JUnit files are written there from time to time, and when the run is interrupted.

    ``errored`` are the cases of subjects that could not be prepared. ``say`` is told what suites do
    after their cases.

    Raises:
        SuiteError: pytest itself failed; its log is in the message.
    """
    suites = suites_named(config.suites)
    if config.subjects and not any(suite.many_groups(config) for suite in suites):
        platforms = platform_cells(match_cells(config.cells), config.targets, config.env)
        # Too many shards are reported here, not in pytest's log.
        part([(subject, p) for subject in config.subjects for p in platforms], config.shard)
    header = _header(config, [case.subject for case in errored])
    cleared(folder)
    junit = JUnitSoFar(folder, header)
    with ResultsWriter(folder / RESULTS, header) as writer, _left_behind(junit):
        recorder = _Recorder([writer.write, junit.add], waivers, on_progress, header.gpu)
        for case in errored:
            recorder.record(case)
        if config.subjects:
            _pytest(config, folder / PYTEST_LOG, processes, recorder)
            for suite in suites if not config.shard else ():
                for case in suite.closing_cases(config, tuple(recorder.cases)):
                    recorder.record(case)
            for suite in suites:
                for case in suite.follow_ups(config, tuple(recorder.cases), folder, say):
                    recorder.record(case)
        # Waivers of HIP kernels say what the packaged clang makes of them.
        partial = ["*"] if config.partial or errored or clang.is_named() else []
        partial += [pattern for suite in suites for pattern in suite.left_out(config)]
        for case in waivers.closing_cases(recorder.cases, partial=partial):
            recorder.record(case)
    return RunOutcome(header, tuple(recorder.cases), writer.exit_code, junit)


@contextlib.contextmanager
def _left_behind(junit: JUnitSoFar) -> Iterator[None]:
    """Writes what is known when the block ends early."""
    try:
        yield
    except BaseException:
        # The folder that cannot be written may be why it ends.
        with contextlib.suppress(InfrastructureError):
            junit.write_unended()
        raise


def _pytest(config: RunConfig, log: Path, processes: int, recorder: _Recorder) -> None:
    arguments = [
        *(str(SUITES_FOLDER / suite) for suite in config.suites),
        "--rootdir",
        str(SUITES_FOLDER),
        "-c",
        os.devnull,
        "-p",
        "conformance.suites.plugin",
        *(word for plugin in NEEDLESS for word in ("-p", f"no:{plugin}")),
        # What failed is in the records; a summary would say it a second time.
        "--no-summary",
        "--tb=native",
        # A case says in words what is wrong: nothing is found out from the text of an assertion.
        "--assert=plain",
        "--conformance",
        config.dumps(),
    ]
    if processes > 1:
        arguments += ["-n", str(processes), "--dist", "loadscope"]
    with (
        log.open("w", encoding="utf-8") as output,
        contextlib.redirect_stdout(output),
        compiled_kept(),
        interruptible(AGAIN) as recorder.heard,
    ):
        status = _status(arguments, recorder)
    if recorder.interrupted:
        raise KeyboardInterrupt
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise SuiteError(_why_ended(int(status), recorder.uncollected, log))


def _status(arguments: list[str], recorder: _Recorder) -> int:
    try:
        return pytest.main(arguments, plugins=[recorder])
    except Exception:
        # pytest itself fails when it reports an interrupt from some places.
        if not recorder.interrupted:
            raise
        return pytest.ExitCode.INTERRUPTED


class _Recorder:
    """Receives every finished case, in the controlling process, and records it."""

    def __init__(
        self,
        writers: Sequence[Callable[[CaseResult], None]],
        waivers: WaiverSet,
        on_progress: Callable[[Progress], None],
        gpu: str,
    ) -> None:
        self.cases: list[CaseResult] = []
        # Why cases could not be listed.
        self.uncollected: list[str] = []
        self.interrupted = False
        self.heard: Callable[[], None] = lambda: None
        self._writers = writers
        self._waivers = waivers
        self._on_progress = on_progress
        self._gpu = gpu
        self._total = 0
        self._done = 0
        self._ended: Counter[Outcome] = Counter()

    def record(self, case: CaseResult) -> None:
        case = replace(case, gpu=self._gpu)
        self.cases.append(case)
        self._ended[case.outcome] += 1
        for write in self._writers:
            write(case)

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        # pytest ends itself by an interrupt of its own where cases cannot be collected.
        if not excinfo.errisinstance(pytest.Session.Interrupted):
            self.interrupted = True
            self.heard()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.uncollected.append(report.longreprtext)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._total = max(self._total, len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> ByGroup:
        return ByGroup(config, log)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self._total = len(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        records = [value for name, value in report.user_properties if name == RECORD]
        for record in records:
            for case in self._waivers.apply(_case(str(record))):
                self.record(case)
        if not records and report.failed:
            self.record(_lost(report))
        if records or report.failed:
            self._done += 1
            self._tell()

    def _tell(self) -> None:
        failed, errored = self._ended[Outcome.FAILED], self._ended[Outcome.ERRORED]
        self._on_progress(Progress(self._done, self._total, failed, errored))


def _case(record: str) -> CaseResult:
    values = json.loads(record)
    values["outcome"] = Outcome(values["outcome"])
    values["cells"] = tuple(values["cells"])
    values["findings"] = tuple(values["findings"])
    values["identities"] = tuple(_identity(each) for each in values["identities"])
    return CaseResult(**values)


def _identity(values: dict[str, Any]) -> Identity:
    lists = {name: tuple(values[name]) for name in ("kernels", "deviations")}
    return Identity(**{**values, **lists})


def _lost(report: pytest.TestReport) -> CaseResult:
    """The result of a test that left no record, because its process died."""
    return CaseResult.of_the_run(
        "infrastructure",
        report.nodeid,
        "the process that ran this case died",
        detail=report.longreprtext,
    )


def _header(config: RunConfig, left_out: Sequence[str]) -> RunHeader:
    simulated = config.simulate != "never"
    return RunHeader.now(
        edition=config.edition_label,
        subjects=tuple(
            JudgedSubject(
                spec, config.releases.get(spec, ""), simulated, config.notes.get(spec, "")
            )
            for spec in (*config.subjects, *left_out)
        ),
        cells=tuple(cell.name for cell in match_cells(config.cells)),
        suites=config.suites,
        seed=config.seed,
        sweep=config.sweep,
        image=config.image,
        shard=config.shard,
    )


def _why_ended(status: int, uncollected: Sequence[str], log: Path) -> str:
    # Every process fails to list the same cases in the same way.
    reasons = list(dict.fromkeys(uncollected)) or [
        log.read_text(encoding="utf-8", errors="replace")[-4000:]
    ]
    return "\n".join(
        [f"pytest ended with status {status} before the suites were through:", *reasons]
    )
