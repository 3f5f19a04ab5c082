"""Which edition judges a build, and what is said where it was not written for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.config import RunConfig
from conformance.errors import UsageError
from conformance.requirements.edition_choice import edition_note, judging_edition
from conformance.runners.preparation import settle
from conformance.subjects.base import Options
from conformance.suites.case import Context
from vllm_editions import AUTO_EDITION, DEFAULT_EDITION, editions, is_release, load_edition

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


# ---- builds that this suite was not written for ----------------------------------------------

FIELDS = (*load_edition(NEWEST).asked.fields, "use_new_thing")


def answering_worker(folder: Path, release: str, fields: tuple[str, ...]) -> str:
    """A worker that says which fields its selector is asked about, and selects ROCM_ATTN always."""
    program = folder / "answering.py"
    program.write_text(ANSWERING % (release, list(fields)))
    return f"worker:python3 {program}"


ANSWERING = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    ok = {"subject": "vllm", "version": %r, "simulated": True, "fields": %r}
    if "rows" in message:
        outcome = ["ROCM_ATTN", None, [["ROCM_ATTN", []]]]
        ok = {"outcomes": [outcome], "answers": [0] * len(message["rows"]), "messages": {}}
    print(json.dumps({"id": message["id"], "ok": ok}), flush=True)
"""


def settled_note(spec: str) -> tuple[RunConfig, str]:
    config = settle(RunConfig((spec,), ("*",), suites=("selection",)), lambda _: None).config
    return config, config.notes[spec]


def test_fields_that_are_not_known_are_said_of_a_newer_release(tmp_path: Path) -> None:
    config, note = settled_note(answering_worker(tmp_path, "0.34.0", FIELDS))
    assert f"judged by edition {NEWEST}, the newest" in note
    assert note.endswith("left at their defaults: use_new_thing")
    assert config.missing == {}


def test_fields_that_are_gone_are_said_and_not_asked(tmp_path: Path) -> None:
    fewer = tuple(name for name in FIELDS[:-1] if name != "use_rswa")
    spec = answering_worker(tmp_path, "0.34.0", fewer)
    config, note = settled_note(spec)
    assert "so neither is it here: use_rswa" in note
    assert config.missing == {spec: ("use_rswa",)}
    asked = Context(config).asked_edition(spec).asked.fields
    assert "use_rswa" not in asked
    assert {"use_dcp", "head_size"} <= set(asked)
    assert RunConfig.loads(config.dumps()) == config


def test_a_build_that_names_no_release_is_matched_to_an_edition(tmp_path: Path) -> None:
    spec = answering_worker(tmp_path, "dev", load_edition("0.25").asked.fields)
    config, note = settled_note(spec)
    assert "the build names no release ('dev'): judged by edition 0." in note
    assert "requests of a quick sweep differ" in note
    assert config.editions[spec] in editions()


@pytest.mark.parametrize("version", ["dev", "0.1.dev1234+g0123abc", "0.0.0.dev0"])
def test_what_names_no_release(version: str) -> None:
    assert not is_release(version)


@pytest.mark.parametrize("version", ["0.34.0.dev3+gabc", "0.1.0", "0.19.0+rocm721", "0.33.0rc1"])
def test_what_names_a_release(version: str) -> None:
    assert is_release(version)
