"""A run's summary: for a terminal, as JSON, or as Markdown for a build annotation.

``summarise`` counts, and all renderers show its numbers, so they cannot disagree.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from io import StringIO
from itertools import groupby
from typing import Literal, TextIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from conformance import results
from conformance.reports.junit_reader import is_foreign
from conformance.reports.junit_writer import (
    cells_of,
    clip,
    failure_message,
    reproduce_line,
    visible,
)
from conformance.requirements import Requirement
from conformance.requirements.edition_choice import is_older_than
from conformance.requirements.waivers import SUITE as WAIVERS
from conformance.results import CaseResult, Outcome, Run, RunHeader, emulation_coverage

Format = Literal["pretty", "json", "markdown"]
SCHEMA = 1
ANNOTATION_LIMIT = 900 * 1024  # of 1 MiB: https://buildkite.com/docs/agent/v3/cli-annotate
SHOWN = 12
# What is not a terminal gets no line breaks but the text's own.
UNLIMITED = 1_000_000
STDERR_LINES = 10
_STYLES = {"conformant": "green", "not conformant": "red", "no verdict": "yellow"}
_WORDS = {0: "CONFORMANT", 1: "NOT CONFORMANT", 75: "NO VERDICT"}
_JUDGED = {Outcome.PASSED, Outcome.FAILED, Outcome.WAIVED}
_KINDS = {
    "failed": "Failed requirements",
    "waivers": "Waivers to settle",
    "errored": "Errored cases",
    "unsupported": "Unsupported cases",
    "waived": "Waived cases",
}


@dataclass(frozen=True)
class Finding:
    """Cases with the same outcome and ``key``: a requirement, a reason or a waiver.

    ``first``, ``detail`` and ``reproduce`` show one case in full: the first by name, so that equal
    runs have equal reports.
    """

    key: str
    cases: int
    cells: tuple[str, ...]
    targets: tuple[str, ...]
    first: str
    detail: str
    reproduce: str
    title: str
    introduced_by: str
    contested: tuple[str, ...]


Cases = list[CaseResult]
Counts = Counter[Outcome]
Findings = dict[str, tuple[Finding, ...]]
Requirements = Mapping[str, Requirement]
NONE: Requirements = {}


@dataclass(frozen=True)
class SubjectSummary:
    """A run's results for one subject.

    ``cells`` holds the outcomes of each cell; ``note`` is the header's about this subject.
    """

    title: str
    note: str
    label: str
    edition: str
    simulated: str
    verdict: str
    sentence: str
    outcomes: dict[str, int]
    cells: dict[str, dict[str, int]]
    platforms: int
    targets: tuple[str, ...]
    compared: int
    emulated: str
    seconds: float
    findings: Findings


@dataclass(frozen=True)
class Summary:
    """A run in numbers; its JSON form is the stable output for other programs."""

    schema: int
    exit: int
    header: RunHeader | None
    problems: tuple[str, ...]
    subjects: tuple[SubjectSummary, ...]


def summarise(
    run: Run, requirements: Requirements = NONE, headers: Sequence[RunHeader] = ()
) -> Summary:
    """Counts a run; ``requirements`` has titles and causes, by id.

    ``headers`` are those of the runs that a merged one, which has none of its own, is made of.
    A case lost with its process belongs to no known subject. It may have been any subject's, so
    then no subject is called conformant.
    """
    expected = run.header.subjects if run.header else ()
    subjects = {key: Cases() for key in results.tally((), expected)}
    for case in run.cases:
        subjects.setdefault((case.subject, case.subject_version), []).append(case)
    lost = sum(1 for case in run.cases if not case.subject)
    problems = run.problems or (() if run.complete else ("the record of the run is not whole",))
    problems += (f"{_n(lost, 'case')} lost with the process that ran them",) if lost else ()
    run = replace(run, problems=problems)
    notes = _notes(headers or ([run.header] if run.header else []))
    found = tuple(
        _subject(results.subject_label(*key), cases, run, requirements, notes)
        for key, cases in (subjects or {("", ""): Cases()}).items()
    )
    return Summary(SCHEMA, int(run.exit_code), run.header, problems, found)


def _subject(
    label: str, cases: Cases, run: Run, requirements: Requirements, notes: Mapping[str, str]
) -> SubjectSummary:
    header = run.header
    counts = Counter(case.outcome for case in cases)
    asked = header.cells if header and all(case.subject for case in cases) else ()
    cells = {cell: Counts() for cell in asked}
    for case in cases:
        for cell in cells_of(case):
            cells.setdefault(cell, Counts())[case.outcome] += 1
    measured = {(case.suite, case.name): case for case in cases}.values()  # once if waiver-split
    editions = in_order(case.edition for case in cases) or ((header.edition,) if header else ())
    edition = ", ".join(filter(None, editions)) or "unknown"
    word = _WORDS[results.verdict(counts, run.problems)]
    findings = _findings(cases, requirements)
    judged_in = sum(1 for outcomes in cells.values() if outcomes.keys() & _JUDGED)
    simulated = sorted({"simulated" if case.simulated else "not simulated" for case in cases})
    how = " and ".join(simulated) or "not run"
    title = f"{label}, edition {edition}{_newest(edition, cases)}, {how}"
    reason = _reason(word, edition, judged_in, counts, findings)
    if is_foreign(label):
        title, reason = f"{label}, another program's tests", _told(counts)
    return SubjectSummary(
        title=title,
        note=notes.get(label, ""),
        label=label,
        edition=edition,
        simulated=how,
        verdict=word.lower(),
        sentence=f"{word}: {label} {reason}",
        outcomes=results.outcome_counts(counts),
        cells={cell: results.outcome_counts(cells[cell]) for cell in in_order(cells)},
        platforms=len({case.platform for case in cases} - {""}),
        targets=in_order(case.target for case in cases if case.target),
        compared=sum(case.counts.get("compared", 0) for case in measured),
        emulated=emulation_coverage.sentence(emulation_coverage.coverage_of(cases)),
        seconds=round(sum(case.seconds for case in measured), 3),
        findings=findings,
    )


def _told(counts: Counts) -> str:
    """What another program's tests came to: no edition says what they must do."""
    ended = ", ".join(
        f"{counts[outcome]:,} {outcome.value}" for outcome in Outcome if counts[outcome]
    )
    return f"has {_n(counts.total(), 'test')}: {ended}"


def _newest(edition: str, cases: Cases) -> str:
    """Says that the edition was written before the release that it judges."""
    older = any(is_older_than(edition, case.subject_version) for case in cases)
    return " (the newest; this release is newer)" if older else ""


def _notes(headers: Iterable[RunHeader]) -> dict[str, str]:
    """What headers say of subjects, by their labels."""
    subjects = [subject for header in headers for subject in header.subjects if subject.note]
    return {results.subject_label(s.name, s.version): s.note for s in subjects}


def _reason(word: str, edition: str, cells: int, counts: Counts, findings: Findings) -> str:
    """The part of the verdict that follows the subject's name."""
    waived, errors = counts[Outcome.WAIVED], counts[Outcome.ERRORED]
    errored = [f"{_n(errors, 'case')} errored"] if errors else []
    if word == "CONFORMANT":
        also = f" ({_n(waived, 'case')} waived)" if waived else ""
        return f"meets edition {edition} in {_n(cells, 'cell')}{also}"
    if word == "NO VERDICT":
        nothing = [] if cells else [f"nothing was judged ({_n(counts.total(), 'case')})"]
        why = "; ".join(errored + nothing) or "the record of the run is not whole"
        return f"was not judged against edition {edition}: {why}"
    failed, waivers = (" ".join(f.key for f in findings[k]) for k in ("failed", "waivers"))
    parts = [f"{_n(len(findings['failed']), 'requirement')} failed: {failed}"] if failed else []
    parts += [f"{_n(len(findings['waivers']), 'waiver')} to settle: {waivers}"] if waivers else []
    return f"does not meet edition {edition}: {'; '.join(parts + errored)}"


def _findings(cases: Cases, requirements: Requirements) -> Findings:
    groups: dict[tuple[str, str], Cases] = defaultdict(list)
    for case in sorted(cases, key=lambda case: (natural(case.name), case.cells)):
        groups[_kind_and_key(case)].append(case)

    def place(item: tuple[tuple[str, str], Cases]) -> tuple[bool, list[tuple[int, str]]]:
        """Requirements in the order of their numbers, those last that follow from others."""
        key = item[0][1]
        return key in requirements and requirements[key].follows, natural(key)

    ordered = sorted(groups.items(), key=place)
    return {
        kind: tuple(_finding(key, found, requirements) for (k, key), found in ordered if k == kind)
        for kind in _KINDS
    }


def _kind_and_key(case: CaseResult) -> tuple[str, str]:
    if case.outcome is Outcome.FAILED:
        waiver = case.suite == WAIVERS
        return ("waivers", case.waiver) if waiver else ("failed", case.requirement or "(none)")
    key = case.waiver if case.outcome is Outcome.WAIVED else case.message
    return case.outcome.value, key or "no reason given"


def _finding(key: str, cases: Cases, requirements: Requirements) -> Finding:
    first = cases[0]
    cell = min(cells_of(first), key=natural)
    about = requirements.get(first.requirement)
    return Finding(
        key=key,
        cases=len(cases),
        cells=in_order(cell for case in cases for cell in case.cells),
        targets=in_order(case.target for case in cases if case.target),
        first=failure_message(first, cell, reproduce=False),
        detail=first.detail,
        reproduce=reproduce_line(first, cell),
        title=about.title if about else "",
        introduced_by=about.introduced_by if about else "",
        contested=tuple(about.contested) if about else (),
    )


def natural(text: str) -> list[tuple[int, str]]:
    """A sort key that puts rocm100 after rocm72."""
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in re.split(r"(\d{1,18})", text)]


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names), key=natural))


def _n(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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
    table = Table(box=None, show_header=False, padding=(0, 3, 0, 0))
    for row in matrix(subject):
        table.add_row(*(Text(visible(text), style) for text, style in row))
    page.out.print(Padding.indent(table, 2))
    for kind in _KINDS:
        _print_findings(page, kind, subject.findings[kind])


def _print_findings(page: _Page, kind: str, findings: Sequence[Finding]) -> None:
    """Prints one kind of findings; failed requirements are grouped by the change behind them."""

    def cause(finding: Finding) -> str:
        by = finding.introduced_by if kind == "failed" else ""
        return f", introduced by {by}" if by else ""

    for title, group in groupby(sorted(findings, key=cause, reverse=True), cause):
        found = list(group)
        page.say(f"\n{_KINDS[kind]}{title}", style="bold")
        for finding in found if kind == "failed" else found[:SHOWN]:
            _print_finding(page, kind, finding)
        if kind != "failed" and len(found) > SHOWN:
            page.say(f"and {len(found) - SHOWN} other kinds: see results.jsonl", 2)


def _print_finding(page: _Page, kind: str, finding: Finding) -> None:
    if kind == "unsupported":
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
    cells = sum(1 for outcomes in subject.cells.values() if any(outcomes.values()))
    where = f"{_n(subject.platforms, 'platform')}, {_n(len(subject.targets), 'target')}"
    compared = f", {_n(subject.compared, 'selection')} compared" if subject.compared else ""
    ran = f", {subject.emulated}" if subject.emulated else ""
    total = _n(sum(subject.outcomes.values()), "case")
    return f"{total}, {_n(cells, 'cell')}, {where}{compared}{ran}, {subject.seconds:,.1f} s"


def _ended(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in outcomes.items() if number)


def _where(finding: Finding) -> str:
    names = f" ({' '.join(finding.cells)})" if len(finding.cells) <= 3 else ""
    targets = f", {' '.join(finding.targets)}" if finding.targets else ""
    return f"{_n(finding.cases, 'case')}, {_n(len(finding.cells), 'cell')}{names}{targets}"


def matrix(subject: SubjectSummary) -> list[list[tuple[str, str]]]:
    """The matrix as rows of stacks and columns of flags, headings first; texts with styles."""
    split = {cell.partition("-")[::2]: outcomes for cell, outcomes in subject.cells.items()}
    flags = in_order(flag for _, flag in split)
    rows = [[("cells", "bold"), *((flag, "bold") for flag in flags)]]
    for stack in in_order(stack for stack, _ in split):
        rows += [[(stack, ""), *(_mark(split.get((stack, flag))) for flag in flags)]]
    return rows


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
        rows = [" | ".join(escaped(text) for text, _ in row) for row in matrix(subject)]
        rows.insert(1, " | ".join("---" for _ in matrix(subject)[0]))
        parts.append("\n".join(f"| {row} |" for row in rows))
        limit = ANNOTATION_LIMIT // (len(summary.subjects) * len(_KINDS))
        parts += [_details(kind, subject, limit) for kind in _KINDS if subject.findings[kind]]
    return "\n\n".join(parts) + "\n"


def _details(kind: str, subject: SubjectSummary, limit: int) -> str:
    page = _Page(colour=False, width=100)
    _print_findings(page, kind, subject.findings[kind])
    text = clip(html.escape(page.text().strip("\n"), quote=False), limit)
    head = f"{_KINDS[kind]} of {subject.label}: {len(subject.findings[kind])}"
    return f"<details><summary>{escaped(head)}</summary>\n\n<pre>\n{text}\n</pre>\n\n</details>"


def escaped(text: str) -> str:
    """One line of text, escaped for Markdown, tables and HTML."""
    flat = visible(" ".join(text.split()))
    return re.sub(r"([\\|*_`\[\]])", r"\\\1", html.escape(flat, quote=False))
