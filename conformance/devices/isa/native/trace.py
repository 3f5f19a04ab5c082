"""One instruction as effects: the table's own function, run once on a state of symbols.

What an instruction reads and writes follows from its effects; the checks of waits and hazards use
the same traces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from ...assembly import Instruction
from ..instructions.matrix import MatrixBuilt
from ..instructions.table import build
from ..mode import PLAIN
from ..state import EXEC, NULL, State
from ..target import IsaTarget
from .symbols import Symbol, UntraceableError, constant, lift

U32 = np.uint32


@dataclass(frozen=True)
class Access:
    """One load or store. ``space`` global, lds, scalar; ``size`` in bytes, of each lane.

    ``mask`` says which lanes do, ``address`` is int64: of LDS from the workgroup's first byte.
    ``values`` are the words that a store stores.
    """

    space: str
    size: int
    mask: Symbol | None
    address: Symbol
    values: tuple[Symbol, ...] = ()

    @property
    def words(self) -> int:
        return max(self.size // 4, 1)


@dataclass(frozen=True)
class Effect:
    """One register that is written, or a store.

    ``kind``: s, scc, mask (scalar registers from ``index`` on), v (in the lanes of ``mask``), raw
    (in every lane), scratch (``index`` is its word), store.
    """

    kind: str
    index: int = 0
    value: Symbol | None = None
    mask: Symbol | None = None
    access: Access | None = None


@dataclass
class Traced:
    """One instruction: what it loads, then what it changes. ``matrix`` instead of both.

    ``mode`` are the bits of MODE behind it.
    """

    number: int
    ins: Instruction
    loads: list[Access] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    matrix: MatrixBuilt | None = None
    mode: int = PLAIN

    def nodes(self) -> Iterator[Symbol]:
        """Every symbol that the instruction computes with, once."""
        seen: set[int] = set()
        stack = list(self._roots())
        while stack:
            node = stack.pop()
            if id(node) not in seen:
                seen.add(id(node))
                yield node
                stack += node.args

    def _roots(self) -> Iterator[Symbol]:
        accesses = [*self.loads, *[e.access for e in self.effects if e.access is not None]]
        for access in accesses:
            yield access.address
            if access.mask is not None:
                yield access.mask
            yield from access.values
        for effect in self.effects:
            if effect.value is not None:
                yield effect.value
            if effect.mask is not None:
                yield effect.mask


class TraceState:
    """What the functions of the table ask of a :class:`State`, recorded."""

    n, sel, races, masked = 1, slice(None), None, False

    def __init__(self, target: IsaTarget, scratch_bytes: int) -> None:
        self.lanes = target.lanes
        self.mask_words = target.lanes // 32
        self.shape = SimpleNamespace(scratch_bytes=scratch_bytes)
        self.loads: list[Access] = []
        self.effects: list[Effect] = []
        self.scc, self.vector, self.scratch = _Scc(self), _Vector(self), _Scratch(self)
        self.memory = _Memory(self)
        self.mode = PLAIN if target.mode is None else target.mode

    def set_mode(self, mode: Any) -> None:
        """A mode that is known: every block has its own, so that nothing is left to do."""
        if isinstance(mode, Symbol):
            raise UntraceableError("MODE from a register")
        self.mode = int(np.asarray(mode).flat[0])

    # -- scalar registers -------------------------------------------------------------------
    def s(self, index: int) -> Symbol:
        if index == NULL:
            return constant(0, U32, (1,))
        return Symbol("s", (), U32, (1,), index)

    def s64(self, index: int) -> Symbol:
        low, high = (self.s(index + word).astype(np.uint64) for word in (0, 1))
        return cast(Symbol, low | (high << np.uint64(32)))

    def set_s(self, index: int, value: Any) -> None:
        if index != NULL:
            self.effects.append(Effect("s", index, lift(value)))

    # -- lane masks ---------------------------------------------------------------------------
    def mask(self, index: int) -> Symbol:
        return Symbol("mask", (), np.bool_, (1, self.lanes), index)

    @property
    def exec(self) -> Symbol:
        return self.mask(EXEC)

    def set_mask(self, index: int, lanes: Any) -> None:
        if index != NULL:
            self.effects.append(Effect("mask", index, lift(lanes)))

    # -- vector registers -----------------------------------------------------------------------
    def v(self, index: int) -> Symbol:
        return Symbol("v", (), U32, (1, self.lanes), index)

    def set_v(self, index: int, value: Any, only: Any = None) -> None:
        mask = self.exec if only is None else self.exec & only
        self.effects.append(Effect("v", index, lift(value), mask))

    # -- memory ---------------------------------------------------------------------------------
    def load(self, space: str, size: int, mask: Symbol | None, address: Symbol) -> list[Symbol]:
        access = Access(space, size, mask, address)
        self.loads.append(access)
        shape = (1,) if mask is None else (1, self.lanes)
        return [Symbol("loaded", (), U32, shape, (access, w)) for w in range(access.words)]

    def store(self, space: str, size: int, mask: Symbol, address: Symbol, values: Any) -> None:
        words = tuple(lift(value) for value in values)
        access = Access(space, size, mask, address, words)
        self.effects.append(Effect("store", access=access))

    def lds_load(self, wanted: Symbol, start: Symbol, size: int) -> list[Symbol]:
        return self.load("lds", size, _mask_of(wanted), start)

    def lds_store(self, wanted: Symbol, start: Symbol, values: Any, size: int) -> None:
        self.store("lds", size, _mask_of(wanted), start, values)


def _mask_of(wanted: Any) -> Symbol:
    if not isinstance(wanted, Symbol) or wanted.op != "lanes":
        raise UntraceableError("an access by other lanes than those of a mask")
    return wanted.args[0]


class _Memory:
    """Global memory: of the lanes that an address was chosen for, or of the wave."""

    def __init__(self, m: TraceState) -> None:
        self._m = m

    def load(self, places: Symbol, words: int) -> list[Symbol]:
        if places.op == "chosen":
            return self._m.load("global", 4 * words, _mask_of(places.args[1]), places.args[0])
        if places.is_lane:
            raise UntraceableError("a load by no mask")
        return self._m.load("scalar", 4 * words, None, places)

    def load_small(self, places: Symbol, size: int) -> Symbol:
        if places.op != "chosen":
            if places.is_lane:
                raise UntraceableError("a small load by no mask")
            return self._m.load("scalar", size, None, places)[0]
        return self._m.load("global", size, _mask_of(places.args[1]), places.args[0])[0]

    def store(self, places: Symbol, values: Any, size: int) -> None:
        if places.op != "chosen":
            raise UntraceableError("a store by no mask")
        self._m.store("global", size, _mask_of(places.args[1]), places.args[0], values)


class _Scc:
    def __init__(self, m: TraceState) -> None:
        self._m = m

    def __getitem__(self, _: Any) -> Symbol:
        return Symbol("scc", (), np.bool_, (1,))

    def __setitem__(self, _: Any, value: Any) -> None:
        self._m.effects.append(Effect("scc", 0, lift(value)))


class _Vector:
    """Vector registers past EXEC: what writes one lane."""

    def __init__(self, m: TraceState, index: int | None = None) -> None:
        self._m, self._index = m, index

    def __getitem__(self, index: Any) -> _Vector:
        if self._index is not None or not isinstance(index, int):
            raise UntraceableError("registers by another index")
        return _Vector(self._m, index)

    def __setitem__(self, _: Any, value: Any) -> None:
        if self._index is None:
            raise UntraceableError("registers written at once")
        self._m.effects.append(Effect("raw", self._index, lift(value)))


class _Scratch:
    """Scratch by word: a value a lane."""

    def __init__(self, m: TraceState) -> None:
        self._m = m

    def __getitem__(self, slot: Any) -> _Slot:
        return _Slot(self._m, int(slot))


class _Slot:
    def __init__(self, m: TraceState, slot: int) -> None:
        self._m, self._slot = m, slot

    def __getitem__(self, _: Any) -> Symbol:
        return Symbol("scratch", (), U32, (1, self._m.lanes), self._slot)

    def __setitem__(self, _: Any, value: Any) -> None:
        self._m.effects.append(Effect("scratch", self._slot, lift(value)))


def trace(number: int, ins: Instruction, target: IsaTarget, scratch_bytes: int = 0) -> Traced:
    """The effects of one instruction.

    Raises:
        UntraceableError: its function asks for what only a run knows.
        UnknownError: the emulator does not know it.
    """
    recorded = TraceState(target, scratch_bytes)
    m = cast(State, recorded)
    made = build(ins, target)
    if isinstance(made, MatrixBuilt):
        return Traced(number, ins, matrix=made, mode=recorded.mode)
    try:
        if ins.second is None:
            made.step()(m)
        else:
            second = build(ins.second, target)
            if made.alone or second.alone:
                raise UntraceableError("a pair of which one has no halves")
            first_value, second_value = made.compute(m), second.compute(m)
            made.write(m, first_value)
            second.write(m, second_value)
    except (TypeError, IndexError, AttributeError, ValueError) as error:
        # numpy refuses a symbol where it wants numbers, in whatever words it has for that.
        raise UntraceableError(f"{type(error).__name__}: {error}") from None
    return Traced(number, ins, recorded.loads, recorded.effects, mode=recorded.mode)
