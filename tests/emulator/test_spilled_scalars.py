"""Scalars that vLLM's paged decode spills come back as they were, and another would show."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

# Before 0.33 kept the offsets of heads in 32 bits.
RELEASE = "0.30.0"
FEW = "2"
SAID = re.compile(r": (\d+) scalar registers spilled; (.*)$")


def said(*options: str) -> list[tuple[int, str]]:
    """Of each variant how many registers its code spills, and what is said of its writes."""
    command = [sys.executable, "-m", "tests.emulator.spilled_scalars", RELEASE, FEW, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [match for line in done.stdout.splitlines() if (match := SAID.search(line))]
    assert len(found) == int(FEW), done.stdout
    return [(int(match[1]), match[2]) for match in found]


@pytest.mark.vllm
@pytest.mark.slow
def test_what_is_spilled_is_read_back() -> None:
    for spilled, words in said():
        assert spilled > 0
        assert words == "every write is right"


@pytest.mark.vllm
@pytest.mark.slow
def test_another_scalar_would_show() -> None:
    for spilled, words in said("spoilt"):
        assert spilled > 0
        assert words != "every write is right"
