"""Which barriers of a kernel order anything: by counting accesses, not by the detector of races.

A launch is run as it is, and every access to LDS is written down: wave, bytes, values, and the
barriers that the workgroup had passed. Without one of the barriers what stands between the two
beside it falls together. The barrier is needed if then a byte that a wave changed was read by
another one, or two waves stored different values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np

from conformance.devices.isa import Violation, execute, launch
from conformance.devices.isa.instructions.table import base_name
from conformance.devices.isa.machine import Machine
from conformance.devices.isa.native.kernel import VARIABLE
from conformance.devices.kernel import Launch
from conformance.devices.spelling import DeviceName

WAITS = ("s_barrier", "s_barrier_wait")


@dataclass(frozen=True)
class Access:
    """Bytes that a wave accessed at once; ``passed`` barriers its workgroup had behind it then.

    ``values`` are what it stored, and ``changes`` where that was something new; None: it read.
    """

    workgroup: int
    wave: int
    passed: int
    places: Any
    values: Any = None
    changes: Any = None


class Accesses:
    """Stands in for :class:`conformance.devices.isa.races.Races`, and judges nothing."""

    def __init__(self, first: int) -> None:
        self.number, self._first = 0, first
        self.signalled = self.waited = np.zeros(0, dtype=np.int64)
        self.made: list[Access] = []
        # Of each workgroup the lines of the barriers that it passed.
        self.barriers: dict[int, list[int]] = defaultdict(list)

    def lds_load(self, m: Any, wanted: Any, at: Any, size: int) -> None:
        self._note(m, wanted, at[:, None] + np.arange(size))

    def lds_store(self, m: Any, wanted: Any, at: Any, values: Any, size: int) -> None:
        places = at[:, None] + np.arange(size)
        given = np.ascontiguousarray(values.T).view(np.uint8).reshape(len(at), -1)[:, :size]
        changes = m.lds[places] != given
        self._note(m, wanted, places, given, changes)

    def lds_atomic(self, m: Any, wanted: Any, at: Any, size: int) -> None:
        raise NotImplementedError("atomic operations in LDS")

    def global_load(self, *_: Any) -> None:
        """Barriers are looked at for LDS alone."""

    global_store = global_atomic = global_load

    def _note(self, m: Any, wanted: Any, places: Any, *stored: Any) -> None:
        numbers = np.arange(m.shape.waves)[m.sel]
        for one in np.unique(wanted // m.lanes):
            wave = int(numbers[one])
            if self.signalled[wave] != self.waited[wave]:
                raise NotImplementedError("an access between the parts of a barrier")
            mine = wanted // m.lanes == one
            parts = [part[mine].reshape(-1) for part in (places, *stored)]
            group = self._first + int(m.workgroup[wave])
            self.made.append(Access(group, wave, int(self.waited[wave]), *parts))


def accesses(given: Launch, device: DeviceName) -> list[Accesses]:
    """What a launch accesses, batch by batch."""
    found: list[Accesses] = []
    barrier = Machine._barrier

    def races(*_: Any) -> Accesses:
        found.append(Accesses(1000 * len(found)))
        return found[-1]

    def passes(self: Machine, name: str, block: Any, waves: Any) -> Any:
        if name in WAITS:
            line = self.code.program.instructions[block.end - 1].line
            for group in np.unique(self.state.workgroup[waves]):
                first = int(np.argmax(self.state.workgroup == group))
                if first in waves:
                    found[-1].barriers[found[-1]._first + int(group)].append(line)
        return barrier(self, name, block, waves)

    with (
        mock.patch.object(launch, "Races", races),
        mock.patch.object(Machine, "_barrier", passes),
        mock.patch.dict("os.environ", {VARIABLE: "never"}),
    ):
        execute(given, replace(device, races=True))
    return found


def is_needed(found: list[Accesses], cut: int | None) -> bool:
    """Whether a byte that a wave changed is another's, too, without the barrier at a line."""
    for batch in found:
        sets: dict[tuple[int, int], list[Access]] = defaultdict(list)
        for one in batch.made:
            passed = batch.barriers[one.workgroup][: one.passed]
            if one.places.size:
                sets[one.workgroup, sum(line != cut for line in passed)].append(one)
        if any(_meet(some) for some in sets.values()):
            return True
    return False


def _meet(some: list[Access]) -> bool:
    size = 1 + max(int(one.places.max()) for one in some)
    readers, writers = _Waves(size), _Waves(size)
    stored, differ = np.full(size, -1), np.zeros(size, dtype=np.bool_)
    changers = _Waves(size)
    for one in some:
        if one.values is None:
            readers.add(one.wave, one.places)
            continue
        writers.add(one.wave, one.places)
        changers.add(one.wave, one.places[one.changes])
        before = stored[one.places]
        differ[one.places] |= (before >= 0) & (before != one.values)
        stored[one.places] = one.values
    read = (changers.first >= 0) & (readers.first >= 0)
    alone = ~changers.several & ~readers.several & (changers.first == readers.first)
    return bool((read & ~alone).any() or (writers.several & differ).any())


class _Waves:
    """Of each byte the first wave of those that did something to it, and whether others did."""

    def __init__(self, size: int) -> None:
        self.first, self.several = np.full(size, -1), np.zeros(size, dtype=np.bool_)

    def add(self, wave: int, places: Any) -> None:
        self.several[places] |= (self.first[places] >= 0) & (self.first[places] != wave)
        self.first[places] = np.where(self.first[places] < 0, wave, self.first[places])


def without_each(text: str) -> Iterator[tuple[int, str]]:
    """The line of each barrier, from 1 on, and the text without it; a signal goes with its wait."""
    lines = text.splitlines(keepends=True)
    signal = 0
    for number, line in enumerate(lines):
        word = (line.split() or [""])[0]
        if base_name(word) == "s_barrier_signal":
            signal = number
        if base_name(word) in WAITS:
            left = [*lines]
            left[number] = "\t; cut\n"
            if word == "s_barrier_wait":
                left[signal] = "\t; cut\n"
            yield number + 1, "".join(left)


def judged(given: Launch, device: DeviceName) -> list[tuple[int, bool, bool]]:
    """Of each barrier of a launch its line, whether it is needed, and whether a race is found
    without it."""
    found = accesses(given, device)
    assert not is_needed(found, None), f"{given.kernel.name} races as it is"
    outcomes = []
    for line, text in without_each(given.kernel.text):
        kernel = replace(given.kernel, text=text)
        try:
            execute(replace(given, kernel=kernel), replace(device, races=True))
            raced = False
        except Violation as violation:
            raced = str(violation).startswith("a race: LDS")
        outcomes.append((line, is_needed(found, line), raced))
    return outcomes
