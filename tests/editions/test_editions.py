"""The editions themselves: sixteen series, each row with the line that says so."""

from __future__ import annotations

import re
import sys
from dataclasses import fields
from importlib import resources
from typing import Any

import pytest

from conformance.matrix.requests import CONTEXT, Request
from conformance.matrix.targets import TARGETS
from vllm_editions import Backend, Edition, editions, kv_cache_dtypes, load_edition
from vllm_editions.changes import changes_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SERIES = [f"0.{minor}" for minor in range(18, 34)]
ROOTS = ("0.18", "0.19")
LATER = [name for name in SERIES if name not in ROOTS]


def table(name: str) -> dict[str, Any]:
    text = (resources.files("vllm_editions") / f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def conditions(edition: Edition) -> set[str]:
    """Every condition that an entry of an edition names."""
    lists = edition.candidates
    named = {c for entry in (*lists.dense, *lists.mla, *lists.sparse) for c in entry.when}
    named |= {c for rule in edition.vit.rules for c in rule.when}
    named |= {c for rule in edition.paged_attention.values() for c in rule.when}
    for backend in edition.backends.values():
        named |= {c for refusal in backend.refuses for c in refusal.when}
        supports = [getattr(backend, name) for name in type(backend).model_fields]
        named |= {c for s in supports if isinstance(s, tuple) for c in s if isinstance(c, str)}
        named -= set(backend.layouts or ())
    return named


def test_every_series_has_an_edition_oldest_first() -> None:
    assert editions() == SERIES


@pytest.mark.parametrize("name", LATER)
def test_an_edition_is_a_delta_from_the_one_before(name: str) -> None:
    assert table(name)["base"] == SERIES[SERIES.index(name) - 1]
    assert load_edition(name).edition == name


@pytest.mark.parametrize("name", LATER)
def test_every_row_names_a_line_of_a_release_of_its_series(name: str) -> None:
    line = re.compile(
        rf"https://github\.com/vllm-project/vllm/blob/v{re.escape(name)}\.\d+/vllm/\S+\.py#L\d+"
    )
    found = table(name)
    assert all(line.fullmatch(change.source) for change in changes_of(found))
    assert f"/v{name}." in found["source"]


@pytest.mark.parametrize("name", SERIES)
def test_an_edition_asks_what_a_request_has(name: str) -> None:
    asked = load_edition(name).asked
    known = {field.name for field in fields(Request)}
    assert set(asked.fields) <= known - set(CONTEXT)
    assert set(asked.context) <= set(CONTEXT)
    assert set(asked.kv_cache_dtypes) <= set(kv_cache_dtypes())


@pytest.mark.parametrize("name", SERIES)
def test_what_an_edition_names_is_there(name: str) -> None:
    edition = load_edition(name)
    asked = {*edition.asked.fields, *edition.asked.context}
    facts = {*edition.flags, "aiter", "flash_attn", "aiter_supported"}
    for condition in conditions(edition):
        word = condition.removeprefix("!")
        if word.startswith("on "):
            assert word.removeprefix("on ") in edition.classes
        elif "=" not in word:
            assert word in facts | asked
    for backend in edition.backends.values():
        assert backend.only_on is None or backend.only_on in edition.classes
        assert set(backend.layouts_on) <= set(edition.classes)
        assert backend.kv_cache_dtypes <= set(edition.asked.kv_cache_dtypes)
    lists = edition.candidates
    for entry in (*lists.dense, *lists.mla, *lists.sparse):
        assert entry.backend in edition.backends
    for check in edition.selection.checks:
        assert check.supports in Backend.model_fields
        assert set(check.asked) <= asked


@pytest.mark.parametrize("name", SERIES)
def test_every_class_names_a_known_target(name: str) -> None:
    edition = load_edition(name)
    for of_class, parts in edition.classes.items():
        for part in parts:
            assert any(part in target for target in TARGETS), (of_class, part)
