"""The stack table, its cells and platforms, and its agreement with tox.ini."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.errors import InfrastructureError, SuiteError, UsageError
from conformance.matrix.requests import AITER, MHA, Platform
from conformance.matrix.stacks import (
    Cell,
    Stack,
    all_cells,
    checkout,
    load_stacks,
    match_cells,
    parse_cell,
    parse_stacks,
    platform_cells,
)
from conformance.matrix.targets import TARGETS
from tests.support.tox_check import disagreements, read_tox

ROOT = Path(__file__).resolve().parents[2]
PLACE = "conformance/matrix/matrix.toml"
TABLE = (ROOT / PLACE).read_text(encoding="utf-8")
TOX = (ROOT / "tox.ini").read_text(encoding="utf-8")
NAMES = ["rocm62", "rocm63", "rocm64", "rocm70", "rocm71", "rocm72", "rocm100"]


def stack(name: str) -> Stack:
    return {row.name: row for row in load_stacks()}[name]


# --- the table


def test_stacks_are_in_table_order() -> None:
    assert [row.name for row in load_stacks()] == NAMES
    assert re.findall(r"^\[(\w+)\]", TABLE, flags=re.MULTILINE) == NAMES


def test_targets_grow_with_the_stacks() -> None:
    assert stack("rocm62").targets == ("gfx90a", "gfx942", "gfx1100")
    assert set(stack("rocm62").targets) < set(stack("rocm63").targets) < set(TARGETS)
    # No ROCm release is pinned that has the GPU.
    assert set(stack("rocm72").targets) == set(TARGETS) - {"gfx1250"}


def test_every_source_is_of_the_row_s_own_vllm_release() -> None:
    for row in load_stacks():
        assert f"/vllm-project/vllm/blob/v{row.vllm}/" in row.source


def test_equal_triton_commits_have_equal_stand_ins() -> None:
    stand_ins: dict[tuple[str, str], set[str]] = {}
    for row in load_stacks():
        stand_ins.setdefault((row.triton.repo, row.triton.ref), set()).add(row.triton_pypi)
    assert all(len(versions) == 1 for versions in stand_ins.values())
    assert len(stand_ins) < len(NAMES)


def test_a_triton_that_says_its_version_is_stood_in_for_by_that_version() -> None:
    for row in load_stacks():
        assert row.triton.version.split("+")[0] in ("", row.triton_pypi)


def test_pins_have_a_page_where_they_were_built() -> None:
    assert stack("rocm72").triton.url == "https://github.com/ROCm/triton/tree/ba5c1517"
    assert stack("rocm100").torch.url == ""
    assert str(stack("rocm70").torch) == "2.9.1 ROCm/pytorch@89075173"


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ('"gfx1100"]', '"gfx1099"]', "unknown target 'gfx1099'. Did you mean"),
        ('vllm = "0.6.6"\n', "", "vllm: Field required"),
        ('vllm = "0.6.6"\n', 'vllm = "0.6.6"\nvlm = "0.6.6"\n', "vlm: "),
        ('ref = "e192dba"', 'rev = "e192dba"', "triton.rev: "),
        ('triton_pypi = "3.2.0"', 'triton_pypi = "3.2.*"', "triton_pypi: "),
        ('targets = ["gfx90a", "gfx942", "gfx1100"]', "targets = []", "targets: "),
    ],
)
def test_a_bad_row_names_file_row_and_field(before: str, after: str, named: str) -> None:
    assert before in TABLE
    with pytest.raises(SuiteError) as caught:
        parse_stacks(TABLE.replace(before, after, 1))
    assert f"{PLACE}: row 'rocm62'" in str(caught.value)
    assert named in str(caught.value)


def test_an_empty_table_is_an_error() -> None:
    with pytest.raises(SuiteError, match="has no stacks"):
        parse_stacks("")


# --- cells


def test_all_cells() -> None:
    names = [cell.name for cell in all_cells()]
    assert len(names) == len(set(names)) == 28
    assert names[:4] == [
        "rocm62-aiter-mha",
        "rocm62-aiter-nomha",
        "rocm62-noaiter-mha",
        "rocm62-noaiter-nomha",
    ]
    assert list(dict.fromkeys(name.split("-")[0] for name in names)) == NAMES


@pytest.mark.parametrize("cell", all_cells(), ids=str)
def test_a_cell_s_name_means_that_cell(cell: Cell) -> None:
    assert parse_cell(cell.name) == cell


@pytest.mark.parametrize("name", ["rocm62-aiter", "rocm100-noaiter"])
def test_without_an_mha_factor_the_flag_is_on(name: str) -> None:
    assert parse_cell(name).name == f"{name}-mha"


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("rocm73-aiter", ("'rocm73'", *NAMES)),
        ("rocm62", ("'rocm62'", "<stack>-<aiter|noaiter>[-<mha|nomha>]")),
        ("rocm62-aiter-mha-quick", ("<stack>-<aiter|noaiter>[-<mha|nomha>]",)),
        ("rocm62-mha-aiter", ("second factor", "'mha'", "Allowed: aiter, noaiter")),
        ("rocm62-aiter-mah", ("third factor", "Did you mean 'mha'?", "Allowed: mha, nomha")),
        ("ROCM62-aiter", ("'ROCM62'", *NAMES)),
        ("", NAMES),
    ],
)
def test_a_wrong_cell_says_what_is_allowed(name: str, named: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        parse_cell(name)
    for part in (*named, repr(name)):
        assert part in str(caught.value)


def test_environment() -> None:
    assert parse_cell("rocm72-aiter-nomha").env() == {AITER: "1", MHA: "0"}
    assert parse_cell("rocm72-noaiter-mha").env() == {AITER: "0", MHA: "1"}


# --- patterns


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (
            ["rocm72-*", "rocm62-aiter"],
            [
                "rocm62-aiter-mha",
                "rocm72-aiter-mha",
                "rocm72-aiter-nomha",
                "rocm72-noaiter-mha",
                "rocm72-noaiter-nomha",
            ],
        ),
        (["rocm62-aiter", "rocm62-aiter-mha", "rocm62-aiter-m?a"], ["rocm62-aiter-mha"]),
        (["*-aiter-nomha"], [f"{name}-aiter-nomha" for name in NAMES]),
        (["rocm7[01]-noaiter-mha"], ["rocm70-noaiter-mha", "rocm71-noaiter-mha"]),
        (["*"], [cell.name for cell in all_cells()]),
    ],
)
def test_matching(patterns: list[str], expected: list[str]) -> None:
    assert [cell.name for cell in match_cells(patterns)] == expected


@pytest.mark.parametrize(
    ("patterns", "named"),
    [
        ([], "no cell was named"),
        (["rocm8*"], "no cell matches 'rocm8*'"),
        (["*", "rocm8*"], "no cell matches 'rocm8*'"),
        (["*", "rocm71-noaitr"], "Did you mean 'noaiter'?"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error(patterns: list[str], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        match_cells(patterns)
    assert named in str(caught.value)


# --- platforms


def test_an_aiter_cell_has_aiter_asked_for_and_not() -> None:
    assert parse_cell("rocm62-aiter-nomha").platforms()[:2] == (
        Platform.make("gfx90a", aiter=True, env={AITER: "1", MHA: "0"}),
        Platform.make("gfx90a", aiter=True, env={AITER: "0", MHA: "0"}),
    )


def test_a_noaiter_cell_has_aiter_not_asked_for_and_missing() -> None:
    assert parse_cell("rocm62-noaiter-mha").platforms()[:2] == (
        Platform.make("gfx90a", aiter=False, env={AITER: "0", MHA: "1"}),
        Platform.make("gfx90a", aiter=False, env={AITER: "1", MHA: "1"}),
    )


@pytest.mark.parametrize("cell", all_cells(), ids=str)
def test_every_target_has_two_platforms(cell: Cell) -> None:
    platforms = cell.platforms()
    assert [platform.target for platform in platforms] == [
        name for name in cell.stack.targets for _ in range(2)
    ]
    assert len(set(platforms)) == len(platforms)
    assert {platform.variables[MHA] for platform in platforms} == {cell.env()[MHA]}


def test_cells_of_different_stacks_share_platforms() -> None:
    cells = match_cells(["rocm62-aiter", "rocm63-aiter", "rocm72-aiter", "rocm72-noaiter"])
    shared = platform_cells(cells)
    both = {AITER: "1", MHA: "1"}
    everywhere = ("rocm62-aiter-mha", "rocm63-aiter-mha", "rocm72-aiter-mha")
    assert shared[Platform.make("gfx942", aiter=True, env=both)] == everywhere
    assert shared[Platform.make("gfx1201", aiter=True, env=both)] == everywhere[1:]
    assert shared[Platform.make("gfx950", aiter=True, env=both)] == everywhere[2:]
    assert shared[Platform.make("gfx942", aiter=False, env=both)] == ("rocm72-noaiter-mha",)


def test_every_platform_is_of_exactly_the_cells_that_have_it() -> None:
    shared = platform_cells(all_cells())
    for cell in all_cells():
        found = {platform for platform, names in shared.items() if cell.name in names}
        assert found == set(cell.platforms())
    # nine targets, aiter found or not, each of the two flags
    assert len(shared) == 9 * 2 * 2 * 2


def test_platforms_come_in_the_order_of_their_first_cell() -> None:
    cells = all_cells()
    assert list(platform_cells(cells).items()) == list(platform_cells(cells).items())
    assert list(platform_cells(cells))[: 2 * 3] == list(cells[0].platforms())
    assert next(iter(platform_cells(reversed(cells)))) == cells[-1].platforms()[0]


# --- where the table is


def test_the_checkout_is_found() -> None:
    assert checkout() == ROOT


def test_an_installed_suite_reads_its_own_table(tmp_path: Path) -> None:
    """Copies the packages as a wheel would install them, and runs away from the checkout."""
    for package in ("conformance",):
        for path in (ROOT / package).rglob("*"):
            if path.suffix in (".py", ".toml"):
                copy = tmp_path / "site" / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
    code = "\n".join(
        (
            "import sys; sys.path.insert(0, sys.argv[1])",
            "from conformance.matrix import stacks",
            "print(len(stacks.load_stacks()), stacks.checkout(), stacks.__file__)",
        )
    )
    site = str(tmp_path / "site")
    out = subprocess.check_output([sys.executable, "-c", code, site], cwd=tmp_path, text=True)
    assert out.split() == [
        "7",
        "None",
        str(tmp_path / "site" / "conformance" / "matrix" / "stacks.py"),
    ]


def test_a_missing_table_says_where_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(package: str) -> Path:
        raise ModuleNotFoundError(f"No module named {package!r}")

    monkeypatch.setattr("conformance.matrix.stacks.resources.files", nowhere)
    load_stacks.cache_clear()
    with pytest.raises(
        InfrastructureError, match=r"conformance/matrix/matrix\.toml.*install it again"
    ):
        load_stacks()


# --- tox.ini


def test_tox_and_the_table_agree() -> None:
    tox = read_tox(ROOT / "tox.ini", ROOT)
    assert disagreements(tox, load_stacks()) == []
    assert tox.env_list == tuple(cell.name for cell in all_cells())
    short = {"rocm62-aiter", "rocm62-noaiter", "rocm100-noaiter"}
    assert short < {env.name for env in tox.envs}


def _replacing(before: str, after: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert before in text
        return text.replace(before, after)

    return change


@pytest.mark.parametrize(
    ("change", "sentences"),
    [
        pytest.param(
            _replacing("rocm70: triton==3.4.0", "rocm70: triton==3.4.1"),
            [
                f"rocm70-aiter-mha installs triton==3.4.1: {PLACE} says triton==3.4.0",
                f"rocm70-aiter installs triton==3.4.1: {PLACE} says triton==3.4.0",
            ],
            id="wrong pin",
        ),
        pytest.param(
            _replacing("    rocm100: triton==3.8.0\n", ""),
            [f"rocm100-noaiter installs no Triton: {PLACE} says triton==3.8.0"],
            id="no pin",
        ),
        pytest.param(
            _replacing("rocm72: triton==3.6.0", "rocm72: triton>=3.6.0"),
            [f"rocm72-aiter installs triton>=3.6.0: {PLACE} says triton==3.6.0"],
            id="loose pin",
        ),
        pytest.param(
            _replacing("rocm64,", ""),
            ["the cell rocm64-aiter-mha has no environment: add its factors to env_list"],
            id="missing stack",
        ),
        pytest.param(
            _replacing("{mha,nomha}", "{mha}"),
            ["the cell rocm72-noaiter-nomha has no environment: add its factors to env_list"],
            id="missing factor",
        ),
        pytest.param(
            _replacing("rocm72,rocm100}", "rocm72,rocm73,rocm100}"),
            [
                f"env_list has rocm73-aiter-mha, which is no cell of {PLACE}",
                f"the file names the stack rocm73, which {PLACE} does not have",
            ],
            id="extra stack",
        ),
        pytest.param(
            _replacing(
                "rocm100: triton==3.8.0", "rocm100: triton==3.8.0\n    rocm73: triton==3.7.0"
            ),
            [f"the file names the stack rocm73, which {PLACE} does not have"],
            id="pin of no stack",
        ),
        pytest.param(
            _replacing("rocm62,rocm63", "rocm63,rocm62"),
            [f"env_list is not in the order of {PLACE}"],
            id="order",
        ),
        pytest.param(
            _replacing("-c constraints/base.txt", ""),
            ["rocm62-aiter-mha installs without `-c constraints/base.txt`"],
            id="no constraints",
        ),
        pytest.param(
            _replacing("--cell {env_name}", "--cell rocm62-aiter"),
            [
                "rocm72-aiter-mha runs rocm-conformance run --runner auto --cell rocm62-aiter "
                "--results results/rocm72-aiter-mha: "
                "expected `rocm-conformance run --runner auto --cell rocm72-aiter-mha "
                "--results results/rocm72-aiter-mha`"
            ],
            id="another cell's run",
        ),
    ],
)
def test_the_check_of_tox_bites(
    tmp_path: Path, change: Callable[[str], str], sentences: list[str]
) -> None:
    mutated = tmp_path / "tox.ini"
    mutated.write_text(change(TOX), encoding="utf-8")
    found = disagreements(read_tox(mutated, ROOT), load_stacks())
    assert set(sentences) <= set(found)


def test_a_change_of_the_table_bites_too() -> None:
    tox = read_tox(ROOT / "tox.ini", ROOT)
    extra = TABLE + TABLE[TABLE.index("[rocm100]") :].replace("[rocm100", "[rocm110")
    assert disagreements(tox, parse_stacks(extra)) == [
        f"the cell rocm110-{aiter}-{mha} has no environment: add its factors to env_list"
        for aiter in ("aiter", "noaiter")
        for mha in ("mha", "nomha")
    ]
    moved = TABLE.replace('triton_pypi = "3.6.0"', 'triton_pypi = "3.7.1"')
    assert len(disagreements(tox, parse_stacks(moved))) == 6  # four cells and two short names


def test_a_tox_file_that_tox_cannot_read_is_an_infrastructure_error(tmp_path: Path) -> None:
    broken = tmp_path / "tox.ini"
    broken.write_text("[tox]\nenv_list = {rocm62", encoding="utf-8")
    with pytest.raises(InfrastructureError) as caught:
        disagreements(read_tox(broken, ROOT), load_stacks())
    assert str(broken) in str(caught.value)
