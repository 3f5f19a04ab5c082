"""Prepares a run's subjects before its first case: fetches them, finds out their versions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from conformance.config import RunConfig
from conformance.errors import InfrastructureError
from conformance.matrix.stacks import match_cells
from conformance.requirements.edition_choice import edition_note, judging_edition
from conformance.results import CaseResult, Outcome
from conformance.subjects.reference import REFERENCE, edition_table
from conformance.subjects.spellings import parse_subject
from conformance.suites.registry import suites_named
from vllm_editions import AUTO_EDITION, DEFAULT_EDITION

Say = Callable[[str], None]


@dataclass(frozen=True)
class Settled:
    """A configuration whose subjects are ready, and why each of the others is not."""

    config: RunConfig
    broken: dict[str, InfrastructureError]

    def errored_cases(self) -> tuple[CaseResult, ...]:
        """An errored case, in every cell, for each subject that could not be prepared."""
        cells = tuple(cell.name for cell in match_cells(self.config.cells))
        return tuple(
            CaseResult(
                suite="infrastructure",
                name="the subject starts",
                outcome=Outcome.ERRORED,
                cells=cells,
                subject=spec,
                subject_version="",
                edition=self.config.editions.get(spec, ""),
                requirement="",
                source="",
                target="",
                platform="",
                simulated=self.config.simulate != "never",
                seed=self.config.seed,
                message=str(error.args[0]),
                detail=error.stderr,
            )
            for spec, error in self.broken.items()
        )


def settle(config: RunConfig, say: Say) -> Settled:
    """Prepares every subject and finds out its version; a failure affects that subject alone.

    Raises:
        UsageError: an unknown edition, subject or spelling.
    """
    if config.edition != AUTO_EDITION:
        edition_table(config.edition)
    releases: dict[str, str] = {}
    editions: dict[str, str] = {}
    broken: dict[str, InfrastructureError] = {}
    for spec in _reference_last(config.subjects):
        if spec == REFERENCE:
            editions[spec] = releases[spec] = _of_reference(config, editions)
            continue
        try:
            releases[spec] = _release(spec, config, say)
        except InfrastructureError as error:
            say(f"{spec} cannot be judged: {error.args[0]}")
            broken[spec] = error
            continue
        editions[spec] = judging_edition(config.edition, releases[spec])
        if note := edition_note(editions[spec], releases[spec]):
            say(f"{spec}: {note}")
    ready = tuple(spec for spec in config.subjects if spec in releases)
    return Settled(replace(config, subjects=ready, releases=releases, editions=editions), broken)


def settle_all(config: RunConfig, say: Say) -> RunConfig:
    """Prepares every subject.

    Raises:
        UsageError: an unknown edition, subject or spelling.
        InfrastructureError: a subject cannot be prepared.
    """
    settled = settle(config, say)
    for error in settled.broken.values():
        raise error
    return settled.config


def _reference_last(specs: Iterable[str]) -> list[str]:
    """Each subject once; the reference has the edition of the first of the others."""
    return sorted(dict.fromkeys(specs), key=REFERENCE.__eq__)


def _of_reference(config: RunConfig, others: dict[str, str]) -> str:
    if config.edition != AUTO_EDITION:
        return config.edition
    return next(iter(others.values()), DEFAULT_EDITION)


def _release(spec: str, config: RunConfig, say: Say) -> str:
    subject = parse_subject(spec, config.options, say)
    try:
        release = subject.release
        if any(suite.reads_sources for suite in suites_named(config.suites)):
            subject.source_tree()
    finally:
        subject.close()
    return release
