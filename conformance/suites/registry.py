"""All suites: a line for each, in the order in which a run executes them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from conformance.suites.suite import Suite

_FOLDERS = (
    "selection",
    "removal",
    "parity",
    "codegen",
    "metadata",
)


def _suite(folder: str) -> Suite:
    suite = import_module(f"{__package__}.{folder}").SUITE
    assert isinstance(suite, Suite) and suite.name == folder, folder
    return suite


SUITES: dict[str, Suite] = {folder: _suite(folder) for folder in _FOLDERS}
BY_DEFAULT = tuple(name for name, suite in SUITES.items() if suite.by_default)


def suites_named(names: Sequence[str]) -> list[Suite]:
    """The suites with these names, which must be known ones."""
    return [SUITES[name] for name in names]
