"""``rocm-conformance upstream``: releases judged by their own tests."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from conformance.commands.options import FORMAT, GPU, DeviceOfTests, cases_of_tests
from conformance.commands.shared import say, write_files
from conformance.devices import MODES_TEXT, parse_device
from conformance.errors import ExitCode, UsageError
from conformance.matrix.requests import Platform
from conformance.matrix.targets import target as known_target
from conformance.reports.ci_jobs import job_of, write_job
from conformance.reports.console import Format, show
from conformance.reports.junit_writer import write_junit
from conformance.requirements import all_requirements
from conformance.requirements.edition_choice import edition_note, edition_of_release
from conformance.results import CaseResult, JudgedSubject, RunHeader, read_results
from conformance.results.folder import RESULTS, cleared, held
from conformance.results.writing import ResultsWriter
from conformance.runners import processors
from conformance.runners.interrupts import interruptible
from conformance.subjects.base import Options
from conformance.subjects.spellings import SubjectKind, kind_of, parse_subject
from conformance.subjects.workers import WorkerSubject
from conformance.suites.upstream import judged, machine, page
from conformance.suites.upstream.recorded import ENDINGS, counted
from conformance.suites.upstream.running import Order, Ran, run_rows
from conformance.suites.upstream.table import Chosen, tables
from vllm_editions import AUTO_EDITION

SUBJECTS = ("vllm==0.19.0", "vllm==0.33.0")
DEFAULT_GPU = "gfx942"
LOGS = "logs"


@click.command()
@click.option(
    "--subject",
    "subjects",
    multiple=True,
    help=f"The vLLM: vllm==X.Y.Z, or a checkout. Repeatable. [default: {', '.join(SUBJECTS)}]",
)
@click.option(
    "--device",
    "devices",
    multiple=True,
    type=DeviceOfTests(),
    help=f"Where kernels run: interpreter, or isa:<gpu>{MODES_TEXT}. "
    "Repeatable. [default: interpreter]",
)
@GPU
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="PATTERN",
    help="Of the table's files run those whose path holds this. Repeatable. [default: all]",
)
@cases_of_tests(left_out="the table's", gib=16)
@click.option(
    "-n",
    "--processes",
    type=click.IntRange(min=1),
    default=min(processors.usable(), 4),
    help="Files at a time. [default: one per CPU, 4 at most]",
)
@click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results") / "upstream",
    show_default=True,
    help="Folder for results.jsonl, junit-*.xml and what pytest printed.",
)
@click.option(
    "--page",
    "written",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Run nothing: write upstream-results.md into this folder, from all results below "
    "--results, judged by the findings as they are now.",
)
@FORMAT
def upstream(
    subjects: Sequence[str],
    devices: Sequence[str],
    target: str | None,
    files: Sequence[str],
    limit: float | None,
    sample: int | None,
    seed: int,
    memory: int,
    processes: int,
    results: Path,
    written: Path | None,
    style: Format,
) -> int:
    """Run a vLLM's own attention tests on a simulated AMD GPU, and judge how they end.

    \b
    rocm-conformance upstream --subject vllm==0.19.0 --device interpreter
    rocm-conformance upstream --subject vllm==0.33.0 --device isa:MI300X --file unified

    The tests are those of the release's source distribution, unmodified. A table says which files
    and cases run where; those that end as failed, or as violated (the device proved that a kernel
    left its tensors), count against the release unless a second table explains them. What is too
    slow for its limit, skips itself, or needs what the harness does not have is unsupported.

    The results join those of `run`: `report` merges them as a suite called upstream.
    """
    if written is not None:
        return _write_page(results, written)
    target = known_target(target or DEFAULT_GPU).name
    places = list(dict.fromkeys(devices)) or ["interpreter"]
    for device in places:
        if device.startswith("isa:") and len(places) == 1:
            target = parse_device(device).target
        elif device.startswith("isa:") and parse_device(device).target != target:
            raise UsageError(f"--device {device}: the GPU is {target}; name it with --gpu")
    builds = [_build(spec) for spec in dict.fromkeys(subjects or SUBJECTS)]
    orders = [
        Order(target, device, seed, sample or 0, limit or 0.0, memory, processes)
        for device in places
    ]
    asked = [(build, order, _rows(build, order, files)) for build in builds for order in orders]
    if not any(rows for _, _, rows in asked):
        raise UsageError(f"no file of the table fits: {', '.join(files) or 'these releases'}")
    with held(results), interruptible():
        write_job(results, job_of(os.environ))
        cleared(results)
        return _judge(asked, results, style)


def _write_page(results: Path, folder: Path) -> int:
    """The page of what runs came to; 1 if something is left that no finding explains."""
    found = page.places(page.below(results), tables())
    write_files(folder, {page.PAGE: page.page(found, tables())})
    wrong = [*page.unexplained(found, tables())]
    for sentence in wrong:
        say(sentence)
    return ExitCode.NOT_CONFORMANT if wrong else ExitCode.CONFORMANT


def _build(spec: str) -> WorkerSubject:
    if kind_of(spec) is not SubjectKind.VLLM:
        raise UsageError(f"--subject {spec}: only a vLLM has tests of its own: vllm==X.Y.Z")
    build = parse_subject(spec, Options(AUTO_EDITION), say)
    assert isinstance(build, WorkerSubject)
    return build


def _rows(build: WorkerSubject, order: Order, files: Sequence[str]) -> list[Chosen]:
    rows = tables().of(build.release, order.device, files)
    if not rows and not files:
        say(f"{build.spec}: the table has no tests of {build.release} for {order.device}")
    return rows


def _judge(
    asked: Sequence[tuple[WorkerSubject, Order, list[Chosen]]], folder: Path, style: Format
) -> int:
    header = RunHeader.now(
        edition=AUTO_EDITION,
        subjects=tuple(dict.fromkeys(_judged(build) for build, _, _ in asked)),
        cells=(),
        suites=(judged.SUITE,),
        seed=asked[0][1].seed,
        sweep=None,
    )
    cases: list[CaseResult] = []
    with ResultsWriter(folder / RESULTS, header) as writer:
        for build, order, rows in asked:
            for case in _cases(build, order, rows, folder):
                cases.append(case)
                writer.write(case)
    paths = write_junit(cases, folder, header)
    record = read_results(folder / RESULTS)
    show(record, style, sys.stdout, all_requirements())
    for build, order, _ in asked:
        _say_counts(build, order, cases)
    say(f"wrote {len(paths)} JUnit files and results.jsonl to {folder}/")
    return record.exit_code


def _judged(build: WorkerSubject) -> JudgedSubject:
    note = edition_note(edition_of_release(build.release), build.release)
    return JudgedSubject(build.spec, build.release, True, build.note or note)


def _cases(
    build: WorkerSubject, order: Order, rows: Sequence[Chosen], folder: Path
) -> list[CaseResult]:
    def told(ran: Ran) -> None:
        counts = machine.shown(counted(ran.cases))
        say(f"{build.spec} on {order.device}: {ran.row.name}: {counts}")

    name = f"{build.release}-{order.device.replace(':', '-').replace(',', '-')}"
    ran = run_rows(build, rows, order, folder / LOGS / name, told)
    return list(judged.results(ran, tables(), build.spec, build.release, order))


def _say_counts(build: WorkerSubject, order: Order, cases: Sequence[CaseResult]) -> None:
    place = str(Platform.make(order.target)).partition(" ")[0]
    of_run = [
        case
        for case in cases
        if case.subject == build.spec and case.platform.endswith(f" device {order.device}")
    ]
    ended = Counter(ending for case in of_run for ending in case.counts)
    counts = {ending: ended[ending] for ending in ENDINGS}
    explained = sum(bool(case.waiver) for case in of_run)
    say(
        f"{build.spec} on {place}, {order.device}: {machine.shown(counts)}"
        + (f"; {explained} explained by a finding" if explained else "")
    )
