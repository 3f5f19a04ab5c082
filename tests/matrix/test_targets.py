"""The target table: its facts, its look-up, and what a broken table says."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from importlib import resources

import pytest

from conformance.errors import ExitCode, SuiteError, UsageError
from conformance.matrix.targets import TARGETS, Target, target
from conformance.matrix.toml_rows import read_rows

GOOD_ROW = """
[gfx942]
family = "CDNA3"
products = "MI300X"
wave_size = 64
lds_bytes = 65536
matrix = "mfma"
fp8 = "fnuz"
queue = ""
source = "https://example.org"
"""


def test_targets_are_in_table_order() -> None:
    text = (
        resources.files("conformance.matrix").joinpath("targets.toml").read_text(encoding="utf-8")
    )
    headings = [line.strip("[]") for line in text.splitlines() if line.startswith("[")]
    assert list(TARGETS) == headings
    assert headings == [
        *("gfx90a", "gfx942", "gfx950", "gfx1250"),
        *("gfx1100", "gfx1101", "gfx1150", "gfx1151", "gfx1200", "gfx1201"),
    ]


@pytest.mark.parametrize(
    ("name", "family", "wave_size", "lds_kib", "matrix", "fp8"),
    [
        ("gfx90a", "CDNA2", 64, 64, "mfma", "none"),
        ("gfx942", "CDNA3", 64, 64, "mfma", "fnuz"),
        ("gfx950", "CDNA4", 64, 160, "mfma", "ocp"),
        ("gfx1100", "RDNA3", 32, 64, "wmma", "none"),
        ("gfx1101", "RDNA3", 32, 64, "wmma", "none"),
        ("gfx1150", "RDNA3.5", 32, 64, "wmma", "none"),
        ("gfx1151", "RDNA3.5", 32, 64, "wmma", "none"),
        ("gfx1200", "RDNA4", 32, 64, "wmma", "ocp"),
        ("gfx1201", "RDNA4", 32, 64, "wmma", "ocp"),
    ],
)
def test_facts(name: str, family: str, wave_size: int, lds_kib: int, matrix: str, fp8: str) -> None:
    found = target(name)
    assert (found.name, found.family, found.wave_size) == (name, family, wave_size)
    assert (found.lds_bytes, found.matrix, found.fp8) == (lds_kib * 1024, matrix, fp8)


def test_queues_are_those_of_data_centre_gpus() -> None:
    assert {name: row.queue for name, row in TARGETS.items() if row.queue} == {
        "gfx90a": "amd_mi250_1",
        "gfx942": "amd_mi325_1",
        "gfx950": "amd_mi355_1",
    }


def test_unknown_target_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        target("gfx9422")
    assert caught.value.exit_code == ExitCode.USAGE
    message = str(caught.value)
    assert "unknown target 'gfx9422'" in message
    assert "Did you mean 'gfx942'?" in message
    assert all(name in message for name in TARGETS)


def test_targets_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        target("gfx942").wave_size = 32  # type: ignore[misc] # the assignment is what is tested
    with pytest.raises(TypeError):
        TARGETS["gfx000"] = target("gfx942")  # type: ignore[index] # likewise


def test_a_good_row_is_read() -> None:
    assert read_rows(GOOD_ROW, "t.toml", Target)["gfx942"].products == "MI300X"


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("wave_size = 64", "", "wave_size: Field required"),
        ("wave_size = 64", "wave_size = 48", "wave_size: Input should be 32 or 64"),
        ("wave_size = 64", "wave_size = 64\nwaves = 8", "waves: "),
        ('fp8 = "fnuz"', 'fp8 = "e4m3"', "fp8: Input should be 'none', 'fnuz' or 'ocp'"),
        ("lds_bytes = 65536", "lds_bytes = 0", "lds_bytes: "),
        ("https://example.org", "the manual", "source: "),
    ],
)
def test_a_bad_row_names_file_row_and_field(before: str, after: str, named: str) -> None:
    with pytest.raises(SuiteError) as caught:
        read_rows(GOOD_ROW.replace(before, after), "t.toml", Target)
    assert "t.toml: row 'gfx942'" in str(caught.value)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [("[gfx942", "t.toml is not TOML"), ("gfx942 = 1", "'gfx942' is a int: expected a table")],
)
def test_a_broken_file_says_so(text: str, named: str) -> None:
    with pytest.raises(SuiteError, match=named):
        read_rows(text, "t.toml", Target)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("MI210", "gfx90a"),
        ("MI300X", "gfx942"),
        ("amd instinct mi325x", "gfx942"),
        ("MI355X", "gfx950"),
        ("Radeon PRO W7900", "gfx1100"),
        ("rx 7800 xt", "gfx1101"),
        ("Strix Halo", "gfx1151"),
        ("Ryzen AI Max+ 395", "gfx1151"),
        ("RX 9060 XT", "gfx1200"),
        ("RX9070XT", "gfx1201"),
        ("9070 XT", "gfx1201"),
        ("W7900", "gfx1100"),
    ],
)
def test_a_target_is_found_by_its_market_names(name: str, found: str) -> None:
    assert target(name).name == found


def test_a_market_name_is_one_targets() -> None:
    names = [name for row in TARGETS.values() for name in row.market_names]
    assert len(names) == len(set(names))
    assert all(
        target(name).name == row.name for row in TARGETS.values() for name in row.market_names
    )


@pytest.mark.parametrize(("name", "near"), [("MI300Y", "MI300X"), ("RX 9070 TX", "RX 9070 XT")])
def test_an_unknown_name_is_told_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        target(name)
    said = str(caught.value)
    assert "Did you mean" in said
    assert near in said
