"""Merges any number of results files into one report, and reports contradictions.

Two results belong to the same case if subject, suite, name, cell and GPU are the same. Results in
``results.jsonl`` are preferred to the same results in JUnit files. Any other duplicate is an error
of its cell, and the worst outcome counts. The order of files makes no difference.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from conformance.errors import ExitCode
from conformance.reports.ci_jobs import Job
from conformance.reports.collect import Collected, Defect, Input, cells_in
from conformance.reports.junit_writer import NO_CELL, cells_of, visible
from conformance.results import CaseResult, Outcome, Run, RunHeader, exit_code, subject_label

# From worst to best: if two results of a case differ, the worse counts.
SEVERITY = (
    Outcome.FAILED,
    Outcome.ERRORED,
    Outcome.WAIVED,
    Outcome.UNSUPPORTED,
    Outcome.PASSED,
)
RECORD = "record"  # the suite and subject of problems shown as cases
_SHARD = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,5})")


@dataclass(frozen=True)
class Entry:
    """One case with its cells, and the file and CI job that it came from."""

    case: CaseResult
    file: str
    job: Job | None


@dataclass(frozen=True)
class Merged:
    """The content of a report."""

    entries: tuple[Entry, ...]
    problems: tuple[Defect, ...]
    headers: tuple[RunHeader, ...]
    files: tuple[str, ...]
    expected: tuple[str, ...] = ()

    @property
    def cases(self) -> tuple[CaseResult, ...]:
        return tuple(entry.case for entry in self.entries)

    @property
    def run(self) -> Run:
        """The merged results as one run, for reports that show one run."""
        return Run(None, self.cases, not self.problems, tuple(map(str, self.problems)))

    @property
    def exit_code(self) -> ExitCode:
        """1 if anything failed, 75 if anything errored or is missing, else 0."""
        lost = ["lost" for case in self.cases if not case.subject]
        return exit_code(self.cases, (), [*lost, *map(str, self.problems)])

    def problem_cases(self) -> Iterator[CaseResult]:
        """The problems as errored cases of their cells, for reports that show only cases."""
        for problem in self.problems:
            yield CaseResult.of_the_run(
                RECORD,
                f"{problem.file}: {problem.text}" if problem.file else problem.text,
                str(problem),
                cells=problem.cells,
                subject=RECORD,
            )


def merge(collected: Collected, expected: Sequence[str] = ()) -> Merged:
    """Merges what was collected; ``expected`` cells without results are errors."""
    inputs = sorted(collected.inputs, key=lambda each: each.file)
    problems = list(collected.problems)
    problems += _copies(inputs)
    inputs = list({each.digest: each for each in reversed(inputs)}.values())[::-1]
    entries = _entries(inputs, problems)
    problems += _nothing(collected, entries)
    problems += _not_run(inputs, entries)
    problems += _absent(entries, expected)
    problems += _shards(inputs)
    headers = [each.run.header for each in inputs if each.run.header]
    return Merged(
        entries=tuple(sorted(entries, key=_place)),
        problems=tuple(sorted(set(problems), key=lambda p: (p.cells or ("~",), p.file, p.text))),
        headers=tuple(sorted(headers, key=lambda header: (header.started, repr(header)))),
        files=tuple(each.file for each in inputs),
        expected=tuple(expected),
    )


def _place(entry: Entry) -> tuple[object, ...]:
    case = entry.case
    return (case.subject, case.subject_version, case.suite, case.name, case.cells, entry.file)


# Cells and names of cases, by what is wrong and in which files.
_Disputes = dict[tuple[str, tuple[str, ...]], list[tuple[str, str]]]


class _Claim(NamedTuple):
    """One file's result of one case in one cell; the most reliable sorts first."""

    severity: int
    lesser: bool
    file: str
    number: int
    case: CaseResult
    job: Job | None


def _entries(inputs: Iterable[Input], problems: list[Defect]) -> list[Entry]:
    groups: dict[tuple[object, ...], list[_Claim]] = defaultdict(list)
    for each in inputs:
        for number, case in enumerate(each.run.cases):
            claim = _Claim(
                SEVERITY.index(case.outcome),
                each.kind == "junit",
                each.file,
                number,
                case,
                each.job,
            )
            groups[_identity(case)].append(claim)
    disputes: _Disputes = defaultdict(list)
    found = [entry for claims in groups.values() for entry in _settle(claims, disputes)]
    for (what, files), disputed in disputes.items():
        cells = tuple(sorted({cell for cell, _ in disputed} - {NO_CELL}))
        names = sorted({name for _, name in disputed})
        cases = f"{len(names):,} case{'s' if len(names) > 1 else ''}"
        text = f"{cases} {what.format(' and '.join(files))}; first: {names[0]}"
        problems.append(Defect(text, cells, files[0]))
    return found


def _identity(case: CaseResult) -> tuple[object, ...]:
    """What identifies a case, with texts as JUnit can hold them."""
    texts = (case.subject, case.subject_version, case.edition, case.suite, case.name, case.gpu)
    return (*map(visible, texts), case.simulated)


def _settle(claims: list[_Claim], disputes: _Disputes) -> Iterator[Entry]:
    if len(claims) == 1:
        claim = claims[0]
        yield Entry(replace(claim.case, cells=_once(claim.case.cells)), claim.file, claim.job)
        return
    by_cell: dict[str, list[_Claim]] = defaultdict(list)
    for claim in claims:
        for cell in _once(cells_of(claim.case)):
            by_cell[visible(cell)].append(claim)
    won: dict[tuple[str, int], tuple[_Claim, list[str]]] = {}
    for cell, on_cell in by_cell.items():
        best = min(on_cell, key=lambda claim: claim[:4])
        won.setdefault((best.file, best.number), (best, []))[1].append(cell)
        if dispute := _dispute(on_cell):
            disputes[dispute].append((cell, visible(best.case.name)))
    for claim, cells in won.values():
        kept = tuple(cell for cell in _once(cells_of(claim.case)) if visible(cell) in cells)
        own = kept if claim.case.cells else ()
        yield Entry(replace(claim.case, cells=own), claim.file, claim.job)


def _dispute(claims: list[_Claim]) -> tuple[str, tuple[str, ...]] | None:
    """What is wrong with several results of one case in one cell, and their files."""
    if len({claim.severity for claim in claims}) > 1:
        what = "ended differently in {}: the worst stands"
        return what, tuple(sorted({claim.file for claim in claims}))
    for lesser in (False, True):
        files = sorted(claim.file for claim in claims if claim.lesser is lesser)
        if len(files) > 1:
            what = "reported more than once, by {}: run or download each part once"
            return what, tuple(dict.fromkeys(files))
    return None


def _once(cells: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(cells))


def _copies(inputs: Iterable[Input]) -> Iterator[Defect]:
    first: dict[str, Input] = {}
    for each in inputs:
        original = first.setdefault(each.digest, each)
        if original is not each and not each.run.problems:
            text = f"is a copy of {original.file}: counted once; did it take another file's place?"
            yield Defect(text, cells_in(each.run), each.file, each.job)


def _nothing(collected: Collected, entries: Sequence[Entry]) -> Iterator[Defect]:
    if not collected.inputs:
        yield Defect("no results: there is no results.jsonl and no junit-*.xml to read")
    elif not entries:
        yield Defect("no case in any results file: nothing was judged")


def _not_run(inputs: Iterable[Input], entries: Iterable[Entry]) -> Iterator[Defect]:
    """Cells and subjects that a run was asked for but has no cases of."""
    seen = {
        (case.subject, case.subject_version, case.gpu, cell)
        for case in (entry.case for entry in entries)
        for cell in case.cells
    }
    missing: dict[str, set[str]] = defaultdict(set)
    for header in (each.run.header for each in inputs if each.run.header):
        for subject in header.subjects:
            for cell in header.cells:
                if (subject.name, subject.version, header.gpu, cell) not in seen:
                    missing[subject_label(subject.name, subject.version)].add(cell)
    for label, cells in missing.items():
        yield Defect(f"no result of {label}, which a run was asked for", tuple(sorted(cells)))


def _absent(entries: Iterable[Entry], expected: Sequence[str]) -> Iterator[Defect]:
    seen = {cell for entry in entries for cell in entry.case.cells}
    for cell in expected:
        if cell not in seen:
            yield Defect("expected, and there is no result: did its job upload one?", (cell,))


def _shards(inputs: Iterable[Input]) -> Iterator[Defect]:
    """Shards of a run that are missing, duplicated, or of different counts."""
    sets: dict[tuple[object, ...], list[tuple[int, int, Input]]] = defaultdict(list)
    for each in inputs:
        header = each.run.header
        if header is None or not header.shard:
            continue
        match = _SHARD.fullmatch(header.shard)
        part, parts = map(int, match.groups()) if match else (0, 0)
        if not match or part > parts:
            text = f"shard {header.shard!r:.40}: expected part/parts, such as 2/4"
            yield Defect(text, header.cells, each.file, each.job)
            continue
        names = tuple((subject.name, subject.version) for subject in header.subjects)
        asked = (header.cells, header.suites, header.edition, header.seed, header.sweep, header.gpu)
        sets[names, asked].append((part, parts, each))
    for found in sets.values():
        yield from _shard_set(found)


def _shard_set(found: list[tuple[int, int, Input]]) -> Iterator[Defect]:
    header = found[0][2].run.header
    cells = header.cells if header else ()
    counts = sorted({parts for _, parts, _ in found})
    if len(counts) > 1:
        yield Defect(f"shards of runs in {' and in '.join(map(str, counts))} parts", cells)
    for parts in counts:
        seen = [part for part, of, _ in found if of == parts]
        absent = [part for part in range(1, min(parts, 1_000) + 1) if part not in seen]
        if absent:
            names = ", ".join(f"{part}/{parts}" for part in absent[:20])
            more = f" and {len(absent) - 20} more" if len(absent) > 20 else ""
            yield Defect(f"shards are missing: {names}{more}", cells)
        for part in sorted({part for part in seen if seen.count(part) > 1}):
            files = " and ".join(sorted(i.file for p, of, i in found if (p, of) == (part, parts)))
            yield Defect(f"shard {part}/{parts} is there more than once: {files}", cells)
