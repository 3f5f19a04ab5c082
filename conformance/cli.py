"""The command line: arguments in, a call, an exit code out."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

import conformance
from conformance.commands import shared as commands
from conformance.commands.images import images
from conformance.commands.options import EDITION, FORMAT, SEED, SIMULATE, TIMEOUT, platform_options
from conformance.commands.pipeline import pipeline
from conformance.config import AUTO, DEVICES, NAMED_SUITES, SUITES, TIERS, RunConfig
from conformance.containers.options import ORDER_VARIABLE, RESULTS
from conformance.devices import parse_device
from conformance.errors import ExitCode, SuiteError
from conformance.reports.console import Format
from conformance.runners.choice import RUNNERS, RunnerOptions
from conformance.subjects.spellings import SPELLINGS
from conformance.suites.shards import parse_shard


class DeviceType(click.ParamType):  # type: ignore[type-arg] # generic only in newer clicks
    """auto, interpreter, gpu, or an AMD target: emulated, or compiled for alone."""

    name = "device"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        text = str(value)
        if text in DEVICES:
            return text
        try:
            parse_device(text)
        except ValueError as error:
            self.fail(f"{error}; or one of {', '.join(DEVICES)}", param, ctx)
        return text


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(conformance.__version__, prog_name="rocm-conformance")
def cli() -> None:
    """Conformance of vLLM's attention backends and backend selector on AMD ROCm.

    No AMD GPU is needed: the platform is simulated and vLLM's own code answers.

    \b
    rocm-conformance run --subject vllm==0.19.0      judge a release in every cell
    rocm-conformance explain --target gfx942 --aiter what will an MI300X pick, and why?
    rocm-conformance cells                           the matrix
    rocm-conformance doctor                          what this machine can run

    Exit codes: 0 conformant, 1 not conformant, 2 usage, 70 internal error, 75 infrastructure
    (no verdict: worth a retry).
    """


@cli.command()
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
@click.option(
    "--suite",
    "suites",
    multiple=True,
    type=click.Choice((*SUITES, *NAMED_SUITES)),
    help="Repeatable. [default: all but codegen]",
)
@click.option("--quick", is_flag=True, help="A sweep of 2,000 requests a platform, few problems.")
@click.option("--sweep", type=click.IntRange(min=0), help="Requests a platform. [default: 20000]")
@click.option(
    "--device",
    type=DeviceType(),
    default=AUTO,
    help="Where kernels run: Triton's interpreter on the CPU, this machine's gpu, or "
    "isa:<target>[,serial][,poison], AMD machine code emulated on the CPU; aot:<target> "
    "compiles. [default: an AMD gpu where there is one, else interpreter]",
)
@click.option(
    "--problems",
    type=click.Choice(TIERS),
    help="How many attention problems. [default: standard; quick with --quick; gpu on a GPU; isa, "
    "or isa-quick with --quick, where they are emulated]",
)
@click.option("--problem", default="", help="Only the problem with this id, as reports name it.")
@SEED
@click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Where results.jsonl and junit-*.xml go.",
)
@click.option(
    "--waivers",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Accepted deviations. [default: the suite's own waivers.toml]",
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
    "--runner",
    type=click.Choice(RUNNERS),
    default="local",
    show_default=True,
    help="docker: in containers of the stacks' images; auto: there if they are to be had.",
)
@click.option("--image", default="", help="Containers: this image, by tag or digest.")
@click.option("--memory", default="", help="Containers: memory, as 8g. [default: 80 % of all]")
@click.option(
    "--cell-timeout",
    default=3600.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="Containers: seconds for each cell.",
)
@click.option(
    "--render-device",
    "devices",
    multiple=True,
    help="Containers: hand in this card, not all that are found. Repeatable.",
)
@click.option("--shard", default="", metavar="I/N", help="Only the I-th of N parts of the cases.")
@FORMAT
def run(
    subjects: Sequence[str],
    edition: str,
    cells: Sequence[str],
    suites: Sequence[str],
    quick: bool,
    sweep: int | None,
    device: str,
    problems: str | None,
    problem: str,
    seed: int,
    results: Path,
    waivers: Path | None,
    processes: int | None,
    simulate: str,
    timeout: float,
    runner: str,
    image: str,
    memory: str,
    cell_timeout: float,
    devices: Sequence[str],
    shard: str,
    style: Format,
) -> int:
    """Judge subjects in cells, and write JUnit and results.jsonl."""
    config = RunConfig(
        subjects=tuple(dict.fromkeys(subjects)) or ("reference",),
        cells=tuple(cells) or ("*",),
        suites=tuple(suites) or SUITES,
        edition=edition,
        sweep=sweep if sweep is not None else 2_000 if quick else 20_000,
        examples=15 if quick else 50,
        seed=seed,
        simulate=simulate,
        timeout=timeout,
        device=device,
        tier=problems or default_tier(device, quick),
        problem=problem,
        shard=parse_shard(shard),
    )
    options = RunnerOptions(runner, image, memory, cell_timeout, tuple(devices))
    return commands.run(config, results, waivers, processes, style, options)


def default_tier(device: str, quick: bool) -> str:
    """How many problems a run has unless the user says; "": as many as suit the device found."""
    if device.startswith("isa:"):
        return "isa-quick" if quick else "isa"
    return "quick" if quick else ""


@cli.command("run-order", hidden=True)
def run_order() -> int:
    """What a container of this suite does; its starter gives the order in a variable."""
    return commands.run_order(os.environ[ORDER_VARIABLE], Path(RESULTS))


@cli.command()
@click.option("--subject", default="reference", show_default=True, help=SPELLINGS)
@platform_options
@EDITION
@SIMULATE
@TIMEOUT
@click.argument("source", type=click.File(encoding="utf-8", errors="replace"), default="-")
def select(
    subject: str,
    target: str,
    aiter: bool,
    flash_attn: bool,
    env: Sequence[str],
    edition: str,
    simulate: str,
    timeout: float,
    source: Any,
) -> int:
    """Answer requests, read as JSON lines from SOURCE or stdin, with a selection per line.

    \b
    echo '{"id": 1, "request": {"head_size": 128, "has_sink": true}}' |
        rocm-conformance select --target gfx942 --aiter

    A request's fields are those of vLLM's AttentionSelectorConfig; what is left out has the
    value of a plain decoder request (head size 128, float16, KV auto, block 16). "backend" asks
    for one explicitly. "question" may be "paged_attention" (ROCM_ATTN's decode kernel) or "vit".
    """
    platform = commands.platform_of(target, aiter, flash_attn, env)
    return commands.select(subject, platform, edition, simulate, timeout, source)


@cli.command()
@click.option("--subject", default="reference", show_default=True, help=SPELLINGS)
@platform_options
@EDITION
@SIMULATE
@TIMEOUT
@click.option("--backend", help="Ask for this backend explicitly.")
@click.option("--head-size", type=int, help="[default: 128]")
@click.option("--dtype", help="The query's. [default: float16]")
@click.option("--kv-cache-dtype", help="[default: auto]")
@click.option("--block-size", type=int, help="Tokens in a block of the cache. [default: 16]")
@click.option("--attn-type", help="[default: decoder]")
@click.option("--mla", "use_mla", is_flag=True, help="Multi-head latent attention.")
@click.option("--sparse", "use_sparse", is_flag=True, help="Sparse attention.")
@click.option("--sinks", "has_sink", is_flag=True, help="Attention sinks.")
@click.option("--mm-prefix", "use_mm_prefix", is_flag=True, help="Multimodal prefix attention.")
@click.option(
    "--per-head-quant-scales",
    "use_per_head_quant_scales",
    is_flag=True,
    help="A scale of its own for each head of a quantised cache.",
)
@FORMAT
def explain(
    subject: str,
    target: str,
    aiter: bool,
    flash_attn: bool,
    env: Sequence[str],
    edition: str,
    simulate: str,
    timeout: float,
    backend: str | None,
    style: str,
    **fields: Any,
) -> int:
    """Say in words which backend one request gets on a platform, and why not the others.

    \b
    rocm-conformance explain --target gfx942 --aiter --env VLLM_ROCM_USE_AITER=1 --sinks
    rocm-conformance explain --subject vllm==0.19.0 --target gfx90a --mla --head-size 576
    """
    platform = commands.platform_of(target, aiter, flash_attn, env)
    given = {name: value for name, value in fields.items() if value is not None}
    request = {name: value for name, value in given.items() if value is not False}
    return commands.explain(subject, platform, edition, simulate, timeout, request, backend, style)


@cli.command()
@click.argument("subject_a")
@click.argument("subject_b")
@EDITION
@SIMULATE
@TIMEOUT
@click.option(
    "--sweep",
    type=click.IntRange(min=1),
    default=1_000_000,
    show_default=True,
    help="Requests in all.",
)
@SEED
@click.option(
    "-n",
    "--processes",
    type=click.IntRange(min=1),
    default=min(os.cpu_count() or 1, 8),
    help="[default: one per CPU, 8 at most]",
)
@FORMAT
def diff(
    subject_a: str,
    subject_b: str,
    edition: str,
    simulate: str,
    timeout: float,
    sweep: int,
    seed: int,
    processes: int,
    style: str,
) -> int:
    """Compare two subjects on every target x aiter x flags; differences by requirement.

    Exits 0 when every selection and every reason agrees, 1 when something differs.

    \b
    rocm-conformance diff reference vllm==0.19.0
    rocm-conformance diff --edition 0.18 reference vllm==0.18.1
    """
    config = RunConfig(
        subjects=(subject_a, subject_b),
        cells=("*",),
        edition=edition,
        sweep=sweep,
        seed=seed,
        simulate=simulate,
        timeout=timeout,
    )
    return commands.diff(config, processes, style)


@cli.command()
@FORMAT
def cells(style: str) -> int:
    """List the matrix: every stack, its pins, and the cells made of it."""
    return commands.cells(style)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the report goes. [default: FOLDER/report]",
)
@click.option(
    "--expect-cells",
    multiple=True,
    metavar="CELL",
    help="A cell or pattern that must have results: '*' is the whole table. Repeatable.",
)
@click.option(
    "--expect-results",
    multiple=True,
    metavar="BELOW",
    help="A folder below, relative to it, that must hold a run's results.jsonl. Repeatable.",
)
@FORMAT
def report(
    folder: Path,
    output: Path | None,
    expect_cells: Sequence[str],
    expect_results: Sequence[str],
    style: Format,
) -> int:
    """Merge all results below FOLDER into one page, one JUnit file and one build annotation.

    Reads every results*.jsonl and junit-*.xml, of any number of cells, subjects and shards, and
    writes report.html, report.xml (in parts of 5,000 results) and annotation.md. What is missing,
    broken or there twice is named as an error of its cell: exit code 75.

    A job.json ({"id", "url", "label"}) beside results, or a job id in a name or folder, links
    cases to their CI job; BUILDKITE_BUILD_URL gives the build.
    """
    return commands.report(folder, output, expect_cells, expect_results, style)


@cli.command()
@FORMAT
def doctor(style: str) -> int:
    """Say what this machine can run, and what is missing."""
    return commands.doctor(style)


@cli.command()
@EDITION
@click.option("--subject", default="vllm==0.19.0", show_default=True)
@click.option("--count", default=50_000, show_default=True, help="Selections per measurement.")
@FORMAT
def bench(edition: str, subject: str, count: int, style: str) -> int:
    """Measure selections a second: the library, `select`, and a vLLM worker's protocol."""
    return commands.bench(edition, subject, count, style)


@cli.command("bench-kernels")
@click.option(
    "--vllm",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The package folder of a vLLM release: its unified_attention is measured too.",
)
@FORMAT
def bench_kernels(vllm: Path | None, style: str) -> int:
    """Measure attention kernels on this machine's GPU: the reference's, torch's, and vLLM's."""
    return commands.bench_kernels(vllm, style)


@cli.command("prove-bound")
@click.option("--count", type=click.IntRange(min=1), default=300, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--seed", default=0, show_default=True)
@FORMAT
def prove_bound(count: int, device: str, seed: int, style: str) -> int:
    """Run correct kernels over seeded problems: none may be beyond the error bound.

    Shows how near to the bound they come. Exits 1 on a false alarm. cuda is any GPU that torch
    drives by that name, AMD's too.
    """
    return commands.prove_bound(count, device, seed, style)


cli.add_command(images)
cli.add_command(pipeline)


@cli.command("bench-isa")
@FORMAT
def bench_isa(style: str) -> int:
    """Measure the emulator: wave-instructions a second by waves in flight, a standard problem."""
    return commands.bench_isa(style)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with one of :class:`ExitCode`."""
    raise SystemExit(run_cli(arguments))


def run_cli(arguments: Sequence[str] | None = None) -> int:
    """The command line as a function: returns the exit code, prints errors to stderr."""
    try:
        code = cli.main(args=arguments, standalone_mode=False)
        return int(code or 0)
    except click.exceptions.Abort:
        click.echo("aborted; finished cases are in the results folder", err=True)
        return int(ExitCode.INFRASTRUCTURE)
    except click.ClickException as error:
        error.show()
        return int(ExitCode.USAGE)
    except SuiteError as error:
        kind = {ExitCode.USAGE: "usage", ExitCode.INFRASTRUCTURE: "infrastructure"}
        click.echo(f"{kind.get(error.exit_code, 'internal')} error: {error}", err=True)
        return int(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads any more
        return int(ExitCode.CONFORMANT)
    except Exception:
        Console(stderr=True).print_exception()
        click.echo("internal error: please report it with the trace above", err=True)
        return int(ExitCode.INTERNAL)
