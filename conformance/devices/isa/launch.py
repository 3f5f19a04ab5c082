"""From a launch to waves: arguments in memory, initial registers, batches of workgroups.

The calling convention is LLVM's:
https://llvm.org/docs/AMDGPUUsage.html#amdgpu-amdhsa-initial-kernel-execution-state
"""

from __future__ import annotations

import atexit
import gc
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..assembly import Program, parse_program
from ..kernel import Extent, Launch, Span
from ..spelling import DeviceName
from ..targets import Family, target_facts
from .code import Code, make_code
from .dependence import run_judged
from .instructions.scratch import PRIVATE_SEGMENT
from .machine import Machine, Tally, Violation
from .memory import Memory, span_buffer
from .mode import initial_mode
from .native.compared import DifferenceError, check
from .native.kernel import NativeKernel, choice, native_kernel
from .native.machine import NativeMachine, RaceRecord, SavingMemory, UndoneError
from .races import GlobalStores, Races
from .state import EXEC, TTMP, Lanes, Shape, State
from .target import IsaTarget, UnknownInstructionError
from .unwritten import reads_of

# Waves that run at once: enough to spread numpy's cost per call, few enough for the caches.
WAVES_AT_ONCE = 256
# Fewer where races are looked for: each wave has a record of every byte of its LDS.
RECORDED_AT_ONCE = 32
# A kernel of an attention test takes at most a few million.
LIMIT = 2_000_000_000

_FILE = re.compile(r'^\s*\.file\s+\d+\s+"([^"]*)"\s+"([^"]*)"', re.MULTILINE)

# What `load` froze is garbage at the end of the process like everything else. Python's last
# collection leaves frozen objects out, and Triton's bindings then report hundreds of leaks.
atexit.register(gc.unfreeze)


@dataclass(frozen=True)
class Run:
    """What one launch did. ``blocks`` is how often waves ran the instructions from one number to
    another, out of ``instructions``; ``lines`` is the source line of each, "path:line", or "" where
    none is told. ``lanes_off``: whether a matrix product ran while lanes were off."""

    seconds: float
    wave_instructions: int
    blocks: Counter[tuple[int, int]]
    instructions: int
    lines: tuple[str, ...] = ()
    lanes_off: bool = False

    @property
    def executed(self) -> set[int]:
        """The numbers of the instructions that ran."""
        return {number for start, end in self.blocks for number in range(start, end)}


@dataclass(frozen=True)
class Loaded:
    """A kernel's code, which many launches share."""

    code: Code
    program: Program
    lines: tuple[str, ...] = ()


@lru_cache(maxsize=256)
def load(text: str, target: str, lanes: int) -> Loaded:
    """Parses a kernel once."""
    program = parse_program(text)
    code = make_code(program, IsaTarget(target_facts(target), lanes))
    # Tens of thousands of instructions stay to the end: garbage is looked for in the rest.
    gc.freeze()
    return Loaded(code, program, _source_lines(text, program))


def _source_lines(text: str, program: Program) -> tuple[str, ...]:
    """Of each instruction "path:line", or "": folders are told apart from files' names."""
    folders = {name: f"{folder}/{name}" for folder, name in _FILE.findall(text)}
    known: dict[str, str] = {"": ""}
    for ins in program.instructions:
        if ins.source not in known:
            name, _, rest = ins.source.partition(":")
            number = rest.partition(":")[0]
            told = name and number.strip("0")
            known[ins.source] = f"{folders.get(name, name)}:{number}" if told else ""
    return tuple(known[ins.source] for ins in program.instructions)


def execute(launch: Launch, device: DeviceName) -> Run:
    """Runs one launch to its end; the memory that its arguments lead to is changed in place.

    Raises:
        Violation: the kernel did what it must not.
        UnknownInstructionError: it holds what the emulator does not know.
        DifferenceError: native code and the interpreter were compared, and differ.
    """
    started = time.perf_counter()
    loaded = load(launch.kernel.text, device.target, launch.kernel.wave_size)
    segment = _segment(loaded.program, launch)
    spans = [span for argument in launch.arguments for span in argument.spans]
    own = Span("the kernel's arguments", _address(segment), segment.nbytes)
    buffers = [span_buffer(span) for span in (*spans, own)]
    # Native code runs whole blocks, and multiplies what all lanes bring.
    native = None
    if not launch.abreast and not device.masked:
        native = native_kernel(launch.kernel.text, loaded.code, device.races)
    tally, undone = None, False
    # A record of races is kept by native code for the whole of a launch, or not at all.
    if native is not None and (not device.races or native.ready(_least(launch, loaded))):
        memory = SavingMemory(buffers)
        memory.reads = reads_of(memory.buffers)
        try:
            tally = _run(launch, device, loaded, segment, memory, native)
            if memory.reads is not None and memory.reads.found:
                raise UndoneError
        except UndoneError:
            tally, undone = None, True
            memory.restore()
        else:
            if choice() == "both":
                _compare(launch, device, loaded, segment, memory, tally)
    if tally is None:
        tally = run_judged(
            loaded.program,
            Memory(buffers),
            lambda memory: _run(launch, device, loaded, segment, memory, None),
        )
        if native is not None:
            native.note(tally.wave_instructions)
        if native is not None and undone:
            native.give_up("it ends well only when interpreted")
    seconds = time.perf_counter() - started
    count = len(loaded.program.instructions)
    return Run(seconds, tally.wave_instructions, tally.blocks, count, loaded.lines, tally.lanes_off)


def _least(launch: Launch, loaded: Loaded) -> int:
    """The wave-instructions of a launch, if every wave runs every instruction once."""
    x, y, z = launch.grid
    return x * y * z * launch.waves * len(loaded.program.instructions)


def _compare(
    launch: Launch,
    device: DeviceName,
    loaded: Loaded,
    segment: npt.NDArray[np.uint8],
    memory: SavingMemory,
    tally: Tally,
) -> None:
    """Runs a launch once more, interpreted, after native code has run it."""
    made = [buffer.data.copy() for buffer in memory.buffers]
    memory.restore()
    name = launch.kernel.name
    try:
        again = _run(launch, device, loaded, segment, Memory(memory.buffers), None)
    except (Violation, UnknownInstructionError) as error:
        raise DifferenceError(f"{name}: native code saw nothing wrong: {error}") from error
    check(name, memory.buffers, made, (tally, again))


def _run(
    launch: Launch,
    device: DeviceName,
    loaded: Loaded,
    segment: npt.NDArray[np.uint8],
    memory: Memory,
    native: NativeKernel | None,
) -> Tally:
    """Runs every workgroup: interpreted, or in native code as far as there is any."""
    tally = Tally()
    state = None
    generator = np.random.default_rng(device.seed)
    mode = initial_mode(loaded.program.descriptor, device.facts.family)
    stores, begun = GlobalStores(), 0
    record = None
    if native is not None and device.races:
        assert isinstance(memory, SavingMemory)
        record = RaceRecord(memory)
    for batch in _batches(launch, device.races and native is None):
        poison = generator if device.poison else None
        shape = _shape(loaded, batch, launch)
        state = State(shape, memory, poison, mode, native is not None, state)
        state.masked = device.masked
        if device.races and native is None:
            state.races = Races(loaded.program, state, stores, begun)
            begun += shape.waves
        _enter(state, loaded.program, batch, launch, segment, device.facts.family)
        if native is None:
            machine = Machine(loaded.code, state, batch, tally, abreast=launch.abreast)
        else:
            machine = NativeMachine(native, state, batch, tally, record)
        with np.errstate(all="ignore"):
            machine.run(generator if device.serial else None, LIMIT)
        tally.lanes_off |= state.lanes_off
    if record is not None:
        record.judge()
    if native is not None:
        native.note(tally.wave_instructions)
    return tally


def _batches(launch: Launch, races: bool) -> Iterator[list[Extent]]:
    """Workgroups that run at the same time, x fastest; none if the grid is empty."""
    x, y, z = (range(int(count)) for count in launch.grid)
    everything = [(i, j, k) for k in z for j in y for i in x]
    step = max((RECORDED_AT_ONCE if races else WAVES_AT_ONCE) // launch.waves, 1)
    for start in range(0, len(everything), step):
        yield everything[start : start + step]


def _shape(loaded: Loaded, batch: list[Extent], launch: Launch) -> Shape:
    descriptor = loaded.program.descriptor
    return Shape(
        waves=len(batch) * launch.waves,
        lanes=launch.kernel.wave_size,
        vgprs=loaded.code.vgprs,
        agprs=loaded.code.agprs,
        groups=len(batch),
        lds_bytes=(launch.lds_bytes + 3) // 4 * 4,
        scratch_bytes=descriptor.get("private_segment_fixed_size", 0),
    )


# -- arguments -----------------------------------------------------------------------------------
def _segment(program: Program, launch: Launch) -> npt.NDArray[np.uint8]:
    """The argument segment.

    Triton appends two scratch pointers to a kernel's own arguments; they are null where unused.
    """
    size = program.descriptor.get("kernarg_size", 0)
    size = max([size, *(a.offset + len(a.data) for a in launch.arguments if a.offset is not None)])
    # Loads may reach past the last argument: hardware pads the segment, too.
    segment = np.zeros(size + 64, dtype=np.uint8)
    explicit = [a for a in program.arguments if not a.kind.startswith("hidden_")]
    placed = [a for a in launch.arguments if a.offset is None]
    if len(explicit) < len(placed):
        raise ValueError(
            f"{launch.kernel.name} takes {len(explicit)} arguments, the launch gives {len(placed)}"
        )
    for place, given in zip(explicit, placed, strict=False):
        if len(given.data) > place.size:
            raise ValueError(
                f"argument {given.name}: {len(given.data)} bytes where {place.size} are taken"
            )
        _put(segment, place.offset, given.data)
    for given in launch.arguments:
        if given.offset is not None:
            _put(segment, given.offset, given.data)
    for hidden in program.arguments:
        value = _hidden(launch).get(hidden.kind)
        if value is not None:
            _put(segment, hidden.offset, value.to_bytes(hidden.size, "little"))
    return segment


def _put(segment: npt.NDArray[np.uint8], offset: int, data: bytes) -> None:
    segment[offset : offset + len(data)] = np.frombuffer(data, dtype=np.uint8)


def _hidden(launch: Launch) -> dict[str, int]:
    """Arguments that the compiler adds: the grid and the size of a workgroup, by their kind."""
    known = {"hidden_grid_dims": 3, "hidden_dynamic_lds_size": launch.dynamic_lds}
    for axis, name in enumerate("xyz"):
        known[f"hidden_block_count_{name}"] = launch.grid[axis]
        known[f"hidden_group_size_{name}"] = launch.workgroup[axis]
        known[f"hidden_remainder_{name}"] = 0
        known[f"hidden_global_offset_{name}"] = 0
    return known


def _address(array: npt.NDArray[Any]) -> int:
    return int(array.ctypes.data)


# -- initial registers ---------------------------------------------------------------------------
def _enter(
    state: State,
    program: Program,
    batch: list[Extent],
    launch: Launch,
    segment: npt.NDArray[np.uint8],
    family: Family,
) -> None:
    """Registers as hardware and firmware set them before the first instruction."""
    waves, lanes = launch.waves, launch.kernel.wave_size
    state.workgroup[:] = np.repeat(np.arange(len(batch)), waves)
    places = np.array(batch, dtype=np.uint32).T[:, state.workgroup]
    wave = np.tile(np.arange(waves, dtype=np.uint32), len(batch))
    item = wave[:, None].astype(np.int64) * lanes + np.arange(lanes)
    asked = program.descriptor.get("system_vgpr_workitem_id", 0)
    state.vector[0] = _work_items(item, launch.workgroup, asked)
    if launch.lanes % lanes:
        state.set_mask(EXEC, item < launch.lanes)
    descriptor = program.descriptor
    at = _user_registers(state, descriptor, segment)
    if family.workgroup_ids == "ttmps":
        state.scalar[TTMP + 9] = places[0]
        state.scalar[TTMP + 7] = (places[1] & np.uint32(0xFFFF)) | (places[2] << np.uint32(16))
        state.scalar[TTMP + 8] = wave << np.uint32(25)
        return
    if family.workgroup_ids != "sgprs":
        raise ValueError(f"where {family.name} has a workgroup's number is not known")
    for axis, name in enumerate("xyz"):
        if descriptor.get(f"system_sgpr_workgroup_id_{name}", 0):
            state.scalar[at] = places[axis]
            at += 1
    at += descriptor.get("system_sgpr_workgroup_info", 0)
    if descriptor.get("system_sgpr_private_segment_wavefront_offset", 0):
        state.scalar[at] = 0


def _work_items(item: npt.NDArray[np.int64], workgroup: Extent, asked: int) -> Lanes:
    """The numbers of lanes in their workgroup: x, and y from bit 10 and z from bit 20 if asked for.

    https://llvm.org/docs/AMDGPUUsage.html#amdgpu-amdhsa-initial-kernel-execution-state
    """
    x, y, _ = workgroup
    packed = item % x
    if asked >= 1:
        packed |= item // x % y << 10
    if asked >= 2:
        packed |= item // (x * y) << 20
    return packed.astype(np.uint32)


def _user_registers(
    state: State, descriptor: dict[str, int], segment: npt.NDArray[np.uint8]
) -> int:
    """The argument segment's address where the descriptor asks for it, and preloaded arguments;
    scratch's buffer descriptor, where a target reaches scratch through one.

    Other pointers that a descriptor may ask for (dispatch packet, queue) stay as they are: reading
    through one is an access out of bounds.
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
        if name == "private_segment_buffer":
            for word, value in enumerate(PRIVATE_SEGMENT):
                state.scalar[at + word] = np.uint32(value)
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
