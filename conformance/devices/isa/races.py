"""Accesses that no barrier orders, found by the order of events and not by luck of a schedule.

Every byte remembers which waves read and wrote it, and how many barriers each had signalled then.
What a wave does before its n-th signal happens before all that another does once it has passed its
n-th barrier; two accesses of different waves that neither puts first race, if one of them writes.
A store of what is there already is remembered apart, because compilers have several waves store
one result: it races with a store of something else, and with nothing besides. Atomic operations do
not race with one another.

In global memory the last store of each byte is remembered: the waves of one workgroup race over it
as over LDS, and two workgroups, which nothing orders, must not store different values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..assembly import Program
from .instructions.access import AccessError, Places
from .memory import Buffer
from .state import Lanes, State

Stamps = npt.NDArray[np.int64]
_NEVER = 0


@dataclass(frozen=True)
class _Wave:
    """One wave of those that make an access: its number in the group that runs and in the batch.

    ``chosen`` are its lanes among those of the access.
    """

    running: int
    number: int
    chosen: npt.NDArray[np.int64]


class GlobalStores:
    """Who last stored each byte of a launch's buffers, over all its workgroups."""

    def __init__(self) -> None:
        self._made: dict[int, Stamps] = {}

    def of(self, buffer: Buffer) -> Stamps:
        """For each byte the number of a wave in the launch, plus 1, and its stamp: first of the
        last that changed it, then of the last that stored: [4, bytes]."""
        if buffer.start not in self._made:
            self._made[buffer.start] = np.zeros((4, buffer.data.nbytes), np.int64)
        return self._made[buffer.start]


class Races:
    """What the waves of one batch have accessed; ``number`` is the instruction that runs now.

    A stamp says when a wave accessed a byte: ``signals * instructions + number + 1``.
    """

    def __init__(
        self, program: Program, state: State, stores: GlobalStores, first_wave: int
    ) -> None:
        """``first_wave`` is how many waves of the launch came in earlier batches."""
        self.program, self._stores, self._first = program, stores, first_wave
        self.number = 0
        waves, groups = state.shape.waves, max(state.shape.groups, 1)
        self.signalled = np.zeros(waves, dtype=np.int64)
        self.waited = np.zeros(waves, dtype=np.int64)
        self._size = waves // groups
        lds = (self._size, state.lds.size)
        self._reads, self._writes = np.zeros(lds, np.int64), np.zeros(lds, np.int64)
        self._repeats, self._atomics = np.zeros(lds, np.int64), np.zeros(lds, np.int64)

    # -- LDS --------------------------------------------------------------------------------------
    def lds_load(self, m: State, wanted: Places, at: Places, size: int) -> None:
        """A load of ``size`` bytes from each place of the array that holds every workgroup's LDS.

        Raises:
            AccessError: a wave stored there, and no barrier puts it first.
        """
        for wave in _waves(m, wanted):
            places, lanes = _bytes(at[wave.chosen], size)
            self._check(m, wave, places, wanted[wave.chosen][lanes], "read", self._writes)
            self._check(m, wave, places, wanted[wave.chosen][lanes], "read", self._atomics)
            self._reads[self._inside(wave), places] = self._stamp(wave)

    def lds_store(self, m: State, wanted: Places, at: Places, values: Lanes, size: int) -> None:
        """Before a store: likewise, of a wave that loaded or stored there."""
        for wave in _waves(m, wanted):
            places, lanes = _bytes(at[wave.chosen], size)
            given = _values(values[:, wave.chosen], size)
            changes = m.lds[places] != given
            changed, who = places[changes], wanted[wave.chosen][lanes[changes]]
            for others in (self._writes, self._repeats, self._reads):
                self._check(m, wave, changed, who, "written", others)
            self._check(m, wave, places, wanted[wave.chosen][lanes], "written", self._atomics)
            self._repeats[self._inside(wave), places] = self._stamp(wave)
            self._writes[self._inside(wave), changed] = self._stamp(wave)
            # The others of this instruction meet what this wave leaves.
            m.lds[places] = given

    def lds_atomic(self, m: State, wanted: Places, at: Places, size: int) -> None:
        for wave in _waves(m, wanted):
            places, lanes = _bytes(at[wave.chosen], size)
            who = wanted[wave.chosen][lanes]
            for others in (self._writes, self._repeats, self._reads):
                self._check(m, wave, places, who, "changed", others)
            self._atomics[self._inside(wave), places] = self._stamp(wave)

    def _check(
        self, m: State, wave: _Wave, places: Places, who: Places, verb: str, others: Stamps
    ) -> None:
        """Whether another wave's access of these bytes is not ordered before this wave's now."""
        stamps = others[:, places]
        stamps[self._inside(wave)] = _NEVER
        unordered = stamps >= self._passed(wave)
        if not unordered.any():
            return
        other, where = (int(axis[0]) for axis in np.nonzero(unordered))
        did = "read" if others is self._reads else "written"
        byte = int(places[where]) % m.shape.lds_bytes
        self._report(m, int(who[where]), f"LDS byte {byte}", verb, did, other,
                     int(stamps[other, where]))  # fmt: skip

    # -- global memory ----------------------------------------------------------------------------
    def global_load(self, m: State, wanted: Places, addresses: Places, size: int) -> None:
        for wave, buffer, places, lanes, _ in self._touched(m, wanted, addresses, size):
            changed = self._stores.of(buffer)[:2, places]
            self._judge(m, wave, buffer, places, wanted[wave.chosen][lanes], "read", changed)

    def global_store(
        self, m: State, wanted: Places, addresses: Places, values: Lanes, size: int
    ) -> None:
        """Before a store."""
        for wave, buffer, touched, lanes, byte in self._touched(m, wanted, addresses, size):
            given = _values(values[:, wave.chosen], size).reshape(-1, size)[lanes, byte]
            known = self._stores.of(buffer)
            changes = buffer.data[touched] != given
            places, who = touched[changes], wanted[wave.chosen][lanes[changes]]
            for before in (known[:2, places], known[2:, places]):
                self._judge(m, wave, buffer, places, who, "written", before)
            mine = np.array([[self._first + wave.number + 1], [self._stamp(wave)]])
            known[:2, places], known[2:, touched] = mine, mine
            # The others of this instruction meet what this wave leaves.
            buffer.data[touched] = given

    def global_atomic(self, m: State, wanted: Places, addresses: Places, size: int) -> None:
        """What an atomic operation changed is nobody's."""
        for _, buffer, places, _, _ in self._touched(m, wanted, addresses, size):
            self._stores.of(buffer)[:, places] = 0

    def _touched(
        self, m: State, wanted: Places, addresses: Places, size: int
    ) -> Iterator[tuple[_Wave, Buffer, Places, Places, Places]]:
        """Wave by wave and buffer by buffer: bytes, the lanes they belong to, which of ``size``."""
        for wave in _waves(m, wanted):
            at, lanes = _bytes(addresses[wave.chosen], size)
            byte = np.tile(np.arange(size), wave.chosen.size)
            for buffer, some, offsets in m.memory.split(at, 1):
                yield wave, buffer, offsets, lanes[some], byte[some]

    def _judge(
        self,
        m: State,
        wave: _Wave,
        buffer: Buffer,
        places: Places,
        who: Places,
        verb: str,
        before: Stamps,
    ) -> None:
        stored, stamps = before
        mine = self._first + wave.number + 1
        group = (stored - 1) // self._size
        same = group == (mine - 1) // self._size
        unordered = (stored != 0) & (stored != mine) & same & (stamps >= self._passed(wave))
        if verb == "written":
            unordered |= (stored != 0) & ~same
        if not unordered.any():
            return
        where = int(np.argmax(unordered))
        other = int(stored[where]) - 1
        text = f"byte {int(places[where])} of {buffer.name}"
        if not same[where]:
            text += ", in another workgroup"
        self._report(m, int(who[where]), text, verb, "written", other % self._size,
                     int(stamps[where]))  # fmt: skip

    # -- both -------------------------------------------------------------------------------------
    def _inside(self, wave: _Wave) -> int:
        return wave.number % self._size

    def _stamp(self, wave: _Wave) -> int:
        signals = int(self.signalled[wave.number])
        return signals * len(self.program.instructions) + self.number + 1

    def _passed(self, wave: _Wave) -> int:
        """The first stamp of what no barrier that this wave has passed puts before it."""
        return int(self.waited[wave.number]) * len(self.program.instructions) + 1

    def _report(
        self, m: State, who: int, what: str, verb: str, did: str, other: int, stamp: int
    ) -> None:
        first = self.program.instructions[(stamp - 1) % len(self.program.instructions)]
        running, lane = divmod(who, m.lanes)
        text = (
            f"a race: {what}, {did} by wave {other} in {first} with no barrier between, is {verb}"
        )
        raise AccessError(running, lane, text)


def _waves(m: State, wanted: Places) -> Iterator[_Wave]:
    """The waves that access, in order; ``wanted`` are flat numbers of lanes of the group."""
    numbers = np.arange(m.shape.waves)[m.sel]
    running = wanted // m.lanes
    for wave in np.unique(running):
        yield _Wave(int(wave), int(numbers[wave]), np.flatnonzero(running == wave))


def _bytes(at: Places, size: int) -> tuple[Places, Places]:
    """The bytes of accesses, one after another, and which access each belongs to."""
    return (at[:, None] + np.arange(size)).reshape(-1), np.repeat(np.arange(at.size), size)


def _values(values: Lanes, size: int) -> npt.NDArray[np.uint8]:
    """The bytes that a store stores, in the order of :func:`_bytes`; words are [words, lanes]."""
    little = np.ascontiguousarray(values.T).view(np.uint8)
    return little.reshape(values.shape[1], -1)[:, :size].reshape(-1)
