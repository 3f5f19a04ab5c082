"""Waivers: known deviations that are accepted for a while, and the check that they still apply.

A waiver accepts findings, not problems: by their kind, the kernels at work, and what was computed
instead. A second fault under an accepted one is another finding, and fails. A case is waived if
each of its findings is accepted, by one waiver or by several.

A waiver is strict in both directions: matching failures end as ``waived``, and the waiver itself is
a failure once it has expired, matches no case, or is no longer needed. So the file never collects
exceptions that nobody can explain any more.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from datetime import date, datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from conformance.errors import UsageError, one_of
from conformance.results import KINDS, CaseResult, Identity, Outcome, subject_label
from vllm_editions import is_release

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUITE = "waivers"
LISTS = ("cells", "targets", "platforms", "kinds", "kernels", "deviations", "findings")
DEFAULT_PATH = Path(__file__).parent / "waivers.toml"
_JUDGED = (Outcome.PASSED, Outcome.FAILED, Outcome.WAIVED)
# Between the ids of several waivers that accept one case together.
TOGETHER = " + "
# Subjects that are no vLLM: this suite's own selector and kernels, programs, and aiter alone.
_OTHERS = ("reference", "worker:", "amd-aiter==")


def matches(pattern: str, text: str) -> bool:
    """Whether ``text`` matches ``pattern``, in which ``*`` and ``?`` are wildcards.

    Brackets are ordinary characters, because names of cases contain them: ``SEL-004 row [gfx942]``.
    """
    return fnmatchcase(text, pattern.replace("[", "[[]"))


def base_version(case: CaseResult) -> str:
    """The release that a case's build is based on: of a fork, a checkout, a development version.

    That of a build that does not say is the first of the series whose edition judges it.
    """
    version = case.subject_version
    if is_release(version):
        return Version(version).base_version
    return f"{case.edition}.0" if case.edition else ""


@dataclass(frozen=True)
class Waiver:
    """One accepted deviation from one requirement, in a scope, until the end of ``expires``.

    ``subject`` is a pattern for the subject as reports write it (``vllm==0.19.*``); it fits every
    vLLM of such a base version, however it is spelled. ``releases`` are base versions (PEP 440,
    ``>=0.18,<0.32``; none given: any), ``case`` is a pattern for the case's name; ``platforms`` are
    some for its platform, such as ``device isa:*`` for what shows in emulated machine code alone.

    The rest says what is accepted, each as patterns. ``kinds`` are kinds of finding. ``kernels``
    are kernels, and all that a finding names must be among them. ``deviations`` are what is
    computed instead: a finding is accepted if it is just that, alone or together with what other
    waivers accept; a waiver that names none accepts any. ``findings`` are for the finding's text.
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
    kinds: tuple[str, ...] = ("*",)
    kernels: tuple[str, ...] = ("*",)
    deviations: tuple[str, ...] = ()
    findings: tuple[str, ...] = ("*",)

    def in_scope(self, case: CaseResult) -> bool:
        """Whether a case has the waiver's requirement, subject, targets, platforms and cells."""
        return case.requirement == self.requirement and self.is_about(case)

    def is_about(self, case: CaseResult) -> bool:
        """Whether a case has the waiver's subject, targets, platforms and cells."""
        return (
            self.of_subject(case)
            and _one_of(self.targets, case.target)
            and _one_of(self.platforms, case.platform)
            and bool(self.cells_of(case) or (not case.cells and "*" in self.cells))
        )

    def of_subject(self, case: CaseResult) -> bool:
        """Whether a case's build is one of the waiver's, by its own name or by its base version."""
        base = base_version(case)
        by_name = self.names(case)
        if not by_name and not case.subject.startswith(_OTHERS):
            by_name = matches(self.subject, subject_label("vllm", base))
        return by_name and self.of_release(base)

    def names(self, case: CaseResult) -> bool:
        """Whether the waiver is about the case's build as reports write it.

        Such a build must show what the waiver says; a fork or a checkout may have mended it.
        """
        return matches(self.subject, subject_label(case.subject, case.subject_version))

    def of_release(self, release: str) -> bool:
        """Whether a release is among the waiver's."""
        if not self.releases:
            return True
        return is_release(release) and SpecifierSet(self.releases).contains(
            release, prereleases=True
        )

    def covers(self, case: CaseResult) -> bool:
        """Whether a case is in scope and its name matches."""
        return self.in_scope(case) and matches(self.case, case.name)

    def accepts(self, case: CaseResult, text: str, identity: Identity, deviation: str) -> bool:
        """Whether the waiver accepts one finding of a case, or one of the deviations in it."""
        return (
            (identity.requirement or case.requirement) == self.requirement
            and (not self.deviations or _one_of(self.deviations, deviation))
            and _one_of(self.kinds, identity.kind)
            and all(_one_of(self.kernels, kernel) for kernel in identity.kernels)
            and _one_of(self.findings, text)
            and matches(self.case, _named(case, self.requirement))
            and self.is_about(case)
        )

    @property
    def sentence(self) -> str:
        """Until when it is accepted, why, and the page behind it."""
        return f"waived until {self.expires}: {self.reason} {self.url}"

    def cells_of(self, case: CaseResult) -> tuple[str, ...]:
        """The cells of a case that match the waiver, in the case's order."""
        return tuple(c for c in case.cells if any(matches(p, c) for p in self.cells))


def _one_of(patterns: Iterable[str], text: str) -> bool:
    return any(matches(pattern, text) for pattern in patterns)


def _named(case: CaseResult, requirement: str) -> str:
    """A case's name, with another requirement's id where a finding breaks that one."""
    return case.name.replace(case.requirement, requirement, 1)


@dataclass(frozen=True)
class WaiverSet:
    """The waivers of a run on a certain day; ``origin`` names the file in messages."""

    waivers: tuple[Waiver, ...]
    today: date
    origin: str = "waivers.toml"

    def apply(self, case: CaseResult) -> list[CaseResult]:
        """Splits a failed case by cells: a waived part for each set of waivers, and the rest.

        The detail of a waived part begins with the waivers' reasons, a paragraph each. Cases with
        another outcome are returned unchanged: an error is no verdict, so there is nothing to
        accept.
        """
        if case.outcome is not Outcome.FAILED or case.suite == SUITE:
            return [case]
        needed = [self._accepting(case, *finding) for finding in case.found]
        parts: dict[tuple[Waiver, ...], list[str]] = {}
        for cell in case.cells or ("",):
            parts.setdefault(_together(needed, case, cell), []).append(cell)
        failed = parts.pop((), None)
        made = [_waived(case, waivers, cells) for waivers, cells in parts.items()]
        rest = replace(case, cells=tuple(failed)) if failed and case.cells else case
        return [*made, rest] if failed else made

    def _accepting(
        self, case: CaseResult, text: str, identity: Identity
    ) -> list[tuple[Waiver, ...]]:
        """For each deviation in a finding, or for the finding, the waivers that accept it."""
        live = [waiver for waiver in self.waivers if not self._expired(waiver)]
        return [
            tuple(waiver for waiver in live if waiver.accepts(case, text, identity, deviation))
            for deviation in identity.deviations or ("",)
        ]

    def closing_cases(
        self, results: Iterable[CaseResult], *, partial: Collection[str] = ()
    ) -> list[CaseResult]:
        """Failed cases for waivers that the run showed to be wrong, one for each subject in scope.

        ``results`` are the run's cases after ``apply``. A waiver is skipped if nothing in its scope
        was judged, because of another subject or suite. ``partial`` are patterns of requirements
        for which cases were left out (cells, problems, a shorter sweep): their waivers cannot be
        called unmatched or stale.
        """
        cases: dict[str, list[CaseResult]] = defaultdict(list)
        for case in results:
            if case.suite != SUITE:
                cases[case.requirement].append(case)
        closing: list[CaseResult] = []
        for waiver in self.waivers:
            scope = [case for case in cases[waiver.requirement] if waiver.in_scope(case)]
            scope = [case for case in scope if waiver.names(case)]
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


def _together(
    needed: Iterable[Iterable[tuple[Waiver, ...]]], case: CaseResult, cell: str
) -> tuple[Waiver, ...]:
    """The waivers that accept everything in a cell, the first for each part; none: some part fails.

    ``cell``: "" for a case outside of the matrix.
    """
    chosen: dict[str, Waiver] = {}
    for accepting in (part for finding in needed for part in finding):
        here = (waiver for waiver in accepting if not cell or cell in waiver.cells_of(case))
        first = next(here, None)
        if first is None:
            return ()
        chosen[first.id] = first
    return tuple(chosen.values())


def _waived(case: CaseResult, waivers: Sequence[Waiver], cells: Sequence[str]) -> CaseResult:
    sentences = [waiver.sentence for waiver in waivers]
    return replace(
        case,
        outcome=Outcome.WAIVED,
        waiver=TOGETHER.join(waiver.id for waiver in waivers),
        cells=tuple(cells) if case.cells else (),
        detail="\n\n".join(filter(None, (*sentences, case.detail))),
    )


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
    if key in LISTS:
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
    for pattern in waiver.kinds:
        if not any(matches(pattern, kind) for kind in KINDS):
            raise one_of("kind of finding", pattern, [*KINDS])
    for pattern in waiver.cells if cells is not None else ():
        if not any(matches(pattern, cell) for cell in cells or ()):
            raise one_of("cell", pattern, sorted(cells or ()))
