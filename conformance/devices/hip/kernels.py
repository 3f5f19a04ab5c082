"""A release's HIP code, compiled: libraries of host code, and machine code of single kernels."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from .clang import VLLM, Build, Clang, CompileError, common_flags, device_flags, host_flags
from .compiled import Compilations
from .sources import FILE_FLAGS, FILES, Unit, device_source, host_source, unit_of

# What AMD's device libraries ask of the one who links them: the constants of a compilation.
# https://github.com/ROCm/llvm-project/blob/amd-staging/amd/device-libs/doc/OCML.md
_CONSTANTS = {"unsafe_math_opt": 0, "finite_only_opt": 0, "correctly_rounded_sqrt32": 1}
_CODE_OBJECT = 500
_CONSTANT_FLAGS = (
    *("-x", "c", "--target=amdgcn-amd-amdhsa", "-nogpulib", "-emit-llvm", "-c"),
    "-mcode-object-version=5",
)


class HipCode:
    """The HIP code of one release, for one target. ``lanes`` is the size of its waves."""

    def __init__(
        self,
        root: Path,
        target: str,
        lanes: int,
        clang: Clang,
        folder: Path,
        build: Build = VLLM,
    ) -> None:
        self.root, self.target, self.lanes = root, target, lanes
        self.clang, self.build = clang, build
        self._compilations = Compilations(clang, folder)
        self._libraries: list[Path] = []

    def host(self, operator: str) -> Path:
        """The library with the host code of an operator, and of all in the same file."""
        unit = unit_of(self.root, operator)
        defined = tuple(
            name for name in FILES if name in unit.whole and unit_of(self.root, name) == unit
        )
        empty = self._compilations.folder / "empty"
        empty.touch()

        def flags(root: Path) -> list[str]:
            return [*common_flags(root), *host_flags(empty)]

        return self._compilations.made(
            host_source(unit, defined), flags, self.root, ".so", f"the host code of {unit.file}"
        )

    def kernel(self, operator: str, symbol: str) -> tuple[Unit, str, str]:
        """A kernel that an operator launches: its file, its signature and its assembly text."""
        instance = demangled(self.clang, symbol)
        unit = unit_of(self.root, operator).of_kernel(instance)
        return unit, instance, only(self.kernel_text(unit, instance), symbol)

    def kernel_text(self, unit: Unit, instance: str) -> str:
        more = FILE_FLAGS.get(unit.file, ())
        return self.text_of(device_source(unit, instance), (), f"{instance} of {unit.file}", more)

    def text_of(
        self, source: str, includes: Sequence[str], what: str, added: Sequence[str] = ()
    ) -> str:
        """The assembly text of device code; ``includes`` are folders of the tree for headers.

        ``added`` are flags of this source alone.
        """
        libraries = self._device_libraries()

        def flags(root: Path) -> list[str]:
            more = [flag for folder in includes for flag in ("-I", str(root / folder))]
            build = device_flags(self.target, libraries, self.build)
            return [*common_flags(root), *more, *build, *added]

        made = self._compilations.made(
            source, flags, self.root, ".s", f"{what} for {self.target}", tuple(libraries)
        )
        return made.read_text(encoding="utf-8")

    def _device_libraries(self) -> list[Path]:
        """AMD's mathematical and OpenCL functions, and the constants that they ask for."""
        if not self._libraries:
            constants = self._compilations.made(
                constants_text(self.target, self.lanes, self.build.flushes),
                lambda _root: [*_CONSTANT_FLAGS],
                self.root,
                ".bc",
                "the device libraries' constants",
            )
            folder = self.clang.libraries
            self._libraries = [folder / "ocml.bc", folder / "ockl.bc", constants]
        return self._libraries


def only(text: str, symbol: str) -> str:
    """Assembly text without the kernels that it holds besides one."""
    functions = re.split(r"^(?=.*; -- Begin function )", text, flags=re.M)
    code = next((f for f in functions if f"; -- Begin function {symbol}\n" in f), None)
    head, _, metadata = text.partition("amdhsa.kernels:\n")
    entries = re.split(r"^(?=  - \.)", metadata.partition("amdhsa.target:")[0], flags=re.M)
    entry = next((e for e in entries if re.search(rf"^    \.name: +{symbol}$", e, re.M)), None)
    if code is None or entry is None:
        raise CompileError(f"clang made no kernel {symbol}")
    code = code.partition(".amdgpu_metadata")[0]
    target = next(line for line in head.splitlines() if ".amdgcn_target" in line)
    return f"{target}\n{code}\n\t.amdgpu_metadata\n---\namdhsa.kernels:\n{entry}...\n"


def constants_text(target: str, lanes: int, flushes: bool = False) -> str:
    """C code of the constants that the device libraries ask for."""
    # gfx90a is version 9.0.10: the last two places are hexadecimal digits.
    digits = target.removeprefix("gfx")
    version = int(digits[:-2]) * 1000 + int(digits[-2], 16) * 100 + int(digits[-1], 16)
    bytes_ = {**_CONSTANTS, "daz_opt": int(flushes), "wavefrontsize64": int(lanes == 64)}
    words = {"ISA_version": version, "ABI_version": _CODE_OBJECT}
    kinds = {"unsigned char": bytes_, "int": words}
    where = '__attribute__((address_space(4), visibility("hidden")))'
    return "".join(
        f"const {where} {kind} __oclc_{name} = {value};\n"
        for kind, values in kinds.items()
        for name, value in values.items()
    )


@lru_cache(maxsize=1 << 12)
def demangled(clang: Clang, name: str) -> str:
    """A C++ function's signature by its symbol."""
    done = subprocess.run(
        [clang.tool("llvm-cxxfilt"), name], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
