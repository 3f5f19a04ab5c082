"""The score, what does not count in it, and the page that shows it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from conformance.errors import SuiteError
from conformance.mutation.equivalents import check_rows, equivalents, equivalents_in
from conformance.mutation.mutant import Mutant
from conformance.mutation.operators import OPERATORS
from conformance.mutation.page import page, percent
from conformance.mutation.results import Header, Judged
from conformance.mutation.score import score, wilson
from conformance.mutation.verdict import Fate, Verdict

ROWS = equivalents_in("""
[[equivalent]]
part = "kernels"
function = "same"
before = "x[:, None]"
reason = "it is the same"
""")


def judged(fate: Fate, tier: str = "", function: str = "f", number: int = 0) -> Judged:
    mutant = Mutant(
        *("kernels", "ops/a.py", function, "term", "x[:, None]", "x | y"), line=3, number=number
    )
    return Judged(mutant, Verdict(fate, tier, seconds=30.0, asked=4), (1, 7))


ALL = [
    *[judged(Fate.CAUGHT, "quick", number=n) for n in range(5)],
    judged(Fate.RAISED, "quick", number=5),
    judged(Fate.CAUGHT, "standard", number=6),
    judged(Fate.TIMEOUT, "quick", number=7),
    judged(Fate.SURVIVED, number=8),
    judged(Fate.NOT_REACHED, number=9),
    judged(Fate.ERRORED, number=10),
    judged(Fate.SURVIVED, function="same", number=11),
]
HEADER = Header("kernels", "a part", "tree", 1234, "")


def test_what_counts_and_what_does_not() -> None:
    found = score(ALL, ROWS)
    assert (found.judged, found.equivalent, found.errored, found.valid) == (12, 1, 1, 10)
    assert (found.quick, found.standard, found.caught) == (7, 1, 8)
    assert found.share == pytest.approx(8 / 10)
    assert found.quick_share == pytest.approx(7 / 10)
    assert found.share_of_reached == pytest.approx(8 / 9)
    # Without the one that stopped with an error and the one that gave no answer.
    assert found.share_of_silent == pytest.approx(6 / 8)


def test_what_time_ran_out_for_counts_for_the_quick_tier_alone() -> None:
    found = score([*ALL, *[judged(Fate.UNDECIDED, number=n) for n in (12, 13)]], ROWS)
    assert (found.undecided, found.valid, found.caught) == (2, 10, 8)
    assert found.quick_share == pytest.approx(7 / 12)


@pytest.mark.parametrize(
    ("fate", "equivalent"), [(Fate.NOT_REACHED, 1), (Fate.SURVIVED, 0), (Fate.UNDECIDED, 0)]
)
def test_a_row_about_what_nothing_runs_is_about_nothing_else(fate: Fate, equivalent: int) -> None:
    rows = [ROWS[0].model_copy(update={"unreached": True})]
    found = score([judged(fate, function="same")], rows)
    assert (found.equivalent, found.judged) == (equivalent, 1)


@pytest.mark.parametrize(("pattern", "fits"), [("x = load(*", True), ("y = *", False)])
def test_a_row_may_name_the_statement(pattern: str, fits: bool) -> None:
    row = ROWS[0].model_copy(update={"statement": pattern})
    mutant = replace(judged(Fate.SURVIVED, function="same").mutant, statement="x = load(p, mask)")
    assert row.fits(mutant) == fits


def test_an_equivalent_that_is_caught_is_none() -> None:
    found = score([judged(Fate.CAUGHT, "quick", function="same")], ROWS)
    assert (found.equivalent, found.caught, found.valid) == (0, 1, 1)


def test_nothing_judged_has_no_share() -> None:
    found = score([], ROWS)
    assert math.isnan(found.share)
    assert found.interval == (0.0, 1.0)


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(10, 10, 0.7225, 1.0), (0, 10, 0.0, 0.2775), (97, 100, 0.9155, 0.9897)],
)
def test_the_interval_is_wilsons(hits: int, of: int, low: float, high: float) -> None:
    assert wilson(hits, of) == pytest.approx((low, high), abs=2e-4)


def test_a_share_is_not_rounded_up() -> None:
    assert percent(0.9999) == "99.9 %"
    assert percent(1.0) == "100.0 %"


def test_the_page_has_all_there_is_to_know() -> None:
    text = page([(HEADER, ALL)], ROWS)
    assert "| kernels | 1, 7 | 12 | 8 (80.0 %) | 70.0 % | " in text
    assert "1,234 mutants in all" in text
    assert text.count("| `ops/a.py:3 f` | term | `x[:, None]` → `x \\| y` |") == 2
    assert "not reached |" in text
    assert "| kernels | 1 | it is the same |" in text
    assert all(f"- **{operator.name}**: {operator.says}" in text for operator in OPERATORS)
    assert "1 stopped with an error and 1 gave no answer in time; without these 75.0 %" in text


def test_the_page_names_the_parts_that_it_lacks() -> None:
    text = page([(HEADER, ALL)], ROWS, ["kernels", "emulator"])
    assert "No campaign is on record here for emulator.\n" in text
    assert "No campaign" not in page([(HEADER, ALL)], ROWS, ["kernels"])


def test_a_page_without_survivors_says_so() -> None:
    text = page([(HEADER, ALL[:5])], ())
    assert "## Survivors\n\nNone.\n" in text


def test_a_row_that_fits_nothing_is_an_error() -> None:
    with pytest.raises(SuiteError, match="no mutant of kernels fits"):
        check_rows("kernels", [judged(Fate.CAUGHT).mutant], ROWS)
    check_rows("kernels", [ALL[-1].mutant], ROWS)
    check_rows("emulator", [], ROWS)


def test_every_row_of_the_table_has_a_reason() -> None:
    assert all(len(row.reason) > 20 for row in equivalents())


def test_a_row_may_list_what_it_fits() -> None:
    (row,) = equivalents_in("""
[[equivalent]]
part = "kernels"
function = ["same", "g*"]
before = ["x[[]:, None]", "y"]
reason = "either"
""")
    fits = {name: row.fits(judged(Fate.SURVIVED, function=name).mutant) for name in ("same", "go")}
    assert fits == {"same": True, "go": True}
    assert not row.fits(judged(Fate.SURVIVED, function="other").mutant)
