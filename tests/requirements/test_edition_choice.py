"""Which edition judges a build, and what is said where it was not written for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.config import RunConfig
from conformance.errors import UsageError
from conformance.requirements.edition_choice import edition_note, judging_edition
from conformance.runners.preparation import settle
from conformance.subjects.base import Options
from vllm_editions import AUTO_EDITION, DEFAULT_EDITION, editions

NEWEST = editions()[-1]


@pytest.mark.parametrize(
    ("release", "edition"),
    [
        ("0.18.1", "0.18"),
        ("0.19.0+rocm721", "0.19"),
        ("0.25.1", "0.25"),
        ("0.33.0rc2", "0.33"),
        ("0.17.0", "0.18"),
        ("1.2.0", NEWEST),
        ("dev", NEWEST),
    ],
)
def test_auto_is_the_edition_of_the_builds_series(release: str, edition: str) -> None:
    assert judging_edition(AUTO_EDITION, release) == edition
    assert judging_edition("0.19", release) == "0.19"


@pytest.mark.parametrize("release", ["0.18.0", "0.19.1", "0.33.0", "0.33.5"])
def test_of_a_release_of_a_known_series_nothing_is_said(release: str) -> None:
    assert edition_note(judging_edition(AUTO_EDITION, release), release) == ""


@pytest.mark.parametrize(
    ("release", "words"),
    [
        ("0.34.0", ["vLLM 0.34.0 is newer than every edition", f"edition {NEWEST}, the newest"]),
        ("0.17.1", ["vLLM 0.17.1 is older than every edition", "edition 0.18, the oldest"]),
        ("dev", ["names no release ('dev')", f"edition {NEWEST}, the newest"]),
    ],
)
def test_what_no_edition_was_written_for_is_said(release: str, words: list[str]) -> None:
    note = edition_note(judging_edition(AUTO_EDITION, release), release)
    assert all(word in note for word in words)


def test_an_edition_that_the_user_chose_is_no_surprise() -> None:
    assert edition_note("0.19", "0.33.0") == ""
    assert edition_note("0.19", "0.34.0") == ""


# ---- in a run ------------------------------------------------------------------------------

WORKER = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    info = {"subject": "vllm", "version": %r, "simulated": True, "fields": []}
    print(json.dumps({"id": message["id"], "ok": info}), flush=True)
"""


def worker(folder: Path, release: str) -> str:
    """The spelling of a subject that says it is a release."""
    program = folder / f"{release}.py"
    program.write_text(WORKER % release)
    return f"worker:python3 {program}"


def test_each_subject_is_judged_by_its_own_edition_and_the_reference_by_the_first(
    tmp_path: Path,
) -> None:
    old, new = worker(tmp_path, "0.18.1"), worker(tmp_path, "0.34.0")
    said: list[str] = []
    config = RunConfig(("reference", old, new), ("*",), suites=("selection",))
    settled = settle(config, said.append).config
    assert settled.editions == {old: "0.18", new: NEWEST, "reference": "0.18"}
    assert settled.subjects == ("reference", old, new)
    assert [settled.edition_of(spec) for spec in (old, new)] == ["0.18", NEWEST]
    assert settled.options_of(new) == Options(NEWEST, "auto", 120.0)
    assert settled.edition_label == f"0.18, {NEWEST}"
    assert len(said) == 1
    assert said[0].startswith(f"{new}: vLLM 0.34.0 is newer")
    assert RunConfig.loads(settled.dumps()) == settled


def test_an_edition_that_is_named_judges_all(tmp_path: Path) -> None:
    old = worker(tmp_path, "0.18.1")
    config = RunConfig(("reference", old), ("*",), suites=("selection",), edition="0.19")
    settled = settle(config, lambda _: None).config
    assert settled.editions == {old: "0.19", "reference": "0.19"}
    with pytest.raises(UsageError, match=r"'0\.17'"):
        settle(RunConfig((old,), ("*",), edition="0.17"), lambda _: None)


def test_alone_the_reference_has_the_edition_of_pull_request_36702() -> None:
    config = RunConfig(("reference",), ("*",), suites=("selection",))
    settled = settle(config, lambda _: None).config
    assert settled.editions == settled.releases == {"reference": DEFAULT_EDITION}
