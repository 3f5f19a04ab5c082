"""The scoreboard as a page, and as a table for a terminal."""

from __future__ import annotations

import re
from typing import Any

from packaging.version import Version

from conformance.release_pages.scoreboard_data import COLUMNS, Entry, Finding, Scoreboard
from conformance.reports.templates import template
from conformance.results import markdown
from vllm_editions import editions

PAGE, DATA = "scoreboard.md", "scoreboard.json"
NOT_RUN = "not run"


def files(board: Scoreboard) -> dict[str, str]:
    """The page and its data by name."""
    return {PAGE: page(board), DATA: board.dumps()}


def rows(board: Scoreboard) -> list[tuple[str, ...]]:
    """A row for each release that was judged, and for each series of which none was."""
    judged = {release: ".".join(release.split(".")[:2]) for release in board.releases}
    names = [*judged, *(name for name in editions() if name not in judged.values())]
    return [
        (name, *(verdict(board.entry(name, suite)) for suite in COLUMNS))
        for name in sorted(names, key=Version)
    ]


def verdict(entry: Entry | None) -> str:
    """How a release did in a suite, in a few words."""
    if entry is None:
        return NOT_RUN
    failed = dict.fromkeys(
        f.requirement or "infrastructure" for f in entry.findings if not f.waiver
    )
    if failed:
        return f"{len(failed)} not met: {', '.join(failed)}"
    if entry.errored or not entry.judged:
        return f"no verdict: {entry.errored:,} errored" if entry.errored else "no verdict"
    known = dict.fromkeys(finding.requirement for finding in entry.findings)
    if known:
        return f"known deviations: {', '.join(known)}"
    return "conformant"


def page(board: Scoreboard) -> str:
    """The page in Markdown."""
    return template(PAGE).render(
        columns=COLUMNS,
        rows=[
            {
                "release": _linked(name, board),
                "cells": [_cell(board.entry(name, suite)) for suite in COLUMNS],
            }
            for name, *_ in rows(board)
        ],
        releases=[_release(board, name) for name in board.releases],
    )


def _cell(entry: Entry | None) -> str:
    """A verdict in which each finding's name leads to where its requirement comes from."""
    text = markdown.cell(verdict(entry))
    links = {f.requirement: f.links[-1] for f in entry.findings if f.links} if entry else {}
    for name, link in links.items():
        text = re.sub(rf"\b{re.escape(name)}\b(?!\])", f"[{name}]({link})", text) if name else text
    return text


def _linked(name: str, board: Scoreboard) -> str:
    anchor = "vllm-" + name.replace(".", "")
    return f"[{name}](#{anchor})" if name in board.releases else name


def _release(board: Scoreboard, name: str) -> dict[str, Any]:
    entries = [entry for suite in COLUMNS if (entry := board.entry(name, suite))]
    return {
        "name": name,
        "runs": [_run(entry) for entry in entries],
        "findings": [_finding(entry, finding) for entry in entries for finding in entry.findings],
    }


def _run(entry: Entry) -> str:
    counts = {
        "passed": entry.passed,
        "failed": entry.failed,
        "waived": entry.waived,
        "unsupported": entry.unsupported,
        "errored": entry.errored,
    }
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    day = entry.started.partition("T")[0]
    command = f", by `{entry.command}`" if entry.command else ""
    return f"{entry.suite}, edition {entry.edition}: {said} ({day}{command})"


def _finding(entry: Entry, finding: Finding) -> dict[str, Any]:
    accepted = f" Accepted as `{finding.waiver}`." if finding.waiver else ""
    name = finding.requirement or "other"
    where = f" on {', '.join(finding.targets)}" if finding.targets else ""
    heading = " ".join(filter(None, (name, f"in {entry.suite}:", finding.waiver or "not met")))
    return {
        "heading": heading,
        "means": markdown.cell(finding.means),
        "accepted": accepted,
        "where": f"{finding.cases:,} case{'' if finding.cases == 1 else 's'}{where}.",
        "example": markdown.cell(" ".join(finding.example.split())),
        "links": finding.links,
    }
