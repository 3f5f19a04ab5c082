"""``rocm-conformance bless``: drafts the edition of a release."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import click
from packaging.version import Version

from conformance.commands.options import FORMAT, GPUS, SEED, SIMULATE, TIMEOUT
from conformance.commands.shared import say
from conformance.comparison.sides import Variables
from conformance.drafts.draft import Report
from conformance.drafts.facts import Facts, facts_of_source
from conformance.drafts.search import draft, look_closer, record
from conformance.errors import ExitCode, UsageError
from conformance.matrix.requests import Platform
from conformance.matrix.targets import TARGETS
from conformance.runners.local import Progress
from conformance.runners.progress import ProgressLine
from conformance.subjects.base import Options, Subject
from conformance.subjects.reference import ReferenceSubject, edition_table
from conformance.subjects.spellings import parse_subject
from vllm_editions import Edition, editions, is_release


@click.command()
@click.argument("release", metavar="RELEASE")
@click.option("--base", help="Draft from this edition. [default: the newest before the release]")
@GPUS
@SIMULATE
@TIMEOUT
@click.option(
    "--sweep",
    type=click.IntRange(min=1),
    default=20_000,
    show_default=True,
    help="Requests in all.",
)
@SEED
@click.option("--write", is_flag=True, help="Write the draft among the editions of this checkout.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it here.")
@FORMAT
def bless(
    release: str,
    base: str | None,
    targets: Sequence[str],
    simulate: str,
    timeout: float,
    sweep: int,
    seed: int,
    write: bool,
    output: Path | None,
    style: str,
) -> int:
    """Draft the edition of a vLLM release: what it changed since the edition before.

    RELEASE is a subject, such as vllm==0.33.0. Its request fields, KV-cache dtypes and backends are
    read from its source; the rest is found by asking it, and by changing the base until fewest
    answers differ. An edition such as 0.33 may stand for its release, to try this without a vLLM.

    The draft is for review: each row needs the line of the release that says so. What could not be
    explained is listed with an example. Nothing is written without --write or --output.

    Exits 0 if the draft explains every answer, 1 if not.

    \b
    rocm-conformance bless vllm==0.33.0
    rocm-conformance bless vllm==0.33.0 --base 0.32 --target gfx942 --target gfx1100
    rocm-conformance bless vllm==0.34.0 --write
    """
    if base is not None:
        edition_table(base)
    subject = _subject(release, Options(base or editions()[-1], simulate, timeout))
    try:
        report = _report(subject, base, targets or list(TARGETS), sweep, seed, write)
    finally:
        subject.close()
    if style == "json":
        click.echo(json.dumps(report.as_json(), indent=2))
    else:
        click.echo(report.as_markdown() if style == "markdown" else report.in_words())
    for path in filter(None, (_own_file(report.series) if write else None, output)):
        path.write_text(report.text, encoding="utf-8")
        say(f"wrote {path}")
    return ExitCode.NOT_CONFORMANT if report.drafted.left else ExitCode.CONFORMANT


def _subject(spec: str, options: Options) -> Subject:
    if spec in editions():
        return ReferenceSubject(spec, spec)
    return parse_subject(spec, options, say)


def _report(
    subject: Subject, base: str | None, targets: Sequence[str], sweep: int, seed: int, write: bool
) -> Report:
    """Asks, drafts, looks closer at what changed, and drafts again."""
    release = subject.release
    if not is_release(release):
        raise UsageError(f"the build names no release ({release!r}), so an edition has no name")
    series = ".".join(map(str, Version(release).release[:2]))
    base = base or _base(series)
    if write and _own_file(series).exists():
        raise UsageError(
            f"there is an edition {series} already: give --output FILE, or remove "
            f"{_own_file(series)} first"
        )
    table = edition_table(base)
    facts = _facts(subject, table)
    variables = Variables.of(table)
    platforms = [p for target in targets for p in variables.platforms(target)]
    count = max(1, sweep // len(platforms))
    with ProgressLine() as line:
        answered = record(
            subject,
            facts,
            table,
            platforms,
            count,
            seed,
            lambda done: line.show(Progress(done, len(platforms), 0, 0)),
        )
    say(f"{len(answered):,} answers; looking for the fewest changes of edition {base}")
    first = draft(base, facts, answered)
    closer = look_closer(subject, facts, first, platforms)
    say(f"{len(closer):,} more answers about the backends that changed")
    drafted = draft(base, facts, [*answered, *closer], first) if closer else first
    return Report(drafted, facts, series, release)


def _base(series: str) -> str:
    """The newest edition before a series, else the oldest after it."""
    older = [name for name in editions() if Version(name) < Version(series)]
    return older[-1] if older else next(name for name in editions() if name != series)


def _facts(subject: Subject, base: Edition) -> Facts:
    if isinstance(subject, ReferenceSubject):
        own = edition_table(subject.edition)
        return Facts(own.asked.fields, own.asked.kv_cache_dtypes, dict.fromkeys(own.backends, ""))
    session = subject.open(Platform.make("gfx942"))
    return facts_of_source(session.info.root, session.info.fields, base)


def _own_file(series: str) -> Path:
    """Where the edition of a series belongs."""
    folder = resources.files("vllm_editions")
    if not isinstance(folder, Path):
        raise UsageError("--write needs the editions as files: give --output FILE")
    return folder / f"{series}.toml"
