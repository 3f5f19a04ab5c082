"""Runs in parts: every case in exactly one of them."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from conformance.cli import run_cli
from conformance.errors import ExitCode, UsageError
from conformance.reports.collect import collect
from conformance.reports.merge import merge
from conformance.results import read_results
from conformance.suites.shards import parse_shard, part


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
    assert [run.header.shard for run in parts if run.header] == ["1/2", "2/2"]
    shutil.rmtree(tmp_path / "whole")
    assert merge(collect(tmp_path)).problems == ()
    shutil.rmtree(tmp_path / "2")
    merged = merge(collect(tmp_path))
    assert [str(p) for p in merged.problems] == ["rocm62-aiter-mha: shards are missing: 2/2"]
    assert merged.exit_code is ExitCode.INFRASTRUCTURE
