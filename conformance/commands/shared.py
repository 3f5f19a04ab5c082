"""What several commands share: progress messages, platforms, tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click
from rich.console import Console
from rich.table import Table

from conformance.errors import UsageError
from conformance.matrix.requests import Platform
from conformance.matrix.targets import target as known_target
from conformance.results import markdown


def say(text: str) -> None:
    """Prints a progress message to stderr: stdout is for the answer alone."""
    click.echo(text, err=True)


def platform_of(target: str, aiter: bool, flash_attn: bool, env: Iterable[str]) -> Platform:
    """The platform that command-line options describe.

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


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], style: str) -> None:
    if style == "markdown":
        click.echo(markdown.table(columns, rows))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
