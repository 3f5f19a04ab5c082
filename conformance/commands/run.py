"""``rocm-conformance run``: judges subjects in cells."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from conformance.commands.options import (
    EDITION,
    FORMAT,
    SEED,
    SIMULATE,
    TIMEOUT,
    Seconds,
    gpus,
)
from conformance.commands.run_checks import (
    check_gpu,
    check_problem,
    refuse_what_does_not_apply,
    warn_of_variables,
)
from conformance.commands.shared import say, variables_of
from conformance.config import AUTO, DEVICES, RunConfig
from conformance.containers.container_options import ORDER_VARIABLE, WAIVERS
from conformance.containers.container_options import RESULTS as CONTAINER_RESULTS
from conformance.devices import MODES_TEXT, parse_device
from conformance.errors import UsageError, one_of
from conformance.matrix.installed_gpus import device_here
from conformance.matrix.stacks import match_cells, platform_cells
from conformance.matrix.targets import target as known_target
from conformance.problems.tiers import TIERS, default_tier
from conformance.reports.ci_jobs import job_of, write_job
from conformance.reports.console import Format, show
from conformance.requirements import all_requirements
from conformance.requirements.waivers import DEFAULT_PATH, load_waivers
from conformance.results import read_results
from conformance.results.folder import RESULTS, held
from conformance.runners import container_run, local
from conformance.runners.choice import RUNNERS, LocalChoice, RunnerOptions, choose
from conformance.runners.plan import RunPlan
from conformance.runners.preparation import settle
from conformance.runners.progress import ProgressLine
from conformance.subjects.reference import edition_table
from conformance.subjects.spellings import SPELLINGS
from conformance.suites.registry import BY_DEFAULT, SUITES, suites_named
from conformance.suites.shards import parse_shard
from vllm_editions import AUTO_EDITION


class DeviceType(click.ParamType):  # type: ignore[type-arg] # generic only in newer clicks
    """auto, interpreter, gpu, or an AMD target: emulated (isa:) or compile-only (aot:)."""

    name = "device"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        text = _by_architecture(str(value))
        if text in DEVICES:
            return text
        try:
            parse_device(text)
        except ValueError as error:
            self.fail(f"{error}; or one of {', '.join(DEVICES)}", param, ctx)
        return text


def _by_architecture(device: str) -> str:
    """A device with its GPU's market name (isa:MI300X) as one with its architecture."""
    kind, colon, rest = device.partition(":")
    name, comma, modes = rest.partition(",")
    try:
        return f"{kind}:{known_target(name).name}{comma}{modes}" if colon else device
    except UsageError:
        return device


@click.command()
@click.option(
    "--subject",
    "subjects",
    multiple=True,
    help=f"What to judge: {SPELLINGS}. Repeatable. [default: reference]",
)
@EDITION
@click.option(
    "--cell",
    "cells",
    multiple=True,
    help="A cell, or a pattern such as 'rocm72-*'. Repeatable. [default: all]",
)
@gpus("Of the cells' targets, ask about this one alone, such as gfx942. Repeatable. [default: all]")
@click.option(
    "--suite",
    "suites",
    multiple=True,
    type=click.Choice(list(SUITES)),
    help=f"A suite to run. Repeatable. [default: {', '.join(BY_DEFAULT)}]",
)
@click.option("--quick", is_flag=True, help="Sweep 2,000 requests per platform, and few problems.")
@click.option(
    "--sweep",
    type=click.IntRange(min=0),
    help=f"Requests per platform in the sweep. [default: {RunConfig.sweep}]",
)
@click.option(
    "--device",
    type=DeviceType(),
    default=AUTO,
    help="Where kernels run: in Triton's interpreter on the CPU, on this machine's gpu, or as AMD "
    f"machine code emulated on the CPU (isa:<target>{MODES_TEXT}); "
    "aot:<target> only compiles. [default: the AMD GPU if there is one, else interpreter]",
)
@click.option(
    "--problems",
    type=click.Choice(list(TIERS)),
    help="How many attention problems. [default: standard; quick with --quick; gpu on a GPU; on "
    "isa: devices isa, or isa-quick with --quick]",
)
@SEED
@click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Folder for results.jsonl and junit-*.xml.",
)
@click.option(
    "--waivers",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of accepted deviations. [default: the suite's own waivers.toml]",
)
@click.option(
    "-n",
    "--processes",
    type=click.IntRange(min=1),
    help="[default: one per CPU, 8 at most; with --device gpu one per card]",
)
@SIMULATE
@TIMEOUT
@click.option(
    "--wrap",
    default="",
    metavar="COMMAND",
    help="Run every worker under this command, such as an emulator that shows it a GPU; results "
    "say so.",
)
@click.option(
    "--runner",
    type=click.Choice(RUNNERS),
    default="local",
    show_default=True,
    help="docker runs cells in containers of their stacks' images; auto does so if possible.",
)
@click.option("--image", default="", help="Containers: use this image, by tag or digest.")
@click.option(
    "--memory",
    default="",
    help="Containers: memory limit, such as 8g. [default: 80 % of the host's]",
)
@click.option(
    "--cell-timeout",
    default=3600.0,
    show_default=True,
    type=Seconds(min=1),
    help="Containers: time limit per cell, in seconds.",
)
@click.option(
    "--render-device",
    "devices",
    multiple=True,
    help="Containers: pass in this card instead of all. Repeatable.",
)
@click.option(
    "--env",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a variable on every platform, over those of its cell. Repeatable.",
)
@click.option("--shard", default="", metavar="I/N", help="Run only part I of N of the cases.")
@FORMAT
def run(
    subjects: Sequence[str],
    edition: str,
    cells: Sequence[str],
    targets: Sequence[str],
    suites: Sequence[str],
    quick: bool,
    sweep: int | None,
    device: str,
    problems: str | None,
    seed: int,
    results: Path,
    waivers: Path | None,
    processes: int | None,
    simulate: str,
    timeout: float,
    wrap: str,
    runner: str,
    image: str,
    memory: str,
    cell_timeout: float,
    devices: Sequence[str],
    env: Sequence[str],
    shard: str,
    style: Format,
    **suite_options: Any,
) -> int:
    """Judge subjects in cells, and write JUnit and results.jsonl."""
    refuse_what_does_not_apply(click.get_current_context())
    config = RunConfig(
        subjects=tuple(dict.fromkeys(subjects)) or ("reference",),
        cells=tuple(cells) or ("*",),
        suites=tuple(suites) or BY_DEFAULT,
        edition=edition,
        sweep=sweep if sweep is not None else 2_000 if quick else RunConfig.sweep,
        examples=15 if quick else 50,
        seed=seed,
        simulate=simulate,
        timeout=timeout,
        wrap=wrap,
        device=device,
        tier=problems or _tier(device, quick),
        suite_options=suite_options,
        env=variables_of(env),
        targets=_of_cells(targets, cells),
        shard=parse_shard(shard),
    )
    options = RunnerOptions(runner, image, memory, cell_timeout, tuple(devices))
    return judge(RunPlan(config, results, waivers, processes, style, options))


run.params += [option for suite in SUITES.values() for option in suite.options]


def _of_cells(targets: Sequence[str], cells: Sequence[str]) -> tuple[str, ...]:
    """The targets of ``--target``.

    Raises:
        UsageError: no cell has a platform of one of them.
    """
    asked = platform_cells(match_cells(tuple(cells) or ("*",)))
    known = list(dict.fromkeys(platform.target for platform in asked))
    for target in targets:
        if target not in known:
            raise one_of("target", target, known)
    return tuple(dict.fromkeys(targets))


def _tier(device: str, quick: bool) -> str:
    """The tier of a run that names none; "": not known before its device is."""
    return "" if device == AUTO and not quick else default_tier(device, quick=quick)


@click.command("run-order", hidden=True)
def run_order() -> int:
    """Carry out the run that a variable describes: the command of the suite's containers."""
    return carry_out(os.environ[ORDER_VARIABLE], Path(CONTAINER_RESULTS))


def judge(plan: RunPlan) -> int:
    """Runs cells on this machine or in containers; in CI it also records the job."""
    with held(plan.folder):
        write_job(plan.folder, job_of(os.environ))
        return _judge(plan)


def _judge(plan: RunPlan) -> int:
    config, folder = plan.config, plan.folder
    cells = match_cells(config.cells)
    if config.edition != AUTO_EDITION:
        edition_table(config.edition)  # fails early: an unknown edition is a mistake
    known = all_requirements()
    names = [cell.name for cell in cells]
    waivers = load_waivers(plan.waivers or DEFAULT_PATH, requirements=known, cells=names)
    chosen = choose(cells, plan.runner)
    if not isinstance(chosen, LocalChoice):
        return container_run.run(plan, *chosen, say)
    if plan.runner.runner == "auto":
        say(f"runner: local (simulated without a GPU), because {chosen.reason}")
    config = config.on_device(device_here())
    check_gpu(config)
    settled = settle(config, say)
    warn_of_variables(settled.config, say)
    check_problem(settled.config)
    with ProgressLine() as progress:
        outcome = local.run(
            settled.config,
            folder,
            waivers,
            processes=plan.processes or _processes(config.device),
            errored=settled.errored_cases(),
            on_progress=progress.show,
            say=say,
        )
    say(f"{len(outcome.cases):,} results; writing JUnit files")
    paths = outcome.junit.finish()
    record = read_results(folder / RESULTS)
    if plan.style is not None:
        show(record, plan.style, sys.stdout, known)
    for suite in suites_named(config.suites):
        for text in suite.artefacts(outcome.cases, folder):
            say(text)
    say(f"wrote {len(paths)} JUnit files and results.jsonl to {folder}/")
    # The record, not what this process remembers: what is printed and what is returned are one.
    return record.exit_code


def _processes(device: str) -> int:
    """The default number of processes; one per GPU, because two would compete for its memory."""
    if device != "gpu":
        return local.PROCESSES
    from conformance.subjects.kernels import cards  # noqa: PLC0415 - torch is slow to import

    return len(cards()) or 1


def carry_out(text: str, folder: Path) -> int:
    """Carries out a run described as JSON: what a container does."""
    order = json.loads(text)
    sys.argv = order["argv"]  # the record shows the command that the user typed
    config = replace(RunConfig.loads(json.dumps(order["config"])), image=order["image"])
    waivers = Path(WAIVERS) if order["waivers"] else None
    return _judge(RunPlan(config, folder, waivers, order["processes"]))
