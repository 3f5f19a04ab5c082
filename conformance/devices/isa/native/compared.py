"""A launch's memory after native code and after the interpreter: they must be the same.

``ROCM_CONFORMANCE_NATIVE=both`` runs every launch twice, so that a whole run of the suite shows
whether there is any difference; NaNs may differ in their signs and payloads, which LLVM leaves
open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..machine import Tally
from ..memory import Buffer

Words = npt.NDArray[Any]


class DifferenceError(Exception):
    """Native code and the interpreter come to different results; the message says where."""


def check(
    name: str, buffers: Sequence[Buffer], native: Sequence[Words], tallies: tuple[Tally, Tally]
) -> None:
    """Compares what the interpreter left in ``buffers`` with copies of what native code left, and
    the instructions that each of them ran.

    Raises:
        DifferenceError: they differ.
    """
    for buffer, made in zip(buffers, native, strict=True):
        places = different(buffer.data, made)
        if places.size:
            at = int(places[0]) // 4 * 4
            raise DifferenceError(
                f"{name}: {places.size} bytes of {buffer.name} differ, from byte {at} on: "
                f"{bytes(made[at : at + 4]).hex()} by native code, "
                f"{bytes(buffer.data[at : at + 4]).hex()} interpreted"
            )
    one, two = (_ran(tally) for tally in tallies)
    if one != two:
        raise DifferenceError(
            f"{name}: native code ran {one[0]} instructions of waves, {len(one[1])} of the "
            f"kernel's; interpreted it is {two[0]} and {len(two[1])}"
        )
    if tallies[0].lanes_off != tallies[1].lanes_off:
        which = "native code alone" if tallies[0].lanes_off else "the interpreter alone"
        raise DifferenceError(f"{name}: {which} saw lanes that were off in a matrix product")


def _ran(tally: Tally) -> tuple[int, set[int]]:
    numbers = {number for start, end in tally.blocks for number in range(start, end)}
    return tally.wave_instructions, numbers


def different(one: Words, two: Words) -> npt.NDArray[np.int64]:
    """The bytes that differ, but for those of two NaNs of one type."""
    places = np.flatnonzero(one != two)
    if not places.size:
        return places
    words = np.unique(places // 4)
    padded = [np.resize(np.concatenate([data, np.zeros(4, np.uint8)]), (len(data) // 4 + 1) * 4)
              for data in (one, two)]  # fmt: skip
    a, b = (data.view(np.uint32)[words] for data in padded)
    alike = _both_nan(a, b, 32, 0x7F800000)
    for top in (0x7C00, 0x7F80):
        halves = [
            (a >> shift & 0xFFFF == b >> shift & 0xFFFF)
            | _both_nan(a >> shift & 0xFFFF, b >> shift & 0xFFFF, 16, top)
            for shift in (0, 16)
        ]
        alike |= halves[0] & halves[1]
    return places[~np.isin(places // 4, words[alike])]


def _both_nan(a: Words, b: Words, bits: int, top: int) -> Words:
    """Whether both are NaNs of a type whose infinity has the bits ``top``."""
    size = (1 << bits - 1) - 1
    return ((a & size) > top) & ((b & size) > top)
