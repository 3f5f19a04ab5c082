"""vLLM's source trees as they lie there: a reordered copy, and one of a release yet to come.

Each is a source distribution whose files are linked, with a few of its lines changed.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from conformance.cli import run_cli
from conformance.errors import ExitCode
from conformance.results import Outcome, read_results
from conformance.subjects.vllm.environment import source_tree

pytestmark = pytest.mark.vllm

RELEASE = "0.33.0"
OLDER = "0.19.0"  # half as many files, which are compiled anew for each tree
ROCM = "vllm/platforms/rocm.py"
SELECTOR = "vllm/v1/attention/selector.py"
CHECKS = (
    "vllm/v1/attention/backend.py",
    "vllm/v1/attention/backends/mla/rocm_aiter_mla.py",
)
# What 0.33.0 gets wrong; its waiver ends with the last release that was seen to.
FINDINGS = {"SEL-246"}
VERSION = "vllm/_version.py"
REORDERED = (
    ROCM,
    "    backends.append(AttentionBackendEnum.TRITON_ATTN)\n",
    "    backends.insert(0, AttentionBackendEnum.TRITON_ATTN)\n",
)
NEW_FIELD = "use_new_thing"
OF_0340 = (
    (VERSION, f"'{RELEASE}'", "'0.34.0'"),
    (
        SELECTOR,
        "    block_size: int | None\n    use_mla",
        f"    block_size: int | None\n    {NEW_FIELD}: bool\n    use_mla",
    ),
    *(
        (
            checks,
            "        use_rswa: bool = False,\n",
            f"        use_rswa: bool = False,\n        {NEW_FIELD}: bool = False,\n",
        )
        for checks in CHECKS
    ),
)


def tree(folder: Path, *edits: tuple[str, str, str], release: str = RELEASE) -> str:
    """A copy of a release's source tree with some text replaced; its spelling as a subject."""
    left = shutil.ignore_patterns("csrc", "tests", "benchmarks", "rust", "__pycache__")
    shutil.copytree(source_tree(release), folder, ignore=left, copy_function=os.link)
    for path, old, new in edits:
        file = folder / path
        text = file.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{path} has no single {old!r}"
        file.unlink()
        file.write_text(text.replace(old, new), encoding="utf-8")
    return str(folder)


def run(results: Path, subject: str, *more: str) -> int:
    command = ["run", "--subject", subject, "--suite", "selection", "--cell", "rocm62-noaiter-mha"]
    command += ["--target", "gfx90a", "--quick", "--sweep", "100", "--results", str(results)]
    return run_cli([*command, "-n", "1", "--timeout", "600", *more])


def test_a_reordered_copy_is_caught_and_left_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = tree(tmp_path / "vllm", REORDERED, release=OLDER)
    before = set((tmp_path / "vllm").rglob("*"))
    assert run(tmp_path / "results", subject) == ExitCode.NOT_CONFORMANT
    assert set((tmp_path / "vllm").rglob("*")) == before
    found = read_results(tmp_path / "results" / "results.jsonl")
    failed = {case.requirement for case in found.cases if case.outcome is Outcome.FAILED}
    assert "SEL-001" in failed
    assert not [case for case in found.cases if case.outcome is Outcome.ERRORED]
    assert found.header
    assert (found.header.edition, found.header.subjects[0].version) == ("0.19", OLDER)
    assert f"source tree, unbuilt, based on {OLDER}" in found.header.subjects[0].note
    assert f"source tree, unbuilt, based on {OLDER}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_release_yet_to_come_is_driven_and_judged_by_the_newest_edition(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = tree(tmp_path / "vllm", *OF_0340)
    assert run(tmp_path / "results", subject) == ExitCode.NOT_CONFORMANT
    out = " ".join(capsys.readouterr().out.split())
    assert "edition 0.33 (the newest; this release is newer)" in out
    assert "vLLM 0.34.0 is newer than every edition of this suite" in out
    assert f"left at their defaults: {NEW_FIELD}" in out
    found = read_results(tmp_path / "results" / "results.jsonl")
    failed = {case.requirement for case in found.cases if case.outcome is Outcome.FAILED}
    assert failed == FINDINGS
    assert not [case for case in found.cases if case.outcome is Outcome.ERRORED]
    assert found.header
    assert NEW_FIELD in found.header.subjects[0].note


@pytest.mark.slow
def test_two_variants_of_one_tree_select_differently(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    selected = {}
    for name, edits in (("before", ()), ("after", (REORDERED,))):
        subject = tree(tmp_path / name, *edits)
        assert (
            run_cli(["explain", "--subject", subject, "--target", "gfx90a", "--format", "json"])
            == 0
        )
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        selected[name] = answer["selected"]
    assert selected == {"before": "ROCM_ATTN", "after": "TRITON_ATTN"}
