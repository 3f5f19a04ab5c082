"""Runs in parts: every case in exactly one of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from conformance.cli import run_cli
from conformance.errors import UsageError
from conformance.results import read_results
from conformance.shards import missing_shards, parse_shard, part


def test_parts_make_the_whole_and_share_nothing() -> None:
    groups = list("abcdefg")
    parts = [part(groups, f"{number}/3") for number in (1, 2, 3)]
    assert sorted(group for found in parts for group in found) == groups
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert part(groups, "") == groups


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match="expected I/N"):
        parse_shard(text)
    assert parse_shard("1/1") == ""


def test_more_parts_than_groups() -> None:
    with pytest.raises(UsageError, match="there are 1 groups"):
        part(["a"], "1/2")


def test_shards_of_a_run_are_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "--cell", "rocm62-aiter", "--suite", "selection", "--sweep", "5", "-n", "1"]
    assert run_cli([*arguments, "--results", str(tmp_path / "whole")]) == 0
    for number in ("1", "2"):
        here = ["--results", str(tmp_path / number), "--shard", f"{number}/2"]
        assert run_cli([*arguments, *here]) == 0
    capsys.readouterr()
    whole = read_results(tmp_path / "whole" / "results.jsonl")
    parts = [read_results(tmp_path / number / "results.jsonl") for number in ("1", "2")]
    names = Counter(case.name for run in parts for case in run.cases)
    assert names == Counter(case.name for case in whole.cases)
    headers = [run.header for run in parts if run.header]
    assert [header.shard for header in headers] == ["1/2", "2/2"]
    assert missing_shards(headers) == []
    assert missing_shards(headers[:1]) == ["rocm62-aiter-mha: part 2 of 2 is missing"]
    twice = missing_shards([*headers, headers[0]])
    assert twice == ["rocm62-aiter-mha: part 1 of 2 is there 2 times"]
