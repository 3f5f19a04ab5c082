"""Instructions that read and write LDS, the memory that a workgroup shares."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...assembly import Instruction
from ..primitives import primitive
from ..state import Bools, Lanes, State
from ..target import IsaTarget, UnknownError
from .access import AccessError, Places, active, flat, high_half, low_half, narrow_load, put
from .alu import Build, Built, effect
from .atomics import LDS_ATOMICS, Atomic, in_turn
from .operands import raw_reader, register

U32, I64 = np.uint32, np.int64

# A place that no LDS has: hardware drops what is written there, and Triton masks lanes by it.
MASKED_LANE = 0x7FFFFFFF


def _lds_places(m: State, wanted: Places, start: Places, size: int) -> Places:
    """Byte numbers in the array that holds every workgroup's LDS."""
    limit = m.shape.lds_bytes
    bad = (start < 0) | (start + size > limit)
    if bad.any():
        where = int(np.argmax(bad))
        wave, lane = divmod(int(wanted[where]), m.lanes)
        at = int(start[where])
        reach = max(-at, at + size - limit)
        text = f"{size} bytes at LDS byte {at}, {reach} bytes outside the {limit} allocated"
        raise AccessError(wave, lane, text)
    return m.workgroup[m.sel][wanted // m.lanes] * limit + start


@primitive("lds_load")
def _lds_load(m: State, wanted: Places, start: Places, size: int) -> Lanes:
    """uint32 [words, lanes that do]; 1 and 2 bytes are zero-extended."""
    at = _lds_places(m, wanted, start, size)
    if m.races is not None:
        m.races.lds_load(m, wanted, at, size)
    return _loaded(m, at, size)


def _loaded(m: State, at: Places, size: int) -> Lanes:
    if size < 4:
        value = m.lds[at].astype(U32)
        return (value | (m.lds[at + 1].astype(U32) << 8) if size == 2 else value)[None]
    if not (at & 3).any():
        words = m.lds.view(U32)
        return np.stack([words[(at >> 2) + i] for i in range(size // 4)])
    return np.stack([_unaligned(m.lds, at + 4 * i) for i in range(size // 4)])


def _unaligned(data: Lanes, at: Places) -> Lanes:
    value = data[at].astype(U32)
    for byte in range(1, 4):
        value |= data[at + byte].astype(U32) << 8 * byte
    return value


@primitive("lds_store")
def lds_store(m: State, wanted: Places, start: Places, values: Lanes, size: int) -> None:
    at = _lds_places(m, wanted, start, size)
    if m.races is not None:
        m.races.lds_store(m, wanted, at, values, size)
    _stored(m, at, values, size)


def _stored(m: State, at: Places, values: Lanes, size: int) -> None:
    if size >= 4 and not (at & 3).any():
        words = m.lds.view(U32)
        for i in range(size // 4):
            words[(at >> 2) + i] = values[i]
        return
    for byte in range(size):
        m.lds[at + byte] = values[byte // 4] >> U32(8 * (byte % 4))


def _lds_start(
    ins: Instruction, target: IsaTarget, place: int
) -> Callable[[State, Places], Places]:
    read = raw_reader(ins.operands[place], target)

    def start(m: State, wanted: Places) -> Places:
        return np.broadcast_to(read(m), (m.n, m.lanes)).reshape(-1)[wanted].astype(I64)

    return start


def _lds_offsets(ins: Instruction, size: int, count: int) -> list[int]:
    """Byte offsets of an access: one plain offset, or two in units of the size (or 64 of them)."""
    if count == 1:
        return [ins.number("offset")]
    unit = size * (64 if "st64" in ins.mnemonic or "stride64" in ins.mnemonic else 1)
    return [unit * ins.number("offset0"), unit * ins.number("offset1")]


def _lds_read(size: int, count: int = 1) -> Build:
    def build(ins: Instruction, target: IsaTarget) -> Built:
        _, change, merge = narrow_load(ins.mnemonic)
        start, out = _lds_start(ins, target, 1), register(ins.operands[0], target)
        offsets, words = _lds_offsets(ins, size, count), max(size // 4, 1)
        if ins.operands[0].half:
            merge = high_half if ins.operands[0].half == "h" else low_half

        def step(m: State) -> None:
            wanted = active(m)
            at = start(m, wanted)
            loaded = [_lds_load(m, wanted, at + offset, size) for offset in offsets]
            for part, values in enumerate(loaded):
                for word in range(words):
                    put(m, out + part * words + word, wanted, change(values[word]), merge)

        return effect(step)

    return build


def _unmasked(ins: Instruction, target: IsaTarget) -> Callable[[State], Bools] | None:
    """The lanes of a store that :data:`MASKED_LANE` does not mask; None: nothing is masked so.

    Triton does it on gfx1250, where a store stands beside an asynchronous load and writes what the
    lanes get that the load leaves out.
    """
    if not target.is_cdna5:
        return None
    place = raw_reader(ins.operands[0], target)
    return lambda m: np.broadcast_to(place(m), (m.n, m.lanes)) != U32(MASKED_LANE)


def _lds_write(size: int, count: int = 1) -> Build:
    def build(ins: Instruction, target: IsaTarget) -> Built:
        unmasked = _unmasked(ins, target)
        start, offsets = _lds_start(ins, target, 0), _lds_offsets(ins, size, count)
        words = max(size // 4, 1)
        data = ins.operands[1 : 1 + count]
        high = data[0].half == "h" or "_d16_hi" in ins.mnemonic
        reads = [[raw_reader(o, target, word=i) for i in range(words)] for o in data]

        def step(m: State) -> None:
            wanted = active(m, None if unmasked is None else unmasked(m))
            at = start(m, wanted)
            for read, offset in zip(reads, offsets, strict=True):
                lds_store(m, wanted, at + offset, flat(m, read, wanted, high), size)

        return effect(step)

    return build


def _lds_transposed(bits: int) -> Build:
    """``ds_read_b64_tr_b*`` (gfx950): 16 lanes read a tile and get it with rows as columns.

    Each lane reads 8 bytes; 16 lanes hold a matrix of 16 rows (lanes) x 64/bits columns. Lane l's
    result element j is that of flat position: element l of the 16-element row j of the same block
    of 16 x (64/bits) elements seen as (64/bits) rows of 16.
    """

    def turned(elements: Lanes, _waves: int) -> Lanes:
        return elements.reshape(-1, 64 // bits, 16).transpose(0, 2, 1)

    return _lds_turned(bits, 8, turned)


def _lds_columns(bits: int) -> Build:
    """``ds_load_tr16_b128``, ``ds_load_tr8_b64`` (gfx1250): eight lanes get each other's columns.

    Every lane reads eight elements; of a group of eight lanes the lane of number i gets the
    elements i, in the order of the lanes. Such lanes are neighbours, but where elements have 8
    bits: there lanes 0 to 3 and 8 to 11 are read for lanes 0 to 7, and the others for 8 to 15.
    Source: test/Conversion/amd/ds_transpose_gfx1250.mlir and MemoryOpToLLVM.cpp of
    https://github.com/triton-lang/triton.
    """
    lane = np.arange(32)[:, None]
    place = np.arange(8)
    if bits == 16:
        source = lane // 8 * 8 + place
    else:
        source = lane // 16 * 16 + lane // 8 % 2 * 4 + place % 4 + place // 4 * 8

    def turned(elements: Lanes, waves: int) -> Lanes:
        return elements.reshape(waves, 32, 8)[:, source, lane % 8]

    return _lds_turned(bits, bits, turned)


def _lds_turned(bits: int, size: int, turned: Callable[[Lanes, int], Lanes]) -> Build:
    """A load of ``size`` bytes a lane whose elements go to other lanes.

    ``turned``: from the elements [lanes, elements] of so many waves to each lane's own, in order.
    """
    kind = {16: np.uint16, 8: np.uint8}[bits]

    def build(ins: Instruction, target: IsaTarget) -> Built:
        start, out = _lds_start(ins, target, 1), register(ins.operands[0], target)
        offset = ins.number("offset")

        def step(m: State) -> None:
            if m.exec is not None:
                raise UnknownError("a transposing LDS read with lanes off")
            wanted = active(m)
            loaded = _lds_load(m, wanted, start(m, wanted) + offset, size)
            own = turned(np.ascontiguousarray(loaded.T).view(kind), m.n)
            words = np.ascontiguousarray(own).reshape(len(wanted), -1).view(U32)
            for word in range(size // 4):
                put(m, out + word, wanted, words[:, word], None)

        return effect(step)

    return build


def _lds_atomic(atomic: Atomic, returning: bool) -> Build:
    def build(ins: Instruction, target: IsaTarget) -> Built:
        place = 1 if returning else 0
        start, offset = _lds_start(ins, target, place), ins.number("offset")
        words = atomic.words
        data = list(ins.operands[place + 1 :])
        if "cmpst_" in ins.mnemonic:
            data.reverse()  # what is compared with comes first, until RDNA3
        reads = [raw_reader(o, target, word=i) for o in data for i in range(words)]
        out = register(ins.operands[0], target)

        def step(m: State) -> None:
            wanted = active(m)
            at = start(m, wanted) + offset
            old = _changed_in_turn(m, atomic, wanted, at, flat(m, reads, wanted))
            if returning:
                for word in range(words):
                    put(m, out + word, wanted, old[word], None)

        return effect(step)

    return build


def _lds_exchange(bits: int) -> Build:
    """Exchanges at two places, as :func:`_lds_write` writes them; the old values come back."""
    atomic = LDS_ATOMICS[f"storexchg_b{bits}"]

    def build(ins: Instruction, target: IsaTarget) -> Built:
        start, out = _lds_start(ins, target, 1), register(ins.operands[0], target)
        offsets, words = _lds_offsets(ins, atomic.size, 2), atomic.words
        reads = [
            [raw_reader(data, target, word=i) for i in range(words)] for data in ins.operands[2:4]
        ]

        def step(m: State) -> None:
            wanted = active(m)
            first = start(m, wanted)
            for part, (read, offset) in enumerate(zip(reads, offsets, strict=True)):
                old = _changed_in_turn(m, atomic, wanted, first + offset, flat(m, read, wanted))
                for word in range(words):
                    put(m, out + part * words + word, wanted, old[word], None)

        return effect(step)

    return build


def _changed_in_turn(
    m: State, atomic: Atomic, wanted: Places, start: Places, values: Lanes
) -> Lanes:
    """Does an atomic operation, lane after lane; the old values."""
    at = _lds_places(m, wanted, start, atomic.size)
    if m.races is not None:
        m.races.lds_atomic(m, wanted, at, atomic.size)
    return in_turn(
        atomic,
        at,
        values,
        lambda now: _loaded(m, at[now], atomic.size),
        lambda now, after: _stored(m, at[now], after, atomic.size),
    )


def _lds() -> dict[str, Build]:
    table: dict[str, Build] = {}
    for bits in (32, 64, 96, 128):
        size = bits // 8
        for read, write in (("ds_read", "ds_write"), ("ds_load", "ds_store")):
            table[f"{read}_b{bits}"] = _lds_read(size)
            table[f"{write}_b{bits}"] = _lds_write(size)
        for old, new in (("2", "_2addr"), ("2st64", "_2addr_stride64")):
            if bits < 96:
                table[f"ds_read{old}_b{bits}"] = _lds_read(size, 2)
                table[f"ds_load{new}_b{bits}"] = _lds_read(size, 2)
                table[f"ds_write{old}_b{bits}"] = _lds_write(size, 2)
                table[f"ds_store{new}_b{bits}"] = _lds_write(size, 2)
    for name in ("ds_read", "ds_load"):
        for kind in ("u8", "i8", "u8_d16", "u8_d16_hi", "i8_d16", "i8_d16_hi"):
            table[f"{name}_{kind}"] = _lds_read(1)
        for kind in ("u16", "i16", "u16_d16", "u16_d16_hi"):
            table[f"{name}_{kind}"] = _lds_read(2)
    for name in ("ds_write", "ds_store"):
        for kind, size in {"b8": 1, "b16": 2, "b8_d16_hi": 1, "b16_d16_hi": 2}.items():
            table[f"{name}_{kind}"] = _lds_write(size)
    for name, atomic in LDS_ATOMICS.items():
        operation, _, kind = name.rpartition("_")
        table[f"ds_{operation}_rtn_{kind}"] = _lds_atomic(atomic, returning=True)
        if "xchg" not in name:
            table[f"ds_{name}"] = _lds_atomic(atomic, returning=False)
    table["ds_read_b64_tr_b16"] = _lds_transposed(16)
    table["ds_read_b64_tr_b8"] = _lds_transposed(8)
    table["ds_load_tr16_b128"] = _lds_columns(16)
    table["ds_load_tr8_b64"] = _lds_columns(8)
    return table


LDS: dict[str, Build] = {
    **_lds(),
    **{
        f"ds_{name}_rtn_b{bits}": _lds_exchange(bits)
        for name in ("wrxchg2", "wrxchg2st64", "storexchg_2addr", "storexchg_2addr_stride64")
        for bits in (32, 64)
    },
}
