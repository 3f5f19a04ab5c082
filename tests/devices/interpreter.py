"""Import it before any kernel: what this process defines with Triton runs in its interpreter.

Triton decides when a kernel is defined, those of its own library included, so the variable is set
for that long only: a process that a test starts does not inherit it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module

from conformance.devices.triton import interpreter

_BEFORE = os.environ.get(interpreter.VARIABLE)
interpreter.choose()
import triton.language as tl  # noqa: E402 - after the choice
from triton.runtime.interpreter import InterpretedFunction  # noqa: E402 - likewise

from rocm_reference.backends.registry import NAMES, backend  # noqa: E402 - likewise

for _name in NAMES:
    backend(_name)
with suppress(ImportError):
    # Triton imports it at the first launch, and it looks at the variable once more.
    import_module("triton.experimental.gluon")
if _BEFORE is None:
    del os.environ[interpreter.VARIABLE]
if not isinstance(tl.cdiv, InterpretedFunction):
    raise ImportError("Triton was imported in this process before its interpreter was chosen")
interpreter.repair()
