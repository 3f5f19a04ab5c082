"""Which of a release's own tests run, and what was found out about those that fail: two tables."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Any, Literal

from packaging.specifiers import SpecifierSet
from packaging.version import Version
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from conformance.errors import UsageError
from conformance.suites.upstream.recorded import Recorded

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NO_DEVICE = "none"
# What a finding can be about: how a case ended that the device judged.
Judged = Literal["failed", "violated"]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    releases: str = ""

    @field_validator("releases")
    @classmethod
    def _releases(cls, text: str) -> str:
        SpecifierSet(text)
        return text

    def holds_for(self, release: str) -> bool:
        """Whether the row is about a release, a PEP 440 version."""
        return SpecifierSet(self.releases).contains(Version(release).base_version)


class Chosen(_Row):
    """A row of ``tests.toml``, which explains the columns."""

    files: tuple[str, ...] = Field(min_length=1)
    devices: tuple[str, ...] = ("*",)
    cases: str = ""
    sample: int = Field(default=0, ge=0)
    limit: float = Field(default=30.0, gt=0)
    aiter: bool = False
    flash_attn: bool = False
    why: str = ""

    @property
    def name(self) -> str:
        """The row, for logs and progress."""
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.files[0]}{more}"

    def runs_on(self, device: str) -> bool:
        return any(fnmatchcase(device or NO_DEVICE, pattern) for pattern in self.devices)

    def narrowed(self, patterns: Sequence[str]) -> Chosen | None:
        """The row with the files that hold one of the patterns; None if none does."""
        kept = [f for f in self.files if not patterns or any(p in f for p in patterns)]
        return self.model_copy(update={"files": tuple(kept)}) if kept else None


class Finding(_Row):
    """A row of ``findings.toml``, which explains the columns."""

    id: str
    file: str
    cases: str = "*"
    device: str = "*"
    ended: Judged
    says: str = "*"
    fault: Literal["vllm", "test", "harness"]
    finding: str = Field(min_length=20)
    source: str

    def is_about(self, release: str, device: str, case: str) -> bool:
        """Whether a case is one of those that the finding names."""
        file, _, name = case.partition("::")
        return (
            self.holds_for(release)
            and file == self.file
            and fnmatchcase(device or NO_DEVICE, _plain(self.device))
            and fnmatchcase(name, _plain(self.cases))
        )

    def explains(self, release: str, device: str, case: Recorded, found: str) -> bool:
        """Whether it is why something was found of a case."""
        return (
            case.ended == self.ended
            and self.is_about(release, device, case.case)
            and fnmatchcase(" ".join(found.split()), _plain(self.says))
        )


def _plain(pattern: str) -> str:
    """A pattern in which brackets are ordinary characters: pytest's names have them."""
    return pattern.replace("[", "[[]")


@dataclass(frozen=True)
class Tables:
    """Both tables, as read."""

    tests: tuple[Chosen, ...]
    findings: tuple[Finding, ...]

    def of(self, release: str, device: str, files: Sequence[str] = ()) -> list[Chosen]:
        """The tests of a release that run on a device, in files that hold one of ``files``."""
        rows = (row for row in self.tests if row.holds_for(release) and row.runs_on(device))
        return [kept for row in rows if (kept := row.narrowed(files)) is not None]

    def explanations(self, release: str, device: str, case: Recorded) -> tuple[Finding, ...]:
        """The findings that together explain all that was found of a case; none if any is left."""
        of_each = []
        for found in case.found:
            whys = (f for f in self.findings if f.explains(release, device, case, found))
            of_each.append(next(whys, None))
        known = tuple(dict.fromkeys(f for f in of_each if f is not None))
        return known if None not in of_each else ()

    def stale(self, release: str, device: str, cases: Iterable[Recorded]) -> Iterator[Finding]:
        """The findings that name one case, which ran and passed: what they say is no longer so.

        A pattern may fit cases that a sample has not drawn.
        """
        passed = [case.case for case in cases if case.ended == "passed"]
        for finding in self.findings:
            named = not set("*?") & set(finding.cases)
            if named and any(finding.is_about(release, device, case) for case in passed):
                yield finding


def read_tables(tests: str, findings: str) -> Tables:
    """The tables from their text.

    Raises:
        UsageError: something in them is wrong; says what.
    """
    try:
        rows = TypeAdapter(tuple[Chosen, ...]).validate_python(_rows(tests, "tests"))
        found = TypeAdapter(tuple[Finding, ...]).validate_python(_rows(findings, "finding"))
    except (ValidationError, ValueError) as error:
        raise UsageError(f"the table of upstream tests: {error}") from error
    ids = [finding.id for finding in found]
    if double := sorted({name for name in ids if ids.count(name) > 1}):
        raise UsageError(f"findings.toml: these ids are there twice: {', '.join(double)}")
    return Tables(rows, found)


def _rows(text: str, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tomllib.loads(text).get(name, [])
    return rows


@cache
def tables() -> Tables:
    """The suite's own."""
    folder = resources.files(__package__)
    return read_tables(
        *((folder / name).read_text(encoding="utf-8") for name in ("tests.toml", "findings.toml"))
    )
