"""``rocm-conformance mutants``: how much of what is put wrong the suite notices."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import click

from conformance.commands.options import FORMAT
from conformance.commands.shared import print_table, say, write_files
from conformance.errors import ExitCode, UsageError
from conformance.mutation import campaign
from conformance.mutation.equivalents import check_rows, equivalents
from conformance.mutation.mutant import Mutant
from conformance.mutation.page import COLUMNS, PAGE, Campaign, page, summary
from conformance.mutation.parts import PARTS, open_part
from conformance.mutation.results import SUFFIX, Judged, Record, read
from conformance.mutation.sampling import Drawn, drawn_by
from conformance.mutation.score import score
from conformance.mutation.verdict import Verdict
from conformance.runners import processors

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.option(
    "--part",
    "parts",
    multiple=True,
    metavar="NAME",
    help=f"What is put wrong: {', '.join(PARTS)}, or vllm-X.Y.Z. Repeatable. [default: all]",
)
@click.option(
    "--seed",
    "seeds",
    type=int,
    multiple=True,
    default=(1,),
    help="Which mutants are drawn. Repeatable: seeds take turns. [default: 1]",
)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Mutants of each part and seed.",
)
@click.option(
    "--file",
    "files",
    default="*",
    metavar="PATTERN",
    help="Draw mutants of files that match alone, such as '*/dpp.py'.",
)
@click.option("--mutant", default="", help="Judge the mutant with this id alone, of any part.")
@click.option(
    "--limit",
    type=click.FloatRange(min=0),
    default=float("inf"),
    help="Minutes for each part, after which no mutant is begun; the next run goes on. "
    "[default: none]",
)
@click.option(
    "--standard-seconds",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    help="For how long a mutant of a kernel that survived the quick tier is given problems of the "
    "standard one.",
)
@click.option("-n", "workers", type=click.IntRange(min=1), help="Processes. [default: the cores]")
@click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results/mutants"),
    show_default=True,
    help="Folder of the records, a JSON line for each mutant: a campaign goes on where it ended.",
)
@click.option("--fresh", is_flag=True, help="Begin anew, and forget the records.")
@click.option("--list", "listed", is_flag=True, help="List the mutants that would be judged.")
@click.option("--write", type=_FOLDER, help=f"Write {PAGE} into this folder, from all records.")
@FORMAT
def mutants(
    parts: Sequence[str],
    seeds: Sequence[int],
    count: int,
    files: str,
    mutant: str,
    limit: float,
    standard_seconds: float,
    workers: int | None,
    results: Path,
    fresh: bool,
    listed: bool,
    write: Path | None,
    style: str,
) -> int:
    """Put code wrong on purpose, and count what the suite notices: the mutation score.

    Kernels, selectors, editions, requirements and the emulator are edited, one place at a time, by
    seeded chance; each edit is judged by the problems, rows or tests that reach it. What survives
    is listed. Exit code 75: some mutants have no verdict.
    """
    results.mkdir(parents=True, exist_ok=True)
    incomplete = False
    campaigns: list[Campaign] = []
    for name in parts or PARTS:
        opened = open_part(name, results, standard_seconds, say)
        try:
            all_mutants = opened.part.mutants()
            settings = opened.header.settings
            if files != "*":
                settings = ", ".join(filter(None, (settings, f"files {files}")))
            header = replace(opened.header, available=len(all_mutants), settings=settings)
            check_rows(name, all_mutants, equivalents())
            of_files = [m for m in all_mutants if fnmatch(m.file, files)]
            chosen = drawn_by(of_files, count, [*dict.fromkeys(seeds)])
            if mutant:
                chosen = [Drawn(one, ()) for one in all_mutants if one.id == mutant]
            if listed:
                for drawn in chosen:
                    click.echo(f"{drawn.mutant.id}  {drawn.mutant}")
                continue
            if not chosen:
                continue
            record = Record(opened.record, header, fresh=fresh)
            told = _Progress(name, len(chosen))
            judged = campaign.run(
                opened.part,
                chosen,
                record,
                workers=workers or processors.usable(),
                seconds=limit * 60,
                show=told.show,
            )
        finally:
            opened.part.close()
        campaigns.append((header, judged))
        incomplete |= len(judged) < len(chosen) or score(judged, equivalents()).errored > 0
    if not listed:
        _print(campaigns, style)
    if write:
        write_files(write, {PAGE: page(_recorded(results), equivalents(), PARTS)})
    return ExitCode.INFRASTRUCTURE if incomplete else ExitCode.CONFORMANT


def _print(campaigns: Sequence[Campaign], style: str) -> None:
    if style == "json":
        told = [_as_json(judged) for _, judged in campaigns]
        click.echo(
            json.dumps(dict(zip((h.part for h, _ in campaigns), told, strict=True)), indent=2)
        )
        return
    rows = [summary(header, score(judged, equivalents()), judged) for header, judged in campaigns]
    print_table(COLUMNS, rows, style)


def _as_json(judged: Sequence[Judged]) -> dict[str, object]:
    found = score(judged, equivalents())
    missed = [str(one.mutant) for one in judged if not one.verdict.fate.is_caught]
    return {**vars(found), "caught": found.caught, "share": found.share, "missed": missed}


def _recorded(results: Path) -> list[Campaign]:
    """What every record of a folder holds, in the order of the parts.

    Raises:
        UsageError: there is none.
    """
    names = sorted(path.stem for path in results.glob(f"*{SUFFIX}"))
    if not names:
        raise UsageError(f"{results} has no records of mutants")
    places = {name: place for place, name in enumerate(PARTS)}
    names.sort(key=lambda name: places.get(name, len(places)))
    campaigns = [read(results / f"{name}{SUFFIX}") for name in names]
    return [(header, judged) for header, judged in campaigns if judged]


class _Progress:
    """A line on stderr for each mutant that got away, and now and then for all."""

    def __init__(self, part: str, total: int) -> None:
        self._part = part
        self._total = total
        self._done = self._caught = 0
        self._began = self._told = time.monotonic()

    def show(self, mutant: Mutant, verdict: Verdict) -> None:
        self._done += 1
        self._caught += verdict.fate.is_caught
        if not verdict.fate.is_caught:
            say(f"{self._part}: {verdict.fate.value}: {mutant.id} {mutant}")
        now = time.monotonic()
        if now - self._told >= 10 or self._done == self._total:
            self._told = now
            each = (now - self._began) / self._done
            say(
                f"{self._part}: {self._done} of {self._total} judged, {self._caught} caught, "
                f"{each:.1f} s each"
            )
