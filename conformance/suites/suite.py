"""What a suite tells the rest of the program about itself, beside its cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from conformance.config import RunConfig
from conformance.results import CaseResult

# From a run's cases and results folder to lines for the user; writes files into the folder.
Artefacts = Callable[[Sequence[CaseResult], Path], Iterable[str]]
ClosingCases = Callable[[RunConfig, Sequence[CaseResult]], Iterable[CaseResult]]


def _no_lines(_cases: Sequence[CaseResult], _folder: Path) -> Iterable[str]:
    return ()


def _no_cases(_config: RunConfig, _cases: Sequence[CaseResult]) -> Iterable[CaseResult]:
    return ()


def _nothing(_config: RunConfig) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Suite:
    """One suite; its folder beside this module has its name, and ``test_*.py`` with its cases.

    ``by_default``
        Whether a run has it that names no suite.
    ``options``
        What ``run`` takes besides for it. Values are in the configuration's ``suite_options``, by
        name; they must be JSON values.
    ``left_out``
        Patterns of the requirements of which a configuration leaves out cases: what did not show
        proves nothing about their waivers. Cells and shards are accounted for elsewhere.
    ``closing_cases``
        Cases that are concluded from all others, once these have ended. Of a run in parts none are
        asked for.
    ``artefacts``
        Writes files about a finished run into its folder, and says so.
    ``reads_sources``
        Whether it reads a subject's source tree, which is then fetched before the first case.
    ``many_groups``
        Whether each case may go to any process. Else those of a platform stay together, and there
        can be no more shards of a run than platforms.
    """

    name: str
    by_default: bool = True
    options: tuple[click.Option, ...] = ()
    left_out: Callable[[RunConfig], Sequence[str]] = _nothing
    closing_cases: ClosingCases = _no_cases
    artefacts: Artefacts = _no_lines
    reads_sources: bool = False
    many_groups: bool = False
