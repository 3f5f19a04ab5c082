"""What several commands share: progress messages, platforms, tables."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from conformance.errors import UsageError
from conformance.matrix.requests import Platform
from conformance.matrix.targets import target as known_target
from conformance.reports.console import UNLIMITED
from conformance.results import markdown


def say(text: str) -> None:
    """Prints a progress message to stderr: stdout is for the answer alone."""
    click.echo(text, err=True)


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Writes files into a folder, by their names, and says so of each."""
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
        say(f"wrote {folder / name}")


def platform_of(target: str | None, aiter: bool, flash_attn: bool, env: Iterable[str]) -> Platform:
    """The platform that command-line options describe.

    Raises:
        UsageError: no target or an unknown one, or a variable that is not NAME=VALUE.
    """
    if target is None:
        raise UsageError("name the GPU: --gpu MI300X, or --target gfx942")
    return Platform.make(
        known_target(target).name, aiter=aiter, flash_attn=flash_attn, env=variables_of(env)
    )


def variables_of(env: Iterable[str]) -> dict[str, str]:
    """The environment variables of ``--env`` options.

    Raises:
        UsageError: one is not NAME=VALUE.
    """
    variables = {}
    for entry in env:
        name, equals, value = entry.partition("=")
        if not equals or not name.isidentifier() or "\0" in value:
            raise UsageError(f"--env {entry!r}: expected NAME=VALUE, such as VLLM_ROCM_USE_AITER=1")
        variables[name] = value
    return variables


def console() -> Console:
    """Prints to stdout: as wide as the terminal, without any limit where there is none."""
    return Console() if sys.stdout.isatty() else Console(width=UNLIMITED)


def print_rows(rows: Sequence[Sequence[str]], *, indent: int = 0, folds: int = -1) -> None:
    """Prints rows in columns. On a terminal column ``folds`` is broken to fit, and no other."""
    if not sys.stdout.isatty():
        for line in _in_columns(rows):
            click.echo(f"{' ' * indent}{line}".rstrip())
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    columns = max(map(len, rows), default=0)
    for place in range(columns):
        folded = place == folds % columns
        table.add_column(overflow="fold", no_wrap=not folded)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(Padding.indent(table, indent))


def _in_columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as lines; a cell of several lines makes as many."""
    cells = [[cell.split("\n") for cell in row] for row in rows]
    widths = [
        max(len(line) for row in column for line in row) for column in zip(*cells, strict=True)
    ]
    for row in cells:
        for number in range(max(map(len, row))):
            parts = [cell[number] if number < len(cell) else "" for cell in row]
            yield "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], style: str) -> None:
    """Prints a table with headings, as Markdown or in columns."""
    if style == "markdown":
        click.echo(markdown.table(columns, rows))
    else:
        print_rows([columns, *rows])
