"""Wrong selectors, editions and rows, judged in this process."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import pytest

from conformance.mutation.edition_changes import changes
from conformance.mutation.mutant import Mutant
from conformance.mutation.requirement_rows import RequirementJudge, RequirementPart, first_wrong
from conformance.mutation.selection import (
    EditionPart,
    SelectionJudge,
    SelectorPart,
    release_of,
    with_change,
)
from conformance.mutation.verdict import Fate
from conformance.mutation.wrong_builds import Build
from conformance.requirements import requirement
from conformance.subjects.reference import edition_table, selector_on
from vllm_editions import Edition, editions

CELL = ("rocm72-aiter-mha",)


def judge_of(edition: Edition, mutant: Mutant) -> SelectionJudge:
    """A judge of one build, which obeys an edition, in one cell."""

    def builds(_mutant: Mutant) -> Iterator[tuple[str, Build]]:
        name = edition.edition
        spec = f"worker:{mutant.id}"
        yield name, Build(spec, release_of(name), lambda p: selector_on(edition, p))

    return SelectionJudge(builds, CELL, sweep=20)


@pytest.mark.parametrize(
    ("name", "fate"),
    [
        ("dense: order at 0", Fate.CAUGHT),
        ("TRITON_ATTN: sinks", Fate.CAUGHT),
        ("", Fate.SURVIVED),
    ],
)
def test_an_edition_with_a_wrong_cell_is_caught(name: str, fate: Fate) -> None:
    right = edition_table("0.19", release_of("0.19"))
    edition = right
    if name:
        edition = with_change(right, next(c for c in changes(right) if c.name == name))
    mutant = Mutant("editions", "0.19.toml", "", "", "", name)
    assert judge_of(edition, mutant).judge(mutant).fate is fate


def test_a_selector_that_stops_with_an_error_is_caught() -> None:
    def builds(_mutant: Mutant) -> Iterator[tuple[str, Build]]:
        raise ZeroDivisionError("a selector")
        yield

    verdict = SelectionJudge(builds).judge(Mutant("selector", "", "", "", "", ""))
    assert verdict.fate is Fate.RAISED
    assert "ZeroDivisionError" in verdict.message


def test_a_selector_that_never_answers_is_caught() -> None:
    def builds(_mutant: Mutant) -> Iterator[tuple[str, Build]]:
        while True:
            with contextlib.suppress(Exception):  # a selector may catch what it likes
                sum(range(1000))
        yield

    judge = SelectionJudge(builds, seconds=0.05)
    assert judge.judge(Mutant("selector", "", "", "", "", "")).fate is Fate.TIMEOUT


def test_the_selectors_code_is_edited_and_run() -> None:
    part = SelectorPart()
    mutant = next(
        m for m in part.mutants() if m.function == "Selector.select" and m.operator == "comparison"
    )
    names, built = zip(*part.builds(mutant), strict=True)
    assert names == (editions()[0], editions()[-1])
    assert {build.release for build in built} == {f"{name}.0" for name in names}
    assert len({build.spec for build in built}) == 2


def test_every_edition_has_changes_of_every_kind() -> None:
    found = EditionPart().mutants()
    counted = Counter(mutant.file for mutant in found)
    assert set(counted) == {f"{name}.toml" for name in editions()}
    kinds = {"candidates", "capability", "rule", "paged attention", "vision"}
    assert {mutant.operator for mutant in found} == kinds
    assert len({mutant.id for mutant in found}) == len(found)


def test_each_kind_of_wrong_row_blames_the_reference() -> None:
    """The first two of each operator: how many of all are caught the campaign says."""
    seen: Counter[str] = Counter()
    judge = RequirementJudge()
    for mutant in RequirementPart().mutants():
        if mutant.operator != "held longer" and mutant.function.startswith("SEL-00"):
            seen[mutant.operator] += 1
            if seen[mutant.operator] <= 2:
                assert judge.judge(mutant).fate is Fate.CAUGHT, mutant
    assert set(seen) == {"absent", "candidates", "order", "reasons", "selected"}


@pytest.mark.parametrize("identifier", ["SEL-004", "SEL-006", "CAP-071"])
def test_a_right_row_blames_nobody(identifier: str) -> None:
    assert first_wrong(requirement(identifier)) == ""
