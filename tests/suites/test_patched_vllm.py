"""The real files of a vLLM release with one thing put wrong, and what the suite says of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from conformance.matrix.requests import REMOVED_VARIABLE
from conformance.results import Outcome, Run, read_results
from conformance.subjects.vllm.environment import prepare

RELEASE = "0.19.0"
ROCM = "vllm/platforms/rocm.py"
ENVS = "vllm/envs.py"
ON_IF = 'os.getenv("VLLM_ROCM_USE_AITER", "False")'
ON_GFX9 = '_ON_GFX9 = any(arch in _GCN_ARCH for arch in ["gfx90a", "gfx942", "gfx950"])'
CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Patch:
    """A line of a file that is replaced; ``{line}`` in ``new`` is the line there was.

    Where ``line`` is empty the file is new. ``among`` are requirements of which one at least must
    fail, ``caught_by`` those that must fail each.
    """

    name: str
    path: str
    line: str
    new: str
    caught_by: frozenset[str]
    among: frozenset[str] = frozenset()
    alone: bool = False
    suites: tuple[str, ...] = ("selection",)

    def apply(self, folder: Path) -> None:
        file = folder / self.path
        text = self.new
        if self.line:
            before = file.read_text(encoding="utf-8")
            assert before.count(self.line) == 1, f"{self.path} has no single {self.line!r}"
            text = before.replace(self.line, self.new.format(line=self.line))
            file.unlink()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


READ_AGAIN = f"""{{line}}
    import os
    if os.environ.get("{REMOVED_VARIABLE}", "1") == "0":
        return False
"""
PATCHES = (
    Patch(
        "the variable read again inside ROCM_ATTN",
        ROCM,
        "    # disabled due to observed numerical discrepancy.\n",
        READ_AGAIN,
        frozenset({"REM-003"}),
        among=frozenset({"REM-005", "PAG-020"}),
        suites=("removal",),
    ),
    Patch(
        "the variable read once, when the module is imported",
        ROCM,
        f"{ON_GFX9}\n",
        ON_GFX9.replace("= ", f'= os.environ.get("{REMOVED_VARIABLE}") != "0" and ') + "\n",
        frozenset({"REM-003", "REM-005"}),
        suites=("removal",),
    ),
    Patch(
        "the variable in a shell script",
        "vllm/tools/run-amd-test.sh",
        "",
        f"export {REMOVED_VARIABLE}=0\n",
        frozenset({"REM-003"}),
        alone=True,
        suites=("removal",),
    ),
    Patch(
        "ROCM_AITER_FA above ROCM_ATTN",
        ROCM,
        "        backends.append(AttentionBackendEnum.ROCM_AITER_FA)\n",
        "        backends.insert(0, AttentionBackendEnum.ROCM_AITER_FA)\n",
        frozenset({"SEL-004"}),
    ),
    Patch(
        "ROCM_AITER_UNIFIED_ATTN above ROCM_AITER_FA",
        ROCM,
        "        backends.append(AttentionBackendEnum.ROCM_AITER_UNIFIED_ATTN)\n",
        "        backends.insert(1, AttentionBackendEnum.ROCM_AITER_UNIFIED_ATTN)\n",
        frozenset({"SEL-004", "SEL-006"}),
    ),
    Patch(
        "AITER on unless it is set",
        ENVS,
        ON_IF,
        ON_IF.replace("False", "True"),
        frozenset({"SEL-092"}),
        alone=True,
    ),
    Patch(
        "a number that is not 0 turns AITER on",
        ENVS,
        f'{ON_IF}.lower() in ("true", "1")',
        f'{ON_IF}.lower() in ("true", "1", "01", "2")',
        frozenset({"SEL-093"}),
        alone=True,
    ),
)


def patched(patch: Patch, folder: Path) -> Path:
    """A Python whose vLLM is the release with the patch; the release in the cache stays as is."""
    release = prepare(RELEASE)
    package, *dependencies = release.path
    copy = folder / "site"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    patch.apply(copy)
    shim = folder / "python"
    path = ":".join(str(part) for part in (copy, *dependencies))
    shim.write_text(
        f"#!/bin/sh\nPYTHONPATH='{path}' exec '{sys.executable}' \"$@\"\n", encoding="utf-8"
    )
    shim.chmod(0o755)
    return shim


def judge(python: Path, suites: tuple[str, ...], folder: Path) -> tuple[int, Run, str]:
    command = [sys.executable, "-m", "conformance", "run", "--subject", str(python), "-n", "1"]
    command += ["--cell", "rocm62-aiter-mha", "--target", "gfx942", "--quick"]
    command += ["--sweep", "300"] if "selection" in suites else []
    command += ["--results", str(folder / "results")]
    for suite in suites:
        command += ["--suite", suite]
    ended = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    said = ended.stdout + ended.stderr
    return ended.returncode, read_results(folder / "results" / "results.jsonl"), said


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_a_patched_release_is_caught(patch: Patch, tmp_path: Path) -> None:
    code, run, said = judge(patched(patch, tmp_path), patch.suites, tmp_path)
    assert code == 1, said
    assert run.complete, run.problems
    errors = [case.message for case in run.cases if case.outcome is Outcome.ERRORED]
    assert not errors
    failed = {case.requirement for case in run.cases if case.outcome is Outcome.FAILED}
    assert patch.caught_by <= failed, sorted(failed)
    assert not patch.among or patch.among & failed, sorted(failed)
    assert not patch.alone or failed == patch.caught_by, sorted(failed)
