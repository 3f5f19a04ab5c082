"""What table entries are made of: builders that turn one instruction into a function of the state.

An entry names the types of its result and sources and gives the arithmetic; the builder adds what
all instructions share: reading operands, modifiers, lane permutations, masks, writing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ...assembly import Instruction, Operand
from ..mode import DOWN, NEAREST, Mode
from ..numbers import flush32, rounded
from ..state import EXEC, VCC, Bools, Lanes, State
from ..target import IsaTarget, UnknownError
from .dpp import Dpp, permutation
from .heeded import without
from .operands import (
    HALVES,
    Reader,
    Writer,
    bits_of,
    flushing,
    is_high_half,
    reader,
    scalar_reader,
    scalar_writer,
    typed,
    writer,
)

Step = Callable[[State], None]
Function = Callable[..., Any]
Build = Callable[[Instruction, IsaTarget], "Built"]


def named(names: str, build: Build) -> dict[str, Build]:
    """One instruction under the names that the generations gave it."""
    return dict.fromkeys(names.split(), build)


@dataclass(frozen=True)
class Built:
    """An instruction as two halves, so that a pair can read everything before it writes.

    ``alone``: it has no such halves, and cannot be one of a pair.
    """

    compute: Callable[[State], Any]
    write: Callable[[State, Any], None]
    alone: bool = False

    def step(self) -> Step:
        compute, write = self.compute, self.write
        return lambda m: write(m, compute(m))


def effect(step: Step) -> Built:
    """An instruction that does everything in one step."""

    def nothing_left(_m: State, _value: Any) -> None:
        return None

    return Built(step, nothing_left, alone=True)


def vector(
    result: str,
    sources: str,
    wrapping: Function,
    *,
    accumulate: bool = False,
    preserve: bool = False,
    carry: bool = False,
    saturates: bool = False,
    limit: int | None = None,
    exact: Function | None = None,
    rounds: bool = True,
) -> Build:
    """A vector instruction: ``wrapping(sources...)`` gives the result in every lane.

    ``sources`` are types, separated by spaces. ``accumulate``: the destination is one more source.
    ``preserve``: a 16-bit result keeps the other half on gfx9 too (elsewhere every one does).
    ``carry``: there is a lane mask as second destination, and the function gives both.
    ``saturates``: with ``clamp`` an integer result outside its type becomes the nearest inside.
    ``limit``: with ``clamp`` a result that carries is this one.
    ``exact``: the result in float64, exact or rounded to odd, for modes that round another way than
    to the nearest; ``rounds=False``: no mode changes how it is rounded.
    """
    kinds = sources.split()

    def build(ins: Instruction, target: IsaTarget) -> Built:
        function = wrapping
        if (saturates or limit is not None) and "clamp" in ins.modifiers:
            function = _saturating(wrapping, result) if limit is None else _limited(wrapping, limit)
            ins = replace(ins, modifiers=without(ins.modifiers, "clamp"))
        if rounds:
            function = _in_mode(function, exact, result, target)
        readers, dpp = vector_sources(ins, kinds, target, 2 if carry else 1)
        if accumulate:
            readers.append(reader(ins, 0, result, target, len(kinds)))
        put = writer(ins, 0, result, target, preserve or not target.is_gfx9)
        if carry:
            if dpp is not None:
                raise UnknownError("a carry with a lane permutation")
            return _with_carry(readers, function, put, ins, target)
        if dpp is not None:
            return _permuted(readers, dpp, kinds[0], ins, function, put, target.float_mode)
        return _plain(readers, function, put)

    return build


def _in_mode(function: Function, exact: Function | None, kind: str, target: IsaTarget) -> Function:
    """The function as the target's mode rounds its result."""
    mode = target.float_mode
    direction = {"f32": mode.round32, "f16": mode.round16, "f64": mode.round16}.get(kind, NEAREST)
    if direction == NEAREST:
        return function
    if exact is None:
        raise UnknownError(f"a result of {kind} in rounding mode {direction}")
    down = direction == DOWN
    if kind == "f32":
        return lambda *values: rounded(exact(down, *values), np.float32, direction)
    return lambda *values: exact(down, *values)


def _saturating(function: Function, kind: str) -> Function:
    """A sum or difference computed exactly and brought into the range of its type."""
    bits = int(kind[1:])
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if kind[0] == "i" else (0, (1 << bits) - 1)

    def clamped(*values: Lanes) -> Lanes:
        return np.clip(function(*(v.astype(np.int64) for v in values)), low, high)

    return clamped


def _limited(function: Function, limit: int) -> Function:
    """A sum or difference that is the limit wherever it carries."""

    def clamped(*values: Lanes) -> tuple[Lanes, Lanes]:
        value, carry = function(*values)
        return np.where(carry, np.uint32(limit), value), carry

    return clamped


def vector_sources(
    ins: Instruction, kinds: list[str], target: IsaTarget, first: int
) -> tuple[list[Reader], Dpp | None]:
    """Readers of the sources, which begin at operand ``first``, and the permutation if any."""
    given = len(ins.operands) - first
    if given == len(kinds) - 1 and kinds[-1] == "mask":
        vcc = Operand("vcc", "s", VCC, 2)
        ins = replace(ins, operands=(*ins.operands, vcc))
    elif given != len(kinds):
        raise UnknownError(f"{given} sources where {len(kinds)} are known")
    readers = [reader(ins, first + i, kind, target, i) for i, kind in enumerate(kinds)]
    source = permutation(ins, target.lanes)
    if source is None:
        return readers, None
    return readers, Dpp(ins, source, bits_of(ins.operands[first], target))


def _plain(readers: list[Reader], function: Function, put: Writer) -> Built:
    return Built(lambda m: function(*[read(m) for read in readers]), put)


def _permuted(
    readers: list[Reader],
    dpp: Dpp,
    kind: str,
    ins: Instruction,
    function: Function,
    put: Writer,
    mode: Mode,
) -> Built:
    operand = next(o for o in ins.operands[1:])
    fetched: list[Lanes] = []
    if kind in HALVES and is_high_half(ins, operand, 0):
        fetched_half = lambda _m: fetched[-1] >> np.uint32(16)  # noqa: E731 - a reader
        first = typed(fetched_half, kind, operand.neg, operand.abs)
    else:
        first = typed(lambda _m: fetched[-1], kind, operand.neg, operand.abs)
    first = flushing(first, kind, mode)

    def compute(m: State) -> tuple[Lanes, Bools | None]:
        value, allowed = dpp.fetch(m)
        fetched[:] = [value]
        return function(first(m), *[read(m) for read in readers[1:]]), allowed

    return Built(compute, lambda m, both: put(m, both[0], both[1]))


def _with_carry(
    readers: list[Reader], function: Function, put: Writer, ins: Instruction, target: IsaTarget
) -> Built:
    put_mask = writer(ins, 1, "mask", target, preserve=False)

    def write(m: State, both: tuple[Lanes, Lanes]) -> None:
        put(m, both[0])
        put_mask(m, both[1])

    return Built(lambda m: function(*[read(m) for read in readers]), write)


def compare(kinds: str, function: Function, *, to_exec: bool = False) -> Build:
    """A comparison: a bit per lane to a scalar register; ``v_cmpx`` writes EXEC (on gfx9 both)."""
    types = kinds.split()

    def build(ins: Instruction, target: IsaTarget) -> Built:
        given = ins.operands
        if to_exec and not target.is_gfx9:
            exec_mask = Operand("exec", "s", EXEC, 2)
            given = (exec_mask, *(given[1:] if len(given) > 2 else given))
            ins = replace(ins, operands=given)
        readers, dpp = vector_sources(ins, types, target, 1)
        put = writer(ins, 0, "mask", target, preserve=False)

        def write(m: State, value: Lanes) -> None:
            put(m, value)
            if to_exec and target.is_gfx9:
                lanes = np.broadcast_to(value, (m.n, m.lanes))
                m.set_mask(EXEC, lanes if m.exec is None else lanes & m.exec)

        def keep(m: State, value: Lanes, allowed: Bools | None) -> None:
            """A lane that the permutation leaves out counts as one that does not run."""
            write(m, value if allowed is None else value & allowed)

        if dpp is not None:
            return _permuted(readers, dpp, types[0], ins, function, keep, target.float_mode)
        return Built(lambda m: function(*[read(m) for read in readers]), write)

    return build


# What a scalar instruction does to SCC: keeps it; sets it where the result is not 0; sets it to
# the second of two values that its function gives; sets it to its function's only value.
Scc = Literal["kept", "nonzero", "second", "only"]


def scalar(
    result: str, sources: str, given: Function, scc: Scc = "kept", *, rounds: bool = True
) -> Build:
    """A scalar instruction on [n] arrays; ``result`` is "" where it gives SCC only.

    ``sources`` are types, separated by spaces; besides, "dst" is the destination and "scc" is SCC,
    bool [n]. ``rounds=False``: no mode changes how a float32 result is rounded.
    """
    kinds = sources.split()

    def build(ins: Instruction, target: IsaTarget) -> Built:
        place = 0 if scc == "only" else 1
        wanted = place + sum(kind not in ("dst", "scc") for kind in kinds)
        if len(ins.operands) != wanted:
            raise UnknownError(f"{len(ins.operands)} operands where {wanted} are known")
        mode = target.float_mode
        if rounds and result == "f32" and mode.round32 != NEAREST:
            raise UnknownError(f"a scalar float32 in rounding mode {mode.round32}")
        readers: list[Reader] = []
        for kind in kinds:
            if kind == "scc":
                readers.append(lambda m: m.scc[m.sel])
            elif kind == "dst":
                readers.append(flushing(scalar_reader(ins.operands[0], result), result, mode))
            else:
                readers.append(flushing(scalar_reader(ins.operands[place], kind), kind, mode))
                place += 1
        put = None if scc == "only" else scalar_writer(ins.operands[0], result)
        function = _flushed_result(given, result, mode)
        return effect(_scalar_step(readers, function, put, scc))

    return build


def _flushed_result(function: Function, kind: str, mode: Mode) -> Function:
    if kind == "f32" and mode.flush_out32:
        return lambda *values: flush32(function(*values))
    return function


def _scalar_step(readers: list[Reader], function: Function, put: Writer | None, scc: Scc) -> Step:
    def step(m: State) -> None:
        value = function(*[read(m) for read in readers])
        if put is None:
            m.scc[m.sel] = value
        elif scc == "second":
            put(m, value[0])
            m.scc[m.sel] = value[1]
        else:
            put(m, value)
            if scc == "nonzero":
                m.scc[m.sel] = value != 0

    return step
