"""How each release met its own edition, suite by suite: from results folders, and kept as data."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from packaging.version import Version
from pydantic import TypeAdapter, ValidationError

from conformance.errors import UsageError
from conformance.reports.collect import collect
from conformance.reports.merge import Merged, merge
from conformance.requirements import Requirement, all_requirements
from conformance.requirements.edition_choice import edition_of_release
from conformance.requirements.waivers import TOGETHER, Waiver, load_waivers
from conformance.results import CaseResult, Outcome
from conformance.suites.registry import SUITES
from vllm_editions import is_release

ISA = "isa"
COLUMNS = (*SUITES, ISA)
RELEASE = "vllm=="
_MESSAGE = 300


@dataclass(frozen=True)
class Finding:
    """What a release does otherwise than its edition says.

    ``means`` is that in one sentence for users, ``waiver`` the deviation that accepts it, if any.
    """

    requirement: str
    means: str
    links: tuple[str, ...]
    cases: int
    targets: tuple[str, ...]
    example: str
    waiver: str = ""


@dataclass(frozen=True)
class Entry:
    """One release in one suite; ``started`` is when the newest run behind it began (UTC)."""

    release: str
    suite: str
    edition: str
    started: str
    command: str
    passed: int
    failed: int
    waived: int
    unsupported: int
    errored: int
    findings: tuple[Finding, ...]

    @property
    def judged(self) -> int:
        return self.passed + self.failed + self.waived


@dataclass(frozen=True)
class Scoreboard:
    """The newest entry of each release and suite; ``left_out`` are results that are none."""

    entries: tuple[Entry, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def releases(self) -> list[str]:
        """The releases that were judged at all, the oldest first."""
        return sorted({entry.release for entry in self.entries}, key=Version)

    def entry(self, release: str, suite: str) -> Entry | None:
        found = (e for e in self.entries if (e.release, e.suite) == (release, suite))
        return next(found, None)

    def with_newer(self, other: Scoreboard) -> Scoreboard:
        """Both, of a release's suite the run that began last."""
        newest: dict[tuple[str, str], Entry] = {}
        for entry in (*self.entries, *other.entries):
            known = newest.get((entry.release, entry.suite))
            if known is None or known.started <= entry.started:
                newest[entry.release, entry.suite] = entry
        ordered = sorted(newest.values(), key=lambda e: (Version(e.release), e.suite))
        return Scoreboard(tuple(ordered), (*self.left_out, *other.left_out))

    def dumps(self) -> str:
        """The entries as JSON."""
        rows = [asdict(entry) for entry in self.entries]
        return json.dumps({"entries": rows}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def loads(cls, text: str, where: str) -> Scoreboard:
        """What :meth:`dumps` wrote.

        Raises:
            UsageError: it did not.
        """
        try:
            entries = TypeAdapter(tuple[Entry, ...]).validate_json(
                json.dumps(json.loads(text)["entries"])
            )
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise UsageError(f"{where} is no scoreboard: {error}") from error
        return cls(entries)


def scoreboard(folders: Iterable[Path]) -> Scoreboard:
    """The entries of the results below some folders.

    Raises:
        UsageError: a folder is none, or holds no results.
    """
    total = Scoreboard()
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder: give those that hold results.jsonl files")
        merged = merge(collect(folder.resolve()), [])
        if not merged.files:
            raise UsageError(f"{folder} holds no results.jsonl or junit-*.xml")
        found, left_out = _entries(merged)
        notes = (*left_out, *(f"{folder}: {problem}" for problem in merged.problems))
        total = total.with_newer(Scoreboard(tuple(found), notes))
    return total


def _entries(merged: Merged) -> tuple[list[Entry], list[str]]:
    groups: dict[tuple[str, str, str], list[CaseResult]] = {}
    left_out: dict[str, None] = {}
    for case in merged.cases:
        release = case.subject.removeprefix(RELEASE)
        suite = ISA if "isa:" in case.platform else case.suite
        if not case.subject.startswith(RELEASE) or not is_release(release):
            continue
        if case.edition and case.edition != edition_of_release(release):
            left_out[f"{case.subject} judged by edition {case.edition}, not by its own"] = None
        elif suite in COLUMNS:
            groups.setdefault((release, suite, case.edition), []).append(case)
    newest = max(merged.headers, key=lambda header: header.started, default=None)
    started, command = (newest.started, newest.command_line) if newest else ("", "")
    made = [_entry(*key, started, command, cases) for key, cases in groups.items()]
    # A record with gaps is no verdict on anything in it.
    gaps = len(merged.problems)
    return [replace(entry, errored=entry.errored + gaps) for entry in made], list(left_out)


def _entry(
    release: str, suite: str, edition: str, started: str, command: str, cases: Sequence[CaseResult]
) -> Entry:
    counts = {o.value: sum(case.outcome is o for case in cases) for o in Outcome}
    known = all_requirements()
    waivers = {waiver.id: waiver for waiver in load_waivers().waivers}
    groups: dict[tuple[str, str], list[CaseResult]] = {}
    for case in cases:
        if case.outcome in (Outcome.FAILED, Outcome.WAIVED):
            groups.setdefault((case.requirement, case.waiver), []).append(case)
    findings = [
        _finding(found, known.get(requirement), waivers.get(accepted.partition(TOGETHER)[0]))
        for (requirement, accepted), found in sorted(groups.items())
    ]
    return Entry(
        release, suite, edition, started, _command(command), findings=tuple(findings), **counts
    )


def _command(line: str) -> str:
    """A run's command line without what only its machine had to do with."""
    words = shlex.split(line)
    kept = words[words.index("run") :] if "run" in words else []
    for option in ("--results", "--timeout", "-n"):
        while option in kept:
            del kept[kept.index(option) : kept.index(option) + 2]
    return shlex.join(["rocm-conformance", *kept]) if kept else ""


def _finding(
    cases: Sequence[CaseResult], requirement: Requirement | None, waiver: Waiver | None
) -> Finding:
    first = min(cases, key=lambda case: (len(case.message), case.message))
    means = waiver.reason if waiver else requirement.sentence if requirement else first.message
    links = [waiver.url if waiver else "", requirement.source if requirement else first.source]
    return Finding(
        requirement=first.requirement,
        means=_sentence(means),
        links=tuple(dict.fromkeys(filter(None, links))),
        cases=len(cases),
        targets=tuple(dict.fromkeys(case.target for case in cases if case.target)),
        example=first.message[:_MESSAGE],
        waiver=first.waiver,
    )


def _sentence(text: str) -> str:
    """The first sentence of a text, on one line."""
    whole = " ".join(text.split())
    end = next(_ends(whole), len(whole))
    return whole[:end].rstrip(".;") + "."


def _ends(text: str) -> Iterator[int]:
    """Where sentences end: a full stop before a space and a capital."""
    for at, letter in enumerate(text):
        if letter == "." and text[at + 1 : at + 2] == " " and text[at + 2 : at + 3].isupper():
            yield at
