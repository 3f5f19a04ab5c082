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
from ..target import IsaTarget
from .access import AccessError, active, flat, high_half, low_half, narrow_load, put
from .alu import Build, Built, Step, effect
from .operands import raw_reader, register, scalar_reader

U32 = np.uint32
# The buffer descriptor of scratch that a launch hands over where a target addresses scratch by one:
# it lies at an address that no tensor has.
PRIVATE_SEGMENT = (0, 0x5C5C, 0xFFFFFFFF, 0x00E00000)
_BYTE_LOADS = (
    "ubyte sbyte u8 i8 ubyte_d16 ubyte_d16_hi sbyte_d16 sbyte_d16_hi "
    "d16_u8 d16_i8 d16_hi_u8 d16_hi_i8"
)
_HALF_LOADS = "ushort sshort u16 i16 short_d16 short_d16_hi d16_b16 d16_hi_b16"
_SIZES = {"": 1, "x2": 2, "x3": 3, "x4": 4}


Numbers = npt.NDArray[np.int64]
Join = Callable[..., Lanes]
# Of the lanes that access scratch: their flat numbers, their waves, their numbers in those, bytes.
Place = Callable[[State], tuple[Numbers, Numbers, Numbers, Numbers]]


def _reached(m: State, at: Numbers, size: int) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Where lanes access their scratch, from the byte of each lane of the group: [n, lanes]."""
    wanted = active(m)
    byte = at.reshape(-1)[wanted]
    wrong = (byte < 0) | (byte + size > m.shape.scratch_bytes) | (byte % min(size, 4) != 0)
    if wrong.any():
        wave, lane = divmod(int(wanted[np.argmax(wrong)]), m.lanes)
        reached = int(byte[np.argmax(wrong)])
        raise AccessError(wave, lane, f"scratch byte {reached} of {m.shape.scratch_bytes}")
    waves = np.arange(m.shape.waves)[m.sel]
    return wanted, waves[wanted // m.lanes], wanted % m.lanes, byte


# -- scratch instructions ------------------------------------------------------------------------
def _address(ins: Instruction, is_load: bool) -> tuple[Operand, Operand]:
    """The lane's part of an address and the wave's, either of which may be off."""
    places = ins.operands[1:] if is_load else (ins.operands[0], *ins.operands[2:])
    return places[0], places[1] if len(places) > 1 else Operand("off")


def _scratch_place(ins: Instruction, target: IsaTarget, size: int, is_load: bool) -> Place:
    """A lane's register, a scalar register and an offset, as far as there are any, added up."""
    lane, base = _address(ins, is_load)
    more = ins.number("offset")
    by_lane = None if lane.is_off else raw_reader(lane, target)
    start = None if base.is_off else scalar_reader(base, "u32")

    def place(m: State) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        at = np.full((m.n, m.lanes), more, dtype=np.int64)
        if by_lane is not None:
            at = at + by_lane(m).view(np.int32)
        if start is not None:
            at = at + start(m).astype(np.int64)[:, None]
        return _reached(m, at, size)

    return place


def _scratch(words: int, is_load: bool) -> Build:
    """Whole words; at once for all lanes where they all access the same place of their own."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        lane, base = _address(ins, is_load)
        if lane.is_off and base.is_off:
            return effect(_fixed(ins, target, words, is_load))
        place = _scratch_place(ins, target, 4 * words, is_load)
        access = _load_at if is_load else _store_at
        return effect(access(ins, target, words, place))

    return build


def _fixed(ins: Instruction, target: IsaTarget, words: int, is_load: bool) -> Step:
    """A place that the instruction names by itself, which is how registers are spilled."""
    data, at = register(ins.operands[0 if is_load else 1], target), ins.number("offset")

    def step(m: State) -> None:
        _check_fixed(m, at, 4 * words)
        for word in range(words):
            if is_load:
                m.set_v(data + word, m.scratch[at // 4 + word][m.sel])
            else:
                _store_word(m, at // 4 + word, m.v(data + word))

    return step


def _scratch_narrow(size: int, is_load: bool) -> Build:
    """A byte or a half."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        lane, base = _address(ins, is_load)
        if lane.is_off and base.is_off:
            fixed = _fixed_load_of_part if is_load else _fixed_store_of_part
            return effect(fixed(ins, target, size))
        place = _scratch_place(ins, target, size, is_load)
        if is_load:
            return effect(_load_part_at(ins, target, place))
        return effect(_store_part_at(ins, target, size, place))

    return build


def _check_fixed(m: State, at: int, size: int) -> None:
    if at % min(size, 4) or at < 0 or at + size > m.shape.scratch_bytes:
        raise AccessError(0, None, f"scratch byte {at} of {m.shape.scratch_bytes}")


def _fixed_load_of_part(ins: Instruction, target: IsaTarget, size: int) -> Step:
    out, at = register(ins.operands[0], target), ins.number("offset")
    change, merge = _part_of_load(ins)
    shift, mask = U32(8 * (at % 4)), U32((1 << 8 * size) - 1)

    def step(m: State) -> None:
        _check_fixed(m, at, size)
        value = change((m.scratch[at // 4][m.sel] >> shift) & mask)
        m.set_v(out, value if merge is None else merge(value, m.v(out)))

    return step


def _fixed_store_of_part(ins: Instruction, target: IsaTarget, size: int) -> Step:
    data, at = register(_stored(ins), target), ins.number("offset")
    up = U32(16 if _stores_high(ins) else 0)
    shift, mask = U32(8 * (at % 4)), U32((1 << 8 * size) - 1)

    def step(m: State) -> None:
        _check_fixed(m, at, size)
        part = (m.v(data) >> up) & mask
        word = m.scratch[at // 4][m.sel]
        _store_word(m, at // 4, (word & ~(mask << shift)) | (part << shift))

    return step


def _store_word(m: State, slot: int, value: Lanes) -> None:
    rows = m.scratch[slot][m.sel]
    m.scratch[slot][m.sel] = value if m.exec is None else np.where(m.exec, value, rows)


# -- any place -------------------------------------------------------------------------------------
def _load_at(ins: Instruction, target: IsaTarget, words: int, place: Place) -> Step:
    out = register(ins.operands[0], target)

    def step(m: State) -> None:
        wanted, wave, lane, byte = place(m)
        loaded = [m.scratch[byte // 4 + word, wave, lane] for word in range(words)]
        for word, value in enumerate(loaded):
            put(m, out + word, wanted, value, None)

    return step


def _part_of_load(ins: Instruction) -> tuple[Callable[[Lanes], Lanes], Join | None]:
    """What is done to a loaded byte or half, and how it joins the old register."""
    _, change, merge = narrow_load(ins.mnemonic)
    if ins.operands[0].half:
        merge = high_half if ins.operands[0].half == "h" else low_half
    return change, merge


def _load_part_at(ins: Instruction, target: IsaTarget, place: Place) -> Step:
    size, _, _ = narrow_load(ins.mnemonic)
    change, merge = _part_of_load(ins)
    out = register(ins.operands[0], target)

    def step(m: State) -> None:
        wanted, wave, lane, byte = place(m)
        word = m.scratch[byte // 4, wave, lane]
        part = (word >> (byte % 4 * 8).astype(U32)) & U32((1 << 8 * size) - 1)
        put(m, out, wanted, change(part), merge)

    return step


def _stored(ins: Instruction) -> Operand:
    """The data of a store: a buffer instruction has it first, a scratch instruction second."""
    return ins.operands[0 if ins.mnemonic.startswith("buffer_") else 1]


def _stores_high(ins: Instruction) -> bool:
    return "_d16_hi" in ins.mnemonic or _stored(ins).half == "h"


def _store_at(ins: Instruction, target: IsaTarget, words: int, place: Place) -> Step:
    reads = [raw_reader(_stored(ins), target, word=i) for i in range(words)]

    def step(m: State) -> None:
        wanted, wave, lane, byte = place(m)
        for number, value in enumerate(flat(m, reads, wanted)):
            m.scratch[byte // 4 + number, wave, lane] = value

    return step


def _store_part_at(ins: Instruction, target: IsaTarget, size: int, place: Place) -> Step:
    operand = _stored(ins)
    reads = [raw_reader(operand, target)]
    high = _stores_high(ins)
    mask = U32((1 << 8 * size) - 1)

    def step(m: State) -> None:
        wanted, wave, lane, byte = place(m)
        part = flat(m, reads, wanted, high)[0] & mask
        shift = (byte % 4 * 8).astype(U32)
        word = m.scratch[byte // 4, wave, lane]
        m.scratch[byte // 4, wave, lane] = (word & ~(mask << shift)) | (part << shift)

    return step


# -- through a buffer descriptor -------------------------------------------------------------------
def is_private(m: State, resource: int) -> bool:
    """Whether the descriptor in scalar registers from ``resource`` on is that of scratch."""
    return m.shape.scratch_bytes > 0 and bool((m.s(resource + 1) == U32(PRIVATE_SEGMENT[1])).all())


def _private_place(ins: Instruction, target: IsaTarget, size: int) -> Place:
    vaddr, _, soffset = ins.operands[1:4]
    add, more = scalar_reader(soffset, "u32"), ins.number("offset")
    by_lane = raw_reader(vaddr, target) if "offen" in ins.modifiers else None

    def place(m: State) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        at = np.full((m.n, m.lanes), more, dtype=np.int64) + add(m).astype(np.int64)[:, None]
        if by_lane is not None:
            at = at + by_lane(m)
        return _reached(m, at, size)

    return place


def private_load(words: int) -> Build:
    """``buffer_load_dword`` and its like."""
    return lambda ins, target: effect(
        _load_at(ins, target, words, _private_place(ins, target, 4 * words))
    )


def private_load_narrow(ins: Instruction, target: IsaTarget) -> Built:
    """``buffer_load_ubyte`` and its like."""
    size, _, _ = narrow_load(ins.mnemonic)
    return effect(_load_part_at(ins, target, _private_place(ins, target, size)))


def private_store(size: int) -> Build:
    """``buffer_store_dword``, ``_short`` and ``_byte`` and their like; ``size`` in bytes."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        place = _private_place(ins, target, size)
        if size >= 4:
            return effect(_store_at(ins, target, size // 4, place))
        return effect(_store_part_at(ins, target, size, place))

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
    for size, loads, stores in (
        (1, _BYTE_LOADS, "byte b8 byte_d16_hi d16_hi_b8"),
        (2, _HALF_LOADS, "short b16 short_d16_hi d16_hi_b16"),
    ):
        for name in loads.split():
            table[f"scratch_load_{name}"] = _scratch_narrow(size, is_load=True)
        for name in stores.split():
            table[f"scratch_store_{name}"] = _scratch_narrow(size, is_load=False)
    return table


SCRATCH: dict[str, Build] = _scratches()
