"""The page of speed and its picture, from a record of measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from conformance.benchmarks.kernels import BACKENDS, LATENT_BACKENDS, Timing
from conformance.benchmarks.tiles import KINDS, PerTile
from conformance.benchmarks.workloads import LAUNCHED, Workload, workloads
from conformance.reports.templates import COLOURS, template

RECORD, PAGE, PICTURE = "speed.json", "speed.md", "speed.svg"
OURS = (*BACKENDS, *LATENT_BACKENDS)
WHOLE = 20  # From so many on microseconds are printed without a fraction.
_LEFT, _TOP, _WIDTH, _ROW = 300, 70, 620, 18


@dataclass(frozen=True)
class Record:
    """What was measured: where, and how fast the GPU copies (bytes read and written a second)."""

    gpu: str
    software: str
    copy_bytes_per_s: float
    timings: tuple[Timing, ...]
    tiles: tuple[PerTile, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Record:
        timings = tuple(Timing(**t) for t in said["timings"])
        tiles = tuple(PerTile(**t) for t in said.get("tiles", ()))
        return cls(said["gpu"], said["software"], said["copy_bytes_per_s"], timings, tiles)


def files(record: Record) -> dict[str, str]:
    """The page and its picture by name."""
    return {PAGE: page(record), PICTURE: picture(record)}


def page(record: Record) -> str:
    """The page in Markdown."""
    measured = _measured(record)
    rows = [_row(record, w) for w in measured]
    latent = [row for row, w in zip(rows, measured, strict=True) if w.rope]
    return template(PAGE).render(
        record=record,
        tables=[_table(record, [r for r in rows if r not in latent]), _table(record, latent)],
        unmeasured=[w.name for w in workloads() if w not in measured],
        slower=[row for row in rows if row["slower"]],
        launches=[t for t in record.timings if t.workload == LAUNCHED and t.host],
        launched=LAUNCHED,
        tiles=_tiles(record),
    )


def _table(record: Record, rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The rows of a table, its header first."""
    every = dict.fromkeys((*OURS, *(t.kernel for t in record.timings)))
    names = [name for name in every if any(name in row["times"] for row in rows)]
    table = [["workload", "limit", *names, "gain"]]
    for row in rows:
        times = [_us(row["times"][name]) if name in row["times"] else "" for name in names]
        table.append([row["name"], _us(row["limit"]), *times, f"{row['gain']:.2f}"])
    return table


def _us(microseconds: float) -> str:
    return f"{microseconds:,.0f}" if microseconds >= WHOLE else f"{microseconds:.1f}"


def _tiles(record: Record) -> list[list[str]]:
    kinds = [kind for kind in KINDS if any(t.counts.get(kind) for t in record.tiles)]
    table = [["target", "workload", "kernel", "of a program", *kinds]]
    for t in record.tiles:
        counts = [f"{t.counts.get(kind, 0):,.0f}" for kind in kinds]
        table.append([t.target, t.workload, t.kernel, t.launch, *counts])
    return table


def picture(record: Record) -> str:
    """Every workload's times as multiples of the fastest kernel's, to a logarithmic scale."""
    named = list(dict.fromkeys(t.kernel for t in record.timings))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(named)}
    rows = []
    for number, workload in enumerate(_measured(record)):
        times = _times(record, workload.name)
        best = min(times.values())
        y = _TOP + _ROW * number + _ROW // 2
        dots = [
            {"x": _place(t / best), "fill": colours[name], "name": name, "us": f"{t:,.1f}"}
            for name, t in times.items()
        ]
        rows.append({"name": workload.name, "y": y, "dots": dots})
    ticks = [{"x": _place(n), "text": f"{n:g}"} for n in (1, 1.5, 2, 3, 5, 10, 20)]
    return template(PICTURE).render(
        rows=rows,
        ticks=ticks,
        left=_LEFT,
        top=_TOP,
        width=_LEFT + _WIDTH + 20,
        height=_TOP + _ROW * len(rows) + 20,
        legend=[
            {"name": name, "fill": fill, "x": 20 + 180 * (i % 5), "y": 18 + 18 * (i // 5)}
            for i, (name, fill) in enumerate(colours.items())
        ],
    )


def _place(multiple: float) -> float:
    return round(_LEFT + _WIDTH * min(math.log(multiple) / math.log(20), 1.0), 1)


def _times(record: Record, workload: str) -> dict[str, float]:
    """Microseconds of every kernel that did a workload."""
    return {
        t.kernel: t.replayed or t.launched
        for t in record.timings
        if t.workload == workload and not t.failed
    }


def _measured(record: Record) -> list[Workload]:
    """The workloads that some kernel did."""
    return [workload for workload in workloads() if _times(record, workload.name)]


def _row(record: Record, workload: Workload) -> dict[str, Any]:
    """A workload's times; ``slower``: backends of ours that a kernel of vLLM is faster than."""
    times = _times(record, workload.name)
    theirs = min((t for name, t in times.items() if name.startswith("vLLM")), default=math.inf)
    ours = {name: t for name, t in times.items() if name in OURS}
    best = min(ours.values(), default=math.nan)
    return {
        "name": workload.name,
        "limit": 1e6 * workload.cache_bytes / record.copy_bytes_per_s,
        "times": times,
        "gain": theirs / best,
        "slower": [name for name, t in ours.items() if t > theirs],
    }
