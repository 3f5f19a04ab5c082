"""JUnit files of a run that has not ended: they are there, and do not pass for a whole run's."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from junitparser import JUnitXml

from conformance.config import RunConfig
from conformance.reports import junit_so_far
from conformance.reports.junit_so_far import FIRST_SECONDS, NOT_ENDED, TIMES_THE_LAST, JUnitSoFar
from conformance.requirements.waivers import load_waivers
from conformance.runners import local
from tests.support.results import CASE, FAILED, HEADER, A, B


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def written(folder: Path) -> dict[str, tuple[int, list[str]]]:
    """Each file's number of cases, and the messages of its errors."""
    found = {}
    for path in sorted(folder.glob("junit-*.xml")):
        cases = [case for suite in JUnitXml.fromfile(str(path)) for case in suite]
        errors = [end.message for case in cases for end in case.result if end._tag == "error"]
        found[path.name] = (len(cases), errors)
    return found


def test_files_come_while_cases_run_and_say_that_the_run_has_not_ended(tmp_path: Path) -> None:
    clock = Clock()
    files = JUnitSoFar(tmp_path, HEADER, clock)
    files.add(CASE)
    assert not written(tmp_path)
    clock.now += FIRST_SECONDS
    files.add(replace(FAILED, cells=(A, B)))
    unended = written(tmp_path)
    assert {name: count for name, (count, _) in unended.items()} == {
        f"junit-{A}.xml": 3,
        f"junit-{B}.xml": 2,
    }
    assert all(NOT_ENDED in "".join(errors) for _, errors in unended.values())
    paths = files.finish()
    assert [path.name for path in paths] == [*unended]
    assert written(tmp_path) == {f"junit-{A}.xml": (2, []), f"junit-{B}.xml": (1, [])}


def test_files_that_take_long_are_written_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, times = Clock(), []

    def slow(*_: Any) -> list[Path]:
        times.append(clock.now)
        clock.now += 2
        return []

    monkeypatch.setattr(junit_so_far, "write_rendered", slow)
    files = JUnitSoFar(tmp_path, HEADER, clock)
    while clock.now < 200:
        clock.now += 1
        files.add(CASE)
    between = [after - before for before, after in itertools.pairwise(times)]
    assert times[0] == FIRST_SECONDS
    assert between
    assert min(between) >= 2 * TIMES_THE_LAST


def test_an_interrupted_run_leaves_what_was_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_arguments: list[str], plugins: list[Any]) -> int:
        plugins[0].record(CASE)
        raise KeyboardInterrupt

    monkeypatch.setattr(pytest, "main", interrupted)
    config = RunConfig(("reference",), (A,), suites=("selection",))
    with pytest.raises(KeyboardInterrupt):
        local.run(config, tmp_path, load_waivers(), processes=1)
    ((count, errors),) = written(tmp_path).values()
    assert (count, len(errors)) == (2, 1)
