"""Twenty random changes of one cell of each edition: the sweep must find each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache

import pytest

from conformance.matrix.requests import AITER, MHA, Ask, Platform, Selection
from conformance.matrix.targets import TARGETS
from conformance.mutation.edition_changes import changed
from conformance.subjects.reference import answer, edition_table, selector_on
from conformance.suites.selection import sampling
from vllm_editions import Edition, editions

MLA, UNIFIED = "VLLM_ROCM_USE_AITER_MLA", "VLLM_ROCM_USE_AITER_UNIFIED_ATTENTION"
CHANGES = 20
ASKS = 1_000
# One for each kind of flags' setting that changes something, and nothing set: defaults show there.
SETTINGS: tuple[dict[str, str], ...] = (
    {AITER: "1", MHA: "1"},
    {AITER: "1", MHA: "0"},
    {AITER: "0", MHA: "1"},
    {AITER: "1", MLA: "0"},
    {AITER: "1", UNIFIED: "1"},
    {AITER: "1"},
    {},
)
IN_NO_TIME = ("0.18", "0.33")


def platforms() -> Iterator[Platform]:
    for env, target, aiter in itertools.product(SETTINGS, TARGETS, (True, False)):
        yield Platform.make(target, aiter=aiter, env=env)


@cache
def asks(edition: str, platform: Platform) -> list[Ask]:
    """A sweep's requests, of every kind."""
    table = edition_table(edition)
    return [
        *sampling.requests(f"changes {platform}", ASKS, table),
        *sampling.paged_attention(f"changes {platform}", ASKS // 10),
        *sampling.vit(f"changes {platform}", ASKS // 50, [*table.vit.explicit, "FLEX_ATTENTION"]),
    ]


@cache
def right(edition: str, platform: Platform) -> list[Selection]:
    selector = selector_on(edition_table(edition), platform)
    return [answer(selector, ask) for ask in asks(edition, platform)]


def is_found(changed_edition: Edition) -> bool:
    """Whether some request of the sweep ends differently, or for other reasons."""
    for platform in platforms():
        selector = selector_on(changed_edition, platform)
        name = changed_edition.edition
        for ask, expected in zip(asks(name, platform), right(name, platform), strict=True):
            if answer(selector, ask) != expected:
                return True
    return False


def check(edition: str, count: int) -> None:
    missed = [name for name, other in changed(edition_table(edition), count) if not is_found(other)]
    asks.cache_clear()
    right.cache_clear()
    assert not missed


@pytest.mark.parametrize("edition", IN_NO_TIME)
def test_some_changes_of_one_cell_are_found(edition: str) -> None:
    check(edition, 8)


@pytest.mark.slow
@pytest.mark.parametrize("edition", editions())
def test_twenty_changes_of_one_cell_of_each_edition_are_found(edition: str) -> None:
    check(edition, CHANGES)


def test_an_edition_that_is_not_changed_is_found_by_nothing() -> None:
    table = edition_table("0.19")
    for platform in itertools.islice(platforms(), 2):
        selector = selector_on(table, platform)
        assert [answer(selector, ask) for ask in asks("0.19", platform)] == right("0.19", platform)
