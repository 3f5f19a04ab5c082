"""What a run's summary says: each subject's verdict, what failed and where, what was left out.

Whatever shows a summary shows these numbers, so that no two of them disagree.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from conformance import results
from conformance.reports.junit_reader import is_foreign
from conformance.reports.junit_writer import (
    NO_CELL,
    cells_of,
    failure_message,
    reproduce_line,
)
from conformance.requirements import Requirement
from conformance.requirements.edition_choice import is_older_than
from conformance.requirements.waivers import SUITE as WAIVERS
from conformance.results import (
    SMALLEST,
    CaseResult,
    Outcome,
    Run,
    RunHeader,
    emulation_coverage,
)

SCHEMA = 1
SHOWN = 12
_REQUIREMENT = re.compile(r"[A-Z]+-\d+")
_WORDS = {0: "CONFORMANT", 1: "NOT CONFORMANT", 75: "NO VERDICT"}
_JUDGED = {Outcome.PASSED, Outcome.FAILED, Outcome.WAIVED}
# What is shown of a subject, in this order, and its heading.
KINDS = {
    "failed": "Failed requirements",
    "waivers": "Waivers to settle",
    "errored": "Errored cases",
    "unsupported": "Unsupported cases",
    "waived": "Waived cases",
    "passed": "Passed with a proviso",
}


@dataclass(frozen=True)
class Finding:
    """Cases with the same outcome and ``key``: a requirement, a reason or a waiver.

    ``first``, ``detail`` and ``reproduce`` show one case in full: the first by name, so that equal
    runs have equal reports, or that of the smallest problem, if any was shrunk.
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
    problems += (f"{counted(lost, 'case')} lost with the process that ran them",) if lost else ()
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
    judged = [cell for cell, outcomes in cells.items() if outcomes.keys() & _JUDGED]
    simulated = sorted({"simulated" if case.simulated else "not simulated" for case in cases})
    how = " and ".join(simulated) or "not run"
    title = f"{label}, edition {edition}{_newest(edition, cases)}, {how}"
    reason = _reason(word, edition, judged, counts, findings)
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
    return f"has {counted(counts.total(), 'test')}: {ended}"


def _newest(edition: str, cases: Cases) -> str:
    """Says that the edition was written before the release that it judges."""
    versions = {case.subject_version for case in cases}
    older = any(is_older_than(edition, version) for version in versions)
    return " (the newest; this release is newer)" if older else ""


def _notes(headers: Iterable[RunHeader]) -> dict[str, str]:
    """What headers say of subjects, by their labels."""
    subjects = [subject for header in headers for subject in header.subjects if subject.note]
    return {results.subject_label(s.name, s.version): s.note for s in subjects}


def _reason(
    word: str, edition: str, judged: Sequence[str], counts: Counts, findings: Findings
) -> str:
    """The part of the verdict that follows the subject's name; ``judged``: the cells that were."""
    waived, errors = counts[Outcome.WAIVED], counts[Outcome.ERRORED]
    errored = [f"{counted(errors, 'case')} errored"] if errors else []
    if word == "CONFORMANT":
        also = f" ({counted(waived, 'case')} waived)" if waived else ""
        cells = [cell for cell in judged if cell != NO_CELL]
        where = f" in {counted(len(cells), 'cell')}" if cells else ""
        return f"meets edition {edition}{where}{also}"
    if word == "NO VERDICT":
        nothing = [] if judged else [f"nothing was judged ({counted(counts.total(), 'case')})"]
        why = "; ".join(errored + nothing) or "the record of the run is not whole"
        return f"was not judged against edition {edition}: {why}"
    failed = findings["failed"]
    groups = (
        ([f.key for f in failed if not is_test(f)], "requirement", "failed"),
        ([f.key for f in failed if is_test(f)], "test", "failed"),
        ([f.key for f in findings["waivers"]], "waiver", "to settle"),
    )
    parts = [
        f"{counted(len(keys), noun)} {how}: {' '.join(keys)}" for keys, noun, how in groups if keys
    ]
    return f"does not meet edition {edition}: {'; '.join(parts + errored)}"


def _findings(cases: Cases, requirements: Requirements) -> Findings:
    groups: dict[tuple[str, str], Cases] = defaultdict(list)
    told = (case for case in cases if case.outcome is not Outcome.PASSED or case.message)
    for case in sorted(told, key=lambda case: (natural(case.name), case.cells)):
        groups[_kind_and_key(case)].append(case)

    def place(item: tuple[tuple[str, str], Cases]) -> tuple[bool, list[tuple[int, str]]]:
        """Requirements in the order of their numbers, those last that follow from others."""
        key = item[0][1]
        return key in requirements and requirements[key].follows, natural(key)

    ordered = sorted(groups.items(), key=place)
    return {
        kind: tuple(_finding(key, found, requirements) for (k, key), found in ordered if k == kind)
        for kind in KINDS
    }


def _kind_and_key(case: CaseResult) -> tuple[str, str]:
    if case.outcome is Outcome.FAILED:
        waiver = case.suite == WAIVERS
        return (
            ("waivers", case.waiver) if waiver else ("failed", case.requirement or _test_of(case))
        )
    key = case.waiver if case.outcome is Outcome.WAIVED else case.message
    return case.outcome.value, key or "no reason given"


def _test_of(case: CaseResult) -> str:
    """The test function of a case that is about no requirement, such as one of vLLM's own."""
    return case.name.partition("[")[0].partition(" on ")[0]


def is_test(finding: Finding) -> bool:
    """Whether a failure is a test's, and no requirement's."""
    return not _REQUIREMENT.fullmatch(finding.key)


def _finding(key: str, cases: Cases, requirements: Requirements) -> Finding:
    first = next((case for case in cases if SMALLEST in case.counts), cases[0])
    cell = min(cells_of(first), key=natural)
    about = requirements.get(first.requirement)
    return Finding(
        key=key,
        cases=len(cases),
        cells=in_order(cell for case in cases for cell in case.cells),
        targets=in_order(case.target for case in cases if case.target),
        first=failure_message(first, cell.replace(NO_CELL, ""), reproduce=False),
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


def counted(number: int, noun: str) -> str:
    """A number and its noun, which is plural but for one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
