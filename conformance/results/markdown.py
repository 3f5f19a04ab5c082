"""Markdown of the commands' answers: what a person pastes into an issue or a build annotation."""

from __future__ import annotations

import html
from collections.abc import Sequence


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; what stands in its cells cannot break it."""
    lines = [columns, ["---"] * len(columns), *([cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """One cell's text: its line breaks stay, its bars and tags are only shown."""
    shown = html.escape(text, quote=False).replace("|", "\\|")
    return "<br>".join(line.strip() for line in shown.splitlines())
