"""The compiler for AMD GPUs that this machine has: upstream clang, with the Triton wheel's help.

Triton's wheel brings HIP's runtime headers and AMD's device libraries, which are bitcode; the
compiler must be recent enough to read it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

VARIABLE = "ROCM_CONFORMANCE_CLANG"
OLDEST = 22
_NEWEST = 30  # the last name of a packaged clang that is looked for
PACKAGES = f"clang-{OLDEST} llvm-{OLDEST} lld-{OLDEST} libstdc++-12-dev"
ADVICE = f"apt-get install --no-install-recommends {PACKAGES} (make install-hip does it)"
HEADERS = Path(__file__).parent / "headers"


class ClangMissingError(Exception):
    """HIP kernels cannot be compiled here; the message says what to install."""


class CompileError(Exception):
    """clang refused a source; the message has its first errors."""


@dataclass(frozen=True)
class Clang:
    """A clang that compiles for AMD GPUs. ``version`` as it says itself, such as 22.1.8."""

    path: str
    version: str

    def tool(self, name: str) -> str:
        """The path of an LLVM tool beside this clang."""
        asked = subprocess.run(
            [self.path, f"--print-prog-name={name}"], capture_output=True, text=True, check=True
        )
        found = shutil.which(asked.stdout.strip())
        if found is None:
            raise ClangMissingError(f"{name} is missing beside clang {self.version}: {ADVICE}")
        return found


@lru_cache(maxsize=8)
def find_clang(wanted: str = "") -> Clang:
    """``wanted``, else that of the environment's ``VARIABLE``, else the newest that is installed.

    Raises:
        ClangMissingError: there is none, or none that is recent enough.
    """
    wanted = wanted or os.environ.get(VARIABLE, "")
    names = [wanted] if wanted else [f"clang++-{n}" for n in range(_NEWEST, OLDEST - 1, -1)]
    old = []
    for name in [*names, *([] if wanted else ["clang++"])]:
        path = shutil.which(name)
        if path is None:
            continue
        version = _version(path)
        if version and int(version.split(".")[0]) >= OLDEST:
            return Clang(path, version)
        old.append(f"{name} is {version or 'no clang'}")
    found = f" ({'; '.join(old)})" if old else ""
    raise ClangMissingError(
        f"HIP kernels are compiled by clang {OLDEST} or later, and none is here{found}: {ADVICE}"
    )


def _version(path: str) -> str:
    asked = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"clang version (\d+\.\d+\.\d+)", asked.stdout)
    return match.group(1) if match else ""


def triton_folder() -> Path:
    """The part of the Triton wheel that is for AMD GPUs: HIP's headers and device libraries.

    Raises:
        ClangMissingError: the Triton of this Python has none.
    """
    spec = find_spec("triton")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "backends" / "amd"
        if (folder / "include" / "hip" / "hip_runtime.h").is_file():
            return folder
    raise ClangMissingError("HIP's headers come with the Triton wheel, and this Python has none")


def common_flags(root: Path) -> list[str]:
    """What host and device code are compiled with; ``root`` is the release's source tree."""
    return [
        *("-x", "hip", "-nogpuinc", "-nogpulib", "-std=c++17", "-DNDEBUG", "-w"),
        *("-D__HIP_PLATFORM_AMD__=1", "-D__HIPCC__", "-DUSE_ROCM", "-DENABLE_FP8"),
        *("-isystem", str(HEADERS), "-isystem", str(triton_folder() / "include")),
        *("-include", "__clang_hip_runtime_wrapper.h"),
        *("-include", str(HEADERS / "rocm_conformance" / "hipify.h")),
        *("-I", str(root), "-I", str(root / "csrc")),
        *("-fno-crash-diagnostics", "-ferror-limit=5"),
    ]


def device_flags(target: str, libraries: list[Path]) -> list[str]:
    """What device code is compiled with besides; ``libraries`` are bitcode that is linked in.

    Every function is inlined, as ROCm's compiler does by default.
    """
    linked = [flag for path in libraries for flag in ("-mlink-builtin-bitcode", str(path))]
    return [
        *("--cuda-device-only", "-S", f"--offload-arch={target}", "-O3", "-fno-gpu-rdc"),
        "-mcode-object-version=5",
        *("-mllvm", "-amdgpu-early-inline-all=true", "-mllvm", "-amdgpu-function-calls=false"),
        *(part for flag in linked for part in ("-Xclang", flag)),
    ]


def host_flags(empty: Path) -> list[str]:
    """What host code is compiled with besides; ``empty`` stands where a device binary would be.

    The target only has to be one: host code is the same for all.
    """
    return [
        *("--cuda-host-only", "--offload-arch=gfx942", "-O0", "-fPIC", "-shared"),
        *("-fuse-ld=lld", "-no-hip-rt", "-Wl,-z,lazy"),
        *("-Xclang", "-fcuda-include-gpubinary", "-Xclang", str(empty)),
    ]


def run_clang(clang: Clang, arguments: list[str], what: str) -> None:
    """Compiles; CompileError has clang's first words."""
    done = subprocess.run([clang.path, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n".join(done.stderr.splitlines()[:30])
        raise CompileError(f"clang {clang.version} does not compile {what}:\n{said}")
