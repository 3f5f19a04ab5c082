"""Markdown tables, for issues and build annotations."""

from __future__ import annotations

import html
from collections.abc import Sequence


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the text of its cells is escaped."""
    lines = [columns, ["---"] * len(columns), *([cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """One cell's text; line breaks are kept, bars and tags are escaped."""
    shown = html.escape(text, quote=False).replace("|", "\\|")
    return "<br>".join(line.strip() for line in shown.splitlines())
