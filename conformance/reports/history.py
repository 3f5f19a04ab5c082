"""The trend over any number of builds: outcomes, what failed when, errors over their bounds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from conformance.errors import UsageError
from conformance.reports.collect import Collected, collect, kind_of
from conformance.reports.earlier_builds import opened
from conformance.reports.junit_reader import is_foreign
from conformance.reports.junit_writer import cells_of
from conformance.reports.safe_text import plain
from conformance.reports.summary import natural
from conformance.requirements import Requirement
from conformance.results import Outcome

OPTION = "--history"
NOW = "this build"
# Rows and columns of the table; the plot has every build.
ROWS_SHOWN, BUILDS_SHOWN = 200, 40
PLOTTED = ("failed", "errored", "waived")


@dataclass(frozen=True)
class Build:
    """One build in numbers; ``started`` is UTC in ISO 8601, "" where no record says it.

    ``failed`` counts failed results by subject (without its version) and requirement; ``asked``
    are those that had any verdict; ``worst`` is the largest error over its bound by backend.
    """

    name: str
    started: str
    subjects: tuple[str, ...]
    outcomes: Mapping[str, int]
    failed: Mapping[tuple[str, str], int]
    asked: frozenset[tuple[str, str]]
    worst: Mapping[str, float]

    @property
    def day(self) -> str:
        return self.started[:16].replace("T", " ")


@dataclass(frozen=True)
class Row:
    """A requirement over the builds: failed results of each, None where it was not asked.

    ``builds`` are the names of the builds, in the same order.
    """

    subject: str
    requirement: str
    title: str
    failed: tuple[int | None, ...]
    builds: tuple[str, ...]

    @property
    def turns(self) -> int:
        """How often it went from failing to passing or back."""
        asked = [bool(number) for number in self.failed if number is not None]
        return sum(before != after for before, after in pairwise(asked))

    @property
    def in_words(self) -> str:
        """What the row shows, for a reader who looks at the newest build first."""
        if self.failed[-1] is None:
            return "no longer asked"
        if self.turns > 1:
            return f"turned {self.turns} times"
        if not self.failed[-1]:
            return "fixed"
        failing = [bool(number) for number in self.failed if number is not None]
        if all(failing):
            return "failing throughout"
        last_good = max(i for i, number in enumerate(self.failed) if number == 0)
        first_bad = next(i for i, n in enumerate(self.failed) if n and i > last_good)
        return f"failing since {basename(self.builds[first_bad])}"


@dataclass(frozen=True)
class Trend:
    """Builds from the oldest to this one, and the requirements that failed in any of them.

    ``empty`` counts builds that left no results.
    """

    builds: tuple[Build, ...]
    rows: tuple[Row, ...]
    empty: int = 0

    @property
    def sentence(self) -> str:
        first, last = self.builds[0], self.builds[-1]
        turning = [row for row in self.rows if row.turns > 1]
        names = ", ".join(dict.fromkeys(row.requirement for row in turning[:5]))
        unsteady = f"; came and went: {names}" if turning else ""
        since = f" since {first.day} UTC" if first.day else ""
        without = f" ({self.empty:,} more left no results)" if self.empty else ""
        return (
            f"{len(self.builds):,} builds{since}{without}: "
            f"{first.outcomes['failed']:,} failed results in the first, "
            f"{last.outcomes['failed']:,} in this one{unsteady}"
        )

    def as_json(self) -> dict[str, Any]:
        """Builds from the oldest on; a row's numbers are of the newest builds, in their order."""
        return {
            "sentence": self.sentence,
            "builds": [
                {
                    "name": build.name,
                    "started": build.started,
                    "subjects": list(build.subjects),
                    "outcomes": dict(build.outcomes),
                    "worst": dict(build.worst),
                }
                for build in self.builds
            ],
            "requirements": [{**asdict(row), "in_words": row.in_words} for row in self.rows],
        }

    @property
    def shown(self) -> tuple[Build, ...]:
        return self.builds[-BUILDS_SHOWN:]

    @property
    def shown_rows(self) -> tuple[Row, ...]:
        return self.rows[:ROWS_SHOWN]

    @property
    def backends(self) -> tuple[str, ...]:
        return tuple(sorted({name for build in self.shown for name in build.worst}, key=natural))

    @property
    def tallest(self) -> int:
        """The most bad results of any build: the height of the plot, at least 1."""
        return max(1, *(sum(build.outcomes[name] for name in PLOTTED) for build in self.builds))


def basename(name: str) -> str:
    """A build's name in a table: the last part of its path or address."""
    return name.rstrip("/").rpartition("/")[2] or name


def trend(
    now: Collected, origins: Sequence[str], requirements: Mapping[str, Requirement]
) -> Trend | None:
    """The builds that ``origins`` name, from the oldest on, and this one last; None without any.

    Raises:
        UsageError: an origin names nothing, or holds no results.
        InfrastructureError: an address does not answer.
    """
    if not origins:
        return None
    earlier, empty = [], 0
    for origin in origins:
        for build in _builds(origin):
            if build is None:
                empty += 1
            else:
                earlier.append(build)
    earlier.sort(key=lambda build: (build.started, natural(build.name)))
    builds = (*earlier, build_of(now, NOW))
    return Trend(builds, tuple(_rows(builds, requirements)), empty)


def _builds(origin: str) -> Iterator[Build | None]:
    """Builds one by one: a folder without results of its own holds a build in each subfolder.

    None stands for such a subfolder without results: its job may have been lost.
    """
    folder = Path(origin)
    if not folder.is_dir() or any(kind_of(path.name) for path in folder.iterdir()):
        with opened(origin, OPTION) as collected:
            yield build_of(collected, origin)
        return
    below = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    found = 0
    for path in sorted(below, key=lambda path: natural(path.name)):
        collected = collect(path.resolve())
        judged = any(each.run.cases for each in collected.inputs)
        found += judged
        yield build_of(collected, path.name) if judged else None
    if not found:
        raise UsageError(f"{OPTION} {origin}: holds no results, and no folder of a build with any")


def build_of(collected: Collected, name: str) -> Build:
    """A build in numbers; the suite's own JUnit files count only where it has no results file."""
    inputs = collected.inputs
    whole = any(each.kind == "results" for each in inputs)
    started = [each.run.header.started for each in inputs if each.run.header]
    outcomes: Counter[str] = Counter()
    failed: Counter[tuple[str, str]] = Counter()
    asked, subjects = set(), set()
    worst: dict[str, float] = defaultdict(float)
    for case, kind in ((case, each.kind) for each in inputs for case in each.run.cases):
        if whole and kind == "junit" and not is_foreign(case.subject):
            continue
        number = len(cells_of(case))
        subject = plain(case.subject.partition("==")[0])
        subjects.add(plain(f"{subject} {case.subject_version}".strip()))
        outcomes[case.outcome.value] += number
        key = (subject, plain(case.requirement or "(none)"))
        if case.outcome in (Outcome.FAILED, Outcome.PASSED, Outcome.WAIVED):
            asked.add(key)
        if case.outcome is Outcome.FAILED:
            failed[key] += number
        ratio = case.measures.get("error_over_bound")
        if ratio is not None and case.backend:
            backend = plain(case.backend)
            worst[backend] = max(worst[backend], ratio)
    return Build(
        plain(name),
        plain(min(started, default="")),
        tuple(sorted(subjects)),
        {outcome.value: outcomes[outcome.value] for outcome in Outcome},
        dict(failed),
        frozenset(asked),
        dict(worst),
    )


def _rows(builds: Sequence[Build], requirements: Mapping[str, Requirement]) -> Iterator[Row]:
    """The requirements that failed, those that fail now first."""
    shown = builds[-BUILDS_SHOWN:]
    keys = {key for build in shown for key in build.failed}

    def order(key: tuple[str, str]) -> tuple[object, ...]:
        return (not builds[-1].failed.get(key), natural(key[0]), natural(key[1]))

    for subject, identifier in sorted(keys, key=order):
        key = (subject, identifier)
        about = requirements.get(identifier)
        counts = [build.failed.get(key, 0) if key in build.asked else None for build in shown]
        names = tuple(build.name for build in shown)
        yield Row(subject, identifier, about.title if about else "", tuple(counts), names)
