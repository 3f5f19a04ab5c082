"""Merging results: nothing is lost, order makes no difference, and misfits are named."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.errors import ExitCode
from conformance.reports.collect import Collected, Input, collect
from conformance.reports.junit_reader import read_junit
from conformance.reports.junit_writer import visible, write_junit, write_merged
from conformance.reports.merge import SEVERITY, Merged, merge
from conformance.results import CaseResult, Outcome, Run, read_results
from tests.support.results import CASE, FAILED, JOB, A, B, C, many_cases, parity_cases, write_run

TEXT = st.text(st.characters(exclude_categories=()), max_size=12)
MESSAGE = TEXT.map(str.strip)  # as reports show it
CASES = st.builds(
    replace,
    st.sampled_from([CASE, FAILED]),
    name=st.sampled_from(["a", "b", "c", "d\x1b"]),
    suite=st.sampled_from(["selection", "removal"]),
    outcome=st.sampled_from(Outcome),
    cells=st.lists(st.sampled_from([A, B, C]), max_size=3, unique=True).map(tuple),
    simulated=st.booleans(),
    message=MESSAGE,
)
FILES = st.lists(st.tuples(st.sampled_from(["results", "junit"]), st.lists(CASES, max_size=6)))


def inputs(files: Iterable[tuple[str, list[CaseResult]]]) -> list[Input]:
    return [
        Input(f"{number:02d}", kind, Run(None, tuple(cases), True), f"digest {number}")
        for number, (kind, cases) in enumerate(files)
    ]


def merged_from(root: Path, *expected: str) -> Merged:
    return merge(collect(root), expected)


def texts(merged: Merged) -> str:
    return "\n".join(map(str, merged.problems))


def identities(cases: Iterable[CaseResult]) -> Counter[tuple[object, ...]]:
    return Counter(
        (case.suite, visible(case.name), case.simulated, cell)
        for case in cases
        for cell in (case.cells or ("no-cell",))
    )


# ---- properties


@settings(max_examples=150, deadline=None)
@given(FILES, st.randoms(use_true_random=False))
def test_the_order_of_files_makes_no_difference(
    files: list[tuple[str, list[CaseResult]]], draw: random.Random
) -> None:
    read = inputs(files)
    shuffled = draw.sample(read, len(read))
    assert merge(Collected(read)) == merge(Collected(shuffled))


@settings(max_examples=150, deadline=None)
@given(FILES)
def test_every_case_is_there_once_in_every_cell_with_its_worst_end(
    files: list[tuple[str, list[CaseResult]]],
) -> None:
    merged = merge(Collected(inputs(files)))
    every = [case for _, cases in files for case in cases]
    found = identities(merged.cases)
    assert set(found) == set(identities(every))
    assert set(found.values()) <= {1}
    for case in merged.cases:
        for key in identities([case]):
            rivals = [other for other in every if key in identities([other])]
            worst = min(rivals, key=lambda other: SEVERITY.index(other.outcome))
            assert case.outcome is worst.outcome


@settings(max_examples=100, deadline=None)
@given(FILES)
def test_what_disagrees_is_an_error_and_what_agrees_is_none(
    files: list[tuple[str, list[CaseResult]]],
) -> None:
    merged = merge(Collected(inputs(files)))
    claims: dict[tuple[object, ...], list[tuple[str, Outcome]]] = {}
    for kind, cases in files:
        for case in cases:
            for key in identities([case]):
                claims.setdefault(key, []).append((kind, case.outcome))
    differ = any(len({outcome for _, outcome in found}) > 1 for found in claims.values())
    assert ("ended differently" in texts(merged)) == differ


@settings(max_examples=40, deadline=None)
@given(st.lists(CASES, min_size=1, max_size=8), st.lists(TEXT, min_size=2, max_size=2))
def test_merging_a_merged_file_changes_nothing(cases: list[CaseResult], words: list[str]) -> None:
    cases = [replace(case, detail=words[0], reproduce=words[1].replace("\n", "")) for case in cases]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = merge(Collected(inputs([("results", cases)])))
        write_merged(before.cases, folder, "junit-1")
        again = merged_from(folder)
        write_merged(again.cases, folder / "again", "junit-1")
        first = (folder / "junit-1.xml").read_bytes()
        assert (folder / "again" / "junit-1.xml").read_bytes() == first
    assert [case.outcome for case in again.cases].count(Outcome.FAILED) == sum(
        max(1, len(case.cells)) for case in before.cases if case.outcome is Outcome.FAILED
    )


def test_a_case_comes_back_from_junit_as_it_was(tmp_path: Path) -> None:
    cases = [
        FAILED,
        replace(FAILED, name="e", outcome=Outcome.ERRORED, detail="stderr\n\nlines", seed=3),
        replace(CASE, name="u", outcome=Outcome.UNSUPPORTED, message="no aiter"),
        replace(CASE, name="p", counts={"compared": 3}, seconds=0.25),
        *(replace(case, cells=(A,)) for case in parity_cases(3)),
    ]
    (path,) = write_junit(cases, tmp_path)
    run = read_junit(path)
    assert run.problems == ()
    expected = [replace(c, reproduce=c.reproduce.replace("{cell}", A)) for c in cases]
    assert sorted(run.cases, key=lambda c: c.name) == sorted(expected, key=lambda c: c.name)


# ---- a run's own files, cells, copies


def test_a_run_with_its_junit_files_is_one_record(tmp_path: Path) -> None:
    cases = list(many_cases(60))
    write_run(tmp_path, cases)
    write_junit(cases, tmp_path)
    merged = merged_from(tmp_path)
    assert merged.problems == ()
    assert Counter([case.name for case in merged.cases]) == Counter(case.name for case in cases)
    assert merged.exit_code is ExitCode.NOT_CONFORMANT


def test_junit_keeps_what_a_broken_results_file_lost(tmp_path: Path) -> None:
    cases = list(many_cases(60))
    path = write_run(tmp_path, cases)
    write_junit(cases, tmp_path)
    path.write_bytes(path.read_bytes()[:20_000])
    merged = merged_from(tmp_path)
    assert identities(merged.cases) == identities(cases)
    assert "no footer line" in texts(merged)


def test_a_case_that_two_runs_have_is_an_error_of_its_cell(tmp_path: Path) -> None:
    write_run(tmp_path / "one", [CASE])
    write_run(tmp_path / "two", [CASE], started="2027-02-02T00:00:00+00:00")
    merged = merged_from(tmp_path)
    (problem,) = merged.problems
    assert problem.cells == (A,)
    said = "1 case reported more than once, by one/results.jsonl and two/results.jsonl"
    assert said in str(problem)
    assert merged.exit_code is ExitCode.INFRASTRUCTURE
    assert len(merged.cases) == 1


def test_a_failure_stands_beside_a_pass_of_the_same_case(tmp_path: Path) -> None:
    write_run(tmp_path / "one", [CASE])
    write_run(tmp_path / "two", [replace(CASE, outcome=Outcome.FAILED)])
    merged = merged_from(tmp_path)
    assert [case.outcome for case in merged.cases] == [Outcome.FAILED]
    assert "ended differently in one/results.jsonl and two/results.jsonl" in texts(merged)
    assert merged.exit_code is ExitCode.NOT_CONFORMANT


def test_a_copied_file_is_named_and_counted_once(tmp_path: Path) -> None:
    write_run(tmp_path / "one", [CASE])
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    merged = merged_from(tmp_path)
    assert [problem.cells for problem in merged.problems] == [(A,)]
    assert "two/results.jsonl: is a copy of one/results.jsonl" in texts(merged)
    assert len(merged.cases) == 1


def test_the_same_case_on_a_gpu_and_simulated_are_two(tmp_path: Path) -> None:
    write_run(tmp_path / "one", [CASE])
    write_run(tmp_path / "two", [replace(CASE, simulated=False)])
    merged = merged_from(tmp_path)
    assert len(merged.cases) == 2
    assert merged.problems == ()


# ---- what is missing


def test_no_results_at_all_are_an_error(tmp_path: Path) -> None:
    merged = merged_from(tmp_path)
    assert "no results" in texts(merged)
    assert merged.exit_code is ExitCode.INFRASTRUCTURE


def test_no_case_is_an_error(tmp_path: Path) -> None:
    write_run(tmp_path, [], cells=(), subjects=())
    (tmp_path / "junit-x.xml").write_text("<testsuites/>")
    merged = merged_from(tmp_path)
    assert "no case in any" in texts(merged)
    assert "junit-x.xml: holds no case" in texts(merged)
    assert merged.exit_code is ExitCode.INFRASTRUCTURE


def test_expected_cells_without_results_are_errors(tmp_path: Path) -> None:
    write_run(tmp_path, [CASE])
    assert merged_from(tmp_path, A).exit_code is ExitCode.CONFORMANT
    merged = merged_from(tmp_path, A, B, C)
    assert [problem.cells for problem in merged.problems] == [(C,), (B,)]
    assert merged.exit_code is ExitCode.INFRASTRUCTURE


def test_a_cell_that_a_run_was_asked_for_and_lacks_is_an_error(tmp_path: Path) -> None:
    write_run(tmp_path, [CASE], cells=(A, B))
    merged = merged_from(tmp_path)
    assert [(p.cells, "vllm==0.19.0" in p.text) for p in merged.problems] == [((B,), True)]


@pytest.mark.parametrize(
    ("shards", "said"),
    [
        (["1/3", "3/3", "2/3"], ""),
        (["1/1"], ""),
        (["1/3", "3/3"], "shards are missing: 2/3"),
        (["2/2", "2/2", "1/2"], "shard 2/2 is there more than once"),
        (["1/2", "2/2", "1/3"], "shards of runs in 2 and in 3 parts"),
        (["0/2"], "expected part/parts"),
        (["3/2"], "expected part/parts"),
        (["two"], "expected part/parts"),
        (["1/900000"], "and 979 more"),
    ],
)
def test_shards_are_checked_for_completeness(tmp_path: Path, shards: list[str], said: str) -> None:
    for number, shard in enumerate(shards):
        case = replace(CASE, name=f"case {number}")
        write_run(tmp_path / f"{number}", [case], shard=shard)
    merged = merged_from(tmp_path)
    assert len(merged.cases) == len(shards)
    assert said in texts(merged)
    assert bool(said) == bool(merged.problems)
    assert all(problem.cells == (A,) for problem in merged.problems)


def test_a_shard_survives_writing_and_reading(tmp_path: Path) -> None:
    header = read_results(write_run(tmp_path, [CASE], shard="2/4")).header
    assert header is not None
    assert header.shard == "2/4"


# ---- hostile files


BOMB = "".join(f'<!ENTITY b{i} "{f"&b{i - 1};" * 10}">' for i in range(1, 10))
HOSTILE: dict[str, tuple[bytes, str]] = {
    "bomb": (
        f'<!DOCTYPE x [<!ENTITY b0 "x">{BOMB}]><testsuites>&b9;</testsuites>'.encode(),
        "document type or entities",
    ),
    "outside": (
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]><testsuites>&e;</testsuites>',
        "document type or entities",
    ),
    "cut": (b'<testsuites><testsuite name="s"><testcase name="c" classname="k"/>', "not XML"),
    "junk": (bytes(range(256)) * 40, "not XML"),
    "empty": (b"", "not XML"),
    "latin": ("<testsuites><x y='\xe9'/></testsuites>".encode("latin-1"), "not XML"),
    "encoding": (b"<?xml version='1.0' encoding='klingon'?><testsuites/>", "not XML"),
    "html": (b"<html><testcase name='x'/></html>", "not JUnit: its root is <html>"),
    "count": (
        b'<testsuites tests="9"><testsuite name="s"><testcase name="a"/></testsuite></testsuites>',
        "says 9 tests, 1 could be read",
    ),
    "nameless": (b"<testsuites><testcase/></testsuites>", "has no name"),
    "time": (b"<testsuites><testcase name='a' time='nan'/></testsuites>", "finite number"),
    "deep": (b"<testsuites>" + b"<testsuite>" * 50_000, "not XML"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_junit_file_is_an_error_of_its_cell(tmp_path: Path, kind: str) -> None:
    content, said = HOSTILE[kind]
    folder = tmp_path / C
    folder.mkdir()
    (folder / "junit-x.xml").write_bytes(content)
    write_run(tmp_path, [CASE])
    merged = merged_from(tmp_path)
    assert CASE.name in [case.name for case in merged.cases]
    assert any(said in p.text and p.cells == (C,) for p in merged.problems), texts(merged)
    assert merged.exit_code is ExitCode.INFRASTRUCTURE


def test_a_cut_junit_file_keeps_its_whole_cases(tmp_path: Path) -> None:
    (path,) = write_junit([FAILED, CASE], tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"<testcase")])
    merged = merged_from(tmp_path)
    assert len(merged.cases) == 1
    assert "not XML from here on" in texts(merged)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 5000, b"{}\n" * 3, b'{"kind": "case"}\n', "é\n".encode("utf-16"), b"[" * 9000],
)
def test_a_hostile_results_file_is_an_error_of_its_cell(tmp_path: Path, content: bytes) -> None:
    (tmp_path / C).mkdir()
    (tmp_path / C / "results.jsonl").write_bytes(content)
    write_run(tmp_path, [CASE])
    merged = merged_from(tmp_path)
    assert len(merged.cases) == 1
    assert any(p.cells == (C,) for p in merged.problems)


def test_a_huge_line_is_left_out_and_its_neighbours_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conformance.results.reading.LINE_LIMIT", 5_000)
    big = replace(CASE, name="big", detail="x" * 30_000)
    write_run(tmp_path, [replace(CASE, name="before"), big, replace(CASE, name="after")])
    merged = merged_from(tmp_path)
    assert [case.name for case in merged.cases] == ["after", "before"]
    assert "line 3: longer than 5,000 bytes" in texts(merged)
    assert "line 4" not in texts(merged)


def test_thousands_of_bad_lines_are_counted_and_not_all_kept(tmp_path: Path) -> None:
    path = write_run(tmp_path, [CASE])
    path.write_bytes(b"junk\n" * 5_000 + path.read_bytes())
    run = read_results(path)
    assert len(run.problems) < 1_100
    assert "4,000 more problems of lines" in "\n".join(run.problems)
    merged = merged_from(tmp_path)
    assert len(merged.problems) < 30
    assert "more problems" in texts(merged)


def test_a_file_past_the_size_limit_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conformance.reports.collect.SIZE_LIMIT", 10)
    write_run(tmp_path, [CASE])
    assert "are not read" in texts(merged_from(tmp_path))


def test_links_loops_and_pipes_are_named_and_not_opened(tmp_path: Path) -> None:
    write_run(tmp_path / "run", [CASE])
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "results.jsonl").symlink_to("/etc/passwd")
    (tmp_path / "junit-gone.xml").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "junit-pipe.xml")
    merged = merged_from(tmp_path)
    assert len(merged.cases) == 1
    for name in ("loop", "results.jsonl", "junit-gone.xml"):
        assert f"{name}: is a link" in texts(merged)
    assert "junit-pipe.xml: is not a regular file" in texts(merged)
    assert "root:" not in texts(merged)


# ---- jobs


def test_jobs_are_known_from_names_folders_and_job_files(tmp_path: Path) -> None:
    write_junit([replace(CASE, name="in name")], tmp_path)
    (tmp_path / f"junit-{A}.xml").rename(tmp_path / f"junit-{JOB}1.xml")
    write_run(tmp_path / f"{JOB}2", [replace(CASE, name="in folder")])
    job = {"id": f"{JOB}3", "url": "https://example.org/b/1#3", "label": "cell <3>"}
    write_run(tmp_path / "third" / "results", [replace(CASE, name="in file")])
    (tmp_path / "third" / "job.json").write_text(json.dumps(job))
    merged = merged_from(tmp_path)
    assert merged.problems == ()
    jobs = {entry.case.name: entry.job for entry in merged.entries if entry.job}
    names = ("in name", "in folder", "in file")
    assert [jobs[name].id for name in names] == [f"{JOB}1", f"{JOB}2", f"{JOB}3"]
    assert jobs["in file"].link("https://example.org/b/2") == job["url"]
    assert jobs["in name"].link("https://e.org/b/2") == f"https://e.org/b/2#{JOB}1"
    assert jobs["in name"].link("javascript:alert(1)") == f"#{JOB}1"


@pytest.mark.parametrize(
    "content",
    [
        "nonsense",
        "[]",
        "{}",
        '{"id": "1"}',
        '{"id": 5}',
        '{"url": "javascript:alert(1)"}',
        '{"url": "https://e.org/ x"}',
        '{"url": "https:"}',
        '{"url": "ftp://e.org/x"}',
        '{"url": "javascript://e.org/%0aalert(1)"}',
        '{"url": "http://[::1"}',
    ],
)
def test_a_bad_job_file_is_named_and_makes_no_link(tmp_path: Path, content: str) -> None:
    write_run(tmp_path, [CASE])
    (tmp_path / "job.json").write_text(content)
    merged = merged_from(tmp_path)
    assert "job.json: " in texts(merged)
    assert [entry.job for entry in merged.entries] == [None]
