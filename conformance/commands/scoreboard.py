"""``rocm-conformance scoreboard``: every release and suite, from results folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from conformance.commands.options import FORMAT
from conformance.commands.shared import print_table, say, write_files
from conformance.errors import ExitCode, UsageError
from conformance.release_pages.scoreboard_data import COLUMNS, Scoreboard
from conformance.release_pages.scoreboard_data import scoreboard as read_results
from conformance.release_pages.scoreboard_page import DATA, files, rows


@click.command()
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--write",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Write scoreboard.md and scoreboard.json into this folder. What is there already is kept "
    "for the releases and suites that FOLDERS have no newer results of.",
)
@FORMAT
def scoreboard(folders: Sequence[Path], write: Path | None, style: str) -> int:
    """Show how each vLLM release meets the edition of its own series, suite by suite.

    Reads the results below FOLDERS, as run writes them; of a release that was judged twice the
    newer results count. Without FOLDERS the page in the folder of --write is made anew.

    \b
    rocm-conformance scoreboard results/0.19.0 results/0.33.0
    rocm-conformance scoreboard results/0.33.0 --write docs/reference
    """
    if not folders and write is None:
        raise UsageError("give FOLDERS with results, or --write and a folder with a scoreboard")
    board = read_results(folders)
    for note in board.left_out:
        say(f"left out: {note}")
    if write is not None:
        known = write / DATA
        if known.is_file():
            kept = Scoreboard.loads(known.read_text(encoding="utf-8"), str(known))
            board = kept.with_newer(board)
        write_files(write, files(board))
    if style == "json":
        click.echo(board.dumps(), nl=False)
    else:
        print_table(("release", *COLUMNS), rows(board), style)
    return ExitCode.CONFORMANT
