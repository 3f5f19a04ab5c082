"""`check`: what is run for a change, and that its verdict is about the change alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from conformance.changes import judging
from conformance.changes.trees import READ
from conformance.cli import run_cli
from conformance.commands import check as command
from conformance.results import CaseResult, Outcome, exit_code
from conformance.results.codegen_table import COLUMNS
from tests.changes.repositories import commit, git, write
from tests.support.results import CASE, FAILED, write_run
from tests.support.schemas import valid

P, F, E = Outcome.PASSED, Outcome.FAILED, Outcome.ERRORED


@dataclass
class Runs:
    """Stands in for the suite's runs: what each side comes to, and how it was asked."""

    base: list[CaseResult] = field(default_factory=lambda: [CASE])
    change: list[CaseResult] = field(default_factory=lambda: [CASE])
    ends: dict[str, int] = field(default_factory=dict)
    asked: list[list[str]] = field(default_factory=list)

    def __call__(self, words: Sequence[str]) -> int:
        self.asked.append(list(words))
        folder = Path(words[words.index("--results") + 1])
        cases = [replace(c, subject=words[words.index("--subject") + 1]) for c in self.side(folder)]
        if folder.name in self.ends:
            return self.ends[folder.name]
        write_run(folder, cases)
        return exit_code(cases)

    def side(self, folder: Path) -> list[CaseResult]:
        return self.base if folder.name == "base" else self.change

    def sides(self) -> list[str]:
        return [Path(words[words.index("--results") + 1]).name for words in self.asked]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    found = Runs()
    monkeypatch.setattr(judging, "_code", found)
    monkeypatch.setattr(command, "moves", lambda *_: "3 of 20,000 requests select otherwise")
    return found


@pytest.fixture
def check(checkout: Path, tmp_path: Path) -> Callable[..., int]:
    commit(checkout, {"vllm/v1/attention/a.py": "mine"})

    def run(*words: str) -> int:
        return run_cli(["check", str(checkout), "--results", str(tmp_path / "out"), *words])

    return run


def of(outcome: Outcome, name: str = "SEL-004 rows [gfx950]", **changed: Any) -> CaseResult:
    return replace(FAILED, outcome=outcome, name=name, **changed)


@pytest.mark.parametrize(
    ("base", "change", "code"),
    [
        ([of(P)], [of(P)], 0),
        ([of(P)], [of(F)], 1),
        ([of(F)], [of(F)], 0),
        ([of(F)], [of(P)], 0),
        ([of(F), of(P, "other")], [of(F), of(F, "other")], 1),
        ([of(F, findings=("a",))], [of(F, findings=("a", "b"))], 1),
        ([of(P)], [of(E)], 75),
        ([of(F), of(P, "other")], [of(F), of(E, "other")], 75),
        ([of(P)], [of(P, "another case altogether")], 0),
        ([of(P)], [of(P), of(F, "a case of its own")], 1),
        ([of(P)], [of(F, "nothing in common")], 75),
    ],
)
def test_only_what_the_change_broke_is_held_against_it(
    base: list[CaseResult],
    change: list[CaseResult],
    code: int,
    runs: Runs,
    check: Callable[..., int],
) -> None:
    runs.base, runs.change = base, change
    assert check() == code


def test_the_annotation_says_what_broke_first_and_then_what_moves(
    runs: Runs, check: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = replace(CASE, suite="codegen", requirement="CGN-001", name="CGN-001 x on gfx942")
    same = {f"k {column}": 0.0 for column in COLUMNS}
    runs.base = [of(P), replace(kernel, measures={**same, "k vgprs": 64.0})]
    runs.change = [of(F), replace(kernel, measures={**same, "k vgprs": 96.0})]
    assert check("--format", "markdown") == 1
    note = (tmp_path / "out" / "report" / "annotation.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == note
    parts = (
        "The change breaks 1 result",
        "vllm/v1/attention/a.py",
        "1 new",
        "MI3xx with AITER and its MHA",
        "3 of 20,000 requests select otherwise",
        "gfx942 \\| x \\| k: vgprs 64 → 96",
    )
    places = [note.index(part) for part in parts]
    assert places == sorted(places)
    assert (tmp_path / "out" / "report" / "report.html").is_file()


def test_json(runs: Runs, check: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    runs.change = [CASE, of(F)]
    assert check("--format", "json") == 1
    told = json.loads(capsys.readouterr().out)
    valid(told, "check")
    assert (told["exit"], told["files"]) == (1, ["vllm/v1/attention/a.py"])
    assert told["baseline"]["counts"]["new"] == 1


def test_the_base_is_judged_once(runs: Runs, check: Callable[..., int]) -> None:
    runs.change = [CASE, of(F)]
    assert [check(), check(), check("--target", "gfx950")] == [1, 1, 1]
    assert runs.sides() == ["base", "change", "change", "base", "change"]


def test_a_slow_machine_has_its_time_and_knows_the_same_records(
    runs: Runs, check: Callable[..., int]
) -> None:
    check()
    check("--timeout", "900")
    assert runs.sides() == ["base", "change", "change"]
    given = [words[words.index("--timeout") + 1] for words in runs.asked]
    assert given == ["120", "120", "900"]


def test_a_folder_is_known_by_what_it_contains(
    runs: Runs, check: Callable[..., int], upstream: Path, tmp_path: Path
) -> None:
    """A copy of it is as good; whatever a suite reads of it makes it another one."""
    copy = tmp_path / "copy"
    shutil.copytree(upstream, copy)
    for base in (upstream, copy):
        check("--base", str(base))
    assert runs.sides() == ["base", "change", "change"]
    for number, part in enumerate(READ):
        write(copy, {part if "." in part[1:] or part == "PKG-INFO" else f"{part}/x": f"{number}"})
        check("--base", str(copy))
    assert runs.sides().count("base") == 1 + len(READ)
    write(copy, {"benchmarks/x": "not read"})
    check("--base", str(copy))
    assert runs.sides().count("base") == 1 + len(READ)


def test_a_record_is_of_the_installed_packages(
    runs: Runs, check: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    check()
    monkeypatch.setattr(judging, "version", lambda package: f"another {package}")
    check()
    assert runs.sides() == ["base", "change"] * 2


def test_a_change_is_the_next_one_s_base(
    runs: Runs, check: Callable[..., int], checkout: Path, tmp_path: Path
) -> None:
    check()
    merged = tmp_path / "merged"
    shutil.copytree(checkout, merged)
    commit(checkout, {"vllm/v1/attention/a.py": "next"})
    check("--base", str(merged))
    assert runs.sides() == ["base", "change", "change"]


def test_a_base_without_a_verdict_is_judged_again(runs: Runs, check: Callable[..., int]) -> None:
    runs.base = [of(E)]
    check()
    check()
    assert runs.sides() == ["base", "change"] * 2


def test_kernels_are_judged_if_anything_changed_that_they_depend_on(
    runs: Runs, check: Callable[..., int], checkout: Path
) -> None:
    check()
    assert "--suite=parity" in runs.asked[-1]
    assert "--suite=codegen" in runs.asked[-1]
    git(checkout, "reset", "-q", "--hard", "HEAD~1")
    write(checkout, {"vllm/models/b.py": "new"})
    check()
    assert [word for word in runs.asked[-1] if word.startswith("--suite")] == [
        "--suite=selection",
        "--suite=removal",
    ]


def test_both_sides_are_held_to_the_edition_of_the_change_s_release(
    runs: Runs, check: Callable[..., int], checkout: Path
) -> None:
    """The sources of two neighbouring releases: each case is asked of both."""
    write(checkout, {"PKG-INFO": "Version: 0.32.0\n", "vllm/_version.py": ""})
    git(checkout, "tag", "-d", "v0.33.0")
    check()
    assert [word for words in runs.asked for word in words if word.startswith("--edition")] == [
        "--edition=0.32",
        "--edition=0.32",
    ]


def test_a_change_that_names_no_release_is_held_to_its_base_s_edition(
    runs: Runs, check: Callable[..., int], checkout: Path
) -> None:
    git(checkout, "tag", "-d", "v0.33.0")
    check()
    base, change = runs.asked
    assert not any(word.startswith("--edition") for word in base)
    assert "--edition=0.19" in change  # that of the base's cases


@pytest.mark.parametrize(("ends", "code"), [(2, 2), (70, 75), (130, 75), (0, 75)])
def test_a_side_that_leaves_no_record(
    ends: int, code: int, runs: Runs, check: Callable[..., int]
) -> None:
    runs.ends = {"change": ends}
    assert check() == code
