"""The registers of many waves at once, and the group of them that runs the same instruction.

Every array has the wave as an axis: vector registers are uint32 [register, wave, lane], scalar
registers uint32 [register, wave]. Waves that stand at the same instruction run together as one
group; ``sel`` picks them out of every array. EXEC, VCC and M0 are scalar registers like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .memory import Memory
from .mode import PLAIN

if TYPE_CHECKING:
    from .native.races import ShadowRaces
    from .races import Races

U32 = npt.NDArray[np.uint32]
Bools = npt.NDArray[np.bool_]
Lanes = npt.NDArray[Any]

VCC, M0, NULL, EXEC, TTMP = 106, 124, 125, 126, 108
SCALARS = 128


@dataclass(frozen=True)
class Shape:
    """What a batch of waves needs: sizes in registers, bytes and lanes."""

    waves: int
    lanes: int
    vgprs: int
    agprs: int
    groups: int
    lds_bytes: int
    scratch_bytes: int


class State:
    """Registers, LDS and scratch of a batch of workgroups, and the group that runs now."""

    def __init__(
        self,
        shape: Shape,
        memory: Memory,
        poison: np.random.Generator | None,
        mode: int = PLAIN,
        by_wave: bool = False,
        before: State | None = None,
    ) -> None:
        """``by_wave``: a wave's registers lie together, as native code needs them.

        ``before`` is a state that is no longer needed: its memory is used again where it fits.
        """
        self.shape, self.memory, self.lanes = shape, memory, shape.lanes
        words = 2 if shape.lanes == 64 else 1
        self.mask_words = words
        self._rows: dict[str, U32] = {}
        registers = (shape.vgprs + shape.agprs, shape.waves, shape.lanes)
        scratch = ((shape.scratch_bytes + 3) // 4, shape.waves, shape.lanes)
        self.vector = self._fresh("vector", registers, poison, by_wave, before)
        self.scalar = self._fresh("scalar", (SCALARS, shape.waves), poison, by_wave, before)
        self.lds = _fresh((shape.groups * shape.lds_bytes + 3) // 4, poison).view(np.uint8)
        self.scratch = self._fresh("scratch", scratch, poison, by_wave, before)
        self.scalar[NULL] = 0
        self.scalar[EXEC : EXEC + words] = 0xFFFFFFFF
        if words == 1:
            self.scalar[[EXEC + 1, VCC + 1]] = 0
        self.scc = np.zeros(shape.waves, dtype=np.bool_)
        self.workgroup = np.zeros(shape.waves, dtype=np.int64)
        # MODE of the group that runs; of every wave, where waves have come to differ.
        self.mode = mode
        self._modes: npt.NDArray[np.int64] | None = None
        self.sel: Any = slice(None)
        self.n = shape.waves
        self._exec: Bools | None = None
        self._exec_known = False
        # What waves have accessed, where races are looked for.
        self.races: Races | ShadowRaces | None = None
        # Whether lanes that are off bring zeros to matrix products; whether any were off.
        self.masked = False
        self.lanes_off = False

    def _fresh(
        self,
        name: str,
        shape: tuple[int, ...],
        poison: np.random.Generator | None,
        by_wave: bool,
        before: State | None,
    ) -> U32:
        """Registers [register, wave, ...]; by wave, they begin at the start of a cache line."""
        if not by_wave:
            return _fresh(shape, poison)
        axes = (1, 0, 2)[: len(shape)]
        turned = tuple(shape[axis] for axis in axes)
        rows = None if before is None else before._rows.get(name)
        if rows is None or rows.shape != turned:
            raw = np.zeros(int(np.prod(turned)) + 16, dtype=np.uint32)
            skip = (-raw.ctypes.data % 64) // 4
            rows = raw[skip : skip + raw.size - 16].reshape(turned)
        elif poison is None:
            rows.fill(0)
        if poison is not None:
            rows[...] = _fresh(shape, poison).transpose(axes)
        self._rows[name] = rows
        return rows.transpose(axes)

    def rows(self, name: str) -> U32:
        """Registers with the wave as outer axis, of a state that lies by wave."""
        return self._rows[name]

    def select(self, waves: npt.NDArray[np.int64]) -> None:
        """Makes these waves (ascending) the group that runs."""
        self.n = waves.size
        first, last = int(waves[0]), int(waves[-1])
        contiguous = last - first + 1 == waves.size
        self.sel = slice(first, last + 1) if contiguous else waves
        self._exec_known = False
        if self._modes is not None:
            self.mode = int(self._modes[first])

    # -- MODE -------------------------------------------------------------------------------
    @property
    def modes_differ(self) -> bool:
        """Whether waves may have different modes: a group's are all the same."""
        return self._modes is not None

    def of_one_mode(self, waves: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Those of some waves that have the first one's mode."""
        if self._modes is None:
            return waves
        return waves[self._modes[waves] == self._modes[waves[0]]]

    def set_mode(self, mode: npt.NDArray[np.int64]) -> None:
        """Sets MODE of the group that runs: [n]."""
        if self.n == self.shape.waves and (mode == mode[0]).all():
            self.mode, self._modes = int(mode[0]), None
            return
        if self._modes is None:
            self._modes = np.full(self.shape.waves, self.mode, dtype=np.int64)
        self._modes[self.sel] = mode

    # -- scalar registers -------------------------------------------------------------------
    def s(self, index: int) -> U32:
        """A scalar register: [n]."""
        value: U32 = self.scalar[index][self.sel]
        return value

    def s64(self, index: int) -> npt.NDArray[np.uint64]:
        """A pair of scalar registers as one number: [n]."""
        low = self.scalar[index][self.sel].astype(np.uint64)
        high = self.scalar[index + 1][self.sel].astype(np.uint64)
        return low | (high << np.uint64(32))

    def set_s(self, index: int, value: Lanes) -> None:
        if index == NULL:
            return
        self.scalar[index][self.sel] = value
        if index >= EXEC:
            self._exec_known = False

    # -- lane masks -------------------------------------------------------------------------
    @property
    def exec(self) -> Bools | None:
        """Which lanes run: bool [n, lanes], or None where all of them do."""
        if not self._exec_known:
            words = self.scalar[EXEC : EXEC + self.mask_words, self.sel]
            whole = bool((words == 0xFFFFFFFF).all())
            self._exec = None if whole else self.mask(EXEC)
            self._exec_known = True
        return self._exec

    def mask(self, index: int) -> Bools:
        """A lane mask held in scalar registers: bool [n, lanes]."""
        words = self.scalar[index : index + self.mask_words, self.sel]
        little = np.ascontiguousarray(words.T).view(np.uint8)
        bits = np.unpackbits(little, axis=1, bitorder="little")
        return bits.view(np.bool_)

    def set_mask(self, index: int, lanes: Bools) -> None:
        """Stores a lane mask, bool [n, lanes]."""
        if index == NULL:
            return
        packed = np.packbits(lanes, axis=1, bitorder="little").view(np.uint32)
        for word in range(self.mask_words):
            self.set_s(index + word, packed[:, word])

    # -- vector registers -------------------------------------------------------------------
    def v(self, index: int) -> U32:
        """A vector register: [n, lanes]; a view where the group is contiguous."""
        value: U32 = self.vector[index][self.sel]
        return value

    def set_v(self, index: int, value: Lanes, only: Bools | None = None) -> None:
        """Writes the lanes that run (and that ``only`` allows): uint32, broadcast to [n, lanes]."""
        mask = self.exec
        if only is not None:
            mask = only if mask is None else mask & only
        register = self.vector[index]
        if mask is None:
            register[self.sel] = value
        elif isinstance(self.sel, slice):
            np.copyto(register[self.sel], value, where=mask)
        else:
            merged = register[self.sel]
            np.copyto(merged, value, where=mask)
            register[self.sel] = merged


def _fresh(shape: int | tuple[int, ...], poison: np.random.Generator | None) -> U32:
    """Zeros, or garbage from a generator: what a program must not depend on."""
    if poison is None:
        return np.zeros(shape, dtype=np.uint32)
    return poison.integers(0, 1 << 32, size=shape, dtype=np.uint32)
