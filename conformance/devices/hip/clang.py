"""The compiler for AMD GPUs that this machine has: upstream clang, with the Triton wheel's help.

Triton's wheel brings HIP's runtime headers and AMD's device libraries, which are bitcode; the
compiler must be recent enough to read it. ROCm's own clang, where the environment names it, has
device libraries beside it.
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
# The bitcode of Triton 3.9.0's wheel is LLVM 20's: an older compiler does not read it.
OLDEST = 20
# What is looked for where none is named: the waivers of HIP kernels say what it makes of them.
PACKAGED = 22
_NEWEST = 30
PACKAGES = f"clang-{PACKAGED} llvm-{PACKAGED} lld-{PACKAGED} libstdc++-12-dev"
ADVICE = f"apt-get install --no-install-recommends {PACKAGES} (make install-hip does it)"
HEADERS = Path(__file__).parent / "headers"


class ClangMissingError(Exception):
    """HIP kernels cannot be compiled here; the message says what to install."""


class CompileError(Exception):
    """clang refused a source; the message has its first errors."""


@dataclass(frozen=True)
class Build:
    """How a project compiles its device code, as far as that changes the code.

    ``flushes``: single-precision denormals are zeros, in the device libraries too.
    """

    flags: tuple[str, ...]
    flushes: bool = False


_INLINED = (
    *("-mllvm", "-amdgpu-early-inline-all=true"),
    *("-mllvm", "-amdgpu-function-calls=false"),
)

# Every release from 0.18 to 0.33. setup.py asks for RelWithDebInfo, which is "-O2 -g -DNDEBUG" in
# CMake (Modules/Compiler/GNU.cmake); neither torch's flags (COMMON_HIP_FLAGS, COMMON_HIPCC_FLAGS)
# nor vLLM's have another level. -fno-gpu-rdc is vLLM's own; -mllvm is what ROCm's package hip-lang
# adds to all that CMake compiles as HIP. -g changes no code. Nothing is said of contraction,
# denormals or atomics: clang's defaults for HIP hold.
# https://github.com/vllm-project/vllm/blob/v0.33.0/cmake/utils.cmake#L150-L163
# https://github.com/vllm-project/vllm/blob/v0.33.0/setup.py#L267
# https://github.com/ROCm/clr/blob/97403db468becd6ea28f580dbdf88f70913b8fa1/hipamd/hip-lang-config-amd.cmake
VLLM = Build(("-O2", "-fno-gpu-rdc", *_INLINED))

# aiter's compile_lib, which makes paged_attention_v1: -O3, denormals flushed, flags that Composable
# Kernel asks for. It leaves out what the compiler does not know: so is -amdgpu-coerce-illegal-types
# here, which is ROCm's alone.
# https://github.com/ROCm/aiter/blob/main/csrc/cpp_itfs/utils.py
AITER = Build(
    (
        *("-O3", "-fno-gpu-rdc", "-fgpu-flush-denormals-to-zero", "-fno-offload-uniform-block"),
        *("-mllvm", "--amdgpu-kernarg-preload-count=16", "-mllvm", "--lsr-drop-solution=1"),
        *("-mllvm", "-enable-post-misched=0"),
        *_INLINED,
    ),
    flushes=True,
)


@dataclass(frozen=True)
class Clang:
    """A clang that compiles for AMD GPUs.

    ``version`` as it says itself, such as 22.1.8, of ROCm's with the release: 22.0.0 (ROCm 7.2.0).
    """

    path: str
    version: str

    @property
    def libraries(self) -> Path:
        """The folder with AMD's device libraries: beside ROCm's clang, else in Triton's wheel."""
        for above in Path(self.path).resolve().parents[:4]:
            folder = above / "amdgcn" / "bitcode"
            if (folder / "ocml.bc").is_file():
                return folder
        return triton_folder() / "lib"

    def tool(self, name: str) -> str:
        """The path of an LLVM tool beside this clang."""
        asked = subprocess.run(
            [self.path, f"--print-prog-name={name}"], capture_output=True, text=True, check=True
        )
        found = shutil.which(asked.stdout.strip())
        if found is None:
            raise ClangMissingError(f"{name} is missing beside clang {self.version}: {ADVICE}")
        return found


def is_named() -> bool:
    """Whether the environment names a clang: another may make other code of the same source."""
    return bool(os.environ.get(VARIABLE))


@lru_cache(maxsize=8)
def find_clang(wanted: str = "") -> Clang:
    """``wanted``, else that of the environment's ``VARIABLE``, else the newest that is installed.

    Raises:
        ClangMissingError: there is none, or none that is recent enough.
    """
    wanted = wanted or os.environ.get(VARIABLE, "")
    names = [wanted] if wanted else [f"clang++-{n}" for n in range(_NEWEST, PACKAGED - 1, -1)]
    oldest = OLDEST if wanted else PACKAGED
    old = []
    for name in [*names, *([] if wanted else ["clang++"])]:
        path = shutil.which(name)
        if path is None:
            continue
        version = _version(path)
        if version and int(version.split(".")[0]) >= oldest:
            return Clang(path, version)
        old.append(f"{name} is {version or 'no clang'}")
    found = f" ({'; '.join(old)})" if old else ""
    raise ClangMissingError(
        f"HIP kernels are compiled by clang {oldest} or later, and none is here{found}: {ADVICE}"
    )


def _version(path: str) -> str:
    asked = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"clang version (\d+\.\d+\.\d+)", asked.stdout)
    if match is None:
        return ""
    rocm = re.search(r"\broc-(\d[\d.]*)", asked.stdout)
    return match.group(1) + (f" (ROCm {rocm.group(1)})" if rocm else "")


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


def device_flags(target: str, libraries: list[Path], build: Build) -> list[str]:
    """What device code is compiled with besides; ``libraries`` are bitcode that is linked in."""
    linked = [flag for path in libraries for flag in ("-mlink-builtin-bitcode", str(path))]
    return [
        *("--cuda-device-only", "-S", f"--offload-arch={target}", "-mcode-object-version=5"),
        *build.flags,
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
