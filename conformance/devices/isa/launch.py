"""From a launch to waves: arguments in memory, initial registers, batches of workgroups.

The calling convention is LLVM's:
https://llvm.org/docs/AMDGPUUsage.html#amdgpu-amdhsa-initial-kernel-execution-state
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..assembly import Program, parse_program
from ..spelling import DeviceName
from .code import Code, make_code
from .instructions.operands import Target
from .machine import Machine, Tally
from .memory import Buffer, Memory, raw_buffer, tensor_buffer
from .state import TTMP, Shape, State

# Waves that run at once: enough to spread numpy's cost per call, few enough for the caches.
WAVES_AT_ONCE = 256
# A kernel of an attention test takes at most a few million.
LIMIT = 2_000_000_000
_FP8 = {"gfx942": "fnuz", "gfx940": "fnuz", "gfx941": "fnuz"}


@dataclass(frozen=True)
class Run:
    """What one launch did. ``executed`` are numbers of instructions, out of ``instructions``."""

    seconds: float
    wave_instructions: int
    executed: set[int]
    instructions: int


@dataclass(frozen=True)
class Loaded:
    """A kernel's code, which many launches share."""

    code: Code
    program: Program


@lru_cache(maxsize=256)
def load(text: str, target: str, lanes: int) -> Loaded:
    """Parses a kernel once."""
    program = parse_program(text)
    code = make_code(program, Target(target, lanes, _FP8.get(target, "ocp")))
    # Tens of thousands of instructions stay to the end: garbage is looked for in the rest.
    gc.freeze()
    return Loaded(code, program)


def execute(
    kernel: Any, grid: tuple[int, int, int], values: dict[str, Any], device: DeviceName
) -> Run:
    """Runs one launch of a :class:`conformance.devices.triton.driver.Kernel` to its end.

    ``values`` are the bound arguments by name, constexprs included; tensors must be on the CPU and
    are changed in place.

    Raises:
        Violation: the kernel did what it must not.
        UnknownInstructionError: it holds what the emulator does not know.
    """
    started = time.perf_counter()
    loaded = load(kernel.text, device.target, kernel.warp_size)
    arguments = list(_arguments(kernel.signature, values))
    segment, buffers = _segment(loaded.program, arguments, grid, kernel)
    memory = Memory(
        [*buffers, raw_buffer("the kernel's arguments", _address(segment), segment.nbytes)]
    )
    tally = Tally()
    generator = np.random.default_rng(device.seed)
    shape = [max(int(n), 1) for n in grid]
    everything = [
        (x, y, z) for z in range(shape[2]) for y in range(shape[1]) for x in range(shape[0])
    ]
    if min(grid) < 1:
        everything = []
    for batch in _batches(everything, kernel.num_warps):
        poison = generator if device.poison else None
        state = State(_shape(loaded, batch, kernel), memory, poison)
        _enter(state, loaded.program, batch, kernel, segment, device.target)
        machine = Machine(loaded.code, state, batch, tally)
        with np.errstate(all="ignore"):
            machine.run(generator if device.serial else None, LIMIT)
    executed = {
        number for start in tally.blocks for number in range(start, loaded.code.ends[start])
    }
    seconds = time.perf_counter() - started
    return Run(seconds, tally.wave_instructions, executed, len(loaded.program.instructions))


def _batches(
    everything: list[tuple[int, int, int]], waves: int
) -> Iterator[list[tuple[int, int, int]]]:
    step = max(WAVES_AT_ONCE // waves, 1)
    for start in range(0, len(everything), step):
        yield everything[start : start + step]


def _shape(loaded: Loaded, batch: list[tuple[int, int, int]], kernel: Any) -> Shape:
    descriptor = loaded.program.descriptor
    return Shape(
        waves=len(batch) * kernel.num_warps,
        lanes=kernel.warp_size,
        vgprs=loaded.code.vgprs,
        agprs=loaded.code.agprs,
        groups=len(batch),
        lds_bytes=(kernel.shared + 3) // 4 * 4,
        scratch_bytes=descriptor.get("private_segment_fixed_size", 0),
    )


# -- arguments -----------------------------------------------------------------------------------
def _arguments(signature: dict[str, Any], values: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(name, type, value) of every argument that is not compiled in, tuples taken apart."""
    for name, kind in signature.items():
        yield from _flattened(name, kind, values[name])


def _flattened(name: str, kind: Any, value: Any) -> Iterator[tuple[str, str, Any]]:
    if isinstance(kind, tuple):
        for place, (inner, one) in enumerate(zip(kind, value, strict=True)):
            yield from _flattened(f"{name}[{place}]", inner, one)
    elif kind != "constexpr":
        if str(kind).startswith("tensordesc"):
            raise ValueError(f"argument {name}: tensor descriptors are not emulated")
        yield name, str(kind), value


def _segment(
    program: Program, arguments: list[tuple[str, str, Any]], grid: tuple[int, int, int], kernel: Any
) -> tuple[npt.NDArray[np.uint8], list[Buffer]]:
    """The argument segment, and the buffers that its pointers lead to.

    Triton appends two scratch pointers to a kernel's own arguments; they are null where unused.
    """
    size = program.descriptor.get("kernarg_size", 0)
    # Loads may reach past the last argument: hardware pads the segment, too.
    segment = np.zeros(size + 64, dtype=np.uint8)
    buffers = []
    explicit = [a for a in program.arguments if not a.kind.startswith("hidden_")]
    if len(explicit) < len(arguments):
        raise ValueError(
            f"{kernel.name} takes {len(explicit)} arguments, the launch gives {len(arguments)}"
        )
    for place, (name, kind, value) in zip(explicit, arguments, strict=False):
        data = argument_bytes(name, kind, value)
        if len(data) > place.size:
            raise ValueError(f"argument {name}: {len(data)} bytes where {place.size} are taken")
        segment[place.offset : place.offset + len(data)] = np.frombuffer(data, dtype=np.uint8)
        if kind.startswith("*") and hasattr(value, "data_ptr"):
            buffer = tensor_buffer(name, value)
            buffers += [buffer] if buffer is not None else []
    _hidden(program, segment, grid, kernel)
    return segment, buffers


def _hidden(program: Program, segment: Any, grid: tuple[int, int, int], kernel: Any) -> None:
    """Arguments that the compiler adds: the grid and the size of a workgroup."""
    size = (kernel.num_warps * kernel.warp_size, 1, 1)
    known: dict[str, int] = {"hidden_grid_dims": 3}
    for axis, name in enumerate("xyz"):
        known[f"hidden_block_count_{name}"] = grid[axis]
        known[f"hidden_group_size_{name}"] = size[axis]
        known[f"hidden_remainder_{name}"] = 0
        known[f"hidden_global_offset_{name}"] = 0
    for argument in program.arguments:
        if argument.kind in known:
            data = known[argument.kind].to_bytes(argument.size, "little")
            place = slice(argument.offset, argument.offset + argument.size)
            segment[place] = np.frombuffer(data, dtype=np.uint8)


_FLOATS = {"fp16": "<f2", "fp32": "<f4", "f32": "<f4", "fp64": "<f8"}


def argument_bytes(name: str, kind: str, value: Any) -> bytes:
    """An argument as the kernel reads it: a pointer, an integer or a float of Triton's types."""
    if kind.startswith("*"):
        if value is None:
            return bytes(8)
        address = value.data_ptr() if hasattr(value, "data_ptr") else int(value)
        return int(address).to_bytes(8, "little")
    if kind in _FLOATS:
        return np.array([value], dtype=_FLOATS[kind]).tobytes()
    if kind == "bf16":
        bits = int(np.array([value], dtype="<f4").view("<u4")[0])
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).to_bytes(2, "little")
    width = {"1": 1, "8": 1, "16": 2, "32": 4, "64": 8}.get(kind[1:])
    if kind[0] not in "iu" or width is None:
        raise ValueError(f"argument {name}: type {kind} is not emulated")
    return (int(value) & ((1 << 8 * width) - 1)).to_bytes(width, "little")


def _address(array: npt.NDArray[Any]) -> int:
    return int(array.ctypes.data)


# -- initial registers ---------------------------------------------------------------------------
def _enter(
    state: State,
    program: Program,
    batch: list[tuple[int, int, int]],
    kernel: Any,
    segment: npt.NDArray[np.uint8],
    target: str,
) -> None:
    """Registers as hardware and firmware set them before the first instruction."""
    waves, lanes = kernel.num_warps, kernel.warp_size
    state.workgroup[:] = np.repeat(np.arange(len(batch)), waves)
    places = np.array(batch, dtype=np.uint32).T[:, state.workgroup]
    wave = np.tile(np.arange(waves, dtype=np.uint32), len(batch))
    state.vector[0] = wave[:, None] * np.uint32(lanes) + np.arange(lanes, dtype=np.uint32)
    descriptor = program.descriptor
    at = _user_registers(state, descriptor, segment)
    if target.startswith("gfx12"):
        state.scalar[TTMP + 9] = places[0]
        state.scalar[TTMP + 7] = (places[1] & np.uint32(0xFFFF)) | (places[2] << np.uint32(16))
        state.scalar[TTMP + 8] = wave << np.uint32(25)
        return
    for axis, name in enumerate("xyz"):
        if descriptor.get(f"system_sgpr_workgroup_id_{name}", 0):
            state.scalar[at] = places[axis]
            at += 1


def _user_registers(
    state: State, descriptor: dict[str, int], segment: npt.NDArray[np.uint8]
) -> int:
    """The argument segment's address where the descriptor asks for it, and preloaded arguments.

    Other pointers that a descriptor may ask for (dispatch packet, queue, scratch descriptor) stay
    as they are: reading through one is an access out of bounds.
    """
    at = 0
    for name, size in (
        ("private_segment_buffer", 4),
        ("dispatch_ptr", 2),
        ("queue_ptr", 2),
        ("kernarg_segment_ptr", 2),
        ("dispatch_id", 2),
        ("flat_scratch_init", 2),
        ("private_segment_size", 1),
    ):
        if not descriptor.get(f"user_sgpr_{name}", 0):
            continue
        if name == "kernarg_segment_ptr":
            address = _address(segment)
            state.scalar[at] = np.uint32(address & 0xFFFFFFFF)
            state.scalar[at + 1] = np.uint32(address >> 32)
        at += size
    count = descriptor.get("user_sgpr_kernarg_preload_length", 0)
    offset = descriptor.get("user_sgpr_kernarg_preload_offset", 0)
    words = segment[: segment.nbytes & ~3].view(np.uint32)
    for word in range(count):
        state.scalar[at + word] = words[offset + word]
    return max(descriptor.get("user_sgpr_count", 0), at + count)
