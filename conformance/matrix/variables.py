"""The environment variables that vLLM's releases know, and what to say of one that they do not."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE = "variables.toml"
PREFIX = "VLLM_"
# A word as close as this to a known name is taken for a misspelling of it.
CLOSE = 0.85


@dataclass(frozen=True)
class Span:
    """The series, from ``first`` to ``last``, that register a variable."""

    name: str
    first: str
    last: str

    def covers(self, series: str) -> bool:
        return Version(self.first) <= Version(series) <= Version(self.last)

    def __str__(self) -> str:
        return f"{self.first} to {self.last}" if self.first != self.last else self.first


@cache
def _spans() -> tuple[Span, ...]:
    text = resources.files(__package__).joinpath(TABLE).read_text(encoding="utf-8")
    rows = tomllib.loads(text)["variables"]
    return tuple(Span(name, row["first"], row["last"]) for row in rows for name in row["names"])


def spans_of(name: str) -> tuple[Span, ...]:
    """When a variable is known; none: never, as far as the table goes."""
    return tuple(span for span in _spans() if span.name == name)


@cache
def known_in(series: str) -> frozenset[str]:
    """The variables that a release series registers."""
    return frozenset(span.name for span in _spans() if span.covers(series))


def warnings(names: list[str], series: str) -> Iterator[str]:
    """A sentence for each variable that vLLM of this series does not know.

    Variables of other packages are left alone, unless they look like a misspelling of vLLM's.
    """
    known = known_in(series)
    for name in names:
        if name in known:
            continue
        spans = spans_of(name)
        close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=CLOSE)
        if spans:
            when = " and ".join(map(str, spans))
            yield f"vLLM {series} does not read {name}: only releases {when} know it"
        elif close:
            yield f"vLLM {series} does not know {name}. Did you mean {close[0]}?"
        elif name.startswith(PREFIX):
            yield f"vLLM {series} does not know {name}"
