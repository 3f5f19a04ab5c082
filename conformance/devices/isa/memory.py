"""Global memory as a kernel sees it: the bytes of its arguments' tensors, and nothing else.

Addresses are the real ones of the CPU tensors. Every access is checked against the bytes that the
arguments' elements span; what lies outside stops the run and is described by how far outside it is.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..kernel import Span

if TYPE_CHECKING:
    from .unwritten import Reads

Lanes = npt.NDArray[Any]


class OutOfBoundsError(Exception):
    """An access outside every buffer; ``where`` is the number of the first one among them."""

    def __init__(self, where: int, text: str) -> None:
        super().__init__(text)
        self.where = where


@dataclass(frozen=True)
class Buffer:
    """A span of bytes that may be accessed: ``data`` is uint8 and shares the tensor's memory."""

    name: str
    start: int
    data: npt.NDArray[np.uint8]

    @property
    def end(self) -> int:
        return self.start + self.data.nbytes


def span_buffer(span: Span) -> Buffer:
    """A span of memory that a launch lets its kernel access."""
    return raw_buffer(span.name, span.start, span.size)


def raw_buffer(name: str, start: int, size: int) -> Buffer:
    """A span of this process's memory."""
    holder = (ctypes.c_uint8 * size).from_address(start)
    return Buffer(name, start, np.frombuffer(memoryview(holder).cast("B"), dtype=np.uint8))


class Memory:
    """The buffers of one launch, merged where they overlap."""

    def __init__(self, buffers: Iterable[Buffer]) -> None:
        self.buffers = _merge(sorted(buffers, key=lambda b: (b.start, -b.end)))
        self._starts = np.array([b.start for b in self.buffers], dtype=np.int64)
        self._ends = np.array([b.end for b in self.buffers], dtype=np.int64)
        # What is read that nothing wrote, where it is looked for.
        self.reads: Reads | None = None

    def load(self, addresses: npt.NDArray[np.int64], words: int) -> Lanes:
        """``words`` 32-bit words from each address: uint32 [words, len(addresses)]."""
        out = np.empty((words, addresses.size), dtype=np.uint32)
        for buffer, places, offsets in self.split(addresses, 4 * words):
            if self.reads is not None:
                self.reads.look(buffer, offsets, 4 * words)
            if _aligned(buffer, offsets, 4):
                view = buffer.data[: buffer.data.nbytes & ~3].view(np.uint32)
                at = offsets >> 2
                for word in range(words):
                    out[word, places] = view[at + word]
            else:
                for word in range(words):
                    out[word, places] = bytes_at(buffer.data, offsets + 4 * word, 4)
        return out

    def load_small(self, addresses: npt.NDArray[np.int64], size: int) -> Lanes:
        """1 or 2 bytes from each address, as uint32 [len(addresses)]."""
        out = np.empty(addresses.size, dtype=np.uint32)
        for buffer, places, offsets in self.split(addresses, size):
            if self.reads is not None:
                self.reads.look(buffer, offsets, size)
            out[places] = bytes_at(buffer.data, offsets, size)
        return out

    def store(self, addresses: npt.NDArray[np.int64], values: Lanes, size: int) -> None:
        """Stores ``size`` bytes of each column of ``values`` (uint32 [words, len(addresses)]).

        Where two lanes store to one address the later lane wins.
        """
        for buffer, places, offsets in self.split(addresses, size):
            if size % 4 == 0 and _aligned(buffer, offsets, 4):
                view = buffer.data[: buffer.data.nbytes & ~3].view(np.uint32)
                for word in range(size // 4):
                    view[(offsets >> 2) + word] = values[word, places]
                continue
            for byte in range(size):
                word = values[byte // 4, places] >> np.uint32(8 * (byte % 4))
                buffer.data[offsets + byte] = word.astype(np.uint8)

    def check(self, addresses: npt.NDArray[np.int64], size: int) -> None:
        """Raises OutOfBoundsError unless every access lies in a buffer."""
        for _ in self.split(addresses, size):
            pass

    def split(
        self, addresses: npt.NDArray[np.int64], size: int
    ) -> Iterable[tuple[Buffer, Any, npt.NDArray[np.int64]]]:
        """Per buffer: the places in ``addresses`` that fall into it, and their offsets."""
        if addresses.size == 0:
            return
        low, high = int(addresses.min()), int(addresses.max())
        for buffer in self.buffers:
            if buffer.start <= low and high + size <= buffer.end:
                yield buffer, slice(None), addresses - buffer.start
                return
        if not self.buffers:
            raise OutOfBoundsError(0, self._describe(int(addresses[0]), size))
        number = np.searchsorted(self._starts, addresses, side="right") - 1
        inside = (number >= 0) & (addresses + size <= self._ends[np.maximum(number, 0)])
        if not inside.all():
            where = int(np.argmin(inside))
            raise OutOfBoundsError(where, self._describe(int(addresses[where]), size))
        for value in np.unique(number):
            places = np.nonzero(number == value)[0]
            buffer = self.buffers[int(value)]
            yield buffer, places, addresses[places] - buffer.start

    def _describe(self, address: int, size: int) -> str:
        if not self.buffers:
            return f"{size} bytes at {address:#x}: the kernel has no tensor argument"
        nearest = min(self.buffers, key=lambda b: _distance(b, address, size))
        distance = _distance(nearest, address, size)
        side = "before" if address < nearest.start else "past the end of"
        return f"{size} bytes that reach {distance} bytes {side} {nearest.name}"


def _distance(buffer: Buffer, address: int, size: int) -> int:
    """How many bytes an access reaches outside a buffer."""
    return max(buffer.start - address, address + size - buffer.end, 0)


def _merge(ordered: list[Buffer]) -> list[Buffer]:
    """Buffers that overlap become one: views of one tensor often do."""
    merged: list[Buffer] = []
    for buffer in ordered:
        if merged and buffer.start < merged[-1].end:
            before = merged[-1]
            names = before.name if buffer.name in before.name else f"{before.name}+{buffer.name}"
            end = max(before.end, buffer.end)
            merged[-1] = raw_buffer(names, before.start, end - before.start)
        else:
            merged.append(buffer)
    return merged


def _aligned(buffer: Buffer, offsets: npt.NDArray[np.int64], size: int) -> bool:
    return buffer.start % size == 0 and not (offsets & (size - 1)).any()


def bytes_at(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], size: int) -> Lanes:
    """So many bytes from each place, 4 at most, as words."""
    value = data[offsets].astype(np.uint32)
    for byte in range(1, size):
        value |= data[offsets + byte].astype(np.uint32) << np.uint32(8 * byte)
    return value
