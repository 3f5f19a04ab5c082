"""Makes the Python that finds this folder on its path see a simulated AMD machine.

``rocm-conformance simulate`` puts the folder first on PYTHONPATH, so that every Python process of
a command starts here. Without the variable, as in a process that has cleared it, nothing happens.
"""

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path

VARIABLE = "ROCM_CONFORMANCE_SIMULATED"
NAME = "conformance_worker"


def simulate(text: str) -> None:
    """Installs the stand-ins for the platform that the text, JSON, describes."""
    asked = json.loads(text)
    folder = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location(
        NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise SystemExit(f"{folder} is not a package: is the suite's installation complete?")
    package = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)
    platform = importlib.import_module(f"{NAME}.vllm.simulated_platform")
    platform.install(asked["target"], asked["present"])


if VARIABLE in os.environ:
    simulate(os.environ[VARIABLE])
