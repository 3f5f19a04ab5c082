"""Mutants that compute the same, or what nobody can see: a table, each row with its reason."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources

from pydantic import BaseModel, ConfigDict

from conformance.errors import SuiteError
from conformance.mutation.mutant import Mutant

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE = "mutation/equivalents.toml"


class Equivalent(BaseModel):
    """Which mutants are equivalent, and why. Patterns as of :mod:`fnmatch`; "*" fits anything.
    ``statement``: of the first line of the statement that is edited.

    ``function`` may be several, of which one must fit, and so may ``before`` and ``after``.
    ``number``: which of those that are alike in all else, from 0 on; None: all. ``unreached``: only
    of code that nothing runs here, such as a GPU's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    part: str
    reason: str
    file: str = "*"
    function: str | tuple[str, ...] = "*"
    operator: str = "*"
    before: str | tuple[str, ...] = "*"
    after: str | tuple[str, ...] = "*"
    statement: str = "*"
    number: int | None = None
    unreached: bool = False

    def fits(self, mutant: Mutant) -> bool:
        patterns = ("part", "file", "function", "operator", "before", "after", "statement")
        if self.number not in (None, mutant.number):
            return False
        return all(_fits(getattr(mutant, name), getattr(self, name)) for name in patterns)


def _fits(text: str, pattern: str | tuple[str, ...]) -> bool:
    """Whether a text fits; a pattern without wildcards is taken literally."""
    patterns = (pattern,) if isinstance(pattern, str) else pattern
    return any(text == one or fnmatchcase(text, one) for one in patterns)


@cache
def equivalents() -> tuple[Equivalent, ...]:
    """The table's rows."""
    text = resources.files(__package__).joinpath("equivalents.toml").read_text(encoding="utf-8")
    return equivalents_in(text)


def equivalents_in(text: str) -> tuple[Equivalent, ...]:
    """The rows of a table's text."""
    rows = tomllib.loads(text).get("equivalent", [])
    return tuple(Equivalent.model_validate(row) for row in rows)


def reason_of(mutant: Mutant, rows: Iterable[Equivalent], *, reached: bool = True) -> str:
    """Why a mutant is equivalent; "" if it is not known to be. ``reached``: something runs it."""
    fitting = (row for row in rows if not (reached and row.unreached))
    return next((row.reason for row in fitting if row.fits(mutant)), "")


def check_rows(part: str, mutants: Sequence[Mutant], rows: Sequence[Equivalent]) -> None:
    """Makes sure that each row about a part is about something.

    Raises:
        SuiteError: a row fits none of the part's mutants.
    """
    for row in rows:
        if row.part == part and not any(row.fits(mutant) for mutant in mutants):
            raise SuiteError(
                f"{TABLE}: no mutant of {part} fits {row!r}: has the code changed? Mend the row, "
                "or take it out"
            )
