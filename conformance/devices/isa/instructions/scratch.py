"""Instructions that read and write scratch: a wave's private memory, where spilled registers go.

gfx90a has none of its own: there, buffer instructions reach it through a descriptor that the launch
hands over, each lane its own bytes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ...assembly import Instruction, Operand
from ..state import Lanes, State
from ..target import IsaTarget, UnknownError
from .access import AccessError, active, flat, high_half, low_half, narrow_load, put
from .alu import Build, Built, effect
from .operands import raw_reader, register, scalar_reader

U32 = np.uint32
# The buffer descriptor of scratch that a launch hands over where a target addresses scratch by one:
# it lies at an address that no tensor has.
PRIVATE_SEGMENT = (0, 0x5C5C, 0xFFFFFFFF, 0x00E00000)
_SIZES = {"": 1, "x2": 2, "x3": 3, "x4": 4}


def _scratch(words: int, is_load: bool) -> Build:
    def build(ins: Instruction, target: IsaTarget) -> Built:
        places = ins.operands[1:] if is_load else (ins.operands[0], *ins.operands[2:])
        data = register(ins.operands[0] if is_load else ins.operands[1], target)
        lane, base = places[0], places[1] if len(places) > 1 else Operand("off")
        if not lane.is_off:
            raise UnknownError("scratch addressed by lane")
        start = None if base.is_off else base.index
        offset = ins.number("offset")

        def step(m: State) -> None:
            at = offset
            if start is not None:
                values = m.s(start)
                if (values != values[0]).any():
                    raise UnknownError("scratch addressed by wave")
                at += int(values[0])
            if at % 4 or at < 0 or at + 4 * words > m.shape.scratch_bytes:
                raise AccessError(0, None, f"scratch byte {at} of {m.shape.scratch_bytes}")
            for word in range(words):
                if is_load:
                    m.set_v(data + word, m.scratch[at // 4 + word][m.sel])
                else:
                    _scratch_store(m, at // 4 + word, m.v(data + word))

        return effect(step)

    return build


def _scratch_half(is_load: bool) -> Build:
    """Half a register; the place in memory may be either half of a word."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        data = register(ins.operands[0] if is_load else ins.operands[1], target)
        high = "_hi" in ins.mnemonic
        offset = ins.number("offset")
        if any(not o.is_off for o in ins.operands if o.file in ("", "s")):
            raise UnknownError("16 bits of scratch addressed by a register")
        join = high_half if high else low_half
        shift = U32(8 * (offset % 4))

        def step(m: State) -> None:
            if offset % 2 or offset + 2 > m.shape.scratch_bytes:
                raise AccessError(0, None, f"scratch byte {offset} of {m.shape.scratch_bytes}")
            word = m.scratch[offset // 4][m.sel]
            if is_load:
                m.set_v(data, join((word >> shift) & U32(0xFFFF), m.v(data)))
                return
            half = (m.v(data) >> U32(16 if high else 0)) & U32(0xFFFF)
            _scratch_store(m, offset // 4, (word & ~(U32(0xFFFF) << shift)) | (half << shift))

        return effect(step)

    return build


def _scratch_store(m: State, slot: int, value: Lanes) -> None:
    rows = m.scratch[slot][m.sel]
    m.scratch[slot][m.sel] = value if m.exec is None else np.where(m.exec, value, rows)


# -- through a buffer descriptor -------------------------------------------------------------------
Numbers = npt.NDArray[np.int64]


def is_private(m: State, resource: int) -> bool:
    """Whether the descriptor in scalar registers from ``resource`` on is that of scratch."""
    return m.shape.scratch_bytes > 0 and bool((m.s(resource + 1) == U32(PRIVATE_SEGMENT[1])).all())


def _private_place(
    ins: Instruction, target: IsaTarget, size: int
) -> Callable[..., tuple[Numbers, ...]]:
    """The lanes that access scratch, and for each its wave, its number in it, and the byte."""
    vaddr, _, soffset = ins.operands[1:4]
    add, more = scalar_reader(soffset, "u32"), ins.number("offset")
    by_lane = raw_reader(vaddr, target) if "offen" in ins.modifiers else None

    def place(m: State) -> tuple[Numbers, ...]:
        at = np.full((m.n, m.lanes), more, dtype=np.int64) + add(m).astype(np.int64)[:, None]
        if by_lane is not None:
            at = at + by_lane(m)
        wanted = active(m)
        byte = at.reshape(-1)[wanted]
        wrong = (byte < 0) | (byte + size > m.shape.scratch_bytes) | (byte % min(size, 4) != 0)
        if wrong.any():
            wave, lane = divmod(int(wanted[np.argmax(wrong)]), m.lanes)
            reached = int(byte[np.argmax(wrong)])
            raise AccessError(wave, lane, f"scratch byte {reached} of {m.shape.scratch_bytes}")
        waves = np.arange(m.shape.waves)[m.sel]
        return wanted, waves[wanted // m.lanes], wanted % m.lanes, byte

    return place


def private_load(words: int) -> Build:
    """``buffer_load_dword`` and its like."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        place, out = _private_place(ins, target, 4 * words), register(ins.operands[0], target)

        def step(m: State) -> None:
            wanted, wave, lane, byte = place(m)
            loaded = [m.scratch[byte // 4 + word, wave, lane] for word in range(words)]
            for word, value in enumerate(loaded):
                put(m, out + word, wanted, value, None)

        return effect(step)

    return build


def private_load_narrow(ins: Instruction, target: IsaTarget) -> Built:
    """``buffer_load_ubyte`` and its like."""
    size, change, merge = narrow_load(ins.mnemonic)
    place, out = _private_place(ins, target, size), register(ins.operands[0], target)

    def step(m: State) -> None:
        wanted, wave, lane, byte = place(m)
        word = m.scratch[byte // 4, wave, lane]
        part = (word >> (byte % 4 * 8).astype(U32)) & U32((1 << 8 * size) - 1)
        put(m, out, wanted, change(part), merge)

    return effect(step)


def private_store(size: int) -> Build:
    """``buffer_store_dword``, ``_short`` and ``_byte`` and their like; ``size`` in bytes."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        place = _private_place(ins, target, size)
        reads = [raw_reader(ins.operands[0], target, word=i) for i in range(max(size // 4, 1))]
        high = "_d16_hi" in ins.mnemonic

        def step(m: State) -> None:
            wanted, wave, lane, byte = place(m)
            values = flat(m, reads, wanted, high)
            if size >= 4:
                for number, value in enumerate(values):
                    m.scratch[byte // 4 + number, wave, lane] = value
                return
            shift = (byte % 4 * 8).astype(U32)
            mask = U32((1 << 8 * size) - 1)
            word = m.scratch[byte // 4, wave, lane]
            part = (values[0] & mask) << shift
            m.scratch[byte // 4, wave, lane] = (word & ~(mask << shift)) | part

        return effect(step)

    return build


def or_private(public: Build, private: Build) -> Build:
    """A buffer instruction that may mean scratch: the descriptor it names says so when it runs."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        there = public(ins, target)
        if not target.is_gfx9 or "lds" in ins.modifiers:
            return there
        here, resource = private(ins, target), ins.operands[2].index

        def step(m: State) -> None:
            (here if is_private(m, resource) else there).compute(m)

        return effect(step)

    return build


def _scratches() -> dict[str, Build]:
    table: dict[str, Build] = {}
    for suffix, words in _SIZES.items():
        for name in (f"dword{suffix}", f"b{32 * words}"):
            table[f"scratch_load_{name}"] = _scratch(words, is_load=True)
            table[f"scratch_store_{name}"] = _scratch(words, is_load=False)
    for name in ("d16_b16", "d16_hi_b16", "short_d16", "short_d16_hi"):
        table[f"scratch_load_{name}"] = _scratch_half(is_load=True)
    for name in ("b16", "d16_hi_b16", "short", "short_d16_hi"):
        table[f"scratch_store_{name}"] = _scratch_half(is_load=False)
    return table


SCRATCH: dict[str, Build] = _scratches()
