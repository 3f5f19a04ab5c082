"""Known defects: the smallest problem of each, and what releases showed of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from conformance.problems.defects import KnownDefect, known_defects
from conformance.problems.features import engine
from conformance.requirements import all_requirements
from conformance.requirements.waivers import Waiver, load_waivers
from conformance.results import markdown
from conformance.suites.parity.defects_table import COLUMNS, HIDDEN, RIGHT, WRONG, Seen, rows

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "known-defects.md"
WAIVERS = {waiver.id: waiver for waiver in load_waivers().waivers}
BY_NAME = {defect.problem.id: defect for defect in known_defects()}
REFUSED = "vLLM's ROCM_ATTN does not admit it"


@pytest.mark.parametrize("defect", known_defects(), ids=lambda defect: defect.problem.id)
def test_a_defect_is_waived_for_its_backend(defect: KnownDefect) -> None:
    waiver = WAIVERS[defect.waiver]
    backend = all_requirements()[waiver.requirement].backend
    assert backend in (defect.problem.backend, "every")
    assert waiver.releases
    most = max(41, defect.problem.topk)
    assert sum(defect.problem.seq_lens) <= most, "the smallest problem is small"


def test_what_no_engine_gives_is_not_asked() -> None:
    cut = BY_NAME["triton-prefix-cut"]
    assert (cut.asked_in("0.29"), cut.asked_in("0.30")) == (True, False)
    assert BY_NAME["rocm-window"].asked_in("0.33")
    assert {defect.engine for defect in known_defects()} <= {"", *engine()}


def test_unused_slots_hold_poison_only_where_it_is_the_point() -> None:
    assert {name for name, d in BY_NAME.items() if not d.filling} == {
        "rocm-unused-slots",
        "rocm-blocks-before-window",
        "triton-unused-slots",
        "triton-cross-unused-slots",
        "segmented-before-window",
    }
    assert BY_NAME["rocm-window"].filling == "zero"


def seen(name: str, *answers: tuple[str, str]) -> list[Seen]:
    return [Seen(BY_NAME[name], Version(release), answer) for release, answer in answers]


def row(*made: Seen) -> tuple[str, ...]:
    (only,) = rows(made, [*WAIVERS.values()])
    return only[3:6]


def test_a_defect_that_a_release_mends() -> None:
    made = seen("rocm-window", ("0.19.0", WRONG), ("0.18.1", WRONG), ("0.32.0", RIGHT))
    assert row(*made) == ("0.18.1", "0.19.0", "0.32.0")


def test_a_defect_that_the_newest_release_has() -> None:
    assert row(*seen("rocm-window", ("0.19.0", RIGHT), ("0.20.0", WRONG))) == (
        *("0.20.0", "0.20.0", ""),
    )


def test_a_claim_that_a_release_withdraws() -> None:
    made = seen("rocm-prefix", ("0.31.0", WRONG), ("0.32.0", REFUSED))
    assert row(*made) == ("0.31.0", "0.31.0", "0.32.0: not claimed")


def test_what_shows_with_zeros_too_is_another_defect() -> None:
    made = seen("rocm-unused-slots", ("0.20.0", WRONG), ("0.21.0", HIDDEN), ("0.22.0", RIGHT))
    assert row(*made) == ("0.20.0", "0.20.0", "0.22.0")
    assert row(*made[:2]) == ("0.20.0", "0.20.0", "")


def test_a_problem_that_no_engine_gives_any_more() -> None:
    made = seen("triton-prefix-cut", ("0.29.0", WRONG))
    other = seen("rocm-window", ("0.29.0", RIGHT), ("0.30.0", RIGHT))
    assert row(*made, *other) == ("0.29.0", "0.29.0", "later: not asked")


def test_a_defect_that_no_release_shows_is_no_row() -> None:
    assert not [*rows(seen("rocm-window", ("0.32.0", RIGHT)), [*WAIVERS.values()])]


# ---- the page ---------------------------------------------------------------------------------


def page_rows() -> Iterator[list[str]]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for line in lines[lines.index(markdown.table(COLUMNS, []).splitlines()[0]) + 2 :]:
        if not line.startswith("|"):
            break
        yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def waiver_of(cells: list[str]) -> tuple[KnownDefect, Waiver]:
    for defect in known_defects():
        waiver = WAIVERS[defect.waiver]
        shown = [markdown.cell(text) for text in (waiver.reason.strip(), defect.shown)]
        if [defect.problem.backend, *shown] == cells[:3]:
            return defect, waiver
    raise AssertionError(f"no waiver says this any more: {cells}")


def test_the_page_says_what_the_waivers_say() -> None:
    found = [*page_rows()]
    assert len(found) >= 10
    for cells in found:
        _, waiver = waiver_of(cells)
        _, _, _, first, last, right, link = cells
        held = SpecifierSet(waiver.releases)
        assert link == waiver.url
        assert held.contains(first)
        assert held.contains(last)
        version = right.partition(":")[0]
        assert not held.contains(version) if version[:1].isdigit() else True, cells


def test_every_known_defect_is_on_the_page() -> None:
    assert {waiver_of(cells)[0].problem.id for cells in page_rows()} == {*BY_NAME}
