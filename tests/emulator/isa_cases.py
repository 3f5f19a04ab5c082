"""A few waves in known registers, for tests of single instructions."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from conformance.devices.assembly import parse_instruction
from conformance.devices.isa.instructions.table import build_step
from conformance.devices.isa.memory import Buffer, Memory, raw_buffer
from conformance.devices.isa.state import EXEC, Shape, State
from conformance.devices.isa.target import IsaTarget
from conformance.devices.targets import target_facts

GFX90A, GFX942, GFX950, GFX1100, GFX1201, GFX1250 = (
    IsaTarget(target_facts(name), target_facts(name).wave_size, 128)
    for name in ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1201", "gfx1250")
)


def f32(value: float) -> int:
    """The bits of a float32."""
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def f16(value: float) -> int:
    return int(struct.unpack("<H", struct.pack("<e", value))[0])


NAN, INF, NINF, NZERO = 0x7FC00000, f32(float("inf")), f32(float("-inf")), 0x80000000
TINY = 1  # the smallest denormal
LARGEST_DENORMAL = 0x007FFFFF


def state(target: IsaTarget = GFX942, *buffers: Buffer, waves: int = 1) -> State:
    shape = Shape(waves, target.lanes, 128, 64, 1, 256, 64)
    return State(shape, Memory(buffers), None)


def run(
    text: str,
    target: IsaTarget = GFX942,
    *,
    v: dict[int, Any] | None = None,
    s: dict[int, int] | None = None,
    scc: bool = False,
    exec_mask: int | None = None,
    on: State | None = None,
) -> State:
    """Runs one instruction on a wave whose registers hold what is given (a value, or by lane)."""
    m = on or state(target)
    for index, value in (v or {}).items():
        m.vector[index, 0] = np.asarray(value, dtype=np.uint32)
    for index, number in (s or {}).items():
        m.scalar[index] = np.uint32(number & 0xFFFFFFFF)
    m.scc[:] = scc
    if exec_mask is not None:
        m.scalar[EXEC] = np.uint32(exec_mask & 0xFFFFFFFF)
        if target.lanes == 64:
            m.scalar[EXEC + 1] = np.uint32(exec_mask >> 32)
    m.select(np.array([0]))
    with np.errstate(all="ignore"):
        build_step(parse_instruction(text), target)(m)
    return m


def around(m: State, first: int, count: int) -> Any:
    """All vector registers but so many from the first on."""
    return np.delete(m.vector, range(first, first + count), axis=0)


def buffer(name: str, values: Any) -> tuple[Any, Buffer]:
    """An array, and the buffer a kernel may access it through."""
    array = np.asarray(values)
    return array, raw_buffer(name, int(array.ctypes.data), array.nbytes)
