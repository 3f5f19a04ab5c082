"""The benchmarks, and the evidence for the error bound."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from conformance.benchmarks import emulator as isa_bench
from conformance.benchmarks import selections as benchmark
from conformance.commands.options import EDITION, FORMAT
from conformance.commands.shared import print_table, say
from conformance.errors import ExitCode, UsageError


@click.command()
@EDITION
@click.option("--subject", default="vllm==0.19.0", show_default=True)
@click.option("--count", default=50_000, show_default=True, help="Selections per measurement.")
@FORMAT
def bench(edition: str, subject: str, count: int, style: str) -> int:
    """Measure selections a second: the library, `select`, and a vLLM worker's protocol."""
    found = benchmark.measure(edition, subject, count)
    if style == "json":
        click.echo(json.dumps([asdict(m) for m in found], indent=2))
    else:
        rows = [(m.name, f"{m.per_second:,.0f}", m.note) for m in found]
        print_table(("what", "selections/s", ""), rows, style)
    return ExitCode.CONFORMANT


@click.command("bench-kernels")
@click.option(
    "--vllm",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The package folder of a vLLM release: its unified_attention is measured too.",
)
@FORMAT
def bench_kernels(vllm: Path | None, style: str) -> int:
    """Measure attention kernels on this machine's GPU: the reference's, torch's, and vLLM's."""
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
    print_table(columns, rows, style)
    say(f"this GPU copies {copied / 1e12:.2f} TB/s, bytes read and written counted")
    return ExitCode.CONFORMANT


@click.command("bench-isa")
@FORMAT
def bench_isa(style: str) -> int:
    """Measure the emulator: wave-instructions a second by waves in flight, a standard problem."""
    found = isa_bench.measure()
    if style == "json":
        click.echo(json.dumps([{**asdict(s), "rate": s.rate} for s in found], indent=2))
    else:
        rows = [(s.target, s.what, f"{s.rate:,.0f}", f"{s.seconds:.2f}") for s in found]
        print_table(("target", "what", "wave-instructions/s", "seconds"), rows, style)
    return ExitCode.CONFORMANT


@click.command("prove-bound")
@click.option("--count", type=click.IntRange(min=1), default=300, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--seed", default=0, show_default=True)
@FORMAT
def prove_bound(count: int, device: str, seed: int, style: str) -> int:
    """Run correct kernels over seeded problems: none may be beyond the error bound.

    Shows how near to the bound they come. Exits 1 on a false alarm. cuda is any GPU that torch
    drives by that name, AMD's too.
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
        print_table([*rows[0]], shown, style)
    for alarm in (alarm for evidence in found for alarm in evidence.alarms):
        say(f"false alarm: {alarm}")
    alarms = any(evidence.alarms for evidence in found)
    return ExitCode.NOT_CONFORMANT if alarms else ExitCode.CONFORMANT
