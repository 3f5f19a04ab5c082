"""The commands' help is plain text: its examples become code, its asterisks stay asterisks."""

from __future__ import annotations

import re

import click
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

VERSE = "| "  # what sphinx-click makes of lines that click is not to wrap
DIRECTIVE = ".. "
PATH = re.compile(r"\w+Path\(('[^']*')\)")


def setup(app: Sphinx) -> ExtensionMetadata:
    app.setup_extension("sphinx_click")
    app.connect("sphinx-click-process-description", _description)
    app.connect("sphinx-click-process-options", _options)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _description(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    del app, context
    made: list[str] = []
    for line in lines:
        if line.startswith(VERSE):
            if not (made and made[-1].startswith("   ")):
                made += [".. code-block:: text", ""]
            made.append("   " + line.removeprefix(VERSE))
        else:
            made.append(_plain(line))
    lines[:] = made


def _options(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    del app, context
    lines[:] = map(_plain, lines)


def _plain(line: str) -> str:
    if line.startswith(DIRECTIVE):
        return line
    return PATH.sub(r"\1", line).replace("*", r"\*")
