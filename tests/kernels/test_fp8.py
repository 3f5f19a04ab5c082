"""fp8 is converted rightly, by integer arithmetic and by every processor that converts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = Path(__file__).with_name("fp8_probe.py")
# The encodings that each device's processor converts.
CONVERTS: dict[str, set[str]] = {
    "interpreter": set(),
    "isa:gfx90a": set(),
    "isa:gfx942": {"float8_e4m3fnuz"},
    "isa:gfx950": {"float8_e4m3fn", "float8_e5m2"},
    "isa:gfx1201": set(),
}

QUICK = ("interpreter", "isa:gfx942")


@pytest.mark.parametrize(
    "device",
    [
        pytest.param(device, marks=() if device in QUICK else pytest.mark.slow)
        for device in CONVERTS
    ],
)
def test_every_code_and_every_rounding_edge(device: str, tmp_path: Path) -> None:
    found = _probed(device, tmp_path)
    assert {name.split()[0] for name in found if "processor" in name} == CONVERTS[device]
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def _probed(device: str, cache: Path) -> dict[str, int]:
    interpreted = {"TRITON_INTERPRET": "1"} if device == "interpreter" else {}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(PROBE), device],
        env={**os.environ, "TRITON_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1", **interpreted},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found
