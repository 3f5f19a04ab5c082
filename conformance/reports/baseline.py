"""Compares a report's results with an earlier build's: what is new, fixed, flaky, no longer asked.

Two results are of the same case if suite, name and cell are the same, and the subject but for its
version: the next build of a subject is the same subject.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import requests

from conformance.errors import InfrastructureError, UsageError
from conformance.reports.collect import Collected, collect
from conformance.reports.junit_writer import cells_of, visible
from conformance.requirements import Requirement
from conformance.results import CaseResult, Outcome, subject_label
from conformance.results.folder import RESULTS

Change = Literal["new", "fixed", "still failing", "flaky", "without verdict", "no longer asked"]
# In the order of a report: what a reader has to act on first.
IN_WORDS: dict[Change, str] = {
    "new": "New failures",
    "flaky": "Flaky: failed and passed in one build",
    "without verdict": "Without a verdict now",
    "still failing": "Still failing",
    "fixed": "Fixed",
    "no longer asked": "No longer asked",
}
_GOOD = (Outcome.PASSED, Outcome.WAIVED)
SIZE_LIMIT = 256 * 1024**2
TIMEOUT = 60.0
_Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Changed:
    """Cases of one requirement that changed in the same way; ``first`` is one of them."""

    change: Change
    requirement: str
    title: str
    subject: str
    cases: int
    cells: tuple[str, ...]
    first: str


@dataclass(frozen=True)
class Comparison:
    """What became of an earlier build's results; ``origin`` is what the user named it by."""

    origin: str
    changes: tuple[Changed, ...]
    compared: int

    def count(self, change: Change) -> int:
        return sum(each.cases for each in self.changes if each.change == change)

    @property
    def sentence(self) -> str:
        """The numbers in one line."""
        if not self.compared:
            return f"Against {self.origin}: not one case is in both"
        counts = ", ".join(f"{self.count(change):,} {change}" for change in IN_WORDS)
        return f"Against {self.origin}: {counts} ({self.compared:,} results are in both)"

    def as_json(self) -> dict[str, Any]:
        return {
            "origin": self.origin,
            "compared": self.compared,
            "counts": {change: self.count(change) for change in IN_WORDS},
            "changes": [asdict(each) for each in self.changes],
        }


def compare(
    now: Collected, before: Collected, origin: str, requirements: Mapping[str, Requirement]
) -> Comparison:
    """What changed between two builds' results, as they were collected: repeats included."""
    new, old = _ended(now), _ended(before)
    groups: dict[tuple[Change, str, str], dict[_Key, CaseResult]] = defaultdict(dict)
    for key in new.keys() | old.keys():
        change = _change(new.get(key), old.get(key))
        if change is not None:
            case = (new.get(key) or old[key])[0]
            label = subject_label(case.subject, case.subject_version)
            groups[change, case.requirement, visible(label)][key] = case
    order = list(IN_WORDS)
    found = sorted(groups.items(), key=lambda item: (order.index(item[0][0]), item[0][1:]))
    return Comparison(
        origin,
        tuple(_changed(*group, cases, requirements) for group, cases in found),
        len(new.keys() & old.keys()),
    )


def _changed(
    change: Change,
    identifier: str,
    subject: str,
    cases: Mapping[_Key, CaseResult],
    requirements: Mapping[str, Requirement],
) -> Changed:
    first = min(cases)
    case, cell = cases[first], first[3]
    about = requirements.get(identifier)
    message = f": {case.message}" if case.outcome is not Outcome.PASSED and case.message else ""
    return Changed(
        change,
        visible(identifier),
        about.title if about else "",
        subject,
        len(cases),
        tuple(sorted({key[3] for key in cases})),
        visible(f"{case.name} in {cell}{message}"[:500]),
    )


def _ended(collected: Collected) -> dict[_Key, list[CaseResult]]:
    """Every result of every case, in each cell."""
    found: dict[_Key, list[CaseResult]] = defaultdict(list)
    for each in collected.inputs:
        for case in each.run.cases:
            subject = case.subject.partition("==")[0]
            for cell in cells_of(case):
                found[subject, case.suite, visible(case.name), cell].append(case)
    return found


def _change(new: list[CaseResult] | None, old: list[CaseResult] | None) -> Change | None:
    if new is None:
        return "no longer asked" if any(case.outcome in _GOOD for case in old or ()) else None
    outcomes = {case.outcome for case in new}
    before = {case.outcome for case in old or ()}
    if Outcome.FAILED in outcomes:
        if outcomes & set(_GOOD):
            return "flaky"
        return "still failing" if Outcome.FAILED in before else "new"
    if outcomes == {Outcome.ERRORED} and before & {*_GOOD, Outcome.FAILED}:
        return "without verdict"
    if outcomes & set(_GOOD) and before == {Outcome.FAILED}:
        return "fixed"
    return None


# ---- where a baseline is ---------------------------------------------------------------------


@contextmanager
def opened(origin: str) -> Iterator[Collected]:
    """The results of a baseline: a folder, a results.jsonl, or the address of either's artifact.

    Raises:
        UsageError: there is nothing of that name.
        InfrastructureError: the address does not answer, or gives something else.
    """
    if urlsplit(origin).scheme in ("http", "https"):
        with tempfile.TemporaryDirectory(prefix="rocm-conformance-") as folder:
            _unpack(_fetched(origin), Path(folder), origin)
            yield _whole(collect(Path(folder)), origin)
        return
    path = Path(origin)
    if path.is_dir():
        yield _whole(collect(path.resolve()), origin)
    elif path.is_file():
        with tempfile.TemporaryDirectory(prefix="rocm-conformance-") as folder:
            _unpack(path.read_bytes(), Path(folder), origin)
            yield _whole(collect(Path(folder)), origin)
    else:
        raise UsageError(
            f"--baseline {origin}: no such folder or file. Give an earlier run's folder, its "
            f"{RESULTS}, or the address of its artifact"
        )


def _whole(collected: Collected, origin: str) -> Collected:
    if not any(each.run.cases for each in collected.inputs):
        why = f": {collected.problems[0]}" if collected.problems else ""
        raise UsageError(f"--baseline {origin}: holds no results{why}")
    return collected


def _fetched(address: str) -> bytes:
    try:
        with requests.get(address, stream=True, timeout=TIMEOUT) as response:
            response.raise_for_status()
            data = bytearray()
            for chunk in response.iter_content(1 << 20):
                data += chunk
                if len(data) > SIZE_LIMIT:
                    raise InfrastructureError(
                        f"--baseline {address}: larger than {SIZE_LIMIT:,} bytes; download it"
                    )
    except requests.RequestException as error:
        raise InfrastructureError(f"--baseline {address}: cannot be fetched: {error}") from error
    return bytes(data)


def _unpack(data: bytes, folder: Path, origin: str) -> None:
    """Writes the results files of a zip archive, or the one that the data is.

    Names inside an archive are not trusted: each file gets a folder of its own number.
    """
    if not data.startswith(b"PK"):
        (folder / RESULTS).write_bytes(data)
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for number, member in enumerate(_results_in(archive.infolist())):
                if member.file_size > SIZE_LIMIT:
                    raise UsageError(f"--baseline {origin}: {member.filename} is too large")
                (folder / str(number)).mkdir()
                (folder / str(number) / RESULTS).write_bytes(archive.read(member))
    except (zipfile.BadZipFile, RuntimeError) as error:
        raise UsageError(f"--baseline {origin}: is no sound archive: {error}") from error


def _results_in(members: Iterable[zipfile.ZipInfo]) -> Iterator[zipfile.ZipInfo]:
    for member in members:
        name = member.filename.rpartition("/")[2]
        if name.startswith("results") and name.endswith(".jsonl"):
            yield member
