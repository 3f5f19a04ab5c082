"""Wrong selectors, and the requirements that must catch each of them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from conformance.errors import ExitCode
from conformance.reports.summary import natural
from conformance.requirements import requirements_of
from conformance.requirements.attribution import all_rules
from conformance.results import CaseResult, Outcome, Run, read_results, tally, verdict
from tests.suites.faults.catalogue import CONFORMING, FAULTS
from tests.suites.faults.fault import EDITION, Fault, Table, changes_something
from tests.suites.faults.here import JUDGES, failures
from tests.support.some import one_in
from vllm_editions import load_edition

WORKER = Path(__file__).parent / "faults" / "worker.py"
CHECKOUT = Path(__file__).parents[2]
# Requirements that no fault of a selector can break.
OTHERS = {
    "REM-008": "about this repository's own files",
    "DOC-001": "about the page of a source tree, compared with classes that a fake has not",
    "DOC-002": "likewise",
}
# Requirements on kernels, which no selector meets or misses: tests/kernels/test_faults.py has a
# fault for each backend, tests/suites/test_parity.py for PAR-090, tests/emulator for CGN.
OF_KERNELS = ("PAR-", "CGN-", "MET-")
# Selection faults that are judged from the command line too, by a run that they share.
FROM_THE_COMMAND_LINE = (
    "fa above rocm_attn",
    "fa takes float32",
    "inner choice takes head 256",
    "vision without flash_attn",
)
SELECTION = [fault for fault in FAULTS if "selection" in fault.suites]
REMOVAL = [fault for fault in FAULTS if "removal" in fault.suites]

Batch = tuple[Fault, ...]
Judged = tuple[int, Run, str]


def subject_of(fault: Fault, folder: Path) -> str:
    """The spelling of a build with a fault, its source tree laid into ``folder``."""
    for path, text in fault.files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    worker = [sys.executable, str(WORKER), fault.name]
    worker += [str(folder / "vllm")] if fault.files else []
    return f"worker:{shlex.join(worker)}"


def judge(faults: Sequence[Fault], folder: Path) -> Judged:
    """What the suite says of builds: its exit code, its record, what it printed."""
    command = [sys.executable, "-m", "conformance", "run", "--edition", EDITION, "-n", "1"]
    command += ["--quick", "--results", str(folder / "results")]
    command += ["--sweep", "300"] if "selection" in faults[0].suites else []
    for number, fault in enumerate(faults):
        command += ["--subject", subject_of(fault, folder / str(number))]
    command += ["--target", "gfx942"]
    for cell in faults[0].cells:
        command += ["--cell", cell]
    for suite in faults[0].suites:
        command += ["--suite", suite]
    ended = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    said = ended.stdout + ended.stderr
    return ended.returncode, read_results(folder / "results" / "results.jsonl"), said


PROPERTIES = {"SEL-090", "SEL-091"}
OF_EACH_KIND = ("gfx90a", "gfx942", "gfx1201")
BATCHES: tuple[Batch, ...] = (
    tuple(fault for fault in SELECTION if fault.name in FROM_THE_COMMAND_LINE),
    tuple(REMOVAL),
)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Batch], Judged]:
    """Judges a batch, once."""
    done: dict[str, Judged] = {}

    def once(batch: Batch) -> Judged:
        name = batch[0].name
        if name not in done:
            done[name] = judge(batch, tmp_path_factory.mktemp("batch"))
        return done[name]

    return once


def ended_as(run: Run, outcome: Outcome) -> list[CaseResult]:
    return [case for case in run.cases if case.outcome is outcome]


@pytest.mark.parametrize("cells", [("rocm62-aiter-*",), ("rocm62-noaiter-*",)], ids="".join)
def test_a_build_without_a_fault_passes_everything(cells: tuple[str, ...], tmp_path: Path) -> None:
    fault = Fault("none", (), files=CONFORMING.files, cells=cells, suites=CONFORMING.suites)
    code, run, said = judge([fault], tmp_path)
    assert code == 0, said
    assert run.complete, run.problems
    assert {case.outcome for case in run.cases} == {Outcome.PASSED, Outcome.UNSUPPORTED}
    passed = {case.requirement for case in ended_as(run, Outcome.PASSED)}
    assert {"SEL-010", "CAP-010", "PAG-001", "VIT-006", "REM-001", "REM-003", "REM-004"} <= passed


@pytest.mark.parametrize(
    ("batch", "fault"),
    [
        pytest.param(batch, fault, id=fault.name, marks=pytest.mark.xdist_group(f"run {number}"))
        for number, batch in enumerate(BATCHES)
        for fault in batch
    ],
)
def test_a_run_catches_it_and_ends_not_conformant(
    batch: Batch, fault: Fault, judged: Callable[[Batch], Judged]
) -> None:
    code, run, said = judged(batch)
    assert code == 1, said
    assert run.complete, run.problems
    assert run.header
    subject = run.header.subjects[batch.index(fault)]
    assert shlex.quote(fault.name) in subject.name
    of_fault = [case for case in run.cases if case.subject == subject.name]
    (outcomes,) = tally(of_fault).values()
    assert verdict(outcomes) is ExitCode.NOT_CONFORMANT
    assert not outcomes[Outcome.ERRORED]
    failed = [case for case in of_fault if case.outcome is Outcome.FAILED]
    missed = set(fault.caught_by) - {case.requirement for case in failed}
    assert not missed, f"only these failed: {sorted({case.requirement for case in failed})}"
    for case in failed:
        assert "expected " in case.message, case
        assert ", got " in case.message or ", but " in case.message, case


@pytest.mark.parametrize("fault", one_in(4, SELECTION, [fault.name for fault in SELECTION]))
def test_a_fault_is_caught_by_the_requirement_that_names_it(fault: Fault) -> None:
    # An example that breaks a property is made smaller, which takes seconds on each platform.
    shrinks = PROPERTIES & set(fault.caught_by)
    failed = failures(fault, targets=OF_EACH_KIND[1:2] if shrinks else ())
    found = {case.requirement for case, _ in failed}
    assert set(fault.caught_by) <= found, f"only these failed: {sorted(found)}"
    for case, error in failed:
        assert "expected " in str(error), case
        assert ", got " in str(error) or ", but " in str(error), case


# ---- what a fault in the order of candidates is called ------------------------------------------

SERIES = {"0.19": "0.19.0", "0.28": "0.28.0", "0.33": "0.33.0"}
NAMES_AN_ORDER = {
    rule.requirement
    for rule in all_rules()
    if rule.facet == "candidates" and rule.reordered is not False
} | {"SEL-006"}  # of two of the candidates, whatever a release's whole list is
# Of a list of candidates, so many of the first pairs are swapped.
PAIRS = 4


def swaps(series: str) -> Iterator[Fault]:
    """Faults that swap neighbours in an edition's lists of candidates."""

    def swapping(family: str, at: int) -> Callable[[Table], None]:
        def edit(table: Table) -> None:
            listed = [*table["candidates"][family]]
            listed[at : at + 2] = reversed(listed[at : at + 2])
            table["candidates"][family] = listed

        return edit

    lists = load_edition(series).candidates
    for family in ("dense", "mla"):
        names = [entry.backend for entry in getattr(lists, family)]
        for at, pair in enumerate([*pairwise(names)][:PAIRS]):
            edit = swapping(family, at)
            release = SERIES[series]
            named = Fault(" and ".join(pair), (), edit, cells=("rocm72-*-mha",))
            yield replace(named, series=series, release=release)


@pytest.mark.parametrize("series", SERIES)
def test_a_wrong_order_is_first_called_a_wrong_order(series: str) -> None:
    known, shown = requirements_of(series), 0
    for fault in swaps(series):
        failed = {case.requirement for case, _ in failures(fault, JUDGES[:1], OF_EACH_KIND)}
        # In the order in which reports list requirements.
        listed = sorted(failed, key=lambda name: (known[name].follows, natural(name)))
        shown += bool(failed)
        assert not failed or listed[0] in NAMES_AN_ORDER, (fault.name, listed)
    assert shown >= 3


def test_a_selector_without_a_fault_fails_nothing() -> None:
    assert failures(Fault("none", ())) == []


def test_every_requirement_catches_a_fault() -> None:
    caught = {identifier for fault in FAULTS for identifier in fault.caught_by}
    of_selectors = {i for i in requirements_of(EDITION) if not i.startswith(OF_KERNELS)}
    assert caught == of_selectors - OTHERS.keys()


def test_every_fault_is_one() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(names) == len(set(names)) >= 28
    assert all(fault.caught_by and changes_something(fault) for fault in FAULTS)
    assert not changes_something(Fault("none", ()))
