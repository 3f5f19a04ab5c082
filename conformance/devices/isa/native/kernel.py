"""A kernel's native code: when it is made, from where, and what is said when it cannot be."""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict
from functools import lru_cache
from typing import Any

from ..code import Code
from . import objects
from .compiler import Loaded, NativeError, binding, compile_text, host
from .emit import Kernel
from .plan import make_plan
from .symbols import UntraceableError

VARIABLE = "ROCM_CONFORMANCE_NATIVE"
# Compiling an instruction takes as long as interpreting it for some hundreds of waves.
_BREAK_EVEN = 500
# Where the interpreter keeps a record of races it takes ten times as long.
_BREAK_EVEN_OF_RACES = 50
_LOG = logging.getLogger(__name__)


def choice() -> str:
    """``auto`` (compile what is run often), ``always``, ``never`` or ``both`` (always, and then
    interpret it, too, and compare), from the environment."""
    chosen = os.environ.get(VARIABLE, "auto")
    if chosen not in ("auto", "always", "never", "both"):
        raise ValueError(f"{VARIABLE}={chosen!r}: expected auto, always, never or both")
    return chosen


@lru_cache(maxsize=1)
def unavailable() -> str:
    """Why nothing is compiled on this machine; empty if it is. Said once, where it matters."""
    try:
        binding()
    except NativeError as error:
        _LOG.warning("kernels are interpreted, which is 20 to 40 times slower: %s", error)
        return str(error)
    return ""


class NativeKernel:
    """One kernel's native code, made when it pays.

    ``original`` are its blocks as they are; ``code`` the same, split where something is
    interpreted.
    """

    def __init__(self, code: Code, text: str, races: bool = False) -> None:
        self.original, self.code = code, code
        self._text, self.races = text, races
        self.always = False
        self._before = 0
        self._looked = False
        self._loaded: Loaded | None = None
        self.failure, self.compile_seconds = "", 0.0
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.slots, self.whole = 0, False
        self.modes: dict[int, int] = {}

    @property
    def workgroup(self) -> Any:
        assert self._loaded is not None
        return self._loaded.workgroup

    def give_up(self, why: str) -> None:
        """Native code cannot do what the kernel does: it is interpreted from now on."""
        self.failure, self._loaded = why, None
        _LOG.info("%s is interpreted: %s", self.original.program.name, why)

    def note(self, wave_instructions: int) -> None:
        """What a launch that was interpreted, if only in part, has run."""
        self._before += wave_instructions

    def is_hot(self, wave_instructions: int) -> bool:
        """Whether it is interpreted although compiling would pay."""
        if self._loaded is not None or self.failure:
            return False
        waves = _BREAK_EVEN_OF_RACES if self.races else _BREAK_EVEN
        needed = waves * len(self.original.program.instructions)
        return self.always or self._before + wave_instructions > needed

    def ready(self, wave_instructions: int) -> bool:
        """Whether there is native code: now loaded, found on disk, or compiled because it pays."""
        if self._loaded is not None:
            return True
        if self.failure:
            return False
        try:
            if not self._looked:
                self._looked = True
                found = objects.read(self._key())
                if found is not None:
                    self._use(found)
                    return True
            if self.is_hot(wave_instructions):
                self._compile()
        except (NativeError, UntraceableError) as error:
            self.failure = str(error)
            _LOG.warning("%s is interpreted: %s", self.original.program.name, error)
        return self._loaded is not None

    def _key(self) -> str:
        mode = "races" if self.races else ""
        return objects.key(self._text, self.original.target.name, host(), mode)

    def _compile(self) -> None:
        started = time.perf_counter()
        compiled = compile_code(self.original, self.races)
        self._use(compiled)
        self.compile_seconds = time.perf_counter() - started
        objects.write(self._key(), compiled)

    def _use(self, compiled: objects.Compiled) -> None:
        self._loaded = Loaded(compiled.data)
        old = self.original
        ends = dict(zip(compiled.starts, compiled.ends, strict=True))
        self.code = Code(old.program, old.target, old.vgprs, old.agprs, ends)
        self.starts, self.ends = compiled.starts, compiled.ends
        self.modes = dict(zip(compiled.starts, compiled.modes, strict=True))
        self.slots, self.whole = compiled.slots, compiled.whole


def compile_code(code: Code, races: bool = False) -> objects.Compiled:
    """Traces, emits and compiles a kernel; NativeError if LLVM does not take it."""
    plan = make_plan(code)
    kernel = Kernel(plan, races)
    text = kernel.text()
    return objects.Compiled(
        data=compile_text(text),
        starts=kernel.starts,
        ends=[plan.code.ends[start] for start in kernel.starts],
        modes=[plan.modes[start] for start in kernel.starts],
        slots=kernel.slots,
        whole=kernel.whole,
    )


def compile_seconds() -> dict[str, float]:
    """How long each kernel of this process took to compile, by its name; the longest of a name."""
    found: dict[str, float] = {}
    for kernel in _KERNELS.values():
        name = kernel.original.program.name
        found[name] = max(found.get(name, 0.0), kernel.compile_seconds)
    return found


_KERNELS: OrderedDict[tuple[str, str, bool], NativeKernel] = OrderedDict()
_MOST_KERNELS = 256


def native_kernel(text: str, code: Code, races: bool = False) -> NativeKernel | None:
    """The native code of a kernel, which many launches share; None where nothing is compiled.

    ``races``: that which looks for races as it runs.
    """
    chosen = choice()
    if chosen == "never" or unavailable():
        return None
    name = (text, code.target.name, races)
    if name not in _KERNELS:
        _KERNELS[name] = NativeKernel(code, text, races)
        while len(_KERNELS) > _MOST_KERNELS:
            _KERNELS.popitem(last=False)
    found = _KERNELS[name]
    found.always = chosen in ("always", "both")
    return found
