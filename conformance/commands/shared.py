"""What each command does, between its arguments and its exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from conformance.benchmarks import emulator as isa_bench
from conformance.benchmarks import selections as benchmark
from conformance.commands import differential
from conformance.commands import explanation as explaining
from conformance.commands.checks import checks
from conformance.config import RunConfig
from conformance.containers.options import WAIVERS
from conformance.errors import ExitCode, UsageError
from conformance.matrix.installed_gpus import device_here
from conformance.matrix.requests import Platform
from conformance.matrix.stacks import load_stacks, match_cells
from conformance.matrix.targets import target as known_target
from conformance.reports.build import build
from conformance.reports.console import Format, show
from conformance.reports.jobs import job_of, write_job
from conformance.reports.junit_writer import write_junit
from conformance.requirements import all_requirements, requirements_of
from conformance.requirements.attribution import rules_on
from conformance.requirements.waivers import DEFAULT_PATH, load_waivers
from conformance.results import CaseResult, read_results, subject_label
from conformance.results import codegen_table as resource_table
from conformance.results import emulation_coverage as emulation
from conformance.results import markdown as markup
from conformance.results.folder import RESULTS
from conformance.runners import container_run as contained
from conformance.runners import local
from conformance.runners.choice import LocalChoice, RunnerOptions, choose
from conformance.runners.preparation import settle, settle_all
from conformance.runners.progress import ProgressLine
from conformance.subjects import request_lines as streams
from conformance.subjects.base import Options
from conformance.subjects.reference import edition_table, selector_on
from conformance.subjects.spellings import parse_subject


def say(text: str) -> None:
    """A line of progress: on stderr, so that stdout holds nothing but the answer."""
    click.echo(text, err=True)


def platform_of(target: str, aiter: bool, flash_attn: bool, env: Iterable[str]) -> Platform:
    """A platform from the command line's words.

    Raises:
        UsageError: an unknown target, or a variable that is not NAME=VALUE.
    """
    variables = {}
    for entry in env:
        name, equals, value = entry.partition("=")
        if not equals or not name:
            raise UsageError(f"--env {entry!r}: expected NAME=VALUE, such as VLLM_ROCM_USE_AITER=1")
        variables[name] = value
    known_target(target)
    return Platform.make(target, aiter=aiter, flash_attn=flash_attn, env=variables)


def run(
    config: RunConfig,
    folder: Path,
    waiver_file: Path | None,
    processes: int | None,
    style: Format | None,
    options: RunnerOptions,
) -> int:
    """A conformance run, on this machine or in containers; of a CI job it notes which."""
    write_job(folder, job_of(os.environ))
    return _run(config, folder, waiver_file, processes, style, options)


def _run(
    config: RunConfig,
    folder: Path,
    waiver_file: Path | None,
    processes: int | None,
    style: Format | None,
    options: RunnerOptions,
) -> int:
    cells = match_cells(config.cells)
    edition_table(config.edition)  # an unknown edition has no requirements that a waiver could name
    known = requirements_of(config.edition)
    names = [cell.name for cell in cells]
    waivers = load_waivers(waiver_file or DEFAULT_PATH, requirements=known, cells=names)
    chosen = choose(cells, options)
    if not isinstance(chosen, LocalChoice):
        return contained.run(config, folder, waiver_file, processes, style, options, *chosen, say)
    if options.runner == "auto":
        say(f"runner: local, simulated where there is no GPU, because {chosen.reason}")
    config = config.placed(device_here())
    settled = settle(config, say)
    with ProgressLine() as line:
        outcome = local.run(
            settled.config,
            folder,
            waivers,
            processes=processes or _processes(config.device),
            errored=settled.errored_cases(),
            on_progress=line.show,
        )
    paths = write_junit(outcome.cases, folder, outcome.header)
    if style is not None:
        show(read_results(folder / RESULTS), style, sys.stdout, known)
    _codegen(outcome.cases, folder)
    _emulated(outcome.cases, folder)
    say(f"wrote {len(paths)} JUnit files and results.jsonl to {folder}/")
    return outcome.code


def _processes(device: str) -> int:
    """How many processes a run has unless the user says: two on one card fight over it."""
    if device != "gpu":
        return local.PROCESSES
    from conformance.subjects.kernels import cards  # noqa: PLC0415 - torch is slow to import

    return len(cards()) or 1


def report(
    folder: Path,
    output: Path | None,
    expect_cells: Sequence[str],
    expect_results: Sequence[str],
    style: Format,
) -> int:
    """One report of all results below a folder."""
    target = output or folder / "report"
    build_url = os.environ.get("BUILDKITE_BUILD_URL", "")
    built = build(folder, target, expect_cells, build_url, expect_results)
    if style == "markdown":
        sys.stdout.write(built.annotation)
    else:
        show(built.merged.run, style, sys.stdout, all_requirements())
    parts = sum(path.suffix == ".xml" for path in built.paths)
    junit = "report.xml" + (f" in {parts} parts" if parts > 1 else "")
    read = len(built.merged.files)
    say(f"read {read} results files; wrote {junit}, annotation.md and report.html to {target}/")
    return built.merged.exit_code


def run_order(text: str, folder: Path) -> int:
    """What a container does: the run that its starter asks for in a variable."""
    order = json.loads(text)
    sys.argv = order["argv"]  # the record names the command that somebody typed
    config = replace(RunConfig.loads(json.dumps(order["config"])), image=order["image"])
    waivers = Path(WAIVERS) if order["waivers"] else None
    return _run(config, folder, waivers, order["processes"], None, RunnerOptions())


def select(
    spec: str,
    platform: Platform,
    edition: str,
    simulate: str,
    timeout: float,
    source: Iterable[str],
) -> int:
    """Answers a stream of requests; 0 unless a line was bad."""
    table = edition_table(edition)
    subject = parse_subject(spec, Options(edition, simulate, timeout), say)
    backends = {
        "attention": list(table.backends),
        "paged_attention": [],
        "vit": [*table.vit.explicit, *table.backends],
    }
    bad = False
    try:
        session = subject.open(platform)
        for answer in streams.answer_lines(source, session, backends):
            bad = bad or answer.get("error") == "bad_request"
            sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    finally:
        subject.close()
    return ExitCode.USAGE if bad else ExitCode.CONFORMANT


def explain(
    spec: str,
    platform: Platform,
    edition: str,
    simulate: str,
    timeout: float,
    request: dict[str, Any],
    backend: str | None,
    style: str,
) -> int:
    """One request, taken apart."""
    table = edition_table(edition)
    text = json.dumps({"request": request, "backend": backend})
    line = streams.parse(1, text, {"attention": list(table.backends)})
    if line.ask is None:
        raise UsageError(line.problem)
    subject = parse_subject(spec, Options(edition, simulate, timeout), say)
    try:
        session = subject.open(platform)
        (selection,) = session.ask([line.ask])
        name = subject_label(spec, session.info.version)
        name += " (simulated platform)" if session.info.simulated else ""
        rules = rules_on(platform, requirements_of(edition), subject.release)
    finally:
        subject.close()
    explanation = explaining.explain(
        name,
        platform,
        line.ask,
        selection,
        selector_on(table, platform),
        rules,
        requirements_of(edition),
    )
    if style == "json":
        click.echo(json.dumps(explanation.as_json(), indent=2))
    elif style == "markdown":
        click.echo(explaining.markdown(explanation))
    else:
        explaining.render(Console(), explanation)
    return ExitCode.CONFORMANT


def cells(style: str) -> int:
    """The matrix."""
    found = match_cells(["*"])
    stacks = load_stacks()
    if style == "json":
        listed = [{"cell": c.name, "stack": c.stack.name, "env": c.env()} for c in found]
        table = [asdict(stack) for stack in stacks]
        click.echo(json.dumps({"cells": listed, "stacks": table}, indent=2))
        return ExitCode.CONFORMANT
    columns = ("stack", "ROCm", "vLLM", "torch", "Triton", "targets", "cells")
    rows = [
        (
            stack.name,
            stack.rocm,
            stack.vllm,
            str(stack.torch),
            stack.triton_pypi,
            " ".join(stack.targets),
            "\n".join(c.name for c in found if c.stack.name == stack.name),
        )
        for stack in stacks
    ]
    _print_table(columns, rows, style)
    return ExitCode.CONFORMANT


def doctor(style: str) -> int:
    """What this machine can run."""
    found = checks()
    if style == "json":
        click.echo(json.dumps([asdict(check) for check in found], indent=2))
    else:
        rows = [("ok" if c.ok else "-", c.name, c.found, c.advice) for c in found]
        _print_table(("", "what", "found", "what to do"), rows, style)
    return ExitCode.CONFORMANT


def diff(config: RunConfig, processes: int, style: str) -> int:
    """Two subjects on every target and flag."""
    settled = settle_all(config, say)
    with ProgressLine() as line:
        found = differential.run(settled, processes, line.show)
    if style == "json":
        click.echo(json.dumps(found.as_json(), indent=2))
    else:
        click.echo(found.as_markdown() if style == "markdown" else found.in_words())
    return ExitCode.NOT_CONFORMANT if found.wrong else ExitCode.CONFORMANT


def bench(edition: str, spec: str, count: int, style: str) -> int:
    """The benchmark."""
    found = benchmark.measure(edition, spec, count)
    if style == "json":
        click.echo(json.dumps([asdict(m) for m in found], indent=2))
    else:
        rows = [(m.name, f"{m.per_second:,.0f}", m.note) for m in found]
        _print_table(("what", "selections/s", ""), rows, style)
    return ExitCode.CONFORMANT


def prove_bound(count: int, device: str, seed: int, style: str) -> int:
    """Evidence for the error bound, a row for each kernel and dtype.

    Raises:
        UsageError: there is no such device.
    """
    # Imported here: torch takes seconds, and no other command of this module needs it.
    import torch  # noqa: PLC0415

    from conformance.oracle.proof import prove  # noqa: PLC0415

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no GPU here; use --device cpu")
    torch.set_num_threads(1)  # the products are small: more threads wait for one another
    found = prove(count, device, seed)
    rows = [evidence.summary() for evidence in found]
    if style == "json":
        click.echo(json.dumps(rows, indent=2))
    else:
        shown = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in r.values()] for r in rows]
        _print_table([*rows[0]], shown, style)
    for alarm in (alarm for evidence in found for alarm in evidence.alarms):
        say(f"false alarm: {alarm}")
    alarms = any(evidence.alarms for evidence in found)
    return ExitCode.NOT_CONFORMANT if alarms else ExitCode.CONFORMANT


def bench_kernels(vllm: Path | None, style: str) -> int:
    """Kernels on a GPU; the copy bandwidth is the limit beside them."""
    from conformance.benchmarks import (  # noqa: PLC0415 - torch and Triton are slow to import
        kernels as kernel_bench,
    )

    found = list(kernel_bench.measure(vllm, say))
    copied = kernel_bench.copy_bandwidth()
    if style == "json":
        timings = [asdict(timing) for timing in found]
        click.echo(json.dumps({"copy_bytes_per_s": copied, "timings": timings}, indent=2))
        return ExitCode.CONFORMANT
    rows = [
        (
            t.workload,
            t.contestant,
            f"{t.launched:,.0f}",
            "-" if t.replayed is None else f"{t.replayed:,.0f}",
            f"{t.teraflops:.0f}",
            f"{t.gigabytes:,.0f}",
        )
        for t in found
    ]
    columns = ("workload", "contestant", "us launched", "us replayed", "TFLOP/s", "cache GB/s")
    _print_table(columns, rows, style)
    say(f"this GPU copies {copied / 1e12:.2f} TB/s, bytes read and written counted")
    return ExitCode.CONFORMANT


def bench_isa(style: str) -> int:
    """The emulator's benchmark."""
    found = isa_bench.measure()
    if style == "json":
        click.echo(json.dumps([{**asdict(s), "rate": s.rate} for s in found], indent=2))
    else:
        rows = [(s.target, s.what, f"{s.rate:,.0f}", f"{s.seconds:.2f}") for s in found]
        _print_table(("target", "what", "wave-instructions/s", "seconds"), rows, style)
    return ExitCode.CONFORMANT


def _codegen(cases: Sequence[CaseResult], folder: Path) -> None:
    """The table of resources: into the results folder, and its differences from the baseline."""
    table = resource_table.table_of(cases)
    if not table:
        return
    rows = list(resource_table.rows_of(table, resource_table.load_baseline()))
    path = folder / "codegen.json"
    path.write_text(resource_table.dump(table, version("triton")), encoding="utf-8")
    (folder / "codegen.md").write_text(resource_table.markdown(rows), encoding="utf-8")
    changed = resource_table.differences(rows)
    for line in changed[:20]:
        say(f"differs from the baseline: {line}")
    more = ", the first 20 above" if len(changed) > 20 else ""
    say(f"wrote {len(rows)} rows of resources to {path} and .md: {len(changed)} differ{more}")


def _emulated(cases: Sequence[CaseResult], folder: Path) -> None:
    """Of an emulated run, how much of each kernel was executed: into the results folder."""
    found = emulation.coverage_of(cases)
    if not found:
        return
    path = folder / "isa-coverage.md"
    path.write_text(markup.table(emulation.COLUMNS, emulation.rows(found)) + "\n", "utf-8")
    least = min(found, key=lambda c: c.share)
    say(f"{emulation.sentence(found)}; least of {least.kernel}, {least.share:.1%}: {path}")


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], style: str) -> None:
    if style == "markdown":
        click.echo(markup.table(columns, rows))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
