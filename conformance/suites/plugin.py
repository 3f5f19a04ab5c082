"""The pytest plugin: makes a test for every case, and a result for every test."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import pytest
from _pytest.runner import SetupState

from conformance.config import RunConfig
from conformance.errors import InfrastructureError
from conformance.results import CaseResult, Outcome
from conformance.subjects.workers import started_as
from conformance.suites.case import (
    Case,
    Context,
    Measured,
    Nonconformance,
    SessionPool,
    Unsupported,
)
from conformance.suites.shards import part

RECORD = "conformance-record"
# Separates a test's name from its machine, which the scheduler reads off the test's id.
GROUP = " @ "
# Objects that may be made before garbage is looked for.
BETWEEN_COLLECTIONS = 100_000
_CONTEXT = pytest.StashKey[Context]()
_MEASURED = pytest.StashKey[Measured]()
_STARTED = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--conformance", help="the run's configuration, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    text = config.getoption("--conformance")
    if text:
        config.stash[_CONTEXT] = Context(RunConfig.loads(text))


def pytest_unconfigure(config: pytest.Config) -> None:
    if _CONTEXT in config.stash:
        config.stash[_CONTEXT].close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    context = metafunc.config.stash[_CONTEXT]
    of_module = list(metafunc.module.cases(context))
    wanted = getattr(metafunc.function, "kinds", None)
    metafunc.parametrize(
        "case",
        [
            pytest.param(
                case,
                id=f"{case.name}{GROUP}{case.machine}",
            )
            for case in of_module
            if wanted is None or case.kind in wanted
        ],
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts the cases of a machine together, and within it those that one process answers.

    First come those on the cells' platforms, which other cases are compared with, and of which a
    worker can fork the sessions that differ in a variable alone; last those of other packages. A
    shard keeps only its own groups.
    """
    first: dict[tuple[str, ...], int] = {}
    where = {item: _place(item) for item in items}
    for number, place in enumerate(where.values()):
        for path in place.paths:
            first.setdefault(path, number)

    def order(item: pytest.Item) -> tuple[int, bool, bool, int, bool, int]:
        place = where[item]
        machine, process, session = (first[path] for path in place.paths)
        other_process = place.started != ""
        return machine, other_process, place.other_packages, process, place.other_asked, session

    items.sort(key=order)
    groups = list(dict.fromkeys(place.group for place in where.values()))
    mine = set(part(groups, config.stash[_CONTEXT].config.shard))
    items[:] = [item for item in items if where[item].group in mine]


def pytest_collection_finish() -> None:
    """Exempts the thousands of collected cases, which live to the end, from garbage collection.

    What a sweep makes are thousands of questions and answers without a cycle: looking for one after
    every 700 of them takes a third of its time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(BETWEEN_COLLECTIONS)


@pytest.fixture(scope="session")
def context(request: pytest.FixtureRequest) -> Context:
    return request.config.stash[_CONTEXT]


@pytest.fixture(scope="session")
def sessions(context: Context) -> Iterator[SessionPool]:
    yield SessionPool(context)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Runs a case, and reports its end alone: one message to the controlling process, not five.

    Cases are thousands, most of which take a millisecond: pytest's own way would take as long
    again. What a case needs is made once a process, so a clean-up says something only when it
    fails.
    """
    case = _case_of(item)
    if case is None or not isinstance(item, pytest.Function):
        return None
    state = item.session._setupstate
    call = _call(lambda: _run(item, state), "call")
    result = json.dumps(_result(item, case, call).as_json())
    item.ihook.pytest_runtest_logreport(report=_report(item, call, [(RECORD, result)]))
    cleaned = _call(lambda: state.teardown_exact(nextitem), "teardown")
    if cleaned.excinfo is not None:
        item.ihook.pytest_runtest_logreport(report=_report(item, cleaned, []))
    return True


def _call(action: Callable[[], None], when: Literal["call", "teardown"]) -> pytest.CallInfo[None]:
    reraise = (pytest.exit.Exception, KeyboardInterrupt)
    return pytest.CallInfo.from_call(action, when=when, reraise=reraise)


def _run(item: pytest.Function, state: SetupState) -> None:
    """Runs a case and keeps the counts it returns."""
    if not item._request:
        item._initrequest()
    state.setup(item)
    arguments = {name: item.funcargs[name] for name in item._fixtureinfo.argnames}
    item.stash[_STARTED] = time.monotonic()
    returned = item.obj(**arguments)
    measured = returned if isinstance(returned, Measured) else Measured(returned or {})
    item.stash[_MEASURED] = measured


def _report(
    item: pytest.Item, call: pytest.CallInfo[None], properties: list[tuple[str, object]]
) -> pytest.TestReport:
    """What pytest is told: of an error one line, where the result has the rest."""
    assert call.when in ("call", "teardown")
    error = call.excinfo
    said = str(error.getrepr(style="native")) if error and not properties else None
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={},
        outcome="failed" if error else "passed",
        longrepr=said or (error.exconly() if error else None),
        when=call.when,
        user_properties=properties,
        duration=call.duration,
    )


def _result(item: pytest.Item, case: Case, call: pytest.CallInfo[None]) -> CaseResult:
    context = item.config.stash[_CONTEXT]
    error = call.excinfo.value if call.excinfo else None
    judged = getattr(error, "requirement", "") or case.requirement
    requirement = context.requirements(case.subject)[judged]
    outcome, message, detail = _ending(error, call)
    if outcome is Outcome.ERRORED:
        context.subject(case.subject).close()
    if isinstance(error, InfrastructureError):
        context.failures.failed(case.subject, case.where["platform"], error)
    elif outcome is not Outcome.UNSUPPORTED:
        context.failures.answered(case.subject, case.where["platform"])
    info = context.infos.get(case.subject)
    measured = getattr(error, "measured", None) or item.stash.get(_MEASURED, Measured())
    message = measured.proviso if outcome is Outcome.PASSED else message
    return CaseResult(
        suite=case.suite,
        name=case.name.replace(case.requirement, judged, 1),
        outcome=outcome,
        cells=case.cells,
        subject=case.subject,
        subject_version=context.config.releases.get(case.subject, ""),
        edition=context.edition(case.subject),
        requirement=judged,
        source=requirement.source,
        **case.where,
        simulated=info.simulated if info else context.config.simulate != "never",
        seed=context.config.seed,
        message=message,
        detail=detail,
        reproduce=getattr(error, "reproduce", ""),
        seconds=round(time.monotonic() - item.stash.get(_STARTED, time.monotonic()), 4),
        counts=measured.counts,
        measures=measured.measures,
        findings=getattr(error, "findings", ()),
        identities=getattr(error, "identities", ()),
    )


def _ending(error: BaseException | None, call: pytest.CallInfo[None]) -> tuple[Outcome, str, str]:
    if error is None:
        return Outcome.PASSED, "", ""
    if isinstance(error, Nonconformance):
        return Outcome.FAILED, str(error), error.detail
    if isinstance(error, Unsupported):
        return Outcome.UNSUPPORTED, str(error), ""
    if isinstance(error, InfrastructureError):
        return Outcome.ERRORED, str(error.args[0]), error.stderr
    trace = str(call.excinfo.getrepr(style="short")) if call.excinfo else ""
    return Outcome.ERRORED, f"{type(error).__name__}: {error}", trace


def _case_of(item: pytest.Item) -> Case | None:
    """The case of an item that the plugin made."""
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get("case") if callspec else None
    return case if isinstance(case, Case) else None


class _Place(NamedTuple):
    """An item's machine, the process there that answers it, its session, and its group.

    ``started`` is "" where the process is the one that answers on the cells' platforms.
    ``other_asked``: the session is not on its case's cells' platform; ``other_packages``: nor are
    the packages there those.
    """

    machine: str
    started: str
    asked: str
    group: str
    other_asked: bool = False
    other_packages: bool = False

    @property
    def paths(self) -> tuple[tuple[str, ...], ...]:
        return (
            (self.machine,),
            (self.machine, self.started),
            (self.machine, self.started, self.asked),
        )


def _place(item: pytest.Item) -> _Place:
    case = _case_of(item)
    if case is None:
        return _Place(*(item.nodeid,) * 4)
    asked, own = case.asked_on, case.platform
    started = started_as(asked)
    return _Place(
        case.machine,
        "" if started == started_as(own) else str(started),
        str(asked),
        case.group,
        asked != own,
        (asked.aiter, asked.flash_attn) != (own.aiter, own.flash_attn),
    )
