"""Prepares a run's subjects before its first case: fetches them, finds out their versions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from packaging.version import Version

from conformance.config import RunConfig
from conformance.errors import InfrastructureError
from conformance.matrix.requests import REQUEST_FIELDS
from conformance.matrix.stacks import match_cells
from conformance.requirements.edition_choice import edition_note, judging_edition
from conformance.results import CaseResult, Outcome
from conformance.subjects.base import Subject
from conformance.subjects.reference import REFERENCE, edition_table
from conformance.subjects.spellings import parse_subject
from conformance.suites.registry import suites_named
from conformance.suites.selection.matching import nearest_by_answers
from vllm_editions import AUTO_EDITION, DEFAULT_EDITION, is_release, nearest_edition

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
    notes: dict[str, str] = {}
    missing: dict[str, tuple[str, ...]] = {}
    broken: dict[str, InfrastructureError] = {}
    for spec in _reference_last(config.subjects):
        if spec == REFERENCE:
            editions[spec] = releases[spec] = _of_reference(config, editions)
            notes |= {spec: _wrapped(config)} if config.wrap else {}
            continue
        try:
            judging = _judging(spec, config, say)
        except InfrastructureError as error:
            say(f"{spec} cannot be judged: {error.args[0]}")
            broken[spec] = error
            continue
        releases[spec], editions[spec] = judging.release, judging.edition
        if judging.missing:
            missing[spec] = judging.missing
        if note := "; ".join(filter(None, (judging.note, _wrapped(config)))):
            notes[spec] = note
            say(f"{spec}: {note}")
    ready = tuple(spec for spec in config.subjects if spec in releases)
    settled = replace(config, subjects=ready, releases=releases, editions=editions)
    return Settled(replace(settled, notes=notes, missing=missing), broken)


def _wrapped(config: RunConfig) -> str:
    """What a reader must know of workers that run under a command of the user's."""
    return f"its workers ran under: {config.wrap}" if config.wrap else ""


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


@dataclass(frozen=True)
class Judging:
    """A build's release, the edition that judges it, and what a reader must know of that.

    ``missing`` are the fields of the edition's requests that the build's selector does not have.
    """

    release: str
    edition: str
    note: str
    missing: tuple[str, ...] = ()


def judging_of(subject: Subject, asked: str) -> Judging:
    """How a subject is judged, where the user asked for an edition or for ``auto``.

    A build that names no release is asked a few hundred questions to find the nearest edition.

    Raises:
        InfrastructureError: the subject cannot be asked.
    """
    release = subject.release
    if asked == AUTO_EDITION and not is_release(release) and subject.info().fields:
        match = nearest_by_answers(subject)
        edition, why = match.edition, f"the build names no release ({release!r}): {match.note}"
    else:
        edition = judging_edition(asked, release)
        why = edition_note(edition, release)
    fields = () if _is_known(subject) else subject.info().fields
    unknown = [name for name in fields if name not in REQUEST_FIELDS]
    known = edition_table(edition).asked.fields if fields else ()
    missing = tuple(name for name in known if name not in fields)
    notes = (subject.note, why, _about(_UNKNOWN, unknown), _about(_MISSING, missing))
    return Judging(release, edition, "; ".join(filter(None, notes)), missing)


_UNKNOWN = (
    "its selector is asked about fields that this suite does not know, left at their defaults: "
)
_MISSING = "its selector is not asked about fields of that edition, so neither is it here: "


def _about(sentence: str, names: Sequence[str]) -> str:
    return f"{sentence}{', '.join(names)}" if names else ""


def _is_known(subject: Subject) -> bool:
    """Whether a subject is a release that an edition was written for, with that release's files."""
    return subject.spec == f"vllm=={subject.release}" and (
        Version(nearest_edition(subject.release)).release[:2]
        == Version(subject.release).release[:2]
    )


def _judging(spec: str, config: RunConfig, say: Say) -> Judging:
    subject = parse_subject(spec, config.options, say)
    try:
        judging = judging_of(subject, config.edition)
        if any(suite.reads_sources for suite in suites_named(config.suites)):
            subject.source_tree()
    finally:
        subject.close()
    return judging
