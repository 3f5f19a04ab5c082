"""A compiler that crashes is no wrong result: which one, on which kernel and configuration."""

from __future__ import annotations

import re
from typing import Any

# What Triton raises where NVIDIA's assembler fails. A negative code is the signal that ended it; a
# positive one is its complaint about what it was given. AMD's is a library: it ends the process.
_ENDED = re.compile(r"`?(?P<program>\w+)`? failed with error code -(?P<signal>\d+)")
_ASSEMBLER_ERROR = "PTXASError"


def compiler_crash(error: BaseException) -> str | None:
    """What to say of an error by which Triton reports that a compiler crashed; None: it is none."""
    ended = _ENDED.search(str(error))
    if type(error).__name__ != _ASSEMBLER_ERROR or ended is None:
        return None
    program, signal = ended.group("program", "signal")
    return f"the compiler {program} crashed (signal {signal}){_launched(error)}"


def _launched(error: BaseException) -> str:
    """The kernel that was being launched and its constants, from the frame of its launch."""
    trace = error.__traceback__
    while trace is not None:
        local = trace.tb_frame.f_locals
        kernel, given = local.get("self"), local.get("kwargs")
        if trace.tb_frame.f_code.co_name == "run" and isinstance(given, dict):
            function = getattr(kernel, "fn", None)
            name = getattr(function, "__name__", "")
            if name:
                return f" on {name} with {_constants(given)}"
        trace = trace.tb_next
    return ""


def _constants(given: dict[str, Any]) -> str:
    shown = {
        name: value
        for name, value in given.items()
        if (name.isupper() or name.startswith("num_")) and isinstance(value, bool | int | str)
    }
    return ", ".join(f"{name}={value}" for name, value in sorted(shown.items()))
