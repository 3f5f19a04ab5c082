"""Parts of a run that go to different machines, and whether all of them came back."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeVar

from conformance.errors import UsageError
from conformance.results import RunHeader

T = TypeVar("T")


def parse_shard(text: str) -> str:
    """A shard as ``I/N``, checked; empty for a whole run.

    Raises:
        UsageError: it is not of that form, or I is not among 1 to N.
    """
    if not text:
        return ""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard {text!r}: expected I/N with I from 1 to N, such as 2/4")
    return "" if found[2] == "1" else f"{int(found[1])}/{int(found[2])}"


def part(groups: Sequence[T], shard: str) -> list[T]:
    """The groups of a shard: every N-th, so that all parts are of like size.

    Raises:
        UsageError: there are fewer groups than shards, and a part would be empty.
    """
    if not shard:
        return list(groups)
    index, count = (int(number) for number in shard.split("/"))
    if len(groups) < count:
        raise UsageError(
            f"--shard {shard}: there are {len(groups)} groups of cases, which share a platform and "
            "stay together: make no more parts than that"
        )
    return list(groups[index - 1 :: count])


def missing_shards(headers: Iterable[RunHeader]) -> list[str]:
    """What is missing of runs that were cut into parts, a sentence each.

    Runs belong together when they were asked the same: cells, subjects, suites, edition, seed and
    sweep. Parts of different cuts (2/4 and 2/3) never make a whole.
    """
    found: dict[str, dict[tuple[object, ...], list[str]]] = defaultdict(lambda: defaultdict(list))
    for header in headers:
        subjects = tuple(subject.name for subject in header.subjects)
        asked = (subjects, header.suites, header.edition, header.seed, header.sweep)
        if header.shard:
            found[" ".join(header.cells)][asked].append(header.shard)
    return [
        sentence
        for cells, runs in found.items()
        for shards in runs.values()
        for sentence in _gaps(cells, shards)
    ]


def _gaps(cells: str, shards: Sequence[str]) -> Iterable[str]:
    counts = sorted({shard.partition("/")[2] for shard in shards}, key=int)
    if len(counts) > 1:
        yield f"{cells}: its parts are of different cuts, {' and '.join(counts)}"
    for count in counts:
        have = [shard.partition("/")[0] for shard in shards if shard.endswith(f"/{count}")]
        for index in map(str, range(1, int(count) + 1)):
            if index not in have:
                yield f"{cells}: part {index} of {count} is missing"
            elif have.count(index) > 1:
                yield f"{cells}: part {index} of {count} is there {have.count(index)} times"
