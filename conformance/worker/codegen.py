"""The ``compile`` op: a subject's kernels, compiled for the session's target and not run.

Standard library only here; what the device package needs (Triton, torch) is the subject's.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable

from .contract import AttendAnswer, CompileAnswer
from .suite_devices import devices


def compile_call(target: str, run: Callable[[], object]) -> CompileAnswer:
    """Launches one call on ``aot:<target>``; says what was compiled, or how it failed."""
    package = devices()
    package.activate(f"aot:{target}")
    failed = trace = ""
    try:
        run()
    except Exception as error:
        failed = f"{type(error).__name__}: {error}"
        trace = traceback.format_exc()
    return {"failed": failed, "trace": trace, "kernels": package.collect()["kernels"]}


def compile_problem(attend: Callable[[], AttendAnswer]) -> CompileAnswer:
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
