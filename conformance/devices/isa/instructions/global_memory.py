"""Instructions that read and write global memory, also straight into LDS, and its atomics.

Buffer descriptors: https://llvm.org/docs/AMDGPUUsage.html#buffer-resources
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...assembly import Instruction, Operand
from ..state import M0, State
from ..target import IsaTarget, UnknownError
from .access import (
    Places,
    active,
    checked,
    described,
    flat,
    high_half,
    low_half,
    narrow_load,
    put,
)
from .alu import Build, Built, effect
from .atomics import GLOBAL_ATOMICS, Atomic, in_turn
from .lds import MASKED_LANE, lds_store
from .operands import raw_reader, register, scalar_reader
from .scratch import or_private, private_load, private_load_narrow, private_store

U32, I32, I64 = np.uint32, np.int32, np.int64

Address = Callable[[State], tuple[Places, Places]]


def _buffer_address(ins: Instruction, target: IsaTarget, first: int, size: int) -> Address:
    """Lanes that the descriptor lets through, and their addresses.

    On gfx9 the limit of a buffer without a stride counts the scalar offset too: what is at or past
    "num_records - sgpr_offset" is out of range, as AMD's manuals of GCN and CDNA say of range
    checking. aiter's fmha_v3 counts on it: its last tile of keys ends past them.
    """
    vaddr, resource, soffset = ins.operands[first : first + 3]
    flags = ("offen", "idxen")
    if resource.count != 4 or "idxen" in ins.modifiers or "addr64" in ins.modifiers:
        raise UnknownError(f"buffer addressing of {ins.text!r}")
    add, more = scalar_reader(soffset, "u32"), ins.number("offset")
    use_lane = any(flag in ins.modifiers for flag in flags)
    lane_offset = raw_reader(vaddr, target) if use_lane else None
    base, counted = resource.index, target.is_gfx9

    def address(m: State) -> tuple[Places, Places]:
        start, limit = (value[:, None] for value in described(m, base, target))
        offset = np.full((m.n, m.lanes), more, dtype=I64)
        if lane_offset is not None:
            offset += lane_offset(m)
        scalar = add(m)[:, None]
        reach = offset + size + (scalar if counted else 0)
        wanted = active(m, reach <= limit)
        places = (start + offset + scalar).reshape(-1)
        return wanted, places[wanted]

    return address


def _global_address(ins: Instruction, target: IsaTarget, first: int, size: int) -> Address:
    """A pair of registers, or a scalar pair plus a register, plus a signed offset.

    On gfx1250 the register has a sign, and with ``scale_offset`` counts accesses of this size:
    ``hasSignedGVSOffset`` and ``hasScaleOffset`` in llvm/lib/Target/AMDGPU/GCNSubtarget.h.
    """
    vaddr = ins.operands[first]
    base = ins.operands[first + 1] if len(ins.operands) > first + 1 else Operand("off")
    more = ins.number("offset")
    low = raw_reader(vaddr, target)
    high = raw_reader(vaddr, target, word=1) if base.is_off else None
    start = None if base.is_off else base.index
    scale = size if "scale_offset" in ins.modifiers else 1

    def address(m: State) -> tuple[Places, Places]:
        place = np.full((m.n, m.lanes), more, dtype=I64)
        if high is not None:
            place += low(m) | (high(m).astype(I64) << 32)
        else:
            part = low(m).view(I32) if target.is_cdna5 else low(m)
            place += part.astype(I64) * scale
        if start is not None:
            place += m.s64(start).view(I64)[:, None]
        wanted = active(m)
        return wanted, place.reshape(-1)[wanted]

    return address


def _address(ins: Instruction, target: IsaTarget, first: int, size: int) -> Address:
    if ins.mnemonic.startswith("buffer_"):
        return _buffer_address(ins, target, first, size)
    return _global_address(ins, target, first, size)


def _load(words: int) -> Build:
    def build(ins: Instruction, target: IsaTarget) -> Built:
        if "lds" in ins.modifiers:
            return _load_to_lds(ins, target, words, 0)
        address = _address(ins, target, 1, 4 * words)
        out = register(ins.operands[0], target)

        def step(m: State) -> None:
            wanted, places = address(m)
            loaded = checked(m, wanted, lambda: m.memory.load(places, words))
            if m.races is not None:
                m.races.global_load(m, wanted, places, 4 * words)
            for word in range(words):
                put(m, out + word, wanted, loaded[word], None)

        return effect(step)

    return build


def _load_narrow(ins: Instruction, target: IsaTarget) -> Built:
    size, change, merge = narrow_load(ins.mnemonic)
    address = _address(ins, target, 1, size)
    out = register(ins.operands[0], target)
    if ins.operands[0].half:
        merge = high_half if ins.operands[0].half == "h" else low_half

    def step(m: State) -> None:
        wanted, places = address(m)
        loaded = checked(m, wanted, lambda: m.memory.load_small(places, size))
        if m.races is not None:
            m.races.global_load(m, wanted, places, size)
        put(m, out, wanted, change(loaded), merge)

    return effect(step)


def _load_async(words: int) -> Build:
    """``global_load_async_to_lds`` (gfx1250): each lane says itself where in LDS its words go.

    Triton masks a lane by a place that no LDS has, ``MASKED_LANE``: what would be written there is
    dropped. Any other place out of range stops the run.
    """

    def build(ins: Instruction, target: IsaTarget) -> Built:
        if ins.number("offset"):
            raise UnknownError(f"an offset of {ins.mnemonic}")
        address = _global_address(ins, target, 1, 4 * words)
        place = raw_reader(ins.operands[0], target)

        def step(m: State) -> None:
            wanted, places = address(m)
            start = np.broadcast_to(place(m), (m.n, m.lanes)).reshape(-1)[wanted].astype(I64)
            goes = start != MASKED_LANE
            wanted, places, start = wanted[goes], places[goes], start[goes]
            loaded = checked(m, wanted, lambda: m.memory.load(places, words))
            if m.races is not None:
                m.races.global_load(m, wanted, places, 4 * words)
            lds_store(m, wanted, start, loaded, 4 * words)

        return effect(step)

    return build


def _load_to_lds(ins: Instruction, target: IsaTarget, words: int, first: int) -> Built:
    """Loads straight into LDS: lane l's words go to M0 + offset + l * size."""
    address = _address(ins, target, first, 4 * words)
    offset = ins.number("offset")

    def step(m: State) -> None:
        wanted, places = address(m)
        loaded = checked(m, wanted, lambda: m.memory.load(places, words))
        if m.races is not None:
            m.races.global_load(m, wanted, places, 4 * words)
        running = active(m)
        data = np.zeros((words, m.n * m.lanes), dtype=U32)
        data[:, wanted] = loaded
        wave, lane = running // m.lanes, running % m.lanes
        start = lane * 4 * words + offset + m.s(M0)[wave]
        lds_store(m, running, start, data[:, running], 4 * words)

    return effect(step)


def _store(size: int) -> Build:
    def build(ins: Instruction, target: IsaTarget) -> Built:
        is_buffer = ins.mnemonic.startswith("buffer_")
        if is_buffer:
            address = _buffer_address(ins, target, 1, size)
        else:
            order = (ins.operands[0], *ins.operands[2:])
            address = _global_address(replace(ins, operands=order), target, 0, size)
        data = ins.operands[0 if is_buffer else 1]
        high = data.half == "h" or "_d16_hi" in ins.mnemonic
        reads = [raw_reader(data, target, word=i) for i in range(max(size // 4, 1))]

        def step(m: State) -> None:
            wanted, places = address(m)
            values = flat(m, reads, wanted, high)
            if m.races is not None:
                checked(m, wanted, lambda: m.memory.check(places, size))
                m.races.global_store(m, wanted, places, values, size)
            checked(m, wanted, lambda: m.memory.store(places, values, size))

        return effect(step)

    return build


def _returns(ins: Instruction) -> bool:
    """Whether an atomic gives the old value back: glc or sc0, or gfx12's temporal hint."""
    hint = ins.modifiers.get("th", "")
    return "glc" in ins.modifiers or "sc0" in ins.modifiers or "ATOMIC_RETURN" in hint


def _atomic(atomic: Atomic) -> Build:
    """Changes memory, and gives the old value back where the instruction asks for it."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        returning, is_buffer = _returns(ins), ins.mnemonic.startswith("buffer_")
        words = atomic.words
        if is_buffer:
            data, address = ins.operands[0], _buffer_address(ins, target, 1, atomic.size)
            out = register(data, target)
        else:
            given = ins.operands[1:] if returning else ins.operands
            data = given[1]
            order = (given[0], *given[2:])
            address = _global_address(replace(ins, operands=order), target, 0, atomic.size)
            out = register(ins.operands[0], target)
        count = 2 * words if atomic.change is None else words
        reads = [raw_reader(data, target, word=i) for i in range(count)]

        def step(m: State) -> None:
            wanted, places = address(m)
            values = flat(m, reads, wanted)
            if m.races is not None:
                checked(m, wanted, lambda: m.memory.check(places, atomic.size))
                m.races.global_atomic(m, wanted, places, atomic.size)
            old = checked(
                m,
                wanted,
                lambda: in_turn(
                    atomic,
                    places,
                    values,
                    lambda now: m.memory.load(places[now], words),
                    lambda now, after: m.memory.store(places[now], after, atomic.size),
                ),
            )
            if returning:
                for word in range(words):
                    put(m, out + word, wanted, old[word], None)

        return effect(step)

    return build


# -- the table -------------------------------------------------------------------------------------
_SIZES = {"": 1, "x2": 2, "x3": 3, "x4": 4}
_NARROW = [
    "ubyte",
    "sbyte",
    "ushort",
    "sshort",
    "short_d16",
    "short_d16_hi",
    "ubyte_d16",
    "ubyte_d16_hi",
    "sbyte_d16",
    "sbyte_d16_hi",
    "u8",
    "i8",
    "u16",
    "i16",
    "d16_b16",
    "d16_hi_b16",
    "d16_u8",
    "d16_hi_u8",
    "d16_i8",
    "d16_hi_i8",
]
_STORES = {1: "byte b8 byte_d16_hi d16_hi_b8", 2: "short b16 short_d16_hi d16_hi_b16"}


def _spaces() -> dict[str, Build]:
    table: dict[str, Build] = {}
    for space in ("buffer", "global", "flat"):
        for suffix, words in _SIZES.items():
            for name in (f"dword{suffix}", f"b{32 * words}"):
                table[f"{space}_load_{name}"] = _load(words)
                table[f"{space}_store_{name}"] = _store(4 * words)
                table[f"{space}_load_lds_{name}"] = _to_lds(words)
        for name in _NARROW:
            table[f"{space}_load_{name}"] = _load_narrow
        for size, names in _STORES.items():
            for name in names.split():
                table[f"{space}_store_{name}"] = _store(size)
        for name, atomic in GLOBAL_ATOMICS.items():
            table[f"{space}_atomic_{name}"] = _atomic(atomic)
    for suffix, words in _SIZES.items():
        load, store = f"buffer_load_dword{suffix}", f"buffer_store_dword{suffix}"
        table[load] = or_private(table[load], private_load(words))
        table[store] = or_private(table[store], private_store(4 * words))
    for name in _NARROW:
        load = f"buffer_load_{name}"
        table[load] = or_private(table[load], private_load_narrow)
    for name, size in {"byte": 1, "byte_d16_hi": 1, "short": 2, "short_d16_hi": 2}.items():
        store = f"buffer_store_{name}"
        table[store] = or_private(table[store], private_store(size))
    for words in (1, 2, 4):
        table[f"global_load_async_to_lds_b{32 * words}"] = _load_async(words)
    return table


def _to_lds(words: int) -> Build:
    return lambda ins, target: _load_to_lds(ins, target, words, 0)


GLOBAL: dict[str, Build] = _spaces()
