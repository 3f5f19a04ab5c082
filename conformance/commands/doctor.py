"""``rocm-conformance doctor``: what this machine can run."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from conformance.commands.machine_checks import checks
from conformance.commands.options import FORMAT
from conformance.commands.shared import print_table
from conformance.errors import ExitCode


@click.command()
@FORMAT
def doctor(style: str) -> int:
    """Say what this machine can run, and what is missing."""
    found = checks()
    if style == "json":
        click.echo(json.dumps([asdict(check) for check in found], indent=2))
    else:
        rows = [("ok" if c.ok else "-", c.name, c.found, c.advice) for c in found]
        print_table(("", "what", "found", "what to do"), rows, style)
    return ExitCode.CONFORMANT
