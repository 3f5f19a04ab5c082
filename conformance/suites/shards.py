"""Shards: parts of a run for different machines. A report says whether all of them are there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from conformance.errors import UsageError

T = TypeVar("T")


def parse_shard(text: str) -> str:
    """Checks a shard, ``I/N``; returns "" for a whole run.

    Raises:
        UsageError: it is not of that form, or I is not among 1 to N.
    """
    if not text:
        return ""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--shard {text!r}: expected I/N with I from 1 to N, such as 2/4")
    return "" if match[2] == "1" else f"{int(match[1])}/{int(match[2])}"


def part(groups: Sequence[T], shard: str) -> list[T]:
    """The groups of a shard: every N-th, so that all shards have about the same size.

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
