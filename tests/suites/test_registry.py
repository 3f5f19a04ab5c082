"""A suite is its folder and one line: an invented one, added to a copy of the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import conformance
from conformance.config import RunConfig
from conformance.results import CaseResult, Outcome, read_results
from conformance.suites.registry import BY_DEFAULT, SUITES

CELL = "rocm62-aiter-mha"
LINE = '    "invented",\n'
SUITE = """
import click

from conformance.suites.suite import Suite


def closing_cases(config, cases):
    from dataclasses import replace

    from conformance.results import Outcome

    yield replace(cases[0], name="INV-001 closing", outcome=Outcome.PASSED, message="", findings=())


def artefacts(cases, folder):
    (folder / "invented.txt").write_text(", ".join(case.name for case in cases))
    yield f"wrote {len(cases)} names"


SUITE = Suite(
    "invented",
    by_default=False,
    options=(click.Option(["--answer"], type=int, default=42, help="The answer."),),
    closing_cases=closing_cases,
    artefacts=artefacts,
)
"""
REQUIREMENTS = """
[[requirement]]
id = "INV-001"
title = "The answer is 42"
sentence = "The answer must be 42."
source = "https://example.org/answer"
holds = ">=0.18"
question = "probe"
"""
CASES = """
from conformance.errors import InfrastructureError
from conformance.suites.case import Nonconformance, cases_per_subject
from conformance.suites.invented import SUITE


def cases(context):
    return cases_per_subject(context, SUITE.name, "answer", ["INV-001"])


def test_answer(case, context):
    answer = context.config.suite_options["answer"]
    if answer < 0:
        raise InfrastructureError("nobody answered")
    if answer != 42:
        raise Nonconformance("two things", findings=["not 42", f"but {answer}"])
    return {"compared": 1}
"""


@dataclass(frozen=True)
class Ended:
    """A run of the invented suite: its exit code, its cases by name, its folder, what it said."""

    code: int
    cases: dict[str, CaseResult]
    folder: Path
    said: str


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package in which one line is new, and one folder."""
    package = tmp_path_factory.mktemp("copy") / "conformance"
    shutil.copytree(
        Path(conformance.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    registry = package / "suites" / "registry.py"
    text = registry.read_text(encoding="utf-8")
    last = '    "codegen",\n'
    assert text.count(last) == 1
    registry.write_text(text.replace(last, last + LINE), encoding="utf-8")
    folder = package / "suites" / "invented"
    folder.mkdir()
    (folder / "__init__.py").write_text(SUITE, encoding="utf-8")
    (folder / "test_invented.py").write_text(CASES, encoding="utf-8")
    (folder / "requirements.toml").write_text(REQUIREMENTS, encoding="utf-8")
    return package.parent


def run(copy: Path, results: Path, *words: str) -> Ended:
    command = ["run", "--subject", "reference", "--cell", CELL, "-n", "1", *words]
    process = subprocess.run(
        [sys.executable, "-P", "-m", "conformance", *command, "--results", str(results)],
        env={**os.environ, "PYTHONPATH": str(copy)},
        cwd=results.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    said = process.stdout + process.stderr
    path = results / "results.jsonl"
    cases = read_results(path).cases if path.exists() else ()
    return Ended(process.returncode, {case.name: case for case in cases}, results, said)


def test_an_invented_suite_has_cases_files_and_a_verdict(copy: Path, tmp_path: Path) -> None:
    ended = run(copy, tmp_path / "results", "--suite", "invented")
    assert ended.code == 0, ended.said
    own, closing = ended.cases.values()
    assert (own.suite, own.outcome, own.counts) == ("invented", Outcome.PASSED, {"compared": 1})
    assert (own.requirement, own.source) == ("INV-001", "https://example.org/answer")
    assert closing.name == "INV-001 closing"
    assert (ended.folder / "invented.txt").read_text() == f"{own.name}, {closing.name}"
    assert "wrote 2 names" in ended.said
    assert (ended.folder / f"junit-{CELL}.xml").is_file()


@pytest.mark.parametrize(
    ("answer", "code", "outcome", "findings"),
    [
        ("41", 1, Outcome.FAILED, ("not 42", "but 41")),
        ("-1", 75, Outcome.ERRORED, ()),
    ],
)
def test_its_option_reaches_its_cases_and_its_verdict_the_exit_code(
    copy: Path, tmp_path: Path, answer: str, code: int, outcome: Outcome, findings: tuple[str, ...]
) -> None:
    ended = run(copy, tmp_path / "results", "--suite", "invented", "--answer", answer)
    assert ended.code == code, ended.said
    (own,) = (case for case in ended.cases.values() if case.name != "INV-001 closing")
    assert (own.outcome, own.findings) == (outcome, findings)


def test_cases_that_cannot_be_listed_are_an_internal_error(copy: Path, tmp_path: Path) -> None:
    module = copy / "conformance" / "suites" / "invented" / "test_invented.py"
    module.write_text(
        CASES.replace("    return cases_per", "    raise OSError('none')\n    return cases_per")
    )
    try:
        ended = run(copy, tmp_path / "results", "--suite", "invented")
    finally:
        module.write_text(CASES)
    assert ended.code == 70, ended.said
    assert "OSError: none" in ended.said


def test_nothing_is_concluded_from_a_part(copy: Path, tmp_path: Path) -> None:
    words = ["--suite", "invented", "--suite", "removal", "--cell", "rocm62-*", "--shard", "1/2"]
    ended = run(copy, tmp_path / "results", *words)
    assert ended.code == 0, ended.said
    assert len(ended.cases) > 1
    assert "INV-001 closing" not in ended.cases


def test_a_suite_that_is_not_registered_is_the_users_error(tmp_path: Path) -> None:
    ended = run(Path(conformance.__file__).parents[1], tmp_path / "results", "--suite", "invented")
    assert ended.code == 2
    assert "'selection', 'removal', 'parity', 'codegen'" in ended.said


def test_each_suite_has_its_folder_and_runs_by_default_unless_it_says_otherwise() -> None:
    folder = Path(conformance.__file__).parent / "suites"
    assert {path.parent.name for path in folder.glob("*/test_*.py")} == SUITES.keys()
    assert BY_DEFAULT == ("selection", "removal", "parity")


# ---- what a suite says of a configuration -----------------------------------------------------


@pytest.mark.parametrize(
    ("suite", "config", "patterns"),
    [
        ("selection", RunConfig((), ("*",)), []),
        ("selection", RunConfig((), ("*",), sweep=2_000), ["*"]),
        ("parity", RunConfig((), ("*",)), []),
        ("parity", RunConfig((), ("*",), tier="quick"), ["PAR-*"]),
        ("parity", RunConfig((), ("*",), device="isa:gfx942"), ["PAR-*", "CGN-*"]),
        ("parity", RunConfig((), ("*",), seed=1), ["PAR-*"]),
        ("parity", RunConfig((), ("*",), suite_options={"problem": ["an id"]}), ["*"]),
        ("removal", RunConfig((), ("*",), sweep=0, tier="quick"), []),
        ("metadata", RunConfig((), ("*",)), []),
        ("metadata", RunConfig((), ("*",), tier="quick"), ["MET-*"]),
        ("metadata", RunConfig((), ("*",), seed=1), ["MET-*"]),
    ],
)
def test_the_requirements_of_which_cases_are_left_out(
    suite: str, config: RunConfig, patterns: list[str]
) -> None:
    assert list(SUITES[suite].left_out(config)) == patterns
