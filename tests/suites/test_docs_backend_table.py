"""The docs' feature table, read as claims about the backend classes."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.suites.removal.docs_backend_table import disagreements, read_table

PAGE = """
# Backends

| Backend | Version | Dtypes | KV Dtypes | Block Sizes | Head Sizes | Sink | Sparse | MM Prefix | DCP | Attention Types | Compute Cap. |
|---------|---------|--------|-----------|-------------|------------|------|--------|-----------|-----|-----------------|--------------|
| `ROCM_ATTN` |  | fp16, bf16, fp32 | `auto`, `fp8` | 16, 32 | 64, 128 | ✅ | ❌ | ✅ | ❌ | Decoder, Enc-Dec | N/A |
| `FLEX_ATTENTION` |  | fp16 | `auto` | Any | Any | ❌ | ❌ | ❌ | ❌ | All | Any |
| short | row |

| Backend | Dtypes |
|---------|--------|
| `PREFILL` | fp16 |

Text with `| Backend | Sink |` inside.

| Setting | Sink |
| --- | --- |
| `ROCM_AITER_FA` | ✅ |
"""  # noqa: E501 - a table's row is one line
SAYS: dict[str, Any] = {
    "dtypes": ["float16", "bfloat16", "float32"],
    "kv_cache_dtypes": ["auto", "fp8"],
    "block_sizes": ["16", "32"],
    "head_sizes": ["64", "128"],
    "supported_head_sizes": [64, 128],
    "sinks": True,
    "sparse": False,
    "mm_prefix": True,
    "attn_types": ["decoder", "encoder_decoder"],
    "inherited": [],
}


def found(sinks: bool, cells: dict[str, str] | None = None, **says: Any) -> list[str]:
    """Where ROCM_ATTN's row, with cells changed, and its class, with answers changed, differ."""
    row = {**read_table(PAGE)["ROCM_ATTN"], **(cells or {})}
    return list(disagreements(row, {**SAYS, **says}, sinks))


def test_rows_are_read_by_column_title() -> None:
    rows = read_table(PAGE)
    assert list(rows) == ["ROCM_ATTN", "FLEX_ATTENTION"]
    assert rows["ROCM_ATTN"]["Sink"] == "✅"
    assert rows["ROCM_ATTN"]["Attention Types"] == "Decoder, Enc-Dec"
    assert rows["FLEX_ATTENTION"]["Head Sizes"] == "Any"


def test_a_page_without_a_table_has_no_rows() -> None:
    assert read_table("") == {}
    assert read_table("| Backend |\n|---|\n| `A` |\n") == {}


def test_an_agreeing_row_has_no_disagreement() -> None:
    assert found(sinks=True) == []
    assert found(sinks=False) == []


WRONG = [
    ("dtypes", ["float16"], "'Dtypes'"),
    ("kv_cache_dtypes", ["auto"], "'KV Dtypes'"),
    ("block_sizes", ["16"], "'Block Sizes'"),
    ("supported_head_sizes", [64], "'Head Sizes'"),
    ("sparse", True, "'Sparse'"),
    ("mm_prefix", False, "'MM Prefix'"),
    ("attn_types", ["decoder"], "'Attention Types'"),
]


@pytest.mark.parametrize(("key", "value", "column"), WRONG)
def test_each_column_can_disagree_and_is_named(key: str, value: Any, column: str) -> None:
    (text,) = found(sinks=False, **{key: value})
    assert text.startswith(f"column {column} says ")
    assert found(sinks=True, **{key: value}) == []


def test_the_sink_column_is_a_question_of_its_own() -> None:
    (text,) = found(sinks=True, cells={"Sink": "❌"})
    assert text == "column 'Sink' says '❌', the class True"
    assert found(sinks=False, cells={"Sink": "❌"}) == []


def test_what_a_class_inherits_is_not_looked_at() -> None:
    assert found(sinks=False, dtypes=["float16"], inherited=["dtypes"]) == []
    assert found(sinks=False, dtypes=["float16"], inherited=["sinks"]) != []


def test_a_column_that_the_table_lacks_is_not_looked_at() -> None:
    row = {"Sink": "✅"}
    assert list(disagreements(row, {**SAYS, "dtypes": []}, sinks=False)) == []


@pytest.mark.parametrize(
    ("cell", "block_sizes", "agrees"),
    [("Any", ["%1"], True), ("Any", ["16"], False), ("%16", ["%16"], True), ("16", ["%16"], False)],
)
def test_block_sizes(cell: str, block_sizes: list[str], agrees: bool) -> None:
    found_here = found(sinks=False, cells={"Block Sizes": cell}, block_sizes=block_sizes)
    assert (not found_here) == agrees


@pytest.mark.parametrize(
    ("sizes", "agrees"),
    [(list(range(32, 1025)), True), (list(range(1, 1025)), True), ([64, 128], False)],
)
def test_any_head_size_is_every_multiple_of_16_from_32(sizes: list[int], agrees: bool) -> None:
    found_here = found(sinks=False, cells={"Head Sizes": "Any"}, supported_head_sizes=sizes)
    assert (not found_here) == agrees


def test_a_class_without_any_head_size_does_not_support_any() -> None:
    assert found(sinks=False, cells={"Head Sizes": "Any"}, supported_head_sizes=[]) != []


def test_all_attention_types_are_the_four() -> None:
    four = ["decoder", "encoder", "encoder_only", "encoder_decoder"]
    assert found(sinks=False, cells={"Attention Types": "All"}, attn_types=four) == []
    assert found(sinks=False, cells={"Attention Types": "All"}, attn_types=four[:3]) != []
    spelled = "Decoder, Encoder, Encoder Only, Enc-Dec"
    assert found(sinks=False, cells={"Attention Types": spelled}, attn_types=four) == []
