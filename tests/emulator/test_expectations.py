"""What others expect of single instructions holds here, or is listed with the reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from conformance.devices.isa.instructions.table import is_known
from conformance.devices.isa.target import UnknownError
from tests.emulator import isa_cases, test_matrix
from tests.emulator.test_matrix import Matrix

from .expectations import ways
from .expectations.rows import Row, rows

# Every row is counted once. A row that no longer runs, or no longer holds, changes a number here.
COUNTS = {
    "holds": 9_540,
    "holds, one instruction of tinygrad's": 1_564,
    "a unit in the last place": 11,
    "NaN is clamped": 7,
    "no value": 91,
    "a whole test's constants": 899,
}
# Why a row that is not in "holds" is not run, or does not agree.
REASONS = {
    "a unit in the last place": "v_exp_f32 and v_log_f32 are specified to one unit in the last "
    "place (AMD's manuals of RDNA3 and RDNA4), which is all that these results are off",
    "NaN is clamped": "data of CDNA3, repeated for gfx1201. That has no DX10_CLAMP: it clamps NaN "
    "to 0 (MODE register in AMD's manual of RDNA4)",
    "no value": "the row names an instruction, and what its source says cannot be written as a "
    "number: it is known, and has its test here, or is in REFUSED",
    "a whole test's constants": "a row of tinygrad's holds the constants of a test of several "
    "instructions, not the test: those tests were run as machine code, see "
    "docs/explanation/emulation.md",
}
# Nothing that compiles attention for the targets emits these: see emitted.json.
REFUSED = {
    "ds_read_b96_tr_b6", "global_load_tr_b64_w32", "v_cvt_sr_bf8_f32", "v_cvt_sr_fp8_f32",
    "v_smfmac_f32_16x16x64_f16", "v_swmmac_f32_16x16x32_f16",
}  # fmt: skip


def _one_by_one(some: list[Row], way: Callable[[Row], list[int]]) -> Iterator[tuple[Row, str]]:
    for row in some:
        yield row, "holds" if way(row) == list(row.expected) else "differs"


def _way(row: Row) -> Callable[[Row], list[int]] | None:
    """How a row whose result is a list is run."""
    if row.name.startswith("ds_") and len(row.inputs) == 2:
        return ways.atomic
    if row.inputs == ("lds ramp",):
        return ways.columns
    if row.name == "v_permlane64_b32":
        return ways.unchanged
    return ways.exchange if isinstance(row.expected, list) else None


def _single(row: Row) -> str:
    try:
        held = ways.near(row, ways.single(row))
    except (UnknownError, ValueError):
        held = False
    return "holds, one instruction of tinygrad's" if held else "a whole test's constants"


_PRODUCT = re.compile(r"v_(?:mfma|wmma)_f32_(\d+)x\d+x(\d+)_?([^ ]*)(?: cbsz:(\d) blgp:(\d))?")


def _product(row: Row) -> str:
    """The corpus multiplies random whole numbers, and expects none of the results to be wrong."""
    found = _PRODUCT.match(row.instruction)
    assert found is not None and row.expected == 0
    size, depth, kind, one, two = found.groups()
    kinds = {"f8f6f4": (_EIGHT[int(one or 0)], _EIGHT[int(two or 0)])}.get(kind)
    if kinds is None:
        names = kind.removesuffix("_1k").removeprefix("x").split("_")
        kinds = (names[0], names[-1])
    target = getattr(isa_cases, row.target.upper())
    name, more = row.name, row.instruction.removeprefix(row.name).rstrip()
    test_matrix.test_product(Matrix(name, target, int(size), int(depth), kinds, more))
    return "holds"


_EIGHT = ("fp8", "bf8")


@cache
def judged() -> tuple[tuple[Row, str], ...]:
    """Every row, and what becomes of it: a key of COUNTS, or "differs"."""
    found: list[tuple[Row, str]] = []
    arithmetic: list[Row] = []
    for row in rows():
        if row.expected is None:
            found.append((row, "no value"))
        elif row.of_tinygrad:
            found.append((row, _single(row)))
        elif row.inputs == ("random ints",):
            found.append((row, _product(row)))
        elif (way := _way(row)) is not None:
            found += _one_by_one([row], way)
        else:
            arithmetic.append(row)
    for some in ways.grouped(arithmetic):
        for row, result in zip(some, ways.arithmetic(some), strict=True):
            found.append((row, _outcome(row, result)))
    return tuple(found)


def _outcome(row: Row, result: int) -> str:
    if ways.equal(row, result):
        return "holds"
    if row.name in ("v_exp_f32", "v_log_f32") and abs(result - row.expected) == 1:
        return "a unit in the last place"
    if row.target == "gfx1201" and "clamp" in row.instruction and result == 0:
        return "NaN is clamped"
    return "differs"


def test_every_row_holds_or_is_listed() -> None:
    differs = [
        (row.instruction, row.target, row.inputs) for row, what in judged() if what == "differs"
    ]
    assert differs == []
    assert Counter(what for _, what in judged()) == COUNTS
    assert sum(COUNTS.values()) == len(rows()) == 12_112
    assert {*REASONS} == {kind for kind in COUNTS if not kind.startswith("holds")}


def test_rows_without_a_value_are_of_known_instructions() -> None:
    names = {row.name for row, what in judged() if what == "no value"}
    assert {name for name in names if not is_known(name)} == REFUSED


def test_a_wrong_product_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    row = next(row for row, _ in judged() if row.inputs == ("random ints",))
    monkeypatch.setattr(Matrix, "result", lambda self, lane, register: (register, lane % self.size))
    with pytest.raises(AssertionError):
        _product(row)


@pytest.mark.parametrize(
    ("text", "change"),
    [("v_alignbit_b32", 1), ("ds_sub_rtn_u32", 1), ("v_pk_mul_f16", 1 << 16), ("v_cmp_lt_f16", 1)],
)
def test_a_wrong_row_is_seen(text: str, change: int) -> None:
    """A row with another number in its result differs, so that a count changes."""
    row = next(row for row, what in judged() if row.name.startswith(text) and what == "holds")
    if isinstance(row.expected, list):
        wrong = Row(
            *{**vars(row), "expected": [row.expected[0], row.expected[1] ^ change]}.values()
        )
        assert [what for _, what in _one_by_one([wrong], ways.atomic)] == ["differs"]
    else:
        wrong = Row(*{**vars(row), "expected": row.expected ^ change}.values())
        assert _outcome(wrong, ways.arithmetic([wrong])[0]) == "differs"
