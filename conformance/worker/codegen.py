"""The ``compile`` op: one call of a subject's kernels, compiled for the session's target.

Standard library only here; what the device package needs (Triton, torch) is the subject's.
"""

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .wire import Message, WorkerError

DEVICES = "conformance_devices"


def devices() -> Any:
    """The suite's device package, loaded by its place: the suite need not be installed."""
    if DEVICES not in sys.modules:
        folder = Path(__file__).resolve().parents[1] / "devices"
        spec = importlib.util.spec_from_file_location(
            DEVICES, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:
            raise WorkerError(f"{folder} is missing: is the suite's installation complete?")
        module = importlib.util.module_from_spec(spec)
        sys.modules[DEVICES] = module
        spec.loader.exec_module(module)
    return sys.modules[DEVICES]


def compile_call(target: str, run: Callable[[], Any]) -> Message:
    """Launches one call on ``aot:<target>``: what was compiled, and how it failed if it did."""
    package = devices()
    package.activate(f"aot:{target}")
    failed = trace = ""
    try:
        run()
    except Exception as error:
        failed = f"{type(error).__name__}: {error}"
        trace = traceback.format_exc()
    return {"failed": failed, "trace": trace, "kernels": package.collect()["kernels"]}


def compile_problem(attend: Callable[[], Message]) -> Message:
    """Attends a problem on the ``aot`` device that is active; answers as :func:`compile_call`."""
    package = devices()
    package.collect()
    answer = attend()
    return {
        "failed": answer["raised"],
        "trace": answer["trace"],
        "refused": answer["refused"],
        "kernels": package.collect()["kernels"],
    }
