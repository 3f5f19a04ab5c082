"""Environment variables that a release took away, and that must not come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from packaging.version import Version

from conformance.matrix.toml_rows import read_rows


@dataclass(frozen=True)
class RemovedVariable:
    """A variable; ``removed_in`` is the first series without it, ``source`` where it was last."""

    name: str
    removed_in: str
    source: str

    def is_gone_in(self, edition: str) -> bool:
        return Version(edition) >= Version(self.removed_in)


@cache
def removed_variables() -> Mapping[str, RemovedVariable]:
    """All rows of ``removed_variables.toml``, by name."""
    file = resources.files(__package__) / "removed_variables.toml"
    return read_rows(file.read_text(encoding="utf-8"), file.name, RemovedVariable)
