"""Results of cells that ran in containers: reads them, adds what went wrong, merges them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from conformance.config import RunConfig
from conformance.errors import InfrastructureError
from conformance.reports.junit_writer import write_junit
from conformance.results import (
    CaseResult,
    JudgedSubject,
    Outcome,
    ResultsWriter,
    Run,
    RunHeader,
    read_results,
)
from conformance.results.folder import RESULTS

SUITE = "infrastructure"


def cell_record(folder: Path) -> Run | None:
    """The record in a cell's folder, or None."""
    path = folder / RESULTS
    return read_results(path) if path.is_file() else None


def record_trouble(
    folder: Path, cell: str, config: RunConfig, problem: InfrastructureError, *, image: str
) -> None:
    """Rewrites a cell's record: the cases that had finished, and an error that says what happened.

    Without it, a cell without results would be missing from every report.
    """
    before = cell_record(folder)
    header = before.header if before and before.header else _header(cell, config, image)
    errors = (replace(error, gpu=header.gpu) for error in _errors(cell, config, problem))
    cases = [*(before.cases if before else ()), *errors]
    # A new file, because a container outlives its engine and may still write to the old one.
    draft = folder / f".{RESULTS}.tmp"
    with ResultsWriter(draft, header) as writer:
        for case in cases:
            writer.write(case)
    draft.replace(folder / RESULTS)
    write_junit(cases, folder, header)


def merge(runs: Sequence[Run], config: RunConfig, cells: Sequence[str]) -> Run:
    """Merges several cells' records; a case with the same end in several cells becomes one case."""
    header = replace(_first_header(runs, config, cells), cells=tuple(cells))
    problems = tuple(problem for run in runs for problem in run.problems)
    cases = tuple(_joined(case for run in runs for case in run.cases))
    return Run(header, cases, complete=not problems, problems=problems)


def _first_header(runs: Iterable[Run], config: RunConfig, cells: Sequence[str]) -> RunHeader:
    return next((run.header for run in runs if run.header), _header(cells[0], config, ""))


def _joined(cases: Iterable[CaseResult]) -> Iterator[CaseResult]:
    same: dict[tuple[str, ...], list[CaseResult]] = {}
    for case in cases:
        key = (case.subject, case.suite, case.name, case.outcome, case.message, case.detail)
        same.setdefault(key, []).append(case)
    for group in same.values():
        cells = tuple(dict.fromkeys(cell for case in group for cell in case.cells))
        yield replace(group[0], cells=cells)


def _errors(cell: str, config: RunConfig, problem: InfrastructureError) -> Iterator[CaseResult]:
    for subject in config.subjects:
        yield CaseResult(
            suite=SUITE,
            name=f"the container of {cell}",
            outcome=Outcome.ERRORED,
            cells=(cell,),
            subject=subject,
            subject_version=config.releases.get(subject, ""),
            edition=config.edition_of(subject),
            requirement="",
            source="",
            target="",
            platform="",
            simulated=config.simulate != "never",
            message=str(problem.args[0]),
            detail=problem.stderr,
        )


def _header(cell: str, config: RunConfig, image: str) -> RunHeader:
    simulated = config.simulate != "never"
    return RunHeader.now(
        edition=config.edition_label,
        subjects=tuple(
            JudgedSubject(spec, config.releases.get(spec, ""), simulated)
            for spec in config.subjects
        ),
        cells=(cell,),
        suites=config.suites,
        seed=config.seed,
        sweep=config.sweep,
        image=image,
        shard=config.shard,
    )
