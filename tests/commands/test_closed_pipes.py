"""Whoever reads the output may leave: that is no verdict, and what was wrong stays wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from conformance.errors import ExitCode

GONE, KEPT = True, False


def ended(words: list[str], *, out: bool, err: bool) -> int:
    """The exit code with stdout, stderr or both on a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [sys.executable, "-m", "conformance", *words],
            stdin=subprocess.DEVNULL,
            stdout=writer if out else subprocess.DEVNULL,
            stderr=writer if err else subprocess.DEVNULL,
            timeout=120,
            check=False,
        ).returncode
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["cells"], ["cells", "--help"], ["explain", "--gpu", "MI300X"]],
    ids=" ".join,
)
@pytest.mark.parametrize("err", [KEPT, GONE])
def test_an_answer_that_nobody_reads_is_no_verdict(words: list[str], err: bool) -> None:
    assert ended(words, out=GONE, err=err) == ExitCode.INFRASTRUCTURE


@pytest.mark.parametrize(
    "words", [["nosuch"], ["run", "--timeout", "nan"], ["explain", "--gpu", "nosuch"]], ids=" ".join
)
def test_a_mistake_that_nobody_reads_is_one_all_the_same(words: list[str]) -> None:
    assert ended(words, out=GONE, err=GONE) == ExitCode.USAGE


def test_warnings_that_nobody_reads_change_nothing() -> None:
    assert ended(["cells"], out=KEPT, err=GONE) == ExitCode.CONFORMANT
