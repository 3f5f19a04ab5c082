"""Files of problems: what the catalogue writes is read again as it was, and mistakes are named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from conformance.errors import UsageError
from conformance.problems.admission import refusals
from conformance.problems.defects import known_defects
from conformance.problems.families import backends, problems_for
from conformance.problems.files import LIMITS, SCHEMA, as_text, read_problems, schema
from conformance.problems.problem import Problem
from conformance.problems.tiers import TIERS

EDITION = "0.33"
TRITON = problems_for("TRITON_ATTN", "quick", 1, EDITION)[0]
UNIFIED = next(
    p for p in problems_for("ROCM_AITER_UNIFIED_ATTN", "quick", 1, EDITION) if p.kind == "paged"
)
LATENT = next(p for p in problems_for("TRITON_MLA", "quick", 1, EDITION) if p.kind == "mla")
INDEX = next(
    p for p in problems_for("ROCM_AITER_MLA_SPARSE", "quick", 1, EDITION) if p.kind == "indexer"
)


def written(folder: Path, value: Any) -> Path:
    path = folder / "problem.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def catalogue(tier: str, seed: int) -> Iterator[Problem]:
    for backend in backends():
        yield from problems_for(backend, tier, seed, EDITION)


@pytest.mark.parametrize(
    "tier",
    [
        pytest.param(tier, marks=[pytest.mark.slow] if tier in ("standard", "gpu") else [])
        for tier in TIERS
    ],
)
def test_every_problem_of_the_catalogue_is_read_as_it_was_written(
    tier: str, tmp_path: Path
) -> None:
    problems = [*catalogue(tier, 20261130)]
    path = written(tmp_path, as_text(problems))
    again = read_problems(path)
    assert again == problems
    assert as_text(again) == path.read_text(encoding="utf-8")
    assert not [p.id for p in again if refusals(p, EDITION)]


def test_known_defects_are_read_as_they_were_written(tmp_path: Path) -> None:
    problems = [defect.problem for defect in known_defects()]
    assert read_problems(written(tmp_path, as_text(problems))) == problems


def test_a_file_may_hold_one_problem(tmp_path: Path) -> None:
    text = as_text([TRITON])
    assert isinstance(json.loads(text), dict)
    assert read_problems(written(tmp_path, text)) == [TRITON]


def test_every_field_has_limits() -> None:
    """A new field of a problem: say in files.py what it may be, not only of which type."""
    assert LIMITS.keys() == {field.name for field in fields(Problem)}


def test_the_published_schema_is_that_of_the_reader() -> None:
    """Otherwise: write `rocm-conformance problems schema` into the file."""
    text = resources.files("conformance.problems").joinpath(SCHEMA).read_text("utf-8")
    assert json.loads(text) == schema()


def test_the_schema_takes_what_is_written_and_refuses_what_is_refused() -> None:
    for value in (TRITON.to_json(), [TRITON.to_json(), LATENT.to_json()]):
        jsonschema.validate(json.loads(json.dumps(value)), schema())
    refused: list[Any] = [{**TRITON.to_json(), "num_head": 1}, {**TRITON.to_json(), "num_heads": 0}]
    for wrong in (*refused, []):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(json.loads(json.dumps(wrong)), schema())


# What is changed, and what the message must say.
WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a field that is none": ({"num_head": 2}, ("num_head:", "Did you mean 'num_heads'", "kind")),
    "a number below the least": ({"num_heads": -3}, ("num_heads:", "-3", "1 to 1024")),
    "a number beyond sense": ({"context_lens": [10**12]}, ("context_lens[0]", "16777216")),
    "a size beyond sense": ({"head_size": 10**6}, ("head_size", "1 to 1024")),
    "not a number": ({"soft_cap": float("nan")}, ("soft_cap", "finite", "number from 0")),
    "infinity": ({"scale": float("inf")}, ("scale", "finite", "number from")),
    "a text for a number": ({"seed": "7"}, ("seed", '"7"', "integer from 0")),
    "a fraction for an integer": ({"block_size": 16.5}, ("block_size", "16.5", "integer")),
    "a truth value for a number": ({"block_size": True}, ("block_size", "integer")),
    "a number for a truth value": ({"sinks": 1}, ("sinks", "boolean")),
    "a word that is none": ({"dtype": "float8"}, ("dtype", "float8", "float16, bfloat16")),
    "a scale of zero": ({"k_scale": 0}, ("k_scale", "got 0")),
    "half a window": ({"window": [4]}, ("window", "two of")),
    "null": ({"query_lens": None}, ("query_lens", "a list of")),
    "no sequence": ({"query_lens": [], "context_lens": []}, ("query_lens", "context_lens")),
    "an id that reports cannot show": ({"id": "a @ b"}, ("id:", "matches")),
    "lists of different lengths": ({"context_lens": [1, 2, 3, 4, 5]}, ("context_lens", "5")),
    "another backend": ({"backend": "TRITON_ATN"}, ("Did you mean 'TRITON_ATTN'", "FLASH_ATTN")),
    "heads that no group divides": (
        {"num_heads": 3, "num_kv_heads": 2},
        ("num_heads", "query heads", "multiples of 2"),
    ),
    "a dominant key that is not there": ({"dominant": [[0, 10**5]]}, ("dominant: ", "allowed")),
    "a range that ends first": ({"mm_prefix": [[[9, 3]]]}, ("mm_prefix",)),
    "no query token": (
        {"query_lens": [0], "context_lens": [4], "dominant": []},
        ("query_lens", "no query"),
    ),
    "an encoder behind a causal mask": (
        {"kind": "varlen", "context_lens": [0, 0, 0], "kv_cache_dtype": "auto", "evicted": False},
        ("causal", "is true", "allowed for kind varlen: false"),
    ),
    "more than any memory": (
        {
            **{"query_lens": [1], "context_lens": [2**24 - 1], "dominant": []},
            **{"num_kv_heads": 64, "num_heads": 64},
        },
        ("context_lens", "elements", "allowed"),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_named_with_what_is_allowed(name: str, tmp_path: Path) -> None:
    change, says = WRONG[name]
    with pytest.raises(UsageError) as caught:
        read_problems(written(tmp_path, {**TRITON.to_json(), **change}))
    for part in says:
        assert part in str(caught.value)


def test_every_mistake_of_every_problem_is_listed(tmp_path: Path) -> None:
    rows = [{**TRITON.to_json(), "seed": -1, "poison": "zero"}, TRITON.to_json(), 3]
    with pytest.raises(UsageError) as caught:
        read_problems(written(tmp_path, rows))
    said = str(caught.value)
    for part in (
        "problem 0: seed",
        "problem 0: poison",
        "nan, inf, huge",
        "problem 2: is a number",
    ):
        assert part in said
    assert "problem 1" not in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no JSON"),
        ("[]", "empty"),
        ('{"kind": "paged", "kind": "mla"}', "'kind' is there twice"),
        ("{}", "query_lens: is missing"),
        ("[" * 100_000, "no JSON"),
        ("null", "expected an object"),
        ("\x00\xff", "no JSON"),
    ],
    ids=["nothing", "an empty list", "a field twice", "no field", "too deep", "null", "no text"],
)
def test_what_is_no_file_of_problems(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        read_problems(written(tmp_path, text))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, tmp_path / "none.json", tmp_path / "bytes.json"):
        with pytest.raises(UsageError, match="cannot be read"):
            read_problems(path)


# A problem that a backend admits, what is changed, and the field that is named.
REFUSED: dict[str, tuple[Problem, dict[str, Any], str]] = {
    "a kind": (LATENT, {"backend": "TRITON_ATTN"}, "kind"),
    "a cap that it never reads": (TRITON, {"backend": "ROCM_ATTN", "soft_cap": 3.0}, "soft_cap"),
    "a window": (LATENT, {"window": (4, 0)}, "window"),
    "sinks": (LATENT, {"sinks": True}, "sinks"),
    "prefix ranges": (LATENT, {"mm_prefix": ((),) * 2 + (((0, 2),),)}, "mm_prefix"),
    "a bias": (LATENT, {"alibi": "linear"}, "alibi"),
    "keys as computed": (TRITON, {"new_tokens_from_cache": False}, "new_tokens_from_cache"),
    "a block size": (TRITON, {"block_size": 7}, "block_size"),
    "values of another size": (TRITON, {"v_head_size": 32}, "v_head_size"),
    "queries that see later keys": (UNIFIED, {"causal": False}, "causal"),
    "a head size": (TRITON, {"head_size": 8, "v_head_size": 8}, "head_size"),
    "a cache": (LATENT, {"kv_cache_dtype": "fp8_e5m2"}, "kv_cache_dtype"),
    "a dtype": (LATENT, {"dtype": "float32"}, "dtype"),
    "prefills before decodes": (
        next(p for p in problems_for("ROCM_AITER_FA", "quick", 1, EDITION)),
        {"query_lens": (9, 1), "context_lens": (0, 9), "dominant": (), "at_once": 0},
        "query_lens",
    ),
    "less than a block at a time": (
        next(p for p in problems_for("TRITON_MLA", "quick", 1, EDITION) if p.kind == "mla_prefill"),
        {"at_once": 1},
        "at_once",
    ),
    "more query heads than it takes": (
        next(p for p in problems_for("ROCM_SEGMENTED_ATTN", "quick", 1, EDITION)),
        {"num_heads": 64, "num_kv_heads": 1},
        "num_heads",
    ),
    "an encoder's window": (
        next(p for p in problems_for("ROCM_ATTN", "quick", 1, EDITION) if p.kind == "varlen"),
        {"window": (4, 4)},
        "window",
    ),
    "prefills among decodes": (LATENT, {"query_lens": (2, 1)}, "query_lens"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_backend_is_not_given_what_it_does_not_have(name: str) -> None:
    problem, change, field = REFUSED[name]
    assert refusals(problem, EDITION) == []
    said = refusals(replace(problem, **change), EDITION)
    assert any(text.startswith(f"{field}: ") and "allowed: " in text for text in said), said


def test_an_indexers_cache_is_fp8(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="kv_cache_dtype"):
        read_problems(written(tmp_path, {**INDEX.to_json(), "kv_cache_dtype": "auto"}))
