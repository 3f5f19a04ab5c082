"""Shows a run's summary: on a terminal, as JSON, or as Markdown for a build annotation."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from itertools import groupby
from typing import Literal, TextIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from conformance.reports.junit_writer import (
    NO_CELL,
    clip,
    visible,
)
from conformance.reports.safe_text import plain
from conformance.reports.summary import (
    KINDS,
    NONE,
    SHOWN,
    Finding,
    Requirements,
    SubjectSummary,
    Summary,
    counted,
    in_order,
    is_test,
    summarise,
)
from conformance.results import Run

Format = Literal["pretty", "json", "markdown"]
ANNOTATION_LIMIT = 900 * 1024  # of 1 MiB: https://buildkite.com/docs/agent/v3/cli-annotate
# What is not a terminal gets no line breaks but the text's own.
UNLIMITED = 1_000_000
_STYLES = {"conformant": "green", "not conformant": "red", "no verdict": "yellow"}
STDERR_LINES = 10
FAILED_TESTS = "Failed tests"


def render(
    run: Run,
    style: Format = "pretty",
    *,
    requirements: Requirements = NONE,
    colour: bool = False,
    width: int = 100,
) -> str:
    """A run's report as text; ``colour`` and ``width`` apply to the pretty style."""
    summary = summarise(run, requirements)
    if style == "json":
        return json.dumps(asdict(summary), indent=2, sort_keys=True) + "\n"
    return _markdown(summary) if style == "markdown" else _pretty(summary, colour, width)


def show(run: Run, style: Format, stream: TextIO, requirements: Requirements = NONE) -> None:
    """Writes a run's report to a stream, coloured on a terminal, whatever its encoding."""
    colour = stream.isatty() and "NO_COLOR" not in os.environ
    width = min(120, shutil.get_terminal_size().columns) if stream.isatty() else UNLIMITED
    text = render(run, style, requirements=requirements, colour=colour, width=width)
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, errors="backslashreplace").decode(encoding))


class _Page:
    """Text of paragraphs and tables. Text from subjects cannot control the terminal."""

    def __init__(self, colour: bool, width: int) -> None:
        self._stream = StringIO()
        self.out = Console(
            file=self._stream,
            width=width,
            force_terminal=colour,
            color_system="standard" if colour else None,
            _environ={},
        )

    def say(self, text: str, indent: int = 0, style: str = "", *, whole: bool = False) -> None:
        """Adds a wrapped, indented paragraph; ``whole`` lines are not wrapped, for copying."""
        if whole:
            self.out.print(Text(" " * indent + visible(text), style="dim"), soft_wrap=True)
        else:
            self.out.print(Padding.indent(Text(visible(text), style=style), indent))

    def text(self) -> str:
        return "\n".join(line.rstrip(" ") for line in self._stream.getvalue().split("\n"))


def _pretty(summary: Summary, colour: bool, width: int) -> str:
    page = _Page(colour, width)
    header = summary.header
    if header is not None:
        page.say(f"Run of {header.started}, suite {header.suite_version}, seed {header.seed}")
        page.say(header.command_line, whole=True)
    for problem in summary.problems:
        page.say(f"record: {problem}", style="yellow")
    for subject in summary.subjects:
        _print_subject(page, subject)
    page.say("")
    for subject in summary.subjects:
        page.say(subject.sentence, style=f"bold {_STYLES[subject.verdict]}")
    return page.text()


def _print_subject(page: _Page, subject: SubjectSummary) -> None:
    page.say(f"\n{subject.title}", style="bold")
    if subject.note:
        page.say(subject.note, 2, "yellow")
    page.say(f"{_judged_what(subject)}\n{_ended(subject.outcomes)}\n", 2)
    rows = matrix(subject)
    table = Table(box=None, show_header=False, padding=(0, 3, 0, 0))
    for row in rows:
        table.add_row(*(Text(visible(text), style) for text, style in row))
    if rows:
        page.out.print(Padding.indent(table, 2))
    for kind in KINDS:
        _print_findings(page, kind, subject.findings[kind])


def _print_findings(page: _Page, kind: str, findings: Sequence[Finding]) -> None:
    """Prints one kind of findings; failed requirements are grouped by the change behind them."""

    def heading(finding: Finding) -> str:
        if kind != "failed":
            return KINDS[kind]
        by = finding.introduced_by
        title = FAILED_TESTS if is_test(finding) else KINDS[kind]
        return f"{title}, introduced by {by}" if by else title

    def place(finding: Finding) -> tuple[bool, bool, str]:
        return is_test(finding), not finding.introduced_by, heading(finding)

    for title, group in groupby(sorted(findings, key=place), heading):
        found = list(group)
        page.say(f"\n{title}", style="bold")
        for finding in found if kind == "failed" else found[:SHOWN]:
            _print_finding(page, kind, finding)
        if kind != "failed" and len(found) > SHOWN:
            page.say(f"and {len(found) - SHOWN} other kinds: see results.jsonl", 2)


def _print_finding(page: _Page, kind: str, finding: Finding) -> None:
    if kind in ("unsupported", "passed"):
        page.say(f"{finding.cases:>7,}  {finding.key}")
        return
    if kind != "errored":
        contested = "  (contested)" if finding.contested else ""
        page.say(f"{finding.key}  {finding.title}{contested}", 2, "bold")
    page.say(_where(finding), 6)
    page.say(finding.first, 6)
    if kind == "waived":
        page.say(finding.detail.partition("\n\n")[0], 6)
    if finding.contested and kind == "failed":
        page.say(f"contested in {' '.join(finding.contested)}", 6)
    lines = [f"reproduce: {finding.reproduce}"] if finding.reproduce else []
    stderr = finding.detail.rstrip().split("\n")[-STDERR_LINES:] if kind == "errored" else []
    for line in lines + [f"| {line}" for line in stderr if line]:
        page.say(line, 6, whole=True)


def _judged_what(subject: SubjectSummary) -> str:
    cells = sum(
        1 for cell, outcomes in subject.cells.items() if cell != NO_CELL and any(outcomes.values())
    )
    where = f"{counted(cells, 'cell')}, " if cells else ""
    where += f"{counted(subject.platforms, 'platform')}, {counted(len(subject.targets), 'target')}"
    compared = f", {counted(subject.compared, 'selection')} compared" if subject.compared else ""
    ran = f", {subject.emulated}" if subject.emulated else ""
    total = counted(sum(subject.outcomes.values()), "case")
    return f"{total}, {where}{compared}{ran}, {subject.seconds:,.1f} s"


def _ended(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in outcomes.items() if number)


def _where(finding: Finding) -> str:
    parts = [counted(finding.cases, "case")]
    if finding.cells:
        names = f" ({' '.join(finding.cells)})" if len(finding.cells) <= 3 else ""
        parts.append(f"{counted(len(finding.cells), 'cell')}{names}")
    return ", ".join([*parts, *([" ".join(finding.targets)] if finding.targets else [])])


def matrix(subject: SubjectSummary) -> list[list[tuple[str, str]]]:
    """The matrix as rows of stacks and columns of flags, headings first; texts with styles.

    What ran in no cell is in no row; nothing else: there are no rows.
    """
    cells = {cell: outcomes for cell, outcomes in subject.cells.items() if cell != NO_CELL}
    if not cells:
        return []
    split = {cell.partition("-")[::2]: outcomes for cell, outcomes in cells.items()}
    flags = in_order(flag for _, flag in split)
    rows = [[("cells", "bold"), *((flag, "bold") for flag in flags)]]
    for stack in in_order(stack for stack, _ in split):
        rows += [[(stack, ""), *(_mark(split.get((stack, flag))) for flag in flags)]]
    return rows


def markdown_matrix(subject: SubjectSummary) -> str:
    """The matrix as a table in Markdown; "" if there are no rows."""
    table = matrix(subject)
    rows = [" | ".join(escaped(plain(text)) for text, _ in row) for row in table]
    rows[1:1] = [" | ".join("---" for _ in row) for row in table[:1]]
    return "\n".join(f"| {row} |" for row in rows)


def _mark(outcomes: Mapping[str, int] | None) -> tuple[str, str]:
    """A cell's outcome in two words, and a colour."""
    if outcomes is None:
        return "", ""
    if bad := {name: outcomes[name] for name in ("failed", "errored") if outcomes[name]}:
        return _ended(bad), "red" if "failed" in bad else "yellow"
    if outcomes["passed"] or outcomes["waived"]:
        waived = f" ({outcomes['waived']} waived)" if outcomes["waived"] else ""
        return f"ok{waived}", "green"
    return ("unsupported", "dim") if outcomes["unsupported"] else ("not run", "yellow")


def _markdown(summary: Summary) -> str:
    parts = [f"**{escaped(subject.sentence)}**" for subject in summary.subjects]
    parts += [f"- record: {escaped(problem)}" for problem in summary.problems]
    for subject in summary.subjects:
        parts.append(f"#### {escaped(subject.title)}")
        parts += [escaped(subject.note)] if subject.note else []
        parts.append(f"{_judged_what(subject)}: {_ended(subject.outcomes)}")
        parts += filter(None, [markdown_matrix(subject)])
        limit = ANNOTATION_LIMIT // (len(summary.subjects) * len(KINDS))
        parts += [_details(kind, subject, limit) for kind in KINDS if subject.findings[kind]]
    return "\n\n".join(parts) + "\n"


def _details(kind: str, subject: SubjectSummary, limit: int) -> str:
    page = _Page(colour=False, width=100)
    _print_findings(page, kind, subject.findings[kind])
    text = clip(html.escape(page.text().strip("\n"), quote=False), limit)
    head = f"{KINDS[kind]} of {subject.label}: {len(subject.findings[kind])}"
    return f"<details><summary>{escaped(head)}</summary>\n\n<pre>\n{text}\n</pre>\n\n</details>"


def escaped(text: str) -> str:
    """One line of text, escaped for Markdown, tables and HTML."""
    flat = visible(" ".join(text.split()))
    return re.sub(r"([\\|*_`\[\]])", r"\\\1", html.escape(flat, quote=False))
