"""What instructions that read and write memory share: which lanes do, and how values come back.

Addresses that a buffer descriptor rules out read as 0 and are not written, as on hardware: that is
how Triton masks. Every other address must lie in a buffer, in the workgroup's LDS, or in the
wave's scratch; one that does not stops the run. Sources: the memory chapters of AMD's manuals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..memory import OutOfBoundsError
from ..state import Bools, Lanes, State
from ..target import IsaTarget

U32, U64, I64 = np.uint32, np.uint64, np.int64
Places = npt.NDArray[np.int64]


class AccessError(Exception):
    """An access outside what may be accessed, by one lane of one wave (of the group that runs).

    ``lane`` is None where the whole wave makes one access.
    """

    def __init__(self, wave: int, lane: int | None, text: str) -> None:
        super().__init__(text)
        self.wave, self.lane = wave, lane


def described(m: State, base: int, target: IsaTarget) -> tuple[Places, Places]:
    """Address and size of the buffer that a descriptor tells of, for each wave.

    With 57 bits of address the size has 45, without a gap: gfx1250, see LLVM's
    ``lowerPointerAsRsrcIntrin`` (llvm/lib/Target/AMDGPU/SIISelLowering.cpp).
    """
    bits = target.family.address_bits
    start = (m.s64(base) & U64((1 << bits) - 1)).astype(I64)
    low, middle, high = (m.s(base + word).astype(I64) for word in (1, 2, 3))
    if bits == 48:
        return start, middle
    return start, low >> (bits - 32) | middle << (64 - bits) | (high & 0x3F) << (96 - bits)


def active(m: State, extra: Bools | None = None) -> Places:
    """Flat numbers (wave * lanes + lane) of the lanes that access memory."""
    mask = m.exec
    if extra is not None:
        mask = extra if mask is None else mask & extra
    if mask is None:
        return np.arange(m.n * m.lanes)
    return np.flatnonzero(mask)


def checked(m: State, places: Places, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except OutOfBoundsError as error:
        wave, lane = divmod(int(places[error.where]), m.lanes)
        raise AccessError(wave, lane, str(error)) from None


def checked_scalar(action: Callable[[], Lanes]) -> Lanes:
    """An access that each wave makes once: its number is the wave's."""
    try:
        return action()
    except OutOfBoundsError as error:
        raise AccessError(error.where, None, str(error)) from None


def put(
    m: State, out: int, wanted: Places, value: Lanes, merge: Callable[..., Lanes] | None
) -> None:
    """Writes loaded values to the lanes that run; lanes the descriptor ruled out get 0."""
    if wanted.size == m.n * m.lanes:
        whole = value.reshape(m.n, m.lanes)  # what native code is made from
    else:
        flat = np.zeros(m.n * m.lanes, dtype=U32)
        flat[wanted] = value
        whole = flat.reshape(m.n, m.lanes)
    m.set_v(out, whole if merge is None else merge(whole, m.v(out)))


def low_half(value: Lanes, old: Lanes) -> Lanes:
    return (value & U32(0xFFFF)) | (old & U32(0xFFFF0000))


def high_half(value: Lanes, old: Lanes) -> Lanes:
    return (value << U32(16)) | (old & U32(0xFFFF))


def _extend(value: Lanes, bits: int) -> Lanes:
    up = 32 - bits
    return ((value << U32(up)).view(np.int32) >> np.int32(up)).view(U32)


def narrow_load(name: str) -> tuple[int, Callable[[Lanes], Lanes], Callable[..., Lanes] | None]:
    """Of a narrow load: bytes, what is done to the value, and how it joins the old register."""
    size = 1 if "byte" in name or name[-1] == "8" or "8_" in name else 2
    signed = "sbyte" in name or "sshort" in name or "_i8" in name or "_i16" in name
    merge = None
    if "d16" in name:
        merge = high_half if "_d16_hi" in name else low_half
    return size, (lambda v: _extend(v, 8 * size)) if signed else (lambda v: v), merge


def flat(m: State, reads: list[Any], wanted: Places, high: bool = False) -> Lanes:
    """The data of the lanes that access memory: uint32 [words, lanes that do]."""
    rows = [np.broadcast_to(read(m), (m.n, m.lanes)).reshape(-1)[wanted] for read in reads]
    values = np.stack(rows)
    return values >> U32(16) if high else values
