"""The kernels that are put wrong: where they are, and how a copy of them is run."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import rocm_reference
from conformance.problems.families import backends
from conformance.subjects.vllm.environment import prepare
from conformance.suites.parity.coverage import vllm_kernels
from vllm_editions import DEFAULT_EDITION, editions, nearest_edition

REFERENCE = Path(rocm_reference.__file__).parent
# Speed alone depends on launch parameters; the rest says what there is, and computes nothing.
LEFT_OUT = ("ops/launch.py", "backends/registry.py", "selector.py", "machine.py", "attention.py")
# Where vLLM's releases keep the kernels of attention.
VLLM_OPS = "vllm/v1/attention/ops"
# Of caches that FlyDSL reads on gfx950, which is no Triton: nothing that can be driven runs them.
NOT_DRIVEN = (
    "turboquant_soa/triton_turboquant_decode.py",
    "turboquant_soa/triton_turboquant_store.py",
)
_IMPORTED = re.compile(r"^from vllm\.v1\.attention\.ops\.(\w+) import", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """What is edited: the ``files`` of the folder that is copied, and what runs the copy.

    ``made``: gives the copy's folder the spelling of the subject and the variables of its workers.
    ``editions``: whose problems judge it; none: those of its own.
    """

    name: str
    says: str
    folder: Path
    files: Callable[[], Iterator[str]]
    made: Callable[[Path], tuple[str, dict[str, str]]]
    triton_only: bool = False
    editions: tuple[str, ...] = ()


def reference_source() -> Source:
    """The reference's kernels, and the Python of its backends that launches them."""

    def files() -> Iterator[str]:
        for path in sorted(REFERENCE.rglob("*.py")):
            file = path.relative_to(REFERENCE).as_posix()
            if file not in LEFT_OUT:
                yield file

    def made(copy: Path) -> tuple[str, dict[str, str]]:
        return "reference", {"PYTHONPATH": str(copy.parent)}

    says = "the reference's kernels and backends"
    # The newest edition has backends and caches that the first has not.
    asked = (DEFAULT_EDITION, editions()[-1])
    return Source("kernels", says, REFERENCE, files, made, editions=asked)


def vllm_source(release: str) -> Source:
    """The Triton kernels of a vLLM release; nothing of the Python around them.

    They are in the files of those kernels that the parity suite must see run, and in what these
    import. Other files have kernels for other hardware, or for what the suite does not drive.
    """
    package, *dependencies = prepare(release).path

    def named_so(module: str) -> Iterator[Path]:
        """A module's files: newer backends have folders of their own, and names that recur."""
        for path in (package / VLLM_OPS).rglob(f"{module}.py"):
            if not path.as_posix().endswith(NOT_DRIVEN):
                yield path

    def files() -> Iterator[str]:
        series = nearest_edition(release)
        named = {kernel for backend in backends() for kernel in vllm_kernels(backend, series)}
        left, found = {name.partition(".")[0] for name in named if "." in name}, set[str]()
        while left:
            found |= left
            texts = [path.read_text("utf-8") for name in left for path in named_so(name)]
            left = {name for text in texts for name in _IMPORTED.findall(text)} - found
        paths = {path for name in found for path in named_so(name)}
        yield from (path.relative_to(package).as_posix() for path in sorted(paths))

    def made(copy: Path) -> tuple[str, dict[str, str]]:
        shim = copy.parent / f"python-{copy.name}"
        path = ":".join(str(part) for part in (copy, *dependencies))
        shim.write_text(
            f"#!/bin/sh\nPYTHONPATH='{path}' exec '{sys.executable}' \"$@\"\n", encoding="utf-8"
        )
        shim.chmod(0o755)
        return str(shim), {}

    says = f"the Triton kernels of vLLM {release}"
    return Source(f"vllm-{release}", says, package, files, made, triton_only=True)


def is_triton(function: ast.FunctionDef) -> bool:
    """Whether a function is a kernel, or called by kernels."""
    return any("triton.jit" in ast.unparse(one) for one in function.decorator_list)
