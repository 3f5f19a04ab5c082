"""The ``compile`` op: a subject's kernels compiled for the session's target, as they are launched.

Standard library only here; what the device package needs (Triton, torch) is the subject's.
"""

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .wire import Message, WorkerError

DEVICES = "conformance_devices"


def devices() -> Any:
    """The suite's device package, loaded by its place: the suite need not be installed."""
    if DEVICES not in sys.modules:
        folder = Path(__file__).resolve().parents[2] / "devices"
        spec = importlib.util.spec_from_file_location(
            DEVICES, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:
            raise WorkerError(f"{folder} is missing: is the suite's installation complete?")
        module = importlib.util.module_from_spec(spec)
        sys.modules[DEVICES] = module
        spec.loader.exec_module(module)
    return sys.modules[DEVICES]


def compile_calls(
    target: str, names: Iterable[str], calls: Iterable[Any], run: Callable[[Any], Any]
) -> Message:
    """Launches every call on ``aot:<target>``; per call what was compiled, or how it failed."""
    package = devices()
    package.activate(f"aot:{target}")
    answers = []
    for name, call in zip(names, calls, strict=True):
        failed = trace = ""
        try:
            run(call)
        except Exception as error:
            failed = f"{type(error).__name__}: {error}"
            trace = traceback.format_exc()
        found = package.collect()
        answers.append(
            {"call": name, "failed": failed, "trace": trace, "kernels": found["kernels"]}
        )
    return {"calls": answers}
