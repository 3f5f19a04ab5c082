"""A batch of workgroups in native code, and what of it is interpreted.

Waves run one at a time, each to its barrier; in serial mode in the order that the interpreter would
draw. The registers are the interpreter's own arrays, so that any block can be interpreted.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from ..code import Block
from ..machine import ENDED, Machine, Tally, Violation, Waves
from ..memory import Buffer, Memory
from ..state import State
from ..unwritten import PATTERN
from .block import BUDGET, STOPS, TEMPORARY
from .context import FIELDS
from .kernel import NativeKernel
from .races import ShadowRaces
from .schedule import ENDS, NO_ORDER

_ROUNDS = 64


class UndoneError(Exception):
    """Native code met something wrong: the launch is undone, and the interpreter says what."""


class _HotError(Exception):
    """The kernel has been interpreted for long enough: compile it."""


class SavingMemory(Memory):
    """Memory that can be put back as it was: a buffer is copied before it is first stored to."""

    def __init__(self, buffers: list[Buffer]) -> None:
        super().__init__(buffers)
        # Untouched pages of these cost nothing.
        self.shadows = [np.empty(b.data.nbytes, dtype=np.uint8) for b in self.buffers]
        self.saved = np.zeros(max(len(self.buffers), 1), dtype=np.uint8)
        self.loaded = np.zeros_like(self.saved)
        self.starts, self.ends = self._starts, self._ends
        self.places = np.array([s.ctypes.data for s in self.shadows] or [0], dtype=np.int64)

    def store(self, addresses: Any, values: Any, size: int) -> None:
        for buffer, _, _ in self.split(addresses, size):
            number = self.buffers.index(buffer)
            if not self.saved[number]:
                self.saved[number] = 1
                self.shadows[number][:] = buffer.data
        super().store(addresses, values, size)

    def restore(self) -> None:
        """Puts every buffer back that was stored to."""
        for number in np.flatnonzero(self.saved[: len(self.buffers)]):
            self.buffers[number].data[:] = self.shadows[number]
        self.saved[:] = 0


class Context:
    """The context that native code reads; see :data:`.memory.FIELDS`. Holds what it points to."""

    def __init__(self) -> None:
        self._fields = np.zeros(len(FIELDS), dtype=np.int64)
        self._held: dict[str, Any] = {}
        self.address = int(self._fields.ctypes.data)

    def __getitem__(self, name: str) -> int:
        return int(self._fields[FIELDS.index(name)])

    def __setitem__(self, name: str, value: int | np.ndarray[Any, Any]) -> None:
        if isinstance(value, np.ndarray):
            self._held[name] = value
            value = int(value.ctypes.data)
        self._fields[FIELDS.index(name)] = value


class RaceRecord:
    """What a launch's waves did to each byte, for native code; see :mod:`.races`."""

    def __init__(self, memory: SavingMemory) -> None:
        # Untouched pages of these cost nothing.
        self._stores = [np.zeros(b.data.nbytes, dtype=np.uint64) for b in memory.buffers]
        self._places = np.array([s.ctypes.data for s in self._stores] or [0], dtype=np.int64)
        self._memory, self._groups = memory, 0

    def enter(self, context: Context, state: State, signalled: Waves, waited: Waves) -> None:
        """The next batch of workgroups."""
        groups = max(state.shape.groups, 1)
        words = np.zeros(groups * state.shape.lds_bytes + 1, dtype=np.uint32)
        rounds = np.ones(groups, dtype=np.int64)
        context["race_words"], context["race_rounds"] = words, rounds
        context["race_stores"], context["race_first"] = self._places, self._groups
        self._groups += groups
        races = ShadowRaces(state, words, rounds, self._memory.loaded)
        races.signalled, races.waited = signalled, waited
        state.races = races

    def judge(self) -> None:
        """After the launch: a buffer that it both read and stored to is left to the interpreter.

        Raises:
            UndoneError: there is one.
        """
        if (self._memory.loaded & self._memory.saved).any():
            raise UndoneError


class NativeMachine(Machine):
    """One batch of workgroups; the parts of it that are interpreted are :class:`Machine`'s."""

    def __init__(
        self,
        native: NativeKernel,
        state: State,
        workgroups: list[tuple[int, int, int]],
        tally: Tally,
        record: RaceRecord | None = None,
    ) -> None:
        """``record``: of races, where native code looks for them."""
        super().__init__(native.original, state, workgroups, tally)
        self.native, self._record = native, record
        self._interpreting, self._serial = False, False
        self._size = state.shape.waves // max(len(workgroups), 1)

    def run(self, order: np.random.Generator | None, limit: int) -> None:
        """As :meth:`Machine.run`.

        Raises:
            UndoneError: something is wrong; the interpreter is to say what.
        """
        self._serial = order is not None
        if not self.native.ready(self.tally.wave_instructions):
            try:
                super().run(order, limit)
            except _HotError:
                pass
            else:
                return
            if not self.native.ready(self.tally.wave_instructions):
                super().run(order, limit)
                return
        if (
            self.native.whole
            and (self.state.scalar[126 : 126 + self.state.mask_words] != 0xFFFFFFFF).any()
        ):
            if self._record is not None:
                raise UndoneError
            super().run(order, limit)
            return
        self._run_native(order, limit)

    def _run_block(self, block: Block, waves: Waves) -> None:
        # Serial order is drawn round by round: there the batch is interpreted to its end.
        hot = not self._interpreting and self.native.is_hot(self.tally.wave_instructions)
        if hot and self._may_switch:
            self.pc[waves] = block.start
            raise _HotError
        super()._run_block(block, waves)

    # -- native ---------------------------------------------------------------------------------
    def _run_native(self, order: np.random.Generator | None, limit: int) -> None:
        self._interpreting = True
        self.code = self.native.code
        # From here on each block says its own mode.
        self.state.select(np.arange(self.pc.size))
        self.state.set_mode(np.full(self.pc.size, self.state.mode, dtype=np.int64))
        orders = None if order is None else _Orders(order, len(self.workgroups), self._size)
        context = self._context(limit)
        if orders is not None:
            orders.more(context)
        todo = list(range(len(self.workgroups)))
        try:
            while todo:
                todo = [group for group in todo if self._workgroup(context, group, orders, limit)]
                if todo:
                    self._interpret(todo, orders)
        finally:
            self._count()
            self.tally.lanes_off |= bool(context["lanes_off"])
        if order is not None:
            for _ in range(1 + int(self._rounds.max())):
                order.permutation(self.pc.size)

    def _workgroup(self, context: Context, group: int, orders: _Orders | None, limit: int) -> bool:
        """Runs a workgroup as far as native code goes; whether there is something to interpret."""
        first, serial = group * self._size, int(orders is not None)
        while True:
            end = self.native.workgroup(context.address, first, self._size, group, serial)
            if end == NO_ORDER and orders is not None:
                orders.more(context)
                continue
            if end == BUDGET:
                raise Violation(f"no end after {limit} wave-instructions: does the kernel loop?")
            if end not in (ENDS, STOPS) or context["fault"]:
                raise UndoneError
            return bool(end == STOPS)

    def _interpret(self, groups: list[int], orders: _Orders | None) -> None:
        """One block of every wave that stopped: those at the same one together."""
        waves = self._stopped(groups, orders)
        try:
            for pc in np.unique(self.pc[waves]):
                here = waves[self.pc[waves] == pc]
                self.state.select(here)
                self.state.mode = self.native.modes[int(pc)]
                block = self.code.block(int(pc), self.state.mode)
                self._run_block(block, here)
                goals = self._goal(block, here)
                if goals is not None:
                    self.pc[here] = goals
        except Exception as error:
            raise UndoneError from error

    def _stopped(self, groups: list[int], orders: _Orders | None) -> Waves:
        ready = (self.pc != ENDED) & ~self.waiting
        if orders is None:
            chosen = np.isin(self.state.workgroup, groups)
            return np.flatnonzero(ready & chosen)
        found = []
        for group in groups:
            row = orders.rows[int(self._rounds[group])]
            own = row[group * self._size : (group + 1) * self._size]
            found.append(int(own[ready[own]][0]))
        return np.array(sorted(found), dtype=np.int64)

    # -- what both sides see --------------------------------------------------------------------
    def _context(self, limit: int) -> Context:
        state, memory = self.state, self.state.memory
        assert isinstance(memory, SavingMemory)
        self._counts = np.zeros(len(self.native.starts), dtype=np.int64)
        self._rounds = np.zeros(max(len(self.workgroups), 1), dtype=np.int64)
        context = Context()
        context["buffers"] = len(memory.buffers)
        context["starts"], context["ends"] = memory.starts, memory.ends
        context["shadows"], context["saved"] = memory.places, memory.saved
        context["lds_bytes"] = state.shape.lds_bytes
        context["budget"] = limit - self.tally.wave_instructions
        # A slot that no address fits: its end lies before its start.
        nothing = np.array([1, 0, 0], dtype=np.int64)
        context["slots"] = np.tile(nothing, max(self.native.slots, 1))
        context["counts"] = self._counts
        context["temporary"] = aligned(TEMPORARY // 4)
        context["vector"] = state.rows("vector")
        context["vector_stride"] = 4 * (state.shape.vgprs + state.shape.agprs) * state.lanes
        context["scalar"] = state.rows("scalar")
        context["scc"] = state.scc
        context["lds"] = state.lds
        context["scratch"] = state.rows("scratch")
        context["scratch_stride"] = (state.shape.scratch_bytes + 3) // 4 * 4 * state.lanes
        context["pc"], context["signalled"] = self.pc, self.signalled
        context["waited"], context["waiting"] = self.waited, self.waiting
        context["round"] = self._rounds
        reads = memory.reads
        context["any_marked"] = int(reads is not None)
        context["marked"] = np.zeros_like(memory.saved) if reads is None else reads.marked
        context["pattern"] = PATTERN
        context["loaded"] = memory.loaded
        if self._record is not None:
            self._record.enter(context, state, self.signalled, self.waited)
        return context

    def _count(self) -> None:
        sizes = np.array(self.native.ends) - np.array(self.native.starts)
        self.tally.wave_instructions += int((self._counts * sizes).sum())
        for number in np.flatnonzero(self._counts):
            block = (self.native.starts[number], self.native.ends[number])
            self.tally.blocks[block] += int(self._counts[number])

    @property
    def _may_switch(self) -> bool:
        return not self._serial


class _Orders:
    """The orders of serial rounds, as the interpreter would draw them, some rounds ahead."""

    def __init__(self, order: np.random.Generator, groups: int, size: int) -> None:
        self._ahead = copy.deepcopy(order)
        self._groups, self._size = groups, size
        self.rows: list[Any] = []

    def more(self, context: Context) -> None:
        first = np.arange(self._groups, dtype=np.int64)[:, None] * self._size
        for _ in range(_ROUNDS):
            ranks = self._ahead.permutation(self._groups * self._size)
            by_rank = np.argsort(ranks.reshape(self._groups, self._size), axis=1, kind="stable")
            self.rows.append(np.ascontiguousarray((by_rank + first).reshape(-1)))
        context["order"] = np.array([row.ctypes.data for row in self.rows], dtype=np.int64)
        context["rounds"] = len(self.rows)


def aligned(words: int) -> Any:
    """32-bit words that begin at a cache line."""
    raw = np.zeros(words + 16, dtype=np.uint32)
    skip = (-raw.ctypes.data % 64) // 4
    return raw[skip : skip + words]
