"""A run has as many processes as processors that it may use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from conformance.runners import processors


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux's own call")
def test_processors_that_are_not_its_own_do_not_count() -> None:
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from conformance.runners import local; print(local.PROCESSES)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1"]


def test_without_that_call_all_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert processors.usable() == 7
