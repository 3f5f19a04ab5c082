"""Makes the Python that finds this folder on its path see a simulated AMD machine.

``rocm-conformance simulate`` puts the folder first on PYTHONPATH, so that every Python process of
a command starts here. Without the variable, as in a process that has cleared it, nothing happens.
"""

import importlib
import json
import os
import runpy
from pathlib import Path

VARIABLE = "ROCM_CONFORMANCE_SIMULATED"


def simulate(text: str) -> None:
    """Installs the stand-ins for the platform, and the device, that the text, JSON, describes."""
    asked = json.loads(text)
    worker = runpy.run_path(str(Path(__file__).resolve().parents[1] / "__main__.py"))
    worker["load"]()
    target, present = asked["target"], asked["present"]
    platform = importlib.import_module(f"{worker['NAME']}.vllm.simulated_platform")
    if not asked.get("device"):
        platform.install(target, present)
        return
    process = importlib.import_module(f"{worker['NAME']}.without_gpu.process")
    real = ("aiter",) if present["aiter"] and process.has_aiter() else ()
    platform.install(target, present, real)
    process.prepare(target, asked["device"], real)


if VARIABLE in os.environ:
    simulate(os.environ[VARIABLE])
