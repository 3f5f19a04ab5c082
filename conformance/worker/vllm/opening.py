"""What the import of a vLLM depended on, so that a fork can stand for another import.

A process in which vLLM is imported may serve a platform that differs in variables which nothing
looked at meanwhile: vLLM imported there would have done the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ..contract import StartMessage
from ..environment_watch import Reads, native_modules
from ..kept_sources import Stamp, stamp
from . import machine

PACKAGE = "vllm"


class Opening:
    """The import of vLLM for the session of a start message, and the variables it looked at."""

    def __init__(self, start: StartMessage, reads: Reads) -> None:
        self._start = start
        self._reads = reads

    def suits(self, start: StartMessage) -> bool:
        """Whether an import for a session that is started so would go the same way."""
        return (
            _but_for_variables(start) == _but_for_variables(self._start)
            and not self._reads.any_of(self._differing(start))
            and all(_is_vllms_own(name) for name in self._differing(start))
            and not self._native
            and self._files == _stamps(self._files)
        )

    def go_on(self, start: StartMessage) -> None:
        """Sets the variables of a session that suits, in a fork."""
        after = start["platform"]["env"]
        for name in self._differing(start):
            if name in after:
                os.environ[name] = after[name]
            else:
                del os.environ[name]

    def _differing(self, start: StartMessage) -> list[str]:
        before, after = self._start["platform"]["env"], start["platform"]["env"]
        return [n for n in {**before, **after} if before.get(n) != after.get(n)]

    @cached_property
    def _native(self) -> list[str]:
        return native_modules(PACKAGE)

    @cached_property
    def _files(self) -> dict[str, Stamp | None]:
        """vLLM's files as they were imported, and their folders: someone may edit, add or remove
        some between two sessions."""
        modules = [module for name, module in list(sys.modules.items()) if _is_of_vllm(name)]
        files = [file for module in modules if (file := getattr(module, "__file__", None))]
        folders = [str(Path(file).parent) for file in files]
        return _stamps(dict.fromkeys([*files, *folders]))


def _is_of_vllm(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE


def _is_vllms_own(variable: str) -> bool:
    """Whether a variable is set by platforms alone, and read by Python code alone."""
    return variable.startswith(machine.OF_VLLM) and variable not in machine.QUIET


def _but_for_variables(start: StartMessage) -> dict[str, Any]:
    return {**start, "id": 0, "platform": {**start["platform"], "env": {}}}


def _stamps(paths: Mapping[str, object]) -> dict[str, Stamp | None]:
    """Each file's time and size; None where it is gone."""
    return {path: stamp(path) for path in paths}
