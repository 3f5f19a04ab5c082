"""Waivers: known deviations that are accepted for a while, and the check that they still apply.

A waiver is strict in both directions: matching failures end as ``waived``, and the waiver itself is
a failure once it has expired, matches no case, or is no longer needed. So the file never collects
exceptions that nobody can explain any more.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from dataclasses import MISSING, dataclass, fields, replace
from datetime import date, datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from conformance.errors import UsageError, one_of
from conformance.results import CaseResult, Outcome, subject_label
from vllm_editions import is_release

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUITE = "waivers"
DEFAULT_PATH = Path(__file__).parent / "waivers.toml"
_JUDGED = (Outcome.PASSED, Outcome.FAILED, Outcome.WAIVED)


def matches(pattern: str, text: str) -> bool:
    """Whether ``text`` matches ``pattern``, in which ``*`` and ``?`` are wildcards.

    Brackets are ordinary characters, because names of cases contain them: ``SEL-004 row [gfx942]``.
    """
    return fnmatchcase(text, pattern.replace("[", "[[]"))


@dataclass(frozen=True)
class Waiver:
    """One accepted deviation from one requirement, in a scope, until the end of ``expires``.

    ``subject`` is a pattern for the subject as reports write it (``vllm==0.19.*``), ``releases``
    the versions of it (PEP 440, ``>=0.18,<0.32``; none given: any), ``case`` a pattern for the
    case's name; ``platforms`` are some for its platform, such as ``device isa:*`` for what shows in
    emulated machine code alone. ``findings`` are patterns for findings: a failure is waived only if
    each of its findings matches one of them. So a waiver of one kernel's spills does not cover
    another kernel of the same case.
    """

    id: str
    requirement: str
    reason: str
    url: str
    expires: date
    subject: str
    releases: str = ""
    cells: tuple[str, ...] = ("*",)
    targets: tuple[str, ...] = ("*",)
    platforms: tuple[str, ...] = ("*",)
    case: str = "*"
    findings: tuple[str, ...] = ("*",)

    def in_scope(self, case: CaseResult) -> bool:
        """Whether a case has the waiver's requirement, subject, targets, platforms and cells."""
        return (
            case.requirement == self.requirement
            and matches(self.subject, subject_label(case.subject, case.subject_version))
            and self.of_release(case.subject_version)
            and any(matches(pattern, case.target) for pattern in self.targets)
            and self.on_platform(case)
            and bool(self.cells_of(case) or (not case.cells and "*" in self.cells))
        )

    def on_platform(self, case: CaseResult) -> bool:
        return any(matches(pattern, case.platform) for pattern in self.platforms)

    def of_release(self, version: str) -> bool:
        """Whether a build's version is among the releases; one that is no release is not."""
        if not self.releases:
            return True
        released = is_release(version)
        return released and SpecifierSet(self.releases).contains(version, prereleases=True)

    def covers(self, case: CaseResult) -> bool:
        """Whether a case is in scope and its name matches."""
        return self.in_scope(case) and matches(self.case, case.name)

    def accepts(self, case: CaseResult) -> bool:
        """Whether the waiver covers a case and each of the case's findings."""
        return self.covers(case) and all(
            any(matches(pattern, finding) for pattern in self.findings)
            for finding in case.findings or (case.message,)
        )

    @property
    def sentence(self) -> str:
        """Until when it is accepted, why, and the page behind it."""
        return f"waived until {self.expires}: {self.reason} {self.url}"

    def cells_of(self, case: CaseResult) -> tuple[str, ...]:
        """The cells of a case that match the waiver, in the case's order."""
        return tuple(c for c in case.cells if any(matches(p, c) for p in self.cells))


@dataclass(frozen=True)
class WaiverSet:
    """The waivers of a run on a certain day; ``origin`` names the file in messages."""

    waivers: tuple[Waiver, ...]
    today: date
    origin: str = "waivers.toml"

    def apply(self, case: CaseResult) -> list[CaseResult]:
        """Splits a failed case by cells: a waived part for each waiver that applies, and the rest.

        The detail of a waived part begins with the waiver's reason, as a paragraph of its own.
        Cases with another outcome are returned unchanged: an error is no verdict, so there is
        nothing to accept.
        """
        if case.outcome is not Outcome.FAILED or case.suite == SUITE:
            return [case]
        parts: list[CaseResult] = []
        rest = case
        for waiver in self.waivers:
            if self._expired(waiver) or not waiver.accepts(rest):
                continue
            cells = waiver.cells_of(rest)
            detail = "\n\n".join(filter(None, (waiver.sentence, rest.detail)))
            parts.append(
                replace(rest, outcome=Outcome.WAIVED, waiver=waiver.id, cells=cells, detail=detail)
            )
            if len(cells) == len(rest.cells):
                return parts
            rest = replace(rest, cells=tuple(c for c in rest.cells if c not in cells))
        return [*parts, rest]

    def closing_cases(
        self, results: Iterable[CaseResult], *, partial: Collection[str] = ()
    ) -> list[CaseResult]:
        """Failed cases for waivers that the run showed to be wrong, one for each subject in scope.

        ``results`` are the run's cases after ``apply``. A waiver is skipped if nothing in its scope
        was judged, because of another subject or suite. ``partial`` are patterns of requirements
        for which cases were left out (cells, problems, a shorter sweep): their waivers cannot be
        called unmatched or stale.
        """
        cases = [case for case in results if case.suite != SUITE]
        closing: list[CaseResult] = []
        for waiver in self.waivers:
            scope = [case for case in cases if waiver.in_scope(case)]
            judged = [case for case in scope if case.outcome in _JUDGED]
            left_out = any(matches(pattern, waiver.requirement) for pattern in partial)
            if judged and (message := self._fault(waiver, scope, partial=left_out)):
                closing += _failures(waiver, judged, message)
        return closing

    def _expired(self, waiver: Waiver) -> bool:
        return self.today > waiver.expires

    def _fault(self, waiver: Waiver, scope: list[CaseResult], *, partial: bool) -> str:
        """What is wrong with a waiver and what to do about it; "" if nothing is."""
        covered = [case for case in scope if waiver.covers(case)]
        passes = bool(covered) and all(case.outcome is Outcome.PASSED for case in covered)
        if self._expired(waiver):
            then = (
                f"its {len(covered)} cases pass now: delete it from {self.origin}"
                if passes
                else f"fix the build, or renew the waiver in {self.origin} with a later date and "
                "the reason why it is still needed"
            )
            return f"waiver {waiver.id} expired on {waiver.expires} ({waiver.reason}); {then}"
        if partial:
            return ""
        if not covered:
            return (
                f"waiver {waiver.id} fits no case, although {waiver.requirement} was judged in its "
                f"scope by {len(scope)} cases, such as {scope[0].name!r}; its case pattern is "
                f"{waiver.case!r}: correct it or delete the waiver from {self.origin}"
            )
        if passes:
            return (
                f"waiver {waiver.id} is stale: all {len(covered)} cases it covers pass "
                f"({waiver.reason}); delete it from {self.origin}"
            )
        return ""


def _failures(waiver: Waiver, judged: list[CaseResult], message: str) -> list[CaseResult]:
    """A failed case about the waiver for each subject that was judged in its scope."""
    by_subject: dict[tuple[str, str, str], list[CaseResult]] = {}
    for case in judged:
        key = (case.subject, case.subject_version, case.edition)
        by_subject.setdefault(key, []).append(case)
    return [
        CaseResult(
            suite=SUITE,
            name=waiver.id,
            outcome=Outcome.FAILED,
            cells=tuple(sorted({cell for case in cases for cell in waiver.cells_of(case)})),
            subject=subject,
            subject_version=version,
            edition=edition,
            requirement=waiver.requirement,
            source=waiver.url,
            target="",
            platform="",
            simulated=all(case.simulated for case in cases),
            message=message,
            waiver=waiver.id,
        )
        for (subject, version, edition), cases in sorted(by_subject.items())
    ]


def load_waivers(
    path: Path = DEFAULT_PATH,
    *,
    today: date | None = None,
    requirements: Collection[str] | None = None,
    cells: Collection[str] | None = None,
) -> WaiverSet:
    """Reads and checks a waiver file.

    ``requirements`` and ``cells`` are the known ones; a waiver that names others is malformed,
    because it could never match. ``today`` is the date in UTC unless given.

    Raises:
        UsageError: the file cannot be read, or a waiver in it is malformed; names file and id.
    """
    waivers: list[Waiver] = []
    for number, entry in enumerate(_entries(path), start=1):
        name = entry.get("id") if isinstance(entry, dict) else None
        where = f"{path}: waiver {name!r}" if name else f"{path}: waiver number {number}"
        try:
            waiver = _waiver(entry)
            _check_known(waiver, requirements, cells)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
        if waiver.id in [other.id for other in waivers]:
            raise UsageError(f"{where}: another waiver has this id; give each its own")
        waivers.append(waiver)
    return WaiverSet(tuple(waivers), today or datetime.now(timezone.utc).date(), path.name)


def _entries(path: Path) -> list[Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path}: is not TOML: {error}") from error
    unknown = sorted(set(document) - {"waiver"})
    entries = document.get("waiver", [])
    if unknown or not isinstance(entries, list):
        instead = ", ".join(unknown) or "waiver as a single value"
        raise UsageError(f"{path}: expected only [[waiver]] tables, found {instead}")
    return entries


def _waiver(entry: object) -> Waiver:
    if not isinstance(entry, dict):
        raise UsageError(f"expected a [[waiver]] table, got {entry!r}")
    names = [item.name for item in fields(Waiver)]
    for key in entry:
        if key not in names:
            raise one_of("key", key, names)
    missing = [f.name for f in fields(Waiver) if f.default is MISSING and f.name not in entry]
    if missing:
        raise UsageError(f"missing: {', '.join(missing)}; every waiver states them")
    values = {key: _value(key, value) for key, value in entry.items()}
    try:
        SpecifierSet(values.get("releases", ""))
    except InvalidSpecifier as error:
        raise UsageError(f'releases: expected a range such as ">=0.18,<0.32": {error}') from None
    if not values["url"].startswith(("https://", "http://")):
        raise UsageError(f"url: expected a web address, got {values['url']!r}")
    return Waiver(**values)


def _value(key: str, value: object) -> Any:
    if key == "expires":
        if type(value) is not date:
            raise UsageError(
                f"expires: expected a date without quotes, such as 2027-01-31, got {value!r}"
            )
        return value
    if key in ("cells", "targets", "platforms", "findings"):
        if not isinstance(value, list) or not value:
            raise UsageError(f'{key}: expected a list of patterns, such as ["*"], got {value!r}')
        return tuple(_text(key, item) for item in value)
    return _text(key, value)


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{key}: expected a text that is not empty, got {value!r}")
    return value


def _check_known(
    waiver: Waiver, requirements: Collection[str] | None, cells: Collection[str] | None
) -> None:
    if requirements is not None and waiver.requirement not in requirements:
        raise one_of("requirement", waiver.requirement, sorted(requirements))
    for pattern in waiver.cells if cells is not None else ():
        if not any(matches(pattern, cell) for cell in cells or ()):
            raise one_of("cell", pattern, sorted(cells or ()))
