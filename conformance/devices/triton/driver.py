"""The Triton driver object of a device: every unmodified ``@triton.jit`` launch goes through it.

Triton asks the active driver for the target, compiles for it, has the driver load the binary and
then calls the driver's launcher with the grid and every bound argument. Here loading keeps the
assembly text, and launching hands text and arguments to the device. Works with Triton 3.3 and
later: ``load_binary`` gives four values up to 3.3 and five from 3.4, and up to 3.5 the linker is a
program outside Triton (see :func:`linker_stub`).
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..kernel import Kernel, Launch
from ..recorder import Recorder
from ..resources import resources_of
from ..spelling import DeviceName
from .arguments import arguments_of

OLDEST = (3, 3)
Rewrite = Callable[[str, str], str]


class Driver:
    """What ``triton.runtime.driver.active`` is while a device is active."""

    def __init__(self, name: DeviceName, rewrite: Rewrite | None = None) -> None:
        self.name = name
        self.rewrite = rewrite
        self.utils = _Utils(name)
        self.launcher_cls = lambda src, metadata: _Launcher(self, src, metadata)
        self.recorder = Recorder(name)
        # Set while an autotuner measures: configurations are compiled, the first one is taken.
        self.compile_only = name.kind == "aot"
        linker_stub()

    def close(self) -> None:
        import triton  # noqa: PLC0415 - loaded by activate()

        if triton.runtime.driver.active is self:
            # What runs next would need a real GPU; Triton says so when it is asked.
            triton.runtime.driver.set_active(None)

    # -- what Triton asks -------------------------------------------------------------------
    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget  # noqa: PLC0415 - loaded by activate()

        return GPUTarget("hip", self.name.target, self.name.facts.wave_size)

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        """There is one device."""

    def get_current_stream(self, _device: int = 0) -> int:
        return 0

    def get_active_torch_device(self) -> Any:
        import torch  # noqa: PLC0415 - the subject's

        return torch.device("cpu")

    def get_device_interface(self) -> Any:
        raise RuntimeError(f"{self.name} has no torch device interface: nothing can be timed on it")

    def get_benchmarker(self) -> Callable[..., list[float]]:
        """An autotuner's measurement: compiles the configuration, and times nothing."""

        def compile_and_tie(
            call: Callable[[], Any], quantiles: Any = None, **_: Any
        ) -> list[float]:
            before, self.compile_only = self.compile_only, True
            try:
                call()
            finally:
                self.compile_only = before
            return [0.0] * len(quantiles or (0,))

        return compile_and_tie

    def map_python_to_cpp_type(self, kind: str) -> str:
        return kind

    def get_empty_cache_for_benchmark(self) -> None:
        """Nothing is timed, so no cache needs clearing."""

    def clear_cache(self, _cache: Any) -> None:
        """Likewise."""

    # -- launches ---------------------------------------------------------------------------
    def launched(
        self, kernel: Kernel, grid: tuple[int, int, int], values: dict[str, object]
    ) -> None:
        """``values`` are the bound arguments by name, constexprs included."""
        if self.compile_only:
            self.recorder.compiled_only(kernel)
            return
        arguments = arguments_of(kernel.signature, values)
        self.recorder.run(Launch(kernel, grid, kernel.workgroup, arguments))

    def collect(self) -> dict[str, Any]:
        """What ran since the last call, as JSON values."""
        return self.recorder.collect()


class _Utils:
    """The part of a driver that knows the device's limits and loads binaries."""

    def __init__(self, name: DeviceName) -> None:
        self._name = name

    def get_device_properties(self, _device: int = 0) -> dict[str, Any]:
        facts = self._name.facts
        return {
            "arch": self._name.target,
            "warpSize": facts.wave_size,
            "max_shared_mem": facts.lds_bytes,
            "max_num_regs": facts.family.vgprs,
            "multiprocessor_count": 64,
            "sm_clock_rate": 0,
            "mem_clock_rate": 0,
            "mem_bus_width": 0,
        }

    def load_binary(self, name: str, *_: Any) -> tuple[Any, ...]:
        """(module, function, registers, spills, most threads); the last from Triton 3.4 on."""
        most_threads = 1024
        loaded = (name, name, 0, 0, most_threads)
        return loaded if triton_version() >= (3, 4) else loaded[:4]

    def unload_module(self, _module: Any) -> None:
        """Nothing was loaded."""


class _Launcher:
    """Called with the grid and all bound arguments, constexprs included."""

    def __init__(self, driver: Driver, src: Any, metadata: Any) -> None:
        self._driver = driver
        names = list(src.fn.arg_names)
        signature = dict(src.signature)
        constants = {names[k[0]] if isinstance(k, tuple) else k: v for k, v in _top(src.constants)}
        # The function's own name: a kernel's metadata may hold a longer one that it gave itself.
        name = str(getattr(src, "name", "") or metadata.name)
        text = assembly_of(metadata, name)
        if driver.rewrite is not None:
            text = driver.rewrite(text, name)
        self._names = names
        kernel = self.kernel = Kernel(
            name=name,
            text=text,
            lds_bytes=metadata.shared,
            num_warps=metadata.num_warps,
            wave_size=metadata.warp_size,
            signature=signature,
            constants=constants,
            resources=resources_of(text, metadata.shared, metadata.num_warps, driver.name.facts),
            dots=dots_of(metadata, name),
        )
        driver.recorder.compiled(kernel)

    def __call__(
        self,
        grid_x: int,
        grid_y: int,
        grid_z: int,
        _stream: Any,
        _function: Any,
        _packed: Any,
        _launch_metadata: Any,
        enter_hook: Any,
        exit_hook: Any,
        *args: Any,
    ) -> None:
        if enter_hook is not None:
            enter_hook(_launch_metadata)
        values = dict(zip(self._names, args, strict=True))
        # Compiled kernels outlive a device: the one that is active now runs them.
        import triton  # noqa: PLC0415 - loaded by activate()

        active = triton.runtime.driver.active
        driver = active if isinstance(active, Driver) else self._driver
        driver.launched(self.kernel, (grid_x, grid_y, grid_z), values)
        if exit_hook is not None:
            exit_hook(_launch_metadata)


def assembly_of(metadata: Any, name: str) -> str:
    """The assembly text of a compiled kernel, the function ``name``."""
    return _stage_of(metadata, name, "amdgcn")


def dots_of(metadata: Any, name: str) -> int:
    """The matrix products that the kernel's source asks for, loops counted once."""
    return _stage_of(metadata, name, "ttir").count(" tt.dot ")


def _stage_of(metadata: Any, name: str, stage: str) -> str:
    """One stage of a compilation, from Triton's cache, where the kernel's hash names it."""
    from triton.runtime.cache import get_cache_manager  # noqa: PLC0415 - loaded by activate()

    name = name[:150]
    group = get_cache_manager(metadata.hash).get_group(f"{name}.json") or {}
    path = group.get(f"{name}.{stage}")
    if path is None:
        raise RuntimeError(
            f"Triton's cache holds no {stage} of {name}: is TRITON_STORE_BINARY_ONLY set?"
        )
    return Path(path).read_text(encoding="utf-8")


def linker_stub() -> None:
    """Lets a Triton without a built-in linker (up to 3.5) go on where no ld.lld is installed.

    The emulator reads the assembly text; the linked file is never used, so a program that copies
    its input will do, and that has a version, which is part of a compilation's name up to 3.4. A
    linker that the user named stays.
    """
    if triton_version() >= (3, 6) or "TRITON_HIP_LLD_PATH" in os.environ:
        return
    folder = Path(tempfile.mkdtemp(prefix="rocm-conformance-linker-"))
    stub = folder / "ld.lld"
    stub.write_text(
        f"#!{sys.executable}\n"
        "import shutil, sys\n"
        "if '--version' in sys.argv:\n"
        "    sys.exit(print('a stand-in that copies'))\n"
        "arguments = [a for a in sys.argv[1:] if not a.startswith('--')]\n"
        "target = arguments[arguments.index('-o') + 1]\n"
        "known = ('-o', '-flavor', 'gnu', '-shared', target)\n"
        "source = [a for a in arguments if a not in known][-1]\n"
        "shutil.copyfile(source, target)\n",
        encoding="utf-8",
    )
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    os.environ["TRITON_HIP_LLD_PATH"] = str(stub)


def triton_version() -> tuple[int, ...]:
    """Major and minor."""
    import triton  # noqa: PLC0415 - loaded by activate()

    return tuple(int(part) for part in triton.__version__.split("+")[0].split(".")[:2])


def _top(constants: Any) -> Iterator[tuple[Any, Any]]:
    """Constants of whole arguments; those inside a tuple argument have longer paths."""
    for key, value in dict(constants).items():
        if not isinstance(key, tuple) or len(key) == 1:
            yield key, value
