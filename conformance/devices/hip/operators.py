"""Operators of a vLLM release on an emulated target, as the release's own host code runs them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..assembly import parse_program
from ..kernel import Argument, Extent, Kernel, Launch, Span, tensor_span
from ..resources import resources_of
from ..spelling import DeviceName
from ..triton.driver import Driver
from .host import HostCode, HostLaunch
from .kernels import HipCode

_PARAMETERS = re.compile(r"\([^()]*\)$")
_LITERAL = re.compile(r"\([\w:]+\)(?=\d)")


@dataclass(frozen=True)
class HipKernel:
    """A kernel that is launched: ``signature`` with its template arguments, and its text.

    It was compiled from ``file``, relative to the release's source tree, by ``compiler``.
    """

    signature: str
    file: str
    compiler: str
    text: str

    @property
    def name(self) -> str:
        """Its name and template arguments, short: no parameters, no enumerations' types."""
        head = _PARAMETERS.sub("", self.signature.removeprefix("void "))
        return _LITERAL.sub("", head)

    @property
    def function(self) -> str:
        """Its name alone."""
        return self.name.partition("<")[0]

    def as_kernel(self, block: Extent, shared: int, device: DeviceName) -> Kernel:
        """As devices are handed it, for a workgroup of ``block`` and ``shared`` bytes of LDS."""
        program = parse_program(self.text)
        static = program.descriptor.get("group_segment_fixed_size", 0)
        lanes = device.facts.wave_size
        x, y, z = block
        waves = -(-x * y * z // lanes)
        lds = static + shared
        resources = resources_of(self.text, lds, waves, device.facts)
        return Kernel(self.name, self.text, static, waves, lanes, resources)


class Operators:
    """The operators of a release on the device of ``driver``, which records what they run.

    ``heard`` is told of each kernel, before it runs.
    """

    def __init__(self, code: HipCode, driver: Driver, heard: Callable[[HipKernel], None]) -> None:
        self._code, self._driver, self._heard = code, driver, heard
        self._hosts: dict[Path, HostCode] = {}
        self._operator = ""
        self._spans: tuple[Span, ...] = ()

    def call(self, operator: str, arguments: Mapping[str, Any]) -> None:
        """Runs an operator on tensors in CPU memory; ``arguments`` in the order of its schema.

        Raises:
            OperatorError: its host code refuses them.
            CompileError, ClangMissingError: it cannot be compiled here.
            Violation, UnknownInstructionError: as the emulator's.
        """
        self._operator = operator
        tensors = {k: v for k, v in arguments.items() if hasattr(v, "data_ptr")}
        spans = (tensor_span(name, tensor) for name, tensor in tensors.items())
        self._spans = tuple(span for span in spans if span is not None)
        self._host(operator).call(operator, list(arguments.values()))

    def _host(self, operator: str) -> HostCode:
        library = self._code.host(operator)
        if library not in self._hosts:
            self._hosts[library] = HostCode(
                library, self._code.target, self._code.lanes, self._launched
            )
        return self._hosts[library]

    def _launched(self, launch: HostLaunch) -> None:
        unit, signature, text = self._code.kernel(self._operator, launch.symbol)
        if self._driver.rewrite is not None:
            text = self._driver.rewrite(text, launch.symbol)
        found = HipKernel(signature, unit.file, f"clang {self._code.clang.version}", text)
        self._heard(found)
        kernel = found.as_kernel(launch.block, launch.shared, self._driver.name)
        if self._driver.compile_only:
            self._driver.recorder.compiled_only(kernel)
            return
        arguments = tuple(self._arguments(launch, text))
        self._driver.recorder.run(
            Launch(kernel, launch.grid, launch.block, arguments, launch.shared)
        )

    def _arguments(self, launch: HostLaunch, text: str) -> Iterator[Argument]:
        """The bytes of each argument; together they may lead to any of the operator's tensors."""
        reachable = (*self._spans, *self._host(self._operator).spans)
        explicit = [p for p in parse_program(text).arguments if not p.kind.startswith("hidden_")]
        for number, place in enumerate(explicit):
            data = launch.argument(number, place.size)
            yield Argument(f"argument {number}", data, () if number else reachable)
