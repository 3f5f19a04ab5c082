"""``rocm-conformance problems``: the catalogue of attention problems, as files to run again."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from conformance.commands.options import FORMAT
from conformance.commands.shared import print_table
from conformance.config import RunConfig
from conformance.errors import ExitCode, UsageError, nearest, one_of
from conformance.problems.axes import values_of
from conformance.problems.defects import known_defects
from conformance.problems.families import backends
from conformance.problems.files import as_text, schema
from conformance.problems.named import DEFECTS, catalogue, seed_in, with_id
from conformance.problems.problem import Problem
from conformance.problems.tiers import TIERS
from vllm_editions import DEFAULT_EDITION, editions

_TIER = click.option(
    "--tier",
    type=click.Choice([*TIERS, DEFECTS]),
    help=f"Of this tier, or of the {DEFECTS} that are known.  [default: all]",
)
_EDITION = click.option(
    "--edition",
    default=DEFAULT_EDITION,
    show_default=True,
    type=click.Choice([*editions()]),
    help="The vLLM release series that says what backends admit.",
)
_SEED = click.option("--seed", default=RunConfig.seed, show_default=True)


@click.group()
def problems() -> None:
    """List attention problems, write one as a file, or print what a file may hold.

    \b
    rocm-conformance problems show ID --format json > mine.json
    rocm-conformance run --suite parity --problem mine.json
    """


@problems.command("list")
@_TIER
@click.option("--backend", multiple=True, help="A backend. Repeatable.  [default: all]")
@_EDITION
@_SEED
@FORMAT
def list_problems(
    tier: str | None, backend: tuple[str, ...], edition: str, seed: int, style: str
) -> int:
    """List problems: the id of each, its tier, and what it is."""
    found = [*catalogue(_tiers(tier), _known(backend), edition, seed)]
    if style == "json":
        rows = [{"id": p.id, "tier": of, "backend": p.backend, "kind": p.kind} for of, p in found]
        click.echo(json.dumps(rows, indent=2))
    else:
        print_table(
            ("id", "tier", "backend", "kind"),
            [(p.id, of, p.backend, p.kind) for of, p in found],
            style,
        )
    return ExitCode.CONFORMANT


@problems.command("show")
@click.argument("name", metavar="ID")
@_TIER
@_EDITION
@_SEED
@FORMAT
def show(name: str, tier: str | None, edition: str, seed: int, style: str) -> int:
    """Show one problem; with --format json, as a file that `run --problem` takes.

    An id ends with the seed of its problems: --seed is needed only where that is changed.
    """
    own = seed_in(name)
    problem = _named(name, tier, edition, seed if own is None else own)
    if style == "json":
        click.echo(as_text([problem]), nl=False)
        return ExitCode.CONFORMANT
    fields = [(field, json.dumps(value)) for field, value in problem.to_json().items()]
    print_table(("field", "value"), fields, style)
    print_table(("axis", "value"), [*values_of(problem).items()], style)
    return ExitCode.CONFORMANT


@problems.command("schema")
def print_schema() -> int:
    """Print the JSON Schema of a file of problems."""
    click.echo(json.dumps(schema(), indent=2))
    return ExitCode.CONFORMANT


def _known(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in backends():
            raise one_of("backend", name, backends())
    return [*(names or backends())]


def _named(name: str, tier: str | None, edition: str, seed: int) -> Problem:
    """The problem of an id.

    Raises:
        UsageError: there is none, or tiers have different ones of that id.
    """
    defects = {defect.problem.id for defect in known_defects()}
    tier = DEFECTS if tier is None and name in defects else tier
    found, ids = with_id(name, _tiers(tier), edition, seed)
    if not found:
        where = f"tier {tier}" if tier else "any tier"
        raise UsageError(
            f"no problem {name!r} of edition {edition} in {where}.{nearest(name, ids)} "
            "`problems list` prints the ids"
        )
    if len(found) > 1:
        tiers = ", ".join(names[0] for names in found.values())
        raise UsageError(f"the tiers {tiers} have different problems {name!r}: name one by --tier")
    return next(iter(found))


def _tiers(tier: str | None) -> Sequence[str]:
    return (*TIERS, DEFECTS) if tier is None else (tier,)
