"""The requirements: what every statement must have, and what a malformed table says."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from conformance.errors import SuiteError, UsageError
from conformance.matrix.requests import AITER, MHA, PagedAttention, Platform, Request, Vit
from conformance.matrix.targets import TARGETS
from conformance.problems.families import backends
from conformance.requirements import (
    EVERY,
    FILES,
    PULL_36702,
    TARGET_CLASSES,
    On,
    Requirement,
    all_requirements,
    parity_backends,
    requirement,
    requirements_in,
    requirements_of,
    truth_rows,
)
from conformance.requirements.attribution import all_rules
from conformance.requirements.removed_variables import removed_variables
from conformance.suites.selection.test_sweep import LAST_RESORT
from vllm_editions import DEFAULT_EDITION, editions, load_edition

ALL = all_requirements()
BACKENDS = {name for edition in editions() for name in load_edition(edition).backends}
# This repository's own rule has no page to cite.
WITHOUT_URL = {"REM-008"}
ENTRY: dict[str, Any] = {
    "id": "TST-001",
    "title": "A title",
    "sentence": "A sentence.",
    "source": "https://example.org/source",
    "holds": ">=0.19",
    "question": "attention",
}


def made(*rows: dict[str, Any], **changes: Any) -> Requirement:
    """A requirement with rows that expect ROCM_ATTN."""
    filled = [{"expect": {"selected": "ROCM_ATTN"}, **row} for row in rows]
    return Requirement.model_validate({**ENTRY, "row": filled, **changes})


# ---- the tables that travel with the suite ---------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_each_requirement_is_a_sentence_with_a_source(name: str) -> None:
    one = ALL[name]
    assert one.title and not one.title.endswith(".")
    assert one.sentence.endswith(".")
    assert one.sentence[0].isupper() or one.sentence.startswith("vllm.")
    if name not in WITHOUT_URL:
        assert re.fullmatch(r"https://\S+", one.source)
    for url in one.contested:
        assert url.startswith("https://")


@pytest.mark.parametrize("name", ALL)
def test_each_requirement_holds_for_an_edition_and_has_rows(name: str) -> None:
    one = ALL[name]
    assert any(one.in_edition(edition) for edition in editions())
    assert (not one.row) == (one.question == "probe")


@pytest.mark.parametrize("name", [name for name in ALL if ALL[name].row])
def test_each_row_expects_something_and_can_be_asked_somewhere(name: str) -> None:
    platforms = [
        Platform.make(target, aiter=aiter, env={AITER: on, MHA: mha})
        for target, aiter, on, mha in itertools.product(TARGETS, (True, False), "01", "01")
    ]
    for row in truth_rows(ALL[name]):
        assert row.requirement == name
        assert row.expect.model_fields_set
        assert any(row.on.includes(platform) for platform in platforms)
        named = {*row.expect.rejected, *(row.expect.candidates or ())}
        assert named <= BACKENDS


def test_what_36702_introduced_is_no_part_of_edition_018() -> None:
    introduced = {name for name, one in ALL.items() if one.introduced_by == PULL_36702}
    assert introduced
    assert introduced <= requirements_of("0.19").keys()
    assert not introduced & requirements_of("0.18").keys()


def test_each_attribution_rule_names_a_requirement() -> None:
    assert {rule.requirement for rule in all_rules()} <= ALL.keys()


def test_every_file_of_requirements_is_read() -> None:
    folder = resources.files("conformance.requirements")
    tables = {Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml")}
    assert tables - {"attribution", "waivers", "removed_variables"} == set(FILES)


def test_a_removed_variable_is_gone_from_a_series_on() -> None:
    gone = removed_variables()["VLLM_ROCM_USE_AITER_FP4_ASM_GEMM"]
    assert [edition for edition in editions() if not gone.is_gone_in(edition)][-1] == "0.28"
    assert [edition for edition in editions() if gone.is_gone_in(edition)][-1] == editions()[-1]
    assert all(one.source.startswith("https://") for one in removed_variables().values())


def test_an_unknown_requirement_is_the_users_error() -> None:
    with pytest.raises(UsageError, match="SEL-999"):
        requirement("SEL-999")
    assert requirement("SEL-001") is ALL["SEL-001"]


# ---- malformed tables ------------------------------------------------------------------------


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is read instead of the suite's own tables; all of them start empty."""
    for name in FILES:
        (tmp_path / f"{name}.toml").touch()
    (tmp_path / "suites").mkdir()
    monkeypatch.setattr("conformance.requirements.resources.files", lambda _name: tmp_path)
    all_requirements.cache_clear()
    yield tmp_path
    all_requirements.cache_clear()


GOOD = "\n".join(f'{key} = "{value}"' for key, value in ENTRY.items())
MALFORMED = {
    "missing key": (GOOD.replace('title = "A title"', ""), "title"),
    "unknown key": (GOOD + '\nseverity = "high"', "severity"),
    "unknown question": (GOOD.replace('"attention"', '"mamba"'), "question"),
    "unknown binding": (GOOD + '\nbinds = "nobody"', "binds"),
    "row without expectation": (GOOD + "\n[[requirement.row]]\nrequest = {}", "expect"),
    "unknown expectation": (
        GOOD + '\n[[requirement.row]]\nexpect = { selectd = "X" }',
        "selectd",
    ),
    "unknown flag": (
        GOOD + '\n[[requirement.row]]\non = { env = { OTHER = "1" } }\nexpect = {}',
        "OTHER",
    ),
    "flag that is no digit": (
        GOOD + f'\n[[requirement.row]]\non = {{ env = {{ {AITER} = "yes" }} }}\nexpect = {{}}',
        AITER,
    ),
}


def write(folder: Path, name: str, *entries: str) -> None:
    text = "".join(f"[[requirement]]\n{entry}\n" for entry in entries)
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_requirement_names_file_id_and_field(name: str, tables: Path) -> None:
    entry, field = MALFORMED[name]
    write(tables, "vit", entry)
    with pytest.raises(SuiteError, match=r"vit\.toml, TST-001") as raised:
        all_requirements()
    assert field in str(raised.value)


def test_a_well_formed_table_is_read(tables: Path) -> None:
    write(tables, "vit", GOOD)
    assert list(all_requirements()) == ["TST-001"]


@pytest.mark.parametrize("wrong", ["TST-1", "tst-001", "TST-001 ", "TEST-001"])
def test_an_id_has_three_letters_and_three_digits(wrong: str, tables: Path) -> None:
    write(tables, "vit", GOOD.replace("TST-001", wrong))
    with pytest.raises(SuiteError, match=f"vit.toml, {wrong}"):
        all_requirements()


def test_an_id_stands_once_in_all_files(tables: Path) -> None:
    write(tables, "selection", GOOD)
    write(tables, "vit", GOOD)
    with pytest.raises(SuiteError, match=r"vit\.toml: a second requirement has the id TST-001"):
        all_requirements()


# ---- who is held to what ---------------------------------------------------------------------


@pytest.mark.parametrize("release", ["0.18.1", "0.19.0", "0.19.0+rocm721", "0.20.1rc1", "dev"])
def test_the_edition_binds_every_build(release: str) -> None:
    assert made(holds=">=0.19,<0.20").not_judged_because(release) == ""


@pytest.mark.parametrize(
    ("release", "held"),
    [
        ("0.18.1", False),
        ("0.19.0", True),
        ("0.19.0+rocm721", True),
        ("0.19.1.dev3", True),
        ("0.19.0rc1", True),
        ("0.20.0", False),
        ("dev", True),
    ],
)
def test_a_release_bound_requirement_binds_its_own_series(release: str, held: bool) -> None:
    bound = made(holds=">=0.19,<0.20", binds="release")
    why = bound.not_judged_because(release)
    assert (why == "") == held
    if not held:
        for part in (release, ">=0.19,<0.20", bound.source):
            assert part in why


# ---- rows ------------------------------------------------------------------------------------


def questions(one: Requirement) -> list[Any]:
    return [row.ask.question for row in truth_rows(one)]


def test_lists_spread_to_every_combination() -> None:
    request = {"head_size": [64, 128], "dtype": ["float16", "bfloat16"], "has_sink": True}
    row = {"request": request, "backend": ["ROCM_ATTN", "TRITON_ATTN"]}
    rows = list(truth_rows(made(row)))
    expected = set(
        itertools.product((64, 128), ("float16", "bfloat16"), ("ROCM_ATTN", "TRITON_ATTN"))
    )
    assert len(rows) == 8
    asked = set()
    for one in rows:
        assert isinstance(one.ask.question, Request)
        assert one.ask.question.has_sink
        assert one.expect.selected == "ROCM_ATTN"
        asked.add((one.ask.question.head_size, one.ask.question.dtype, one.ask.backend))
    assert asked == expected


def test_a_row_without_lists_is_one_row() -> None:
    (row,) = truth_rows(made({}))
    assert (row.ask.question, row.ask.backend) == (Request(), None)


def test_a_row_may_hold_for_fewer_series_than_its_requirement() -> None:
    one = made({"request": {"head_size": 64}})
    less = one.model_copy(update={"row": (one.row[0].model_copy(update={"holds": "!=0.25"}),)})
    found = {edition: len(list(truth_rows(less, edition))) for edition in ("0.24", "0.25", "")}
    assert found == {"0.24": 1, "0.25": 0, "": 1}


def test_the_rule_of_last_resort_is_of_every_edition() -> None:
    """Or a difference of the sweep that no rule answers for would be counted nowhere."""
    assert all(requirement(LAST_RESORT).in_edition(edition) for edition in editions())


def test_none_and_0_stand_for_what_toml_cannot_say() -> None:
    row = {"request": {"kv_cache_dtype": ["none", "auto"], "block_size": [0, 16]}}
    assert questions(made(row)) == [
        Request(kv_cache_dtype=cache, block_size=block)
        for cache, block in itertools.product((None, "auto"), (None, 16))
    ]


def test_a_sliding_window_of_0_stays_0() -> None:
    row = {"request": {"sliding_window": [0, 128], "gqa_ratio": 4}}
    assert questions(made(row, question="paged_attention")) == [
        PagedAttention(sliding_window=0, gqa_ratio=4),
        PagedAttention(sliding_window=128, gqa_ratio=4),
    ]


def test_rows_of_a_vision_requirement_are_vision_questions() -> None:
    assert questions(made({"request": {"head_size": 72}}, question="vit")) == [Vit(head_size=72)]


def test_a_row_with_an_unknown_field_names_the_requirement() -> None:
    with pytest.raises(SuiteError, match=r"TST-001.*head_sise"):
        list(truth_rows(made({"request": {"head_sise": 64}})))


@pytest.mark.parametrize(("name", "parts"), TARGET_CLASSES.items())
def test_a_target_class_includes_what_its_parts_name(name: str, parts: tuple[str, ...]) -> None:
    inside = {t for t in TARGETS if On(targets=(name,)).includes(Platform.make(t))}
    assert inside == {t for t in TARGETS if any(part in t for part in parts)}
    assert inside


def test_a_row_is_about_platforms_with_its_flags() -> None:
    on = On.model_validate({"targets": ("gfx942",), "aiter": True, "env": {AITER: "0", MHA: "1"}})
    here = Platform.make("gfx942", aiter=True)
    assert on.includes(here)  # unset, the flags have vLLM's defaults: AITER off, MHA on
    assert not on.includes(Platform.make("gfx942"))
    assert not on.includes(Platform.make("gfx950", aiter=True))
    assert not on.includes(here.with_env({AITER: "1"}))
    assert not on.includes(here.with_env({MHA: "0"}))


def test_a_row_sets_its_variables_over_the_cells() -> None:
    on = On(flash_attn=True, set={AITER: "true"})
    base = Platform.make("gfx90a", aiter=True, env={AITER: "1", MHA: "0"})
    asked = on.platform(base)
    assert asked == Platform.make(
        "gfx90a", aiter=True, flash_attn=True, env={AITER: "true", MHA: "0"}
    )
    assert On().platform(base) == base


def test_requirements_are_frozen() -> None:
    with pytest.raises(ValidationError):
        ALL["SEL-001"].title = "another"


def test_the_default_edition_is_a_known_one() -> None:
    assert DEFAULT_EDITION in editions()


# ---- parity's requirements name their backend -------------------------------------------------

PARITY = """
[[requirement]]
id = "PAR-001"
title = "A title from which no name could be read"
sentence = "It must."
source = "https://example.org"
holds = ">=0.18"
question = "probe"
"""


def test_a_parity_requirement_is_about_the_backend_that_it_names() -> None:
    (made,) = requirements_in("parity", f'{PARITY}backend = "ROCM_ATTN"')
    assert made.backend == "ROCM_ATTN"


def test_a_parity_requirement_without_a_backend_is_an_error() -> None:
    with pytest.raises(SuiteError, match=r"parity\.toml, PAR-001.*names its backend"):
        list(requirements_in("parity", PARITY))


def test_no_other_requirement_has_a_backend() -> None:
    (made,) = requirements_in("codegen", PARITY)
    assert made.backend == ""
    with pytest.raises(SuiteError, match=r"codegen\.toml, PAR-001.*and no other"):
        list(requirements_in("codegen", f'{PARITY}backend = "ROCM_ATTN"'))


def test_every_backend_with_problems_has_one_parity_requirement() -> None:
    """Of an edition those that it has; all of them in some edition."""
    found: set[str] = set()
    for edition in editions():
        named = [*parity_backends(edition).values()]
        assert len(named) == len(set(named))
        found |= {*named}
    assert found == {*backends()}
    assert ALL["PAR-090"].backend == ALL["PAR-080"].backend == EVERY
