"""Records which Triton kernels are launched, on any device, without changing the kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Launches:
    """The launches of this process: records ``kernel[grid]``, which every launch goes through."""

    def __init__(self) -> None:
        from triton.runtime.jit import KernelInterface  # noqa: PLC0415 - the device is chosen now

        self._names: list[str] = []
        choose_grid = KernelInterface.__getitem__

        def watched(kernel: object, grid: object) -> object:
            self.add(_name(kernel))
            return choose_grid(kernel, grid)

        KernelInterface.__getitem__ = watched

    def add(self, name: str) -> None:
        """Records what ran instead of a kernel, by the name that reports show."""
        self._names.append(name)

    @contextmanager
    def watch(self) -> Iterator[list[str]]:
        """The names of the kernels launched in the meantime, each once, in order."""
        self._names = []
        ran: list[str] = []
        try:
            yield ran
        finally:
            ran += dict.fromkeys(self._names)


def _name(kernel: object) -> str:
    """``module.function``: several of vLLM's modules call a kernel ``_fwd_kernel``."""
    while not hasattr(kernel, "__name__") and hasattr(kernel, "fn"):
        kernel = kernel.fn
    function = getattr(kernel, "fn", kernel)
    module = str(getattr(function, "__module__", "")).rpartition(".")[2]
    return f"{module}.{getattr(function, '__name__', function)}"
