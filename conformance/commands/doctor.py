"""``rocm-conformance doctor``: what this machine can run."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from conformance.commands.cache_checks import cache_checks, clean_cache
from conformance.commands.machine_checks import checks
from conformance.commands.options import FORMAT
from conformance.commands.shared import print_table, say
from conformance.errors import ExitCode


@click.command()
@click.option(
    "--clean",
    is_flag=True,
    help="Remove what is damaged or abandoned in the cache, and what is compiled anew in moments.",
)
@FORMAT
def doctor(clean: bool, style: str) -> int:
    """Say what this machine can run, what is missing, and what the cache holds."""
    if clean:
        for removed in clean_cache():
            say(removed)
    found = [*checks(), *cache_checks()]
    if style == "json":
        click.echo(json.dumps([asdict(check) for check in found], indent=2))
    else:
        rows = [("ok" if c.ok else "-", c.name, c.found, c.advice) for c in found]
        print_table(("", "what", "found", "what to do"), rows, style)
    return ExitCode.CONFORMANT
