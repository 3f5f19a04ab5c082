"""One browser for all tests of the report page, and a page that has every section."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.reports.report_files import Earlier, build
from conformance.results import CaseResult, Outcome
from tests.support.browser import Browser, open_browser
from tests.support.results import CASE, FAILED, JOB, A, B, many_cases, parity_cases, write_run

COMPILED = replace(
    CASE,
    suite="codegen",
    name="CGN-001 unified_2d on gfx942",
    requirement="CGN-001",
    measures={
        f"kernel {column}": 1.0
        for column in ("vgprs", "agprs", "sgprs", "lds", "spills", "scratch", "code", "occupancy")
    },
)
FOREIGN = (
    '<testsuites><testsuite name="pytest" tests="2"><testcase classname="tests.test_a" name="t1"/>'
    '<testcase classname="tests.test_a" name="t2"><failure message="boom">trace</failure>'
    "</testcase></testsuite></testsuites>"
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with open_browser() as found:
        yield found


def accepted(case: CaseResult) -> CaseResult:
    """The case as a known deviation, far over its bound."""
    measures = {**case.measures, "error_over_bound": 633.0}
    return replace(case, outcome=Outcome.WAIVED, waiver="W-9", measures=measures)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every section: a baseline, a trend, another program's tests, waived parity."""
    folder = tmp_path_factory.mktemp("whole")
    cases = [*many_cases(60), FAILED, COMPILED]
    errored = replace(CASE, name="dead", outcome=Outcome.ERRORED, message="died", cells=(B,))
    parity = list(parity_cases(60))
    waived = [accepted(case) if case.backend == "TRITON_ATTN" else case for case in parity]
    for number in range(3):
        passed = [replace(case, outcome=Outcome.PASSED) for case in cases[number:]]
        write_run(folder / "builds" / str(number), passed, started=f"2026-12-1{number}T00:00:00")
    now = folder / "now"
    write_run(now / f"{JOB}1", [*cases, errored, replace(CASE, name="two cells", cells=(A, B))])
    write_run(now / "parity", waived, started="2027-01-03T00:00:00+00:00")
    (now / "junit-pytest.xml").write_text(FOREIGN, encoding="utf-8")
    earlier = Earlier(str(folder / "builds" / "2"), history=(str(folder / "builds"),))
    build(now, folder / "report", ["rocm*"], "https://example.org/builds/7", earlier=earlier)
    return folder / "report" / "report.html"
