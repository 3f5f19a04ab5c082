"""Kernels of templates that a library instantiates when it is called: compiled, launched."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..assembly import parse_program
from ..kernel import Argument, Extent, Launch, pointer
from ..triton.driver import Driver
from .clang import Build, CompileError, find_clang
from .kernels import HipCode, only
from .object_launch import Value
from .operators import HipKernel

_BEGINS = re.compile(r"; -- Begin function (\S+)")


class Templates:
    """Those of a library whose source tree is ``root``, on the driver's device.

    ``includes`` are folders of the tree that headers are looked for in; ``folder`` keeps what was
    compiled, as ``build`` says.
    """

    def __init__(
        self, driver: Driver, root: Path, includes: Sequence[str], folder: Path, build: Build
    ) -> None:
        """Raises ClangMissingError if kernels cannot be compiled here."""
        self._driver = driver
        facts = driver.name.facts
        clang = find_clang()
        self.version = clang.version
        self._code = HipCode(root, driver.name.target, facts.wave_size, clang, folder, build)
        self._includes = includes

    def launch(
        self, source: str, function: str, shape: tuple[Extent, Extent], values: Sequence[Value]
    ) -> None:
        """Compiles a source, and runs the only instance in it of a kernel, on CPU tensors.

        ``shape``: grid in workgroups and workgroup in lanes. ``values``: its arguments in order.

        Raises:
            CompileError: clang refuses the source, or it holds no such kernel.
            Violation, UnknownInstructionError: as the emulator's.
        """
        text = self._code.text_of(source, self._includes, function)
        symbol = next((each for each in _BEGINS.findall(text) if function in each), "")
        if not symbol:
            raise CompileError(f"clang made no kernel {function}")
        text = only(text, symbol)
        if self._driver.rewrite is not None:
            text = self._driver.rewrite(text, symbol)
        grid, block = shape
        kernel = HipKernel(function, "", self.version, text).as_kernel(block, 0, self._driver.name)
        if self._driver.compile_only:
            self._driver.recorder.compiled_only(kernel)
            return
        arguments = tuple(_arguments(text, values))
        self._driver.recorder.run(Launch(kernel, grid, block, arguments))


def _arguments(text: str, values: Sequence[Value]) -> Iterator[Argument]:
    places = [p for p in parse_program(text).arguments if not p.kind.startswith("hidden_")]
    for number, (place, value) in enumerate(zip(places, values, strict=True)):
        name = f"argument {number}"
        if isinstance(value, float):
            yield Argument(name, struct.pack("<f", value))
        elif isinstance(value, int):
            yield Argument(name, value.to_bytes(place.size, "little", signed=value < 0))
        else:
            yield pointer(name, value)
