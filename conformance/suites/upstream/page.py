"""The page of what releases' own tests came to, made of the results of runs."""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import Version

from conformance.errors import UsageError
from conformance.reports.templates import template
from conformance.results import CaseResult, Run, RunHeader, markdown, read_results
from conformance.results.folder import RESULTS
from conformance.suites.upstream.judged import SUITE
from conformance.suites.upstream.recorded import ENDINGS, Recorded
from conformance.suites.upstream.table import NO_DEVICE, Chosen, Finding, Tables

PAGE = "upstream-results.md"
# What a run is told besides what it is about: where its results go, and how many at a time.
_PLACES = ("--results", "-n", "--processes")
_DEVICE = " device "
_TESTS = "tests/"
# What differs from machine to machine, or is pydantic's advice.
_BYTES = re.compile(r"you tried to allocate \d+ bytes\. .*", re.DOTALL)
JUDGED = ("failed", "violated")


@dataclass(frozen=True)
class Told:
    """A case of a result, with the findings that explain what was found of it now."""

    recorded: Recorded
    explained: tuple[Finding, ...]

    @property
    def unexplained(self) -> bool:
        return self.recorded.ended in JUDGED and not self.explained

    @property
    def why(self) -> str:
        """Why it did not pass, in Markdown."""
        if self.explained:
            return "; ".join(
                f"{markdown.cell(' '.join(each.finding.split()))} ([{each.id}]({each.source}))"
                for each in self.explained
            )
        said = _BYTES.sub("more is allocated than a process may have", self.recorded.message)
        text = markdown.cell(" ".join(said.split())[:300])
        return f"**not explained**: {text}" if self.unexplained else text


@dataclass(frozen=True)
class Place:
    """A release on a device: the last result of each case that runs had, and their commands."""

    release: str
    device: str
    cases: tuple[Told, ...]
    commands: tuple[str, ...]


def below(folder: Path) -> list[Run]:
    """The runs of upstream tests below a folder, in the order in which they began.

    Raises:
        UsageError: there are none.
    """
    runs = [read_results(path) for path in sorted(folder.rglob(RESULTS))]
    own = [(run.header, run) for run in runs if run.header and SUITE in run.header.suites]
    if not own:
        raise UsageError(f"--results {folder}: no results of upstream tests are below it")
    return [run for _, run in sorted(own, key=lambda each: each[0].started)]


def places(runs: Iterable[Run], tables: Tables) -> list[Place]:
    """What runs came to, by release and device, judged by the findings that are known now."""
    cases: dict[tuple[str, str], dict[str, Told]] = defaultdict(dict)
    commands: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for run in runs:
        for case in run.cases:
            ended, *_ = case.counts
            device = case.platform.partition(_DEVICE)[2]
            device = "" if device == NO_DEVICE else device
            place = case.subject_version, device
            if run.header:
                commands[place][_command(run.header)] = None
            if case.name.startswith(_TESTS):
                told = _told(case, ended, device, tables)
                cases[place][told.recorded.case] = told
    ordered = sorted(cases, key=lambda place: (place[1], Version(place[0])))
    return [Place(*p, tuple(cases[p].values()), tuple(commands[p])) for p in ordered]


def _command(header: RunHeader) -> str:
    """What a run was asked, as a user types it."""
    words = shlex.split(header.command_line)
    kept, skip = ["rocm-conformance"], False
    for word in words[1:]:
        skip, was = word in _PLACES, skip
        if not skip and not was:
            kept.append(word)
    return shlex.join(kept)


def _told(case: CaseResult, ended: str, device: str, tables: Tables) -> Told:
    name = case.name.removesuffix(f" on {device}")
    message = case.message.removeprefix(f"{ended}: ")
    found = tuple(case.findings) if ended == "violated" else ()
    recorded = Recorded(name, ended, message, violations=found, seconds=case.seconds)
    known = tables.explanations(case.subject_version, device, recorded) if ended in JUDGED else ()
    return Told(recorded, known)


def unexplained(found: Iterable[Place], tables: Tables) -> Iterator[str]:
    """What is wrong: a sentence for each case that no finding explains, and for each stale one."""
    for place in found:
        where = f"{place.release} on {place.device or NO_DEVICE}"
        for told in place.cases:
            if told.unexplained:
                yield f"{where}: {told.recorded.case} {told.recorded.ended}: no finding explains it"
            if told.recorded.ended == "errored":
                yield f"{where}: {told.recorded.case} has no verdict: {told.recorded.message}"
        cases = [told.recorded for told in place.cases]
        for finding in tables.stale(place.release, place.device, cases):
            yield f"{where}: {finding.id} explains a case that passes: take the row out"


def page(found: Sequence[Place], tables: Tables) -> str:
    """The page in Markdown."""
    releases = sorted({place.release for place in found}, key=Version)
    return template(PAGE).render(
        releases=" and ".join(releases),
        endings=[ending.replace("-", " ") for ending in ENDINGS],
        runs=[_section(place, tables) for place in found],
    )


def _section(place: Place, tables: Tables) -> dict[str, Any]:
    heading = f"{place.release}, {place.device or 'no device'}"
    others = [told for told in place.cases if told.recorded.ended != "passed"]
    return {
        "release": place.release,
        "device": place.device or "none",
        "heading": heading,
        "anchor": re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-")),
        "counts": _counts(place.cases),
        "explained": sum(bool(told.explained) for told in place.cases),
        "commands": place.commands,
        "rows": [*_rows(place, tables)],
        "others": bool(others),
        "others_table": _others(others),
    }


def _counts(cases: Iterable[Told]) -> list[str]:
    ended = Counter(told.recorded.ended for told in cases)
    return [str(ended[ending] or "") for ending in ENDINGS]


def _rows(place: Place, tables: Tables) -> Iterator[Mapping[str, Any]]:
    """A row for each file of the table, also for those that did not run."""
    by_file = defaultdict(list)
    for told in place.cases:
        by_file[told.recorded.file].append(told)
    sample, limit = (_asked(place, option) for option in ("--sample", "--limit"))
    for row in tables.of(place.release, place.device):
        for file in row.files:
            cases = by_file[file]
            yield {
                "file": f"`{file.removeprefix(_TESTS)}`",
                "chosen": _chosen(row, int(sample or row.sample)) if cases else "not run",
                "limit": limit or f"{row.limit:g}",
                "counts": _counts(cases),
            }


def _asked(place: Place, option: str) -> str:
    """What the runs were told instead of what the table has; "" if nothing."""
    for command in place.commands:
        words = shlex.split(command)
        if option in words:
            return words[words.index(option) + 1]
    return ""


def _chosen(row: Chosen, sample: int) -> str:
    named = f"`-k '{row.cases}'`, " if row.cases else ""
    return named + (f"{sample} of each function" if sample else "all")


def _others(others: Sequence[Told]) -> str:
    """The cases that did not pass, those with the same reason together."""
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for told in others:
        reasons[told.recorded.ended, told.why].append(told.recorded.case)
    ranked = sorted(reasons, key=lambda reason: ENDINGS.index(reason[0]))
    lines = ["| ended | cases | why |", "| --- | --- | --- |"]
    for ended, why in ranked:
        cases = "<br>".join(f"`{markdown.cell(_short(case))}`" for case in reasons[ended, why])
        lines.append(f"| {ended.replace('-', ' ')} | {cases} | {why} |")
    return "\n".join(lines)


def _short(case: str) -> str:
    """A case's name without the folders of its file."""
    file, colons, name = case.partition("::")
    return f"{Path(file).name}{colons}{name}"
