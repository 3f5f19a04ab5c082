"""A process that emulated ends without reports of leaks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Objects of Triton that only the collector can free, frozen by the emulator with all others.
PROGRAM = """
import atexit, gc
atexit.register(lambda: print("at the end", gc.get_freeze_count()))
from tests.devices import interpreter
from triton.runtime.interpreter import interpreter_builder
from tests.emulator.test_launch import kernel, _LDS
from conformance.devices.isa.launch import load
cycle = [interpreter_builder]
cycle.append(cycle)
load(kernel(_LDS).text, "gfx942", 64)
print("frozen", gc.get_freeze_count() > 0)
del cycle
"""


def test_nothing_is_frozen_at_the_end() -> None:
    """Otherwise the bindings of Triton 3.9 report hundreds of functions as leaked."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[:2] == ["frozen True", "at the end 0"]
