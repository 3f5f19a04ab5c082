"""What a run found, in one page: for a terminal, as JSON, or as Markdown for a build annotation.

``summarise`` is where everything is counted; the renderers only lay its numbers out, so they
cannot disagree.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from itertools import groupby
from typing import Literal, TextIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from conformance.errors import ExitCode
from conformance.reports.junit import cells_of, clip, failure_message, reproduce_line, visible
from conformance.requirements import Requirement
from conformance.results import CaseResult, Outcome, Run, RunHeader, subject_label, tally, verdict
from conformance.waivers import SUITE as WAIVERS

Format = Literal["pretty", "json", "markdown"]
SCHEMA = 1
# A build annotation holds 1 MiB: https://buildkite.com/docs/agent/v3/cli-annotate
DETAILS_LIMIT = 64 * 1024
SHOWN = 12
STDERR_LINES = 10
NOTHING = "NO VERDICT: nothing ran"
_STYLES = {"conformant": "green", "not conformant": "red", "no verdict": "yellow"}
_SIMULATED = {"yes": ", simulated", "no": "", "partly": ", partly simulated"}
_KINDS = {
    "failed": "Failed requirements",
    "waivers": "Waivers to settle",
    "errored": "Errored cases",
    "unsupported": "Unsupported cases",
    "waived": "Waived cases",
}
_WORDS = {
    ExitCode.CONFORMANT: "CONFORMANT",
    ExitCode.NOT_CONFORMANT: "NOT CONFORMANT",
    ExitCode.INFRASTRUCTURE: "NO VERDICT",
}


@dataclass(frozen=True)
class Finding:
    """Cases that ended alike: of one requirement, for one reason, or by one waiver (``key``).

    ``first`` is the message of one of them in full, ``detail`` and ``reproduce`` are the same
    case's. The first by name, not in time, so that two reports of equal runs are equal.
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


@dataclass(frozen=True)
class SubjectSummary:
    """What a run found out about one subject; ``cells`` holds the outcomes of each cell."""

    label: str
    edition: str
    simulated: Literal["yes", "no", "partly"]
    verdict: str
    sentence: str
    outcomes: dict[str, int]
    cells: dict[str, dict[str, int]]
    platforms: int
    targets: tuple[str, ...]
    compared: int
    seconds: float
    findings: dict[str, tuple[Finding, ...]]


@dataclass(frozen=True)
class Summary:
    """A run in numbers; as JSON it is the stable output for other programs."""

    schema: int
    exit: int
    header: RunHeader | None
    problems: tuple[str, ...]
    subjects: tuple[SubjectSummary, ...]


Findings = Mapping[str, tuple[Finding, ...]]
Requirements = Mapping[str, Requirement]


def summarise(run: Run, requirements: Requirements | None = None) -> Summary:
    """Count a run; ``requirements`` gives titles and causes, by id."""
    expected = run.header.subjects if run.header else ()
    subjects: dict[tuple[str, str], list[CaseResult]] = {key: [] for key in tally((), expected)}
    for case in run.cases:
        subjects.setdefault((case.subject, case.subject_version), []).append(case)
    problems = run.problems or (() if run.complete else ("the record of the run is incomplete",))
    return Summary(
        SCHEMA,
        int(Run(run.header, run.cases, run.complete, problems).exit_code),
        run.header,
        problems,
        tuple(
            _subject(subject_label(*key), cases, run.header, problems, requirements or {})
            for key, cases in subjects.items()
        ),
    )


def _subject(
    label: str,
    cases: list[CaseResult],
    header: RunHeader | None,
    problems: Sequence[str],
    requirements: Requirements,
) -> SubjectSummary:
    counts = Counter(case.outcome for case in cases)
    cells = {cell: Counter[Outcome]() for cell in header.cells} if header else {}
    for case in cases:
        for cell in cells_of(case):
            cells.setdefault(cell, Counter())[case.outcome] += 1
    measured = {(case.suite, case.name): case for case in cases}.values()  # once if waiver-split
    simulated = {case.simulated for case in cases}
    edition = _sorted(case.edition for case in cases) or ((header.edition,) if header else ())
    word = _WORDS[verdict(counts, problems)]
    findings = _findings(cases, requirements)
    judged_in = sum(1 for outcomes in cells.values() if _judged(outcomes))
    reason = _reason(word, ", ".join(edition), judged_in, counts, findings)
    return SubjectSummary(
        label=label,
        edition=", ".join(edition),
        simulated="partly" if len(simulated) > 1 else "yes" if True in simulated else "no",
        verdict=word.lower(),
        sentence=f"{word}: {label} {reason}",
        outcomes=_by_value(counts),
        cells={cell: _by_value(cells[cell]) for cell in _sorted(cells)},
        platforms=len({case.platform for case in cases} - {""}),
        targets=_sorted(case.target for case in cases if case.target),
        compared=sum(case.counts.get("compared", 0) for case in measured),
        seconds=round(sum(case.seconds for case in measured), 3),
        findings=findings,
    )


def _reason(
    word: str, edition: str, cells: int, counts: Counter[Outcome], findings: Findings
) -> str:
    """The verdict's sentence after the subject."""
    waived, errors = counts[Outcome.WAIVED], counts[Outcome.ERRORED]
    errored = f"{_n(errors, 'case')} errored" if errors else ""
    if word == "CONFORMANT":
        also = f" ({_n(waived, 'case')} waived)" if waived else ""
        return f"meets edition {edition} in {_n(cells, 'cell')}{also}"
    if word == "NO VERDICT":
        nothing = "" if cells else f"nothing was judged ({_n(counts.total(), 'case')})"
        reasons = [reason for reason in (errored, nothing) if reason]
        whole = "the record of the run is not whole"
        return f"was not judged against edition {edition}: {'; '.join(reasons) or whole}"
    failed, waivers = (" ".join(f.key for f in findings[k]) for k in ("failed", "waivers"))
    parts = [f"{_n(len(findings['failed']), 'requirement')} failed: {failed}"] if failed else []
    parts += [f"{_n(len(findings['waivers']), 'waiver')} to settle: {waivers}"] if waivers else []
    return f"does not meet edition {edition}: {'; '.join([*parts, errored]).rstrip('; ')}"


def _findings(
    cases: list[CaseResult], requirements: Requirements
) -> dict[str, tuple[Finding, ...]]:
    def of(
        outcome: Outcome, key: Callable[[CaseResult], str], *, waivers: bool = False
    ) -> tuple[Finding, ...]:
        groups: dict[str, list[CaseResult]] = {}
        for case in sorted(cases, key=lambda case: (_natural(case.name), case.cells)):
            if case.outcome is outcome and (case.suite == WAIVERS) is waivers:
                groups.setdefault(key(case) or "(none given)", []).append(case)
        return tuple(
            _finding(name, groups[name], requirements) for name in sorted(groups, key=_natural)
        )

    return {
        "failed": of(Outcome.FAILED, lambda case: case.requirement),
        "waivers": of(Outcome.FAILED, lambda case: case.waiver, waivers=True),
        "errored": of(Outcome.ERRORED, lambda case: case.message),
        "unsupported": of(Outcome.UNSUPPORTED, lambda case: case.message),
        "waived": of(Outcome.WAIVED, lambda case: case.waiver),
    }


def _finding(key: str, cases: list[CaseResult], requirements: Requirements) -> Finding:
    first = cases[0]
    cell = min(cells_of(first), key=_natural)
    about = requirements.get(first.requirement)
    return Finding(
        key=key,
        cases=len(cases),
        cells=_sorted(cell for case in cases for cell in case.cells),
        targets=_sorted(case.target for case in cases if case.target),
        first=failure_message(first, cell, reproduce=False),
        detail=first.detail,
        reproduce=reproduce_line(first, cell),
        title=about.title if about else "",
        introduced_by=about.introduced_by if about else "",
        contested=tuple(about.contested) if about else (),
    )


def _natural(text: str) -> list[tuple[int, str]]:
    """A sort key that puts rocm100 after rocm72."""
    parts = re.split(r"(\d{1,18})", text)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names), key=_natural))


def _by_value(counts: Counter[Outcome]) -> dict[str, int]:
    return {outcome.value: counts[outcome] for outcome in Outcome}


def _judged(counts: Counter[Outcome]) -> int:
    return counts[Outcome.PASSED] + counts[Outcome.FAILED] + counts[Outcome.WAIVED]


def _n(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def render(
    run: Run,
    format: Format = "pretty",  # noqa: A002 # the name of the command line's option
    *,
    requirements: Requirements | None = None,
    colour: bool = False,
    width: int = 100,
) -> str:
    """A run's report as text; ``colour`` and ``width`` are for the pretty one."""
    summary = summarise(run, requirements)
    if format == "json":
        return json.dumps(asdict(summary), indent=2, sort_keys=True) + "\n"
    if format == "markdown":
        return _markdown(summary)
    return _pretty(summary, colour, width)


def show(
    run: Run,
    format: Format,  # noqa: A002 # as above
    stream: TextIO,
    requirements: Requirements | None = None,
) -> None:
    """Write a run's report to a stream: coloured on a terminal, never failing on its encoding."""
    terminal = stream.isatty()
    colour = terminal and "NO_COLOR" not in os.environ
    width = min(120, shutil.get_terminal_size((100, 24)).columns) if terminal else 100
    text = render(run, format, requirements=requirements, colour=colour, width=width)
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, errors="backslashreplace").decode(encoding))


class _Page:
    """A text of paragraphs and tables; whatever comes from a subject cannot steer the terminal."""

    def __init__(self, colour: bool, width: int) -> None:
        self._stream = StringIO()
        self.out = Console(
            file=self._stream,
            width=width,
            force_terminal=colour,
            color_system="standard" if colour else None,
            highlight=False,
            markup=False,
            emoji=False,
            _environ={},
        )

    def say(self, text: str, indent: int = 0, style: str = "") -> None:
        """A paragraph, wrapped and indented as a whole."""
        self.out.print(Padding(Text(visible(text), style=style), (0, 0, 0, indent)))

    def line(self, text: str, indent: int = 0) -> None:
        """A line that stays whole, because someone will copy it."""
        self.out.print(Text(" " * indent + visible(text), style="dim"), soft_wrap=True)

    def text(self) -> str:
        return "\n".join(line.rstrip(" ") for line in self._stream.getvalue().split("\n"))


def _pretty(summary: Summary, colour: bool, width: int) -> str:
    page = _Page(colour, width)
    header = summary.header
    if header is not None:
        page.say(f"Run of {header.started}, suite {header.suite_version}, seed {header.seed}")
        page.line(header.command_line)
    for problem in summary.problems:
        page.say(f"record: {problem}", style="yellow")
    for subject in summary.subjects:
        _print_subject(page, subject)
    page.say("")
    for subject in summary.subjects:
        page.say(subject.sentence, style=f"bold {_STYLES[subject.verdict]}")
    if not summary.subjects:
        page.say(NOTHING, style="bold yellow")
    return page.text()


def _print_subject(page: _Page, subject: SubjectSummary) -> None:
    page.say("")
    page.say(_title(subject), 0, "bold")
    page.say(_judged_what(subject), 2)
    page.say(_ended(subject.outcomes), 2)
    page.say("")
    columns, rows = _matrix(subject)
    table = Table("  cells", *columns, box=None, padding=(0, 3, 0, 0), header_style="bold")
    for stack, cells in rows:
        table.add_row(f"  {visible(stack)}", *(Text(*_mark(outcomes)) for outcomes in cells))
    page.out.print(table)
    for kind in _KINDS:
        _print_findings(page, kind, subject.findings[kind])


def _print_findings(page: _Page, kind: str, findings: Sequence[Finding]) -> None:
    """One kind of findings; failed requirements by the change that brought them."""

    def cause(finding: Finding) -> str:
        return f", introduced by {finding.introduced_by}" if finding.introduced_by else ""

    for title, group in groupby(sorted(findings, key=cause), cause) if kind == "failed" else ():
        _print_section(page, kind, _KINDS[kind] + title, list(group))
    if findings and kind != "failed":
        _print_section(page, kind, _KINDS[kind], findings[:SHOWN])
    if kind != "failed" and len(findings) > SHOWN:
        page.say(f"and {len(findings) - SHOWN} other kinds: see results.jsonl", 2)


def _print_section(page: _Page, kind: str, title: str, findings: Sequence[Finding]) -> None:
    page.say("")
    page.say(title, 0, "bold")
    for finding in findings:
        if kind == "unsupported":
            page.say(f"{finding.cases:>7,}  {finding.key}")
            continue
        if kind != "errored":
            contested = "  (contested)" if finding.contested else ""
            page.say(f"{finding.key}  {finding.title}{contested}", 2, "bold")
        page.say(_where(finding), 6)
        page.say(finding.first, 6)
        lines = [f"contested in: {url}" for url in finding.contested if kind == "failed"]
        lines += [f"reproduce: {finding.reproduce}"] if finding.reproduce else []
        stderr = finding.detail.rstrip().split("\n")[-STDERR_LINES:] if kind == "errored" else []
        for line in lines + [f"| {line}" for line in stderr if line]:
            page.line(line, 6)


def _title(subject: SubjectSummary) -> str:
    return f"{subject.label}, edition {subject.edition}{_SIMULATED[subject.simulated]}"


def _judged_what(subject: SubjectSummary) -> str:
    cells = sum(1 for outcomes in subject.cells.values() if any(outcomes.values()))
    parts = [_n(sum(subject.outcomes.values()), "case"), _n(cells, "cell")]
    parts += [_n(subject.platforms, "platform"), _n(len(subject.targets), "target")]
    parts += [f"{_n(subject.compared, 'selection')} compared"] if subject.compared else []
    return f"{', '.join(parts)}, {subject.seconds:,.1f} s"


def _ended(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in outcomes.items() if number)


def _where(finding: Finding) -> str:
    names = f" ({' '.join(finding.cells)})" if len(finding.cells) <= 3 else ""
    targets = f", {' '.join(finding.targets)}" if finding.targets else ""
    return f"{_n(finding.cases, 'case')}, {_n(len(finding.cells), 'cell')}{names}{targets}"


def _matrix(
    subject: SubjectSummary,
) -> tuple[tuple[str, ...], list[tuple[str, list[dict[str, int] | None]]]]:
    """The cells as stacks by flags; None where the matrix has no such cell."""
    split = {cell.partition("-")[::2]: outcomes for cell, outcomes in subject.cells.items()}
    flags = _sorted(flag for _, flag in split)
    stacks = _sorted(stack for stack, _ in split)
    return flags, [(stack, [split.get((stack, flag)) for flag in flags]) for stack in stacks]


def _mark(outcomes: Mapping[str, int] | None) -> tuple[str, str]:
    """A cell in two words, and their colour."""
    if outcomes is None:
        return "", ""
    bad = {name: outcomes[name] for name in ("failed", "errored") if outcomes[name]}
    if bad:
        return _ended(bad), "red" if "failed" in bad else "yellow"
    if outcomes["passed"] or outcomes["waived"]:
        waived = f" ({outcomes['waived']} waived)" if outcomes["waived"] else ""
        return f"ok{waived}", "green"
    return ("unsupported", "dim") if outcomes["unsupported"] else ("not run", "yellow")


def _markdown(summary: Summary) -> str:
    sentences = [subject.sentence for subject in summary.subjects] or [NOTHING]
    parts = [f"**{_escaped(sentence)}**" for sentence in sentences]
    parts += [f"- record: {_escaped(problem)}" for problem in summary.problems]
    for subject in summary.subjects:
        parts.append(f"#### {_escaped(_title(subject))}")
        parts.append(f"{_judged_what(subject)}: {_ended(subject.outcomes)}")
        columns, rows = _matrix(subject)
        lines = [("cells", *columns), ("---",) * (len(columns) + 1)]
        lines += [(stack, *(_mark(cell)[0] for cell in cells)) for stack, cells in rows]
        parts.append("\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines))
        parts += [_details(kind, subject.findings[kind], subject) for kind in _KINDS]
    return "\n\n".join(part for part in parts if part) + "\n"


def _details(kind: str, findings: Sequence[Finding], subject: SubjectSummary) -> str:
    if not findings:
        return ""
    page = _Page(colour=False, width=100)
    _print_findings(page, kind, findings)
    text = clip(page.text().strip("\n"), DETAILS_LIMIT)
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    head = f"{_KINDS[kind]} of {subject.label}: {len(findings)}"
    summary = f"<details><summary>{_escaped(head)}</summary>"
    return f"{summary}\n\n{fence}text\n{text}\n{fence}\n</details>"


def _escaped(text: str) -> str:
    """One line of text that neither Markdown, a table nor HTML takes apart."""
    flat = visible(" ".join(text.split()))
    return re.sub(r"([\\|*_`\[\]])", r"\\\1", html.escape(flat, quote=False))
