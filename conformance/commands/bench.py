"""``rocm-conformance bench*`` and ``prove-bound``: speed, and evidence for the error bound."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from conformance.benchmarks import emulator as isa_bench
from conformance.benchmarks import selections as benchmark
from conformance.commands.options import EDITION, FORMAT, Seconds, gpus
from conformance.commands.shared import print_table, say, write_files
from conformance.errors import ExitCode, UsageError
from conformance.requirements.edition_choice import judging_edition
from conformance.subjects.base import Options
from conformance.subjects.spellings import parse_subject

if TYPE_CHECKING:
    from conformance.benchmarks.kernels import Timing
    from conformance.benchmarks.page import Record
    from conformance.benchmarks.tiles import PerTile


@click.command()
@EDITION
@click.option("--subject", default="vllm==0.19.0", show_default=True)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=50_000,
    show_default=True,
    help="Selections per measurement.",
)
@FORMAT
def bench(edition: str, subject: str, count: int, style: str) -> int:
    """Measure selections per second: the library, `select`, and a vLLM worker."""
    release = parse_subject(subject, Options(edition)).release
    found = benchmark.measure(judging_edition(edition, release), subject, count)
    if style == "json":
        click.echo(json.dumps([asdict(m) for m in found], indent=2))
    else:
        rows = [(m.name, f"{m.per_second:,.0f}", m.note) for m in found]
        print_table(("what", "selections/s", ""), rows, style)
    return ExitCode.CONFORMANT


_VLLM = click.option(
    "--vllm",
    "folders",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    multiple=True,
    help="Also measure the kernels of this vLLM package folder. Repeatable.",
)
_WRITE = click.option(
    "--write",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Write speed.json and the page of it, speed.md and speed.svg, into this folder.",
)


@click.command("bench-kernels")
@_VLLM
@click.option("--only", default="", help="Only the workloads whose name has this text in it.")
@click.option("--without", default="", help="No kernel whose name has this text in it.")
@click.option(
    "--limit",
    type=Seconds(min=0, min_open=True),
    help="Begin no workload after so many seconds: the page names those that are left out.",
)
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Measure nothing: take this speed.json.",
)
@_WRITE
@FORMAT
def bench_kernels(
    folders: Sequence[Path],
    only: str,
    without: str,
    limit: float | None,
    source: Path | None,
    write: Path | None,
    style: str,
) -> int:
    """Measure attention kernels on this machine's GPU: the reference's, torch's, and vLLM's.

    A folder is named by the version that its package states, or else by its path.
    """
    if source and (folders or only or without or limit):
        raise UsageError("--from takes what was measured: say nothing of what to measure")
    record = _recorded(source) if source else _measured(folders, only, without, limit)
    if write:
        _write(write, record if source else replace(record, tiles=_counted(write)))
    elif style == "json":
        click.echo(json.dumps(record.as_json(), indent=2))
    else:
        rows = [
            (t.workload, t.kernel, *(("-",) * 5 if t.failed else _figures(t)), t.failed)
            for t in record.timings
        ]
        columns = (
            *("workload", "kernel", "us launched", "us replayed", "us host"),
            *("TFLOP/s", "cache GB/s", ""),
        )
        print_table(columns, rows, style)
        copied = record.copy_bytes_per_s / 1e12
        say(f"{record.gpu} copies {copied:.2f} TB/s (bytes read plus bytes written)")
    return ExitCode.CONFORMANT


def _measured(folders: Sequence[Path], only: str, without: str, limit: float | None) -> Record:
    import torch  # noqa: PLC0415 - slow to import
    import triton  # noqa: PLC0415

    from conformance.benchmarks import kernels as kernel_bench  # noqa: PLC0415
    from conformance.benchmarks import page  # noqa: PLC0415

    releases = _releases(folders)
    found = tuple(kernel_bench.measure(releases, say, only, without, limit or math.inf))
    if not found:
        raise UsageError(f"no workload has {only!r} in its name")
    software = f"torch {torch.__version__}, Triton {triton.__version__}"
    copied = kernel_bench.copy_bandwidth()
    return page.Record(torch.cuda.get_device_name(), software, copied, found)


def _recorded(source: Path) -> Record:
    from conformance.benchmarks import page  # noqa: PLC0415 - slow to import

    try:
        return page.Record.of(json.loads(source.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{source} is no record of bench-kernels: {error}") from error


def _counted(folder: Path) -> tuple[PerTile, ...]:
    """What the record in a folder says of AMD targets: no GPU measures it anew."""
    from conformance.benchmarks import page  # noqa: PLC0415 - slow to import

    source = folder / page.RECORD
    return _recorded(source).tiles if source.is_file() else ()


def _write(folder: Path, record: Record) -> None:
    from conformance.benchmarks import page  # noqa: PLC0415 - slow to import

    text = json.dumps(record.as_json(), indent=1) + "\n"
    write_files(folder, {page.RECORD: text, **page.files(record)})


@click.command("bench-tiles")
@_VLLM
@gpus("Count on this target alone. Repeatable. [default: five, from gfx90a to gfx1201]")
@_WRITE
@FORMAT
def bench_tiles(
    folders: Sequence[Path], targets: Sequence[str], write: Path | None, style: str
) -> int:
    """Count what AMD targets execute for 64 keys: instructions by kind, by emulation.

    Nothing is timed, and no GPU is needed. It takes half a minute for each target. With --write the
    counts go into the speed.json that is there, beside what was timed.
    """
    from conformance.benchmarks import page, tiles  # noqa: PLC0415 - slow to import

    found = tuple(tiles.measure(targets or tiles.TARGETS, _releases(folders)))
    if write:
        _write(write, replace(_recorded(write / page.RECORD), tiles=found))
    elif style == "json":
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        rows = [
            (
                t.target,
                t.workload,
                t.kernel,
                t.launch,
                *(f"{t.counts.get(k, 0):.0f}" for k in tiles.KINDS),
            )
            for t in found
        ]
        print_table(("target", "workload", "kernel", "a program's", *tiles.KINDS), rows, style)
    return ExitCode.CONFORMANT


def _releases(folders: Sequence[Path]) -> dict[str, Path]:
    return {_release_of(folder): folder for folder in folders}


def _figures(t: Timing) -> tuple[str, ...]:
    return (
        f"{t.launched:,.1f}",
        "-" if t.replayed is None else f"{t.replayed:,.1f}",
        f"{t.host:.0f}",
        f"{t.teraflops:.0f}",
        f"{t.gigabytes:,.0f}",
    )


def _release_of(folder: Path) -> str:
    """The version in a package's ``_version.py``, which its build writes; else the path."""
    written = folder / "_version.py"
    text = written.read_text(encoding="utf-8") if written.is_file() else ""
    stated = re.search(r"^__version__ = (?:version = )?'([^']+)'", text, re.M)
    return stated.group(1) if stated else str(folder)


@click.command("bench-isa")
@FORMAT
def bench_isa(style: str) -> int:
    """Measure the emulator in wave-instructions per second: native code and the interpreter,
    and both with races looked for."""
    found = isa_bench.measure()
    if style == "json":
        click.echo(json.dumps([{**asdict(s), "rate": s.rate} for s in found], indent=2))
    else:
        rows = [
            (
                s.target,
                s.what,
                f"{s.wave_instructions / s.interpreted:,.0f}",
                f"{s.rate:,.0f}",
                f"{s.gain:.1f}",
                f"{s.compiling:.2f}",
                f"{s.wave_instructions / s.raced:,.0f}",
                f"{s.wave_instructions / s.raced_interpreted:,.0f}",
            )
            for s in found
        ]
        columns = (
            *("target", "what", "interpreted/s", "native/s", "times", "seconds to compile"),
            *("races, native/s", "races, interpreted/s"),
        )
        print_table(columns, rows, style)
    return ExitCode.CONFORMANT


@click.command("prove-bound")
@click.option("--count", type=click.IntRange(min=1), default=300, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--seed", default=0, show_default=True)
@FORMAT
def prove_bound(count: int, device: str, seed: int, style: str) -> int:
    """Check that correct kernels stay within the error bound, and report how close they get.

    Problems are drawn from the seed. Exits 1 if a correct kernel exceeds the bound (a false alarm).
    On a ROCm build of torch, `cuda` is the AMD GPU.
    """
    # Imported here because importing torch takes seconds.
    import torch  # noqa: PLC0415

    from conformance.oracle.proof import prove  # noqa: PLC0415

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no GPU here; use --device cpu")
    torch.set_num_threads(1)  # the matrices are small: more threads only wait for each other
    found = prove(count, device, seed)
    rows = [evidence.summary() for evidence in found]
    if style == "json":
        click.echo(json.dumps(rows, indent=2))
    else:
        shown = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in r.values()] for r in rows]
        print_table([*rows[0]], shown, style)
    for alarm in (alarm for evidence in found for alarm in evidence.alarms):
        say(f"false alarm: {alarm}")
    alarms = any(evidence.alarms for evidence in found)
    return ExitCode.NOT_CONFORMANT if alarms else ExitCode.CONFORMANT
