"""``rocm-conformance drift``: what each vLLM release changed, and what that moves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from conformance.commands.options import FORMAT
from conformance.commands.shared import print_table, say, write_files
from conformance.errors import ExitCode, UsageError
from conformance.release_pages.drift_data import Release, asked, releases
from conformance.release_pages.drift_page import files

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.option("--write", type=_FOLDER, help="Write drift.md and drift.svg into this folder.")
@click.option("--check", type=_FOLDER, help="Exit with 1 if the files there are others.")
@FORMAT
def drift(write: Path | None, check: Path | None, style: str) -> int:
    """Show what each vLLM release changed, and how many standard requests that moves.

    The editions answer through the reference selector: no vLLM is needed, and it takes seconds.

    \b
    rocm-conformance drift
    rocm-conformance drift --write docs/reference
    """
    if write and check:
        raise UsageError("--write and --check: give one of them")
    found = releases()
    if write:
        write_files(write, files(found))
        return ExitCode.CONFORMANT
    if check:
        return _checked(check, files(found))
    _print(found, style)
    return ExitCode.CONFORMANT


def _checked(folder: Path, made: dict[str, str]) -> int:
    code = ExitCode.CONFORMANT
    for name, text in made.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            say(f"{path} is not what the editions say: rocm-conformance drift --write {folder}")
            code = ExitCode.NOT_CONFORMANT
    return code


def _print(found: Sequence[Release], style: str) -> None:
    if style == "json":
        said = {"asked": asked(), "releases": [_as_json(release) for release in found]}
        click.echo(json.dumps(said, indent=2))
        return
    rows = [
        (
            release.edition,
            str(len(release.changes)),
            f"{release.moves:,} of {asked():,}",
            f"{release.moved[0].old} -> {release.moved[0].new}" if release.moved else "",
        )
        for release in found[1:]
    ]
    print_table(("release", "changes", "standard requests that move", "most of them"), rows, style)


def _as_json(release: Release) -> dict[str, Any]:
    return {
        "edition": release.edition,
        "changes": [asdict(cause) for cause in release.changes],
        "moves": [
            {
                "old": moved.old,
                "new": moved.new,
                "count": len(moved.examples),
                "causes": [asdict(cause) for cause in moved.causes],
            }
            for moved in release.moved
        ],
        "selected": release.selected,
    }
