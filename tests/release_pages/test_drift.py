"""``drift``: the committed page is what the editions say, and it moves when an edition does."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest
from defusedxml.ElementTree import fromstring

from conformance.cli import run_cli
from conformance.matrix.requests import ATTN_TYPES, DTYPES, Request
from conformance.matrix.targets import TARGETS
from conformance.release_pages import drift_data
from conformance.release_pages.drift_data import (
    StandardRequest,
    asked,
    platforms,
    releases,
    standard_requests,
)
from conformance.release_pages.drift_page import NO_BACKEND_FILL, files
from vllm_editions import editions, kv_cache_dtypes

PAGES = Path(__file__).parents[2] / "docs" / "reference"
SVG = "{http://www.w3.org/2000/svg}"


def test_the_committed_page_is_what_the_command_makes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["drift", "--check", str(PAGES)]) == 0
    for name in ("drift.md", "drift.svg"):
        text = (PAGES / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("0.33", "0.34", 1), encoding="utf-8")
    capsys.readouterr()
    assert run_cli(["drift", "--check", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "drift.md is not what the editions say" in said
    assert "drift.svg is not what the editions say" in said


@pytest.mark.parametrize("request_", standard_requests(), ids=lambda request: request.name)
def test_a_standard_request_asks_what_some_release_knows(request_: StandardRequest) -> None:
    question = request_.ask.question
    assert question.dtype in DTYPES
    if isinstance(question, Request):
        assert question.attn_type in ATTN_TYPES
        assert {question.kv_cache_dtype, question.run_kv_cache_dtype} <= set(kv_cache_dtypes())


def test_no_two_standard_requests_ask_the_same() -> None:
    asks = [request.ask for request in standard_requests()]
    assert len(set(asks)) == len(asks)


def test_a_request_that_no_cause_moves_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.23: ROCM_AITER_FA takes sinks; the one request with sinks moves where it is a candidate."""
    sinks = next(request for request in standard_requests() if request.name == "sinks")
    monkeypatch.setattr(drift_data, "standard_requests", lambda: (sinks,))
    found = {release.edition: release for release in releases.__wrapped__()}
    assert found["0.22"].moves == 0
    (moved,) = found["0.23"].moved
    assert (moved.old, moved.new) == ("ROCM_AITER_UNIFIED_ATTN", "ROCM_AITER_FA")
    assert [str(example.platform) for example in moved.examples] == [
        "gfx942+aiter VLLM_ROCM_USE_AITER=1",
        "gfx950+aiter VLLM_ROCM_USE_AITER=1",
    ]
    (cause,) = moved.causes
    assert cause.text == "sinks of ROCM_AITER_FA: yes, was no"
    assert [source.rpartition("/")[2] for source in cause.sources] == ["rocm_aiter_fa.py#L714"]
    assert found["0.23"].selected["gfx942"] == {
        "ROCM_AITER_FA": 1,
        "ROCM_AITER_UNIFIED_ATTN": 1,
        "TRITON_ATTN": 1,
    }


def test_every_change_of_every_release_has_a_source() -> None:
    for release in releases()[1:]:
        assert all(change.sources for change in release.changes)


def test_the_picture_has_a_full_column_for_each_release_and_target() -> None:
    found = releases()
    root = fromstring(files(found)["drift.svg"])
    parts = [r for r in root.iter(f"{SVG}rect") if float(r.get("height", "0")) < 60]
    columns: dict[str, float] = {}
    for part in parts[: -len(_legend(root))]:
        place = f"{part.get('x')} {_band(part)}"
        columns[place] = columns.get(place, 0.0) + float(part.get("height", "0"))
    assert len(columns) == len(editions()) * len(TARGETS)
    assert {round(height) for height in columns.values()} == {58}
    fills = {part.get("fill") for part in _legend(root)}
    assert NO_BACKEND_FILL in fills
    assert {part.get("fill") for part in parts} <= fills


def _legend(root: Element) -> list[Element]:
    return [r for r in root.iter(f"{SVG}rect") if r.get("width") == "14"]


def _band(part: Element) -> int:
    return int((float(part.get("y", "0")) - 40) // 64)


def test_json_counts_every_question(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["drift", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["asked"] == asked() == len(standard_requests()) * len(platforms())
    assert [release["edition"] for release in found["releases"]] == editions()
    vision = sum(request.vision for request in standard_requests())
    for release in found["releases"]:
        counted = sum(sum(by_name.values()) for by_name in release["selected"].values())
        assert counted == (len(standard_requests()) - vision) * len(platforms())
