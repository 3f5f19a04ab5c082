"""How kernels run: compiled for an AMD target, or compiled and executed by emulation.

``activate("isa:gfx942")`` makes every later Triton launch of this process run on that device; no
kernel and no caller knows. ``collect()`` says what ran since. One process per target: Triton keeps
target-dependent state.

This package imports nothing of the suite, and only the standard library, numpy, torch and Triton,
so that a worker can load the folder by its path inside the subject's own Python.
"""

from __future__ import annotations

from typing import Any

from .spelling import MODES_TEXT, DeviceName, parse_device
from .triton.driver import OLDEST, Driver, triton_version

__all__ = ["MODES_TEXT", "DeviceName", "activate", "collect", "deactivate", "parse_device"]

_ACTIVE: list[Driver] = []


def activate(device: str, *, rewrite: Any = None) -> Driver:
    """Makes every later launch run on ``aot:<target>`` or ``isa:<target>``.

    The latter may have modes: ``isa:gfx942,masked,serial,poison,races,seed=3``.

    ``rewrite`` (text, kernel name -> text) edits the assembly of a kernel before it is judged or
    executed: it is how seeded faults are planted.

    Raises:
        ValueError: an unknown spelling; the message lists what is known.
        RuntimeError: this process already runs another target, or its Triton is too old.
    """
    import triton  # noqa: PLC0415 - nothing before this call may load Triton

    name = parse_device(device)
    if triton_version() < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise RuntimeError(
            f"Triton {triton.__version__} gives a device no constants: it takes {needed} or later"
        )
    if _ACTIVE and _ACTIVE[0].name.target != name.target:
        raise RuntimeError(
            f"this process runs {_ACTIVE[0].name}: {name} needs a process of its own, because "
            "Triton keeps state of the target it compiled for"
        )
    driver = Driver(name, rewrite)
    _ACTIVE[:] = [driver]
    triton.runtime.driver.set_active(driver)
    return driver


def deactivate() -> None:
    """Leaves the device; only a process of the same target may activate another."""
    if _ACTIVE:
        _ACTIVE[0].close()


def collect() -> dict[str, Any]:
    """What ran since the last call: kernels, resources, coverage, violations; JSON values only."""
    if not _ACTIVE:
        raise RuntimeError("no device is active: call activate() first")
    return _ACTIVE[0].collect()
