"""``rocm-conformance cells``: the matrix."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from conformance.commands.options import FORMAT
from conformance.commands.shared import print_table
from conformance.errors import ExitCode
from conformance.matrix.stacks import load_stacks, match_cells


@click.command()
@click.option("--names", is_flag=True, help="Print the cells' names alone, a line each.")
@FORMAT
def cells(names: bool, style: str) -> int:
    """List the matrix: every stack, its pinned versions and its cells."""
    found = match_cells(["*"])
    if names:
        click.echo("\n".join(cell.name for cell in found))
        return ExitCode.CONFORMANT
    stacks = load_stacks()
    if style == "json":
        listed = [{"cell": c.name, "stack": c.stack.name, "env": c.env()} for c in found]
        table = [asdict(stack) for stack in stacks]
        click.echo(json.dumps({"cells": listed, "stacks": table}, indent=2))
        return ExitCode.CONFORMANT
    columns = ("stack", "ROCm", "vLLM", "torch", "Triton", "targets", "cells")
    rows = [
        (
            stack.name,
            stack.rocm,
            stack.vllm,
            str(stack.torch),
            stack.triton_pypi,
            " ".join(stack.targets),
            "\n".join(c.name for c in found if c.stack.name == stack.name),
        )
        for stack in stacks
    ]
    print_table(columns, rows, style)
    return ExitCode.CONFORMANT
