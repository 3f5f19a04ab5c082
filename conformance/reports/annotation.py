"""The merged report as a Markdown annotation of a Buildkite build, with links to the jobs.

Buildkite accepts 1 MiB (https://buildkite.com/docs/agent/v3/cli-annotate). The most important parts
come first, so that only the least important are cut, and the annotation says what was cut.
"""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from conformance.reports import codegen_tables as compiled
from conformance.reports.baseline import IN_WORDS, Comparison
from conformance.reports.ci_jobs import Job
from conformance.reports.collect import Defect
from conformance.reports.console import escaped, markdown_matrix
from conformance.reports.history import Trend
from conformance.reports.junit_writer import (
    NO_CELL,
    cells_of,
    clip,
    failure_message,
    reproduce_line,
)
from conformance.reports.merge import SEVERITY, Entry, Merged
from conformance.reports.safe_text import plain
from conformance.reports.summary import SubjectSummary, Summary, summarise
from conformance.reports.verdict_words import causes, headline, in_lines
from conformance.requirements import Requirement
from conformance.results import Outcome, codegen_table, subject_label

LIMIT = 1024 * 1024
# Longer blocks are clipped: one giant message must not displace all the others.
BLOCK_LIMIT = 24 * 1024
CASES_SHOWN = 10
CHANGES_SHOWN = 30
PROBLEMS_SHOWN = 100
_NOTED = 512  # bytes reserved for the note on what was cut


def annotation(
    merged: Merged,
    requirements: Mapping[str, Requirement],
    *,
    build_url: str = "",
    comparison: Comparison | None = None,
    trend: Trend | None = None,
    limit: int = LIMIT,
) -> str:
    """The annotation, at most ``limit`` bytes of UTF-8.

    ``build_url`` is the build's page; without it, links to jobs are anchors on that page.
    """
    summary = summarise(merged.run, requirements, merged.headers)
    blocks = chain(
        _compared(comparison),
        [("", _head(summary, merged))],
        _trend(trend),
        _problems(merged.problems, build_url),
        (("", _subject(subject)) for subject in summary.subjects),
        _findings(merged.entries, requirements, build_url),
        _waived(merged.entries),
        _compiled(merged),
    )
    return _within(blocks, limit)


def _within(blocks: Iterable[tuple[str, str]], limit: int) -> str:
    """The blocks that fit, in order; a closing note counts the others by kind."""
    kept, size = [], 0
    cut: dict[str, int] = defaultdict(int)
    for kind, text in blocks:
        block = text + "\n\n"
        length = len(block.encode())
        if size + length > limit - _NOTED or cut:
            cut[kind or "a table"] += 1
        else:
            kept.append(block)
            size += length
    if cut:
        what = ", ".join(f"{number:,} of {kind}" for kind, number in cut.items())
        kept.append(f"**Cut here at {limit:,} bytes:** {what}. report.html has everything.\n")
    return "".join(kept)


def _head(summary: Summary, merged: Merged) -> str:
    sentences = [_verdict(subject) for subject in summary.subjects[:50]]
    count = sum(len(cells_of(case)) for case in merged.cases)
    cells = {cell for case in merged.cases for cell in case.cells}
    facts = f"{count:,} results in {len(cells)} cells, from {len(merged.files)} files."
    if merged.cases and all(case.simulated for case in merged.cases):
        facts += " Every platform was simulated: nothing was measured on an AMD GPU."
    return "\n\n".join([*sentences, facts])


def _verdict(subject: SubjectSummary) -> str:
    """A subject's verdict, and what failed in words: by the change that introduced it, ids last."""
    word = subject.verdict.upper()
    lines = [f"**{word}: {_inline(subject.label)} {_inline(headline(subject))}**"]
    lines += [f"- {_inline(line)}" for line in in_lines(causes(subject))]
    return "\n".join([lines[0], "", *lines[1:]]).rstrip()


def _trend(trend: Trend | None) -> Iterator[tuple[str, str]]:
    if trend is not None:
        yield "the trend", f"Trend: {_inline(trend.sentence)}."


def _compared(comparison: Comparison | None) -> Iterator[tuple[str, str]]:
    """What changed since an earlier build: the first thing to read."""
    if comparison is None:
        return
    yield "", f"**{escaped(plain(comparison.sentence))}**"
    for change, title in IN_WORDS.items():
        found = [each for each in comparison.changes if each.change == change]
        lines = [
            f"- {escaped(plain(each.title))} {_code(each.requirement or 'no requirement')}: "
            f"{each.cases:,} results, cells: {len(each.cells)}; {escaped(plain(each.first))}"
            for each in found[:CHANGES_SHOWN]
        ]
        if len(found) > CHANGES_SHOWN:
            lines.append(f"- and {len(found) - CHANGES_SHOWN:,} more requirements: see report.html")
        if lines:
            yield "changes", "\n".join([f"**{title}**", "", *lines])


def _problems(problems: Sequence[Defect], build_url: str) -> Iterator[tuple[str, str]]:
    if problems:
        yield "", f"#### Errors of the record: {len(problems):,}"
        lines = [_problem(problem, build_url) for problem in problems[:PROBLEMS_SHOWN]]
        if len(problems) > PROBLEMS_SHOWN:
            lines.append(f"- and {len(problems) - PROBLEMS_SHOWN:,} more: see report.html")
        yield "the errors of the record", "\n".join(lines)


def _problem(problem: Defect, build_url: str) -> str:
    cells = problem.cells or ("cell not known",)
    named = ", ".join(_code(cell) for cell in cells[:4])
    more = f" and {len(cells) - 4} more cells" if len(cells) > 4 else ""
    file = f"{_code(problem.file)}: " if problem.file else ""
    text = escaped(plain(problem.text[:500]))
    return f"- {named}{more}: {file}{text}{_job(problem.job, build_url)}"


def _subject(subject: SubjectSummary) -> str:
    ended = ", ".join(f"{number:,} {name}" for name, number in subject.outcomes.items() if number)
    note = f"{escaped(plain(subject.note))}\n\n" if subject.note else ""
    return f"#### {escaped(plain(subject.title))}\n\n{note}{ended}\n\n{markdown_matrix(subject)}"


def _findings(
    entries: Iterable[Entry], requirements: Mapping[str, Requirement], build_url: str
) -> Iterator[tuple[str, str]]:
    groups: dict[tuple[int, str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        case = entry.case
        if case.outcome in (Outcome.FAILED, Outcome.ERRORED):
            label = subject_label(case.subject, case.subject_version)
            key = case.requirement or case.message[:200]
            groups[SEVERITY.index(case.outcome), label, key].append(entry)
    for (severity, label, key), found in sorted(groups.items()):
        word = SEVERITY[severity].value
        text = _finding(label, key, word, found, requirements.get(key), build_url)
        yield f"the {word} requirements", text


def _waived(entries: Iterable[Entry]) -> Iterator[tuple[str, str]]:
    """Each waiver that was used, with its reason."""
    groups: dict[tuple[str, str, str], int] = defaultdict(int)
    for case in (entry.case for entry in entries):
        if case.outcome is Outcome.WAIVED:
            label = subject_label(case.subject, case.subject_version)
            groups[label, case.waiver, case.detail.partition("\n\n")[0]] += 1
    lines = [
        f"- {_code(waiver)}, {_inline(label)}, {count:,} cases: {_inline(reason)}"
        for (label, waiver, reason), count in sorted(groups.items())
    ]
    if lines:
        head = f"<details><summary>Waived: {len(lines)} waivers</summary>"
        yield "the waivers", "\n".join([head, "", *lines, "", "</details>"])


def _compiled(merged: Merged) -> Iterator[tuple[str, str]]:
    """A summary of the compiled kernels; the tables are in report.html and codegen.md."""
    found = compiled.rows(merged)
    if found:
        head = "#### Compiled kernels\n\nEvery number is in report.html and in codegen.md."
        yield "the compiled kernels", f"{head}\n\n{codegen_table.summary(found)}"


def _finding(
    label: str,
    key: str,
    word: str,
    entries: Sequence[Entry],
    about: Requirement | None,
    build_url: str,
) -> str:
    cells = {cell for entry in entries for cell in entry.case.cells}
    title = f" {_raw(about.title)}" if about else ""
    tags = " (contested)" if about and about.contested else ""
    first = entries[0].case
    cell = cells_of(first)[0]
    command = reproduce_line(first, cell)
    lines = [
        f"<details><summary><code>{_raw(key)}</code>{title}{tags}: {len(entries):,} {word}, "
        f"{len(cells)} cells, {_raw(label)}</summary>",
        "",
        f"<pre>{_block(failure_message(first, cell, reproduce=False))}</pre>",
        *([f"<pre>{_block(command)}</pre>"] if command else []),
        "",
        *(_case(entry, build_url) for entry in entries[:CASES_SHOWN]),
    ]
    if len(entries) > CASES_SHOWN:
        lines.append(f"- and {len(entries) - CASES_SHOWN:,} more: see report.html")
    return "\n".join([*lines, "", "</details>"])


def _case(entry: Entry, build_url: str) -> str:
    cells = ", ".join(_code(cell) for cell in cells_of(entry.case)[:4])
    more = " …" if len(entry.case.cells) > 4 else ""
    name = escaped(plain(entry.case.name[:300]))
    return f"- {cells}{more}: {name}{_job(entry.job, build_url)}"


def _job(job: Job | None, build_url: str) -> str:
    if job is None:
        return ""
    name = job.label or f"job {job.id[:8]}"
    return f' (<a href="{html.escape(job.link(build_url))}">{_inline(name[:100])}</a>)'


def _code(text: str) -> str:
    return f"<code>{_inline(text or NO_CELL)}</code>"


def _inline(text: str) -> str:
    """Escapes text between inline HTML tags, where Markdown is still interpreted."""
    return escaped(plain(text[:1000]))


def _raw(text: str) -> str:
    """Escapes a line of an HTML block, where Markdown is not interpreted."""
    return html.escape(" ".join(plain(text[:1000]).split()), quote=False)


def _block(text: str) -> str:
    """Lines inside ``<pre>``, without blank ones, which would end the HTML block."""
    kept = clip(plain(text), BLOCK_LIMIT // 4)
    lines = [html.escape(line, quote=False) for line in kept.split("\n") if line.strip()]
    return "\n".join(lines)
