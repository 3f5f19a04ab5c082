"""``rocm-conformance coverage``: what of the space of problems a tier reaches."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click

from conformance.commands.options import FORMAT
from conformance.commands.shared import print_table
from conformance.config import RunConfig
from conformance.errors import ExitCode, one_of
from conformance.problems.axes import AXES
from conformance.problems.families import backends
from conformance.problems.space import Coverage, coverage_of
from conformance.problems.tiers import TIERS
from vllm_editions import DEFAULT_EDITION, editions

COLUMNS = ("backend", "axis", "what it is", "problems by value", "not reached")


@click.command()
@click.option("--tier", default="quick", show_default=True, type=click.Choice([*TIERS]))
@click.option("--backend", multiple=True, help="A backend; all if not given.  [repeatable]")
@click.option(
    "--edition",
    default=DEFAULT_EDITION,
    show_default=True,
    type=click.Choice([*editions()]),
    help="The vLLM release series that says what backends admit.",
)
@click.option("--seed", default=RunConfig.seed, show_default=True)
@FORMAT
def coverage(tier: str, backend: tuple[str, ...], edition: str, seed: int, style: str) -> int:
    """Show which values of which axes the parity suite's problems reach, by backend.

    Axes are what problems differ in; a value that a backend admits and no problem has is shown as
    not reached.
    """
    for name in backend:
        if name not in backends():
            raise one_of("backend", name, backends())
    found = [coverage_of(name, tier, seed, edition) for name in backend or backends()]
    if style == "json":
        click.echo(json.dumps([one.to_json() for one in found], indent=2))
        return ExitCode.CONFORMANT
    print_table(COLUMNS, [row for one in found for row in _rows(one)], style)
    for one in found:
        click.echo(
            f"{one.backend}: {one.problems} problems of tier {tier}, {one.values} values, "
            f"{one.pairs:,} pairs of values",
            err=True,
        )
    return ExitCode.CONFORMANT


def _rows(found: Coverage) -> Iterator[tuple[str, ...]]:
    for axis in AXES:
        reached = found.reached.get(axis.name, {})
        missing = found.missing.get(axis.name, ())
        if reached or missing:
            counts = ", ".join(f"{value} ({count})" for value, count in reached.items())
            yield found.backend, axis.name, axis.meaning, counts, ", ".join(missing)
