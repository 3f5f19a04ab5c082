"""Single instructions, native against interpreted, on random and edge registers.

Many instructions make one kernel, with a barrier behind each: one compilation runs them all, each
from its own start.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conformance.devices.assembly import Instruction, Program, parse_instruction
from conformance.devices.isa.code import Code
from conformance.devices.isa.instructions.table import build_step
from conformance.devices.isa.machine import Tally
from conformance.devices.isa.memory import Buffer
from conformance.devices.isa.mode import initial_mode
from conformance.devices.isa.native.kernel import NativeKernel
from conformance.devices.isa.native.machine import NativeMachine, SavingMemory
from conformance.devices.isa.native.plan import make_plan
from conformance.devices.isa.state import EXEC, NULL, SCALARS, Shape, State
from conformance.devices.isa.target import IsaTarget

VGPRS, AGPRS, LDS = 128, 64, 1 << 17
# Nothing is flushed, nothing clamped: so do tests of single instructions.
PLAIN_DESCRIPTOR = {
    "private_segment_fixed_size": 64,
    "float_denorm_mode_32": 3,
    "dx10_clamp": 0,
    "ieee_mode": 0,
}
# The others: denormals are flushed; float32 is rounded up and the rest towards zero; NaNs are
# clamped to 0, signalling ones made quiet.
DESCRIPTORS = {
    "plain": PLAIN_DESCRIPTOR,
    "flushes": {**PLAIN_DESCRIPTOR, "float_denorm_mode_32": 0, "float_denorm_mode_16_64": 0},
    "rounds": {**PLAIN_DESCRIPTOR, "float_round_mode_32": 1, "float_round_mode_16_64": 3},
    "clamps": {**PLAIN_DESCRIPTOR, "dx10_clamp": 1, "ieee_mode": 1, "fp16_overflow": 1},
}
_REGISTERS = ("vector", "scalar", "scratch")
# What goes wrong where numbers end: zeros, infinities, NaNs, denormals, halves of each.
_EDGES: tuple[int, ...] = (
    0,
    1 << 31,
    0x7F800000,
    0xFF800000,
    0x7FC00000,
    0x3F800000,
    0xBF800000,
    1,
    0x7FFFFF,
)
_EDGES += (0x7FF00000, 0xFFFFFFFF, 0x7C007C00, 0x80008000, 0x7FFFFFFF, 0x00010001, 0x3C00BC00)


@dataclass(frozen=True)
class Difference:
    """What an instruction left where: the interpreter's bits and those of native code."""

    text: str
    place: str
    interpreted: int
    native: int


def usable(
    texts: Sequence[str], target: IsaTarget, mode: str = "plain"
) -> tuple[list[str], dict[str, str]]:
    """Those of the instructions that have native code in a mode, and why the others have none."""
    code = _code(texts, target, mode)
    starts = sorted(code.ends)
    whys = {texts[bisect(starts, number) - 1]: why for number, why in make_plan(code).why.items()}
    return [text for text in texts if text not in whys], whys


def _code(texts: Sequence[str], target: IsaTarget, mode: str) -> Code:
    """One block a text, which may be several instructions with semicolons between them."""
    instructions: list[Instruction] = []
    ends = {}
    for text in (*texts, ""):
        start = len(instructions)
        instructions += [parse_instruction(part) for part in text.split(";") if part]
        instructions.append(parse_instruction("s_barrier" if text else "s_endpgm"))
        ends[start] = len(instructions)
    program = Program("differ", instructions)
    program.descriptor.update(DESCRIPTORS[mode])
    return Code(program, target, VGPRS, AGPRS, ends)


def differences(
    texts: Sequence[str],
    target: IsaTarget,
    seed: int = 0,
    rounds: int = 8,
    fill: Any = None,
    buffers: Sequence[Buffer] = (),
    mode: str = "plain",
) -> Iterator[Difference]:
    """Runs every instruction on ``rounds`` states: all it leaves in registers, LDS and memory."""
    native = NativeKernel(_code(texts, target, mode), "\n".join((mode, *texts)))
    bits = initial_mode(DESCRIPTORS[mode], target.family)
    native.always = True
    assert native.ready(0), native.failure
    generator = np.random.default_rng(seed)
    starts = sorted(native.code.ends)
    for number, text in zip(starts, texts, strict=False):
        steps = [
            build_step(parse_instruction(part), replace(target, mode=bits))
            for part in text.split(";")
        ]
        for kind in range(rounds):
            yield from _difference(native, number, text, steps, generator, kind, fill, buffers)


def _difference(
    native: NativeKernel,
    number: int,
    text: str,
    steps: Any,
    generator: Any,
    kind: int,
    fill: Any,
    buffers: Sequence[Buffer],
) -> Iterator[Difference]:
    target = native.code.target
    shape = Shape(1, target.lanes, VGPRS, AGPRS, 1, LDS, 64)
    memory = SavingMemory(list(buffers))
    one = State(shape, memory, None)
    # A second wave that never signals keeps the first one at its barrier.
    two = State(replace(shape, waves=2), memory, None, by_wave=True)
    _fill(one, generator, kind)
    if fill is not None:
        fill(one, generator)
    if native.whole:
        one.scalar[EXEC : EXEC + one.mask_words] = 0xFFFFFFFF
    two.lds[:], two.scc[:1] = one.lds, one.scc
    for name in _REGISTERS:
        getattr(two, name)[:, :1] = getattr(one, name)
    one._exec_known = False
    before = [buffer.data.copy() for buffer in memory.buffers]
    with np.errstate(all="ignore"):
        for step in steps:
            step(one)
    after = [buffer.data.copy() for buffer in memory.buffers]
    for buffer, data in zip(memory.buffers, before, strict=True):
        buffer.data[:] = data
    machine = NativeMachine(native, two, [(0, 0, 0)], Tally())
    machine.pc[0], machine.waiting[1] = number, True
    context = machine._context(1 << 40)
    native.workgroup(context.address, 0, 2, 0, 0)
    assert context["fault"] == 0, f"{text}: native code sees a fault"
    yield from _compared(text, "lds", one.lds, two.lds)
    yield from _compared(text, "scc", one.scc, two.scc[:1])
    for name in _REGISTERS:
        yield from _compared(text, name, getattr(one, name), getattr(two, name)[:, :1])
    for buffer, data in zip(memory.buffers, after, strict=True):
        yield from _compared(text, "memory", data, buffer.data)
        buffer.data[:] = data


def _compared(text: str, name: str, one: Any, two: Any) -> Iterator[Difference]:
    for place in np.argwhere(np.asarray(one) != np.asarray(two))[:2]:
        at = tuple(int(n) for n in place)
        yield Difference(text, f"{name}{list(at)}", int(one[at]), int(two[at]))


def _fill(state: State, generator: Any, kind: int) -> None:
    vector, scalar = state.vector.shape, (SCALARS, 1)
    if kind % 4 == 0:
        words = [generator.integers(0, 1 << 32, s, dtype=np.uint32) for s in (vector, scalar)]
    elif kind % 4 == 1:
        words = [
            generator.standard_normal(s).astype(np.float32).view(np.uint32)
            for s in (vector, scalar)
        ]
    elif kind % 4 == 2:
        words = [generator.integers(0, 70, s, dtype=np.uint32) for s in (vector, scalar)]
    else:
        edges = np.array(_EDGES, dtype=np.uint32)
        words = [generator.choice(edges, s) for s in (vector, scalar)]
    state.vector[:], state.scalar[:] = words
    state.lds[:] = generator.integers(0, 256, state.lds.shape, dtype=np.uint8)
    state.scratch[:] = generator.integers(0, 1 << 32, state.scratch.shape, dtype=np.uint32)
    state.scc[:] = bool(generator.integers(2))
    state.scalar[NULL] = 0
    masks = generator.integers(0, 1 << 32, 2, dtype=np.uint32)
    state.scalar[EXEC] = (0xFFFFFFFF, masks[0], 1 << 5, 0)[kind // 2 % 4]
    state.scalar[EXEC + 1] = (0xFFFFFFFF, masks[1], 0, 0)[kind // 2 % 4]
    if state.lanes == 32:
        state.scalar[[EXEC + 1, 107]] = 0


def is_nan(bits: int) -> bool:
    """Whether 32 bits hold a NaN, of whatever size."""
    single = bits & 0x7F800000 == 0x7F800000 and bits & 0x7FFFFF != 0
    halves = (bits & 0xFFFF, bits >> 16)
    half = any(h & 0x7C00 == 0x7C00 and h & 0x3FF for h in halves)
    brain = any(h & 0x7F80 == 0x7F80 and h & 0x7F for h in halves)
    return bool(single or half or brain)
