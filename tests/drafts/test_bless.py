"""``bless``: from a release's answers alone, the rows that make its base give them.

The releases are synthetic: the reference selector under an edition that the draft does not see.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from conformance.cli import run_cli
from conformance.commands.bless import _base
from conformance.drafts.draft import Report
from conformance.drafts.facts import Facts, facts_of_source
from conformance.drafts.learning import conditions
from conformance.drafts.search import Drafted, draft, look_closer, record
from conformance.matrix.requests import Platform
from conformance.subjects.base import Session
from conformance.subjects.reference import ReferenceSession, ReferenceSubject
from vllm_editions import Edition, edition_rows, load_edition
from vllm_editions.changes import applied

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Table = dict[str, Any]
AITER = "VLLM_ROCM_USE_AITER"
PLATFORMS = [
    Platform.make("gfx942"),
    Platform.make("gfx942", aiter=True),
    Platform.make("gfx942", aiter=True, env={AITER: "1"}),
    Platform.make("gfx942", aiter=True, env={AITER: "1", "VLLM_ROCM_USE_AITER_MHA": "0"}),
    Platform.make("gfx90a", aiter=True, env={AITER: "1"}),
    Platform.make("gfx1201", aiter=True, env={AITER: "1"}),
    Platform.make("gfx1201"),
]


class Synthetic(ReferenceSubject):
    """A release: the reference selector under a table that is in no file."""

    def __init__(self, table: Table) -> None:
        super().__init__("0.33", "0.33")
        object.__setattr__(self, "table", Edition.model_validate(table))

    def open(self, platform: Platform) -> Session:
        table: Edition = vars(self)["table"]
        return ReferenceSession(table, platform)


def drafted(
    table: Table, base: str, count: int = 80, platforms: Sequence[Platform] = PLATFORMS
) -> tuple[Drafted, Facts]:
    """A draft of what a release with this table changed since ``base``."""
    edition = Edition.model_validate(table)
    asked = edition.asked
    facts = Facts(asked.fields, asked.kv_cache_dtypes, dict.fromkeys(edition.backends, ""))
    subject = Synthetic(table)
    answered = record(subject, facts, load_edition(base), platforms, count, 1)
    first = draft(base, facts, answered)
    closer = look_closer(subject, facts, first, platforms)
    return (draft(base, facts, [*answered, *closer], first) if closer else first), facts


def altered(change: Callable[[Table], None]) -> Table:
    table = deepcopy(edition_rows("0.32"))
    change(table)
    return table


def _swap(table: Table) -> None:
    dense = table["candidates"]["dense"]
    dense[1], dense[-3] = dense[-3], dense[1]


def _needs_aiter(table: Table) -> None:
    for entry in table["candidates"]["dense"]:
        if entry["backend"] == "ROCM_ATTN":
            entry["when"] = [*entry.get("when", []), f"!{AITER}"]


def _sinks(table: Table) -> None:
    table["backends"]["ROCM_ATTN"]["sinks"] = ["on mi3xx"]


def _sizes(table: Table) -> None:
    table["backends"]["TRITON_ATTN"].update(min_head_size=64, dtypes=["float16", "bfloat16"])


def _reworded(table: Table) -> None:
    for check in table["selection"]["checks"]:
        if check["supports"] == "pcp":
            check["reason"] = "no prefill context parallelism"


def _without_check(table: Table) -> None:
    checks = table["selection"]["checks"]
    table["selection"]["checks"] = [check for check in checks if check["supports"] != "rswa"]


def _vision(table: Table) -> None:
    table["vit"]["rules"][0]["when"].remove(AITER)


def _kernel(table: Table) -> None:
    table["paged_attention"]["cdna"]["head_sizes"] = [64, 80, 128]


def _refusal(table: Table) -> None:
    refusal = {"reason": "no float16 with sinks", "when": ["has_sink"], "dtypes": ["float16"]}
    table["backends"]["TRITON_ATTN"]["refuses"] = [refusal]


ALTERED: dict[str, tuple[Callable[[Table], None], str]] = {
    "order": (_swap, "candidates.dense"),
    "condition": (_needs_aiter, "candidates.dense.ROCM_ATTN.when"),
    "capability of some targets": (_sinks, "backends.ROCM_ATTN.sinks"),
    "sizes": (_sizes, "backends.TRITON_ATTN.min_head_size"),
    "word": (_reworded, "selection.checks.pcp.reason"),
    "vision": (_vision, "vit.rules"),
    "decode kernel": (_kernel, "paged_attention.cdna.head_sizes"),
    "refusal": (_refusal, "backends.TRITON_ATTN.refuses"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_a_change_of_any_kind_is_drafted_and_explains_every_answer(name: str) -> None:
    change, path = ALTERED[name]
    # One question in twenty is about the decode kernel.
    found, _ = drafted(altered(change), "0.32", 160 if name == "decode kernel" else 80)
    assert found.before > 0
    assert found.left == ()
    paths = [row.path for row in found.rows]
    assert path in paths
    assert len(paths) <= 3


def test_a_release_that_changed_nothing_has_no_rows() -> None:
    found, _ = drafted(edition_rows("0.32"), "0.32", 40)
    assert (found.rows, found.before, found.left) == ((), 0, ())


def test_0_33_is_drafted_from_0_32_with_its_own_file_hidden() -> None:
    found, facts = drafted(edition_rows("0.33"), "0.32", 120, PLATFORMS[::2])
    assert found.left == ()
    paths = {row.path for row in found.rows}
    assert {"asked.kv_cache_dtypes", "candidates.dense", "vit.rules"} <= paths
    assert {"backends.ROCM_OCTAVE", "backends.ROCM_FLASHMLA_SPARSE_DSV41"} <= paths
    octave = found.table["backends"]["ROCM_OCTAVE"]
    own = edition_rows("0.33")["backends"]["ROCM_OCTAVE"]
    for key in ("head_sizes", "attn_types", "block_sizes"):
        assert octave[key] == own[key]
    assert set(octave["kv_cache_dtypes"]) == set(own["kv_cache_dtypes"])
    dense = [entry["backend"] for entry in found.table["candidates"]["dense"]]
    assert dense.index("ROCM_OCTAVE") == dense.index("ULTRAQUANT") - 1
    _read_again(found, facts)


def _read_again(found: Drafted, facts: Facts) -> None:
    """The draft's file is an edition, the one that was found."""
    text = Report(found, facts, "0.33", "0.33.0").text
    made = applied(tomllib.loads(text), edition_rows(found.base))
    edition, other = (Edition.model_validate(table) for table in (made, found.table))
    header = {"edition": "0.33", "source": edition.source}
    assert edition == other.model_copy(update=header)
    assert "/v0.33.0/" in edition.source
    assert "DRAFT" in text.splitlines()[0]


def test_what_a_draft_cannot_explain_is_listed_with_an_example() -> None:
    """Two conditions of which either will do are no conjunction: the schema has no words for it."""

    class Odd(Synthetic):
        def open(self, platform: Platform) -> Session:
            table = altered(_sinks if platform.target == "gfx90a" and platform.aiter else _nothing)
            table["backends"]["ROCM_ATTN"]["sinks"] = platform.target == "gfx90a"
            if platform.variables.get("VLLM_ROCM_USE_AITER_MHA") == "0":
                table["backends"]["TRITON_ATTN"]["dtypes"] = ["float32"]
            return ReferenceSession(Edition.model_validate(table), platform)

    base = load_edition("0.32")
    facts = Facts(base.asked.fields, base.asked.kv_cache_dtypes, dict.fromkeys(base.backends, ""))
    answered = record(Odd(edition_rows("0.32")), facts, base, PLATFORMS, 60, 1)
    found = draft("0.32", facts, answered)
    assert found.left
    assert "backends.ROCM_ATTN.sinks" in [row.path for row in found.rows]
    report = Report(found, facts, "0.33", "0.33.0")
    left = report.left()
    assert any("TRITON_ATTN" in each.what and "dtype" in each.what for each in left)
    for text in (report.in_words(), report.as_markdown()):
        assert "What it does not explain" in text
        assert left[0].what in text
    assert report.as_json()["differ"] == len(found.left)


def _nothing(_table: Table) -> None:
    pass


def test_no_row_is_kept_that_explains_nothing() -> None:
    found, _ = drafted(altered(_without_check), "0.32")
    assert found.left == ()
    assert [row.path for row in found.rows] in (["selection.checks"], ["selection.checks.rswa"])


def test_conditions_are_the_fewest_that_tell_two_sides_apart() -> None:
    def holds(case: set[str], word: str) -> bool:
        return (word.removeprefix("!") in case) is not word.startswith("!")

    words = ["a", "b", "c", "!a", "!b", "!c"]
    assert conditions([{"a", "b"}], [{"a"}, {"b", "c"}], words, holds) in (["a", "b"], ["b", "a"])
    assert conditions([{"a"}, {"a", "b"}], [{"b"}, set()], words, holds) == ["a"]
    assert conditions([{"a"}, {"b"}], [{"a", "b"}, set()], words, holds) is None
    assert conditions([{"a"}], [], words, holds) == []


# ---- the source ------------------------------------------------------------------------------


def test_words_are_read_from_a_releases_source(tmp_path: Path) -> None:
    files = {
        "config/cache.py": 'CacheDType = Literal[\n    "auto",\n    "new8",\n]\n',
        "v1/attention/selector.py": "class AttentionSelectorConfig:\n    head_size: int\n",
        "v1/attention/backends/registry.py": (
            "class AttentionBackendEnum(Enum):\n"
            '    ROCM_ATTN = "vllm.v1.attention.backends.rocm_attn.Backend"\n'
            '    TORCH_SDPA = ""\n'
        ),
        "v1/attention/backends/rocm_attn.py": "class Backend:\n    def supports_sink(cls):\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    facts = facts_of_source(tmp_path, ("head_size",), load_edition("0.33"))
    assert facts.kv_cache_dtypes == ("auto", "new8")
    assert facts.backends == {"ROCM_ATTN": "v1/attention/backends/rocm_attn.py", "TORCH_SDPA": ""}
    assert facts.notes == ()
    found, _ = drafted(altered(_sinks), "0.32", 60)
    (row,) = (row for row in found.rows if row.path == "backends.ROCM_ATTN.sinks")
    assert facts.source(row, "0.34.0").endswith(
        "v0.34.0/vllm/v1/attention/backends/rocm_attn.py#L2"
    )


def test_a_source_without_those_files_is_noted(tmp_path: Path) -> None:
    base = load_edition("0.33")
    facts = facts_of_source(tmp_path, (), base)
    assert facts.kv_cache_dtypes == base.asked.kv_cache_dtypes
    assert set(facts.backends) == set(base.backends)
    assert len(facts.notes) == 3


# ---- the command -----------------------------------------------------------------------------


def test_the_base_is_the_edition_before() -> None:
    assert (_base("0.33"), _base("0.20"), _base("0.18"), _base("0.99")) == (
        "0.32",
        "0.19",
        "0.19",
        "0.33",
    )


def test_the_command_drafts_and_writes_only_where_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--target", "gfx942", "--sweep", "2000"]
    file = tmp_path / "0.22.toml"
    code = run_cli(["bless", "0.22", *few, "--output", str(file), "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    assert (code, found["base"], found["differ"], found["changes"]) == (0, "0.21", 0, [])
    assert file.read_text(encoding="utf-8") == found["draft"]
    assert run_cli(["bless", "0.22", *few, "--write"]) == 2
    assert "there is an edition 0.22 already" in capsys.readouterr().err
