"""In which order a process is given the cases of a machine."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from conformance.config import RunConfig
from conformance.matrix.requests import AITER, MHA, REMOVED_VARIABLE, Platform
from conformance.suites import plugin
from conformance.suites.case import Case, Context

CELL = Platform.make("gfx942", env={AITER: "0", MHA: "1"})
OTHER_CELL = Platform.make("gfx942", env={AITER: "1", MHA: "1"})
BARE = Platform.make("gfx942")
REMOVED = CELL.with_env({REMOVED_VARIABLE: "0"})
FLASH = replace(CELL, flash_attn=True)
ELSEWHERE = Platform.make("gfx950", env=dict(CELL.env))


class Item:
    """A collected test of a case."""

    def __init__(self, asked_on: Platform, platform: Platform, kind: str) -> None:
        case = Case("suite", kind, "vllm==0.33.0", "SEL-001", platform, ("a cell",), asked_on)
        self.callspec = SimpleNamespace(params={"case": case})

    @property
    def asked_on(self) -> Platform:
        case: Case = self.callspec.params["case"]
        return case.asked_on


def ordered(*items: Item) -> list[Platform]:
    config: Any = SimpleNamespace(stash=pytest.Stash())
    config.stash[plugin._CONTEXT] = Context(RunConfig(("vllm==0.33.0",), ("*",)))
    given: list[Any] = list(items)
    plugin.pytest_collection_modifyitems(config, given)
    return [item.asked_on for item in given]


def test_what_a_fork_can_answer_follows_what_it_is_forked_from() -> None:
    found = ordered(
        Item(BARE, CELL, "flags"),
        Item(FLASH, CELL, "rows"),
        Item(ELSEWHERE, ELSEWHERE, "rows"),
        Item(CELL, CELL, "rows"),
        Item(REMOVED, CELL, "variable"),
        Item(OTHER_CELL, OTHER_CELL, "rows"),
        Item(CELL, CELL, "sweep"),
    )
    assert found == [CELL, CELL, OTHER_CELL, BARE, REMOVED, FLASH, ELSEWHERE]
