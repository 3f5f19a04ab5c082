"""Memory that nothing has written: what a tensor made by ``empty`` holds until it is written.

Such memory is filled with a pattern that goes by the address, so that whoever writes to it, in
whatever way, leaves something else: no record of writes is kept. A word of 4 bytes that holds its
place's pattern has been written by nobody. Every half of a pattern is a NaN in float16 and in
bfloat16, and the pair one in float32, with bits that no arithmetic gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..assembly import Program
from .memory import Buffer, bytes_at, raw_buffer

Places = npt.NDArray[np.int64]

# Addresses that are so far apart have the same pattern.
PERIOD = 1 << 16
# Launches read so many buffers at once that a few chance finds of 4 bytes would be likely in a long
# run; of 8 they are not. So a buffer is looked at only if it has such a pair.
_PAIR = 8
_DIFFERENT = 3


def _halves(generator: np.random.Generator, top: int, payloads: Sequence[int]) -> npt.NDArray[Any]:
    count = PERIOD // 2
    signs = generator.integers(0, 2, count, dtype=np.uint16) << np.uint16(15)
    chosen = np.array(payloads, dtype=np.uint16)[generator.integers(0, len(payloads), count)]
    halves: npt.NDArray[np.uint16] = signs | np.uint16(top) | chosen
    return halves.view(np.uint32)


# Quiet NaNs that are made anew have no payload, or all of it.
PATTERN = _halves(np.random.default_rng(0x0E3A97), 0x7F80, [n for n in range(1, 0x7F) if n != 0x40])
# What stands there instead, to see whether results change: large numbers of both signs. A copy from
# a place with the same pattern must not look as if it had always been there: so periods differ.
_INSTEAD = _halves(np.random.default_rng(0x51DE), 0x7A00, range(0x100))
_FREE = np.uint32(0x80FF80FF)
_MIX = np.uint64(0x9E3779B97F4A7C15)


def _runs(start: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Pieces of memory within one period each, but for whole periods: offset, length, place."""
    at = 0
    first = min(-start % PERIOD, size)
    if first:
        yield 0, first, start % PERIOD
        at = first
    whole = (size - at) // PERIOD * PERIOD
    if whole:
        yield at, whole, 0
        at += whole
    if at < size:
        yield at, size - at, 0


def fill(start: int, size: int) -> None:
    """Fills memory of this process with the pattern."""
    data, pattern = raw_buffer("", start, size).data, PATTERN.view(np.uint8)
    for at, length, place in _runs(start, size):
        if length > PERIOD or (length == PERIOD and place == 0):
            data[at : at + length].reshape(-1, PERIOD)[:] = pattern
        else:
            data[at : at + length] = pattern[place : place + length]


def instead(words: Places) -> npt.NDArray[np.uint32]:
    """What stands at these addresses of words in place of the pattern."""
    periods = (words // PERIOD).astype(np.uint64) * _MIX >> np.uint64(32)
    changed: npt.NDArray[np.uint32] = periods.astype(np.uint32) & _FREE
    return _INSTEAD[words % PERIOD >> 2] ^ changed


def _pairs(buffer: Buffer) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    """Which aligned 8 bytes of a buffer hold their pattern, piece by piece, from an offset on."""
    skip = -buffer.start % _PAIR
    size = (buffer.data.nbytes - skip) // _PAIR * _PAIR
    if size <= 0:
        return
    pattern = PATTERN.view(np.uint64)
    for at, length, place in _runs(buffer.start + skip, size):
        here = buffer.data[skip + at : skip + at + length].view(np.uint64)
        first = place // _PAIR
        same = (
            here == pattern[first : first + here.size]
            if length < PERIOD
            else (here.reshape(-1, pattern.size) == pattern).reshape(-1)
        )
        yield skip + at, same


def has_unwritten(buffer: Buffer) -> bool:
    """Whether 8 bytes of a buffer, or more, have been written by nobody."""
    return any(bool(same.any()) for _, same in _pairs(buffer))


def replace_unwritten(buffer: Buffer) -> npt.NDArray[np.bool_]:
    """Puts other garbage where nothing was written; says where, byte by byte."""
    where = np.zeros(buffer.data.nbytes, dtype=np.bool_)
    for at, same in _pairs(buffer):
        where[at : at + _PAIR * same.size] = np.repeat(same, _PAIR)
    places = np.flatnonzero(where)
    buffer.data[places] = instead(buffer.start + places[::4]).view(np.uint8)
    return where


@dataclass(frozen=True)
class Read:
    """The first read of one instruction: of which buffer, and where in it."""

    buffer: Buffer
    offset: int


class Reads:
    """What a launch reads that nothing wrote, by the number of the instruction that does.

    ``number`` is the instruction that runs now; ``marked`` says which buffers are looked at.
    """

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self.marked = np.array([has_unwritten(buffer) for buffer in buffers] or [False], np.uint8)
        self._looked_at = {
            buffer.start for buffer, marked in zip(buffers, self.marked, strict=False) if marked
        }
        self.number = 0
        self.found: dict[int, Read] = {}

    def look(self, buffer: Buffer, offsets: Places, size: int) -> None:
        """A load of ``size`` bytes from each of these places of a buffer."""
        if buffer.start not in self._looked_at or self.number in self.found:
            return
        at = buffer.start + offsets
        ends = (at + size - 1) & ~3
        for word in range(0, size + 3, 4):
            places = np.minimum((at & ~3) + word, ends) - buffer.start
            inside = (places >= 0) & (places + 4 <= buffer.data.nbytes)
            places = places[inside]
            unwritten = (
                bytes_at(buffer.data, places, 4) == PATTERN[(buffer.start + places) % PERIOD >> 2]
            )
            if unwritten.any():
                self.found[self.number] = Read(buffer, int(places[np.argmax(unwritten)]))
                return

    def text(self, program: Program) -> str:
        """The reads in words, those of the first few instructions."""
        first = [
            f"byte {read.offset} of {read.buffer.name} by {program.instructions[number]}"
            for number, read in [*self.found.items()][:_DIFFERENT]
        ]
        more = len(self.found) - len(first)
        return "; ".join(first) + (f"; {more} more instructions do" if more else "")


def reads_of(buffers: Sequence[Buffer]) -> Reads | None:
    """What to look at in a launch; None where every buffer has been written."""
    reads = Reads(buffers)
    return reads if reads.marked.any() else None
