"""What a suite declares about itself, besides its cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from conformance.config import RunConfig
from conformance.results import CaseResult

# Takes a run's cases and its results folder; writes files there and yields lines for the user.
Artefacts = Callable[[Sequence[CaseResult], Path], Iterable[str]]
ClosingCases = Callable[[RunConfig, Sequence[CaseResult]], Iterable[CaseResult]]
Say = Callable[[str], None]
# Takes a run's cases and its results folder; asks more, and yields those cases.
FollowUps = Callable[[RunConfig, Sequence[CaseResult], Path, Say], Iterable[CaseResult]]


def _no_lines(_cases: Sequence[CaseResult], _folder: Path) -> Iterable[str]:
    return ()


def _no_cases(_config: RunConfig, _cases: Sequence[CaseResult]) -> Iterable[CaseResult]:
    return ()


def _no_follow_ups(
    _config: RunConfig, _cases: Sequence[CaseResult], _folder: Path, _say: Say
) -> Iterable[CaseResult]:
    return ()


def _never(_config: RunConfig) -> bool:
    return False


def _nothing(_config: RunConfig) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Suite:
    """One suite. Its folder beside this module has its name, and its cases in ``test_*.py``.

    ``by_default``
        Whether it belongs to a run that names no suite.
    ``options``
        Options that it adds to ``run``. Their values, which must be JSON values, are in the
        configuration's ``suite_options`` by name.
    ``left_out``
        Patterns of requirements for which a configuration leaves out cases. A waiver of such a
        requirement cannot be called unneeded. Cells and shards are accounted for elsewhere.
    ``closing_cases``
        Cases that follow from the others once these have ended. A shard has none.
    ``follow_ups``
        Cases that are asked because of how others ended, in this process; each has its outcome
        already, waived or not.
    ``artefacts``
        Writes files about a finished run into its folder; yields lines for the user.
    ``reads_sources``
        Whether it reads a subject's source tree, which is then fetched before the first case.
    ``many_groups``
        Whether a configuration lets any process run any case. Otherwise the cases of a platform
        stay together, and a run cannot have more shards than platforms.
    """

    name: str
    by_default: bool = True
    options: tuple[click.Option, ...] = ()
    left_out: Callable[[RunConfig], Sequence[str]] = _nothing
    closing_cases: ClosingCases = _no_cases
    follow_ups: FollowUps = _no_follow_ups
    artefacts: Artefacts = _no_lines
    reads_sources: bool = False
    many_groups: Callable[[RunConfig], bool] = _never
