"""Instructions that read and write global memory, LDS and scratch.

Addresses that a buffer descriptor rules out read as 0 and are not written, as on hardware: that is
how Triton masks. Every other address must lie in a buffer, in the workgroup's LDS, or in the
wave's scratch; one that does not stops the run. Sources: the memory chapters of AMD's manuals;
buffer descriptors: https://llvm.org/docs/AMDGPUUsage.html#buffer-resources
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..assembly import Instruction, Operand
from .alu import Build, Built, effect
from .memory import OutOfBoundsError
from .numbers import from_bf16, from_half, to_bf16, to_half
from .operands import Target, UnknownError, raw_reader, register, scalar_reader
from .state import M0, Bools, Lanes, State

U32, I64, F32 = np.uint32, np.int64, np.float32
Places = npt.NDArray[np.int64]


class AccessError(Exception):
    """An access outside what may be accessed, by one lane of one wave (of the group that runs)."""

    def __init__(self, wave: int, lane: int, text: str) -> None:
        super().__init__(text)
        self.wave, self.lane = wave, lane


# -- which lanes, which addresses ----------------------------------------------------------------
def _active(m: State, extra: Bools | None = None) -> Places:
    """Flat numbers (wave * lanes + lane) of the lanes that access memory."""
    mask = m.exec
    if extra is not None:
        mask = extra if mask is None else mask & extra
    if mask is None:
        return np.arange(m.n * m.lanes)
    return np.flatnonzero(mask)


def _checked(m: State, places: Places, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except OutOfBoundsError as error:
        wave, lane = divmod(int(places[error.where]), m.lanes)
        raise AccessError(wave, lane, str(error)) from None


Address = Callable[[State], tuple[Places, Places]]


def _buffer_address(ins: Instruction, target: Target, first: int, size: int) -> Address:
    """Lanes that the descriptor lets through, and their addresses."""
    vaddr, resource, soffset = ins.operands[first : first + 3]
    flags = ("offen", "idxen")
    if resource.count != 4 or "idxen" in ins.modifiers or "addr64" in ins.modifiers:
        raise UnknownError(f"buffer addressing of {ins.text!r}")
    add, more = scalar_reader(soffset, "u32"), ins.number("offset")
    use_lane = any(flag in ins.modifiers for flag in flags)
    lane_offset = raw_reader(vaddr, target) if use_lane else None
    base = resource.index

    def address(m: State) -> tuple[Places, Places]:
        start = (m.s64(base) & np.uint64(0xFFFFFFFFFFFF)).astype(I64)[:, None]
        limit = m.s(base + 2).astype(I64)[:, None]
        offset = np.full((m.n, m.lanes), more, dtype=I64)
        if lane_offset is not None:
            offset += lane_offset(m)
        wanted = _active(m, offset + size <= limit)
        places = (start + offset + add(m).astype(I64)[:, None]).reshape(-1)
        return wanted, places[wanted]

    return address


def _global_address(ins: Instruction, target: Target, first: int) -> Address:
    """A pair of registers, or a scalar pair plus a register, plus a signed offset."""
    vaddr = ins.operands[first]
    base = ins.operands[first + 1] if len(ins.operands) > first + 1 else Operand("off")
    more = ins.number("offset")
    low = None if vaddr.is_off else raw_reader(vaddr, target)
    high = raw_reader(vaddr, target, word=1) if base.is_off and low is not None else None
    start = None if base.is_off else base.index

    def address(m: State) -> tuple[Places, Places]:
        place = np.full((m.n, m.lanes), more, dtype=I64)
        if low is not None and high is not None:
            place += low(m).astype(I64) | (high(m).astype(I64) << 32)
        elif low is not None:
            place += low(m)
        if start is not None:
            place += m.s64(start).view(I64)[:, None]
        wanted = _active(m)
        return wanted, place.reshape(-1)[wanted]

    return address


def _address(ins: Instruction, target: Target, first: int, size: int) -> Address:
    if ins.mnemonic.startswith("buffer_"):
        return _buffer_address(ins, target, first, size)
    return _global_address(ins, target, first)


def _put(
    m: State, out: int, wanted: Places, value: Lanes, merge: Callable[..., Lanes] | None
) -> None:
    """Writes loaded values to the lanes that run; lanes the descriptor ruled out get 0."""
    if wanted.size == m.n * m.lanes:
        whole = value.reshape(m.n, m.lanes)
    else:
        flat = np.zeros(m.n * m.lanes, dtype=U32)
        flat[wanted] = value
        whole = flat.reshape(m.n, m.lanes)
    m.set_v(out, whole if merge is None else merge(whole, m.v(out)))


def _low_half(value: Lanes, old: Lanes) -> Lanes:
    return (value & U32(0xFFFF)) | (old & U32(0xFFFF0000))


def _high_half(value: Lanes, old: Lanes) -> Lanes:
    return (value << U32(16)) | (old & U32(0xFFFF))


def _extend(value: Lanes, bits: int) -> Lanes:
    up = 32 - bits
    return ((value << U32(up)).view(np.int32) >> np.int32(up)).view(U32)


def _finish(name: str) -> tuple[int, Callable[[Lanes], Lanes], Callable[..., Lanes] | None]:
    """Of a narrow load: bytes, what is done to the value, and how it joins the old register."""
    size = 1 if "byte" in name or name[-1] == "8" or "8_" in name else 2
    signed = "sbyte" in name or "sshort" in name or "_i8" in name or "_i16" in name
    merge = None
    if "d16" in name:
        merge = _high_half if name.endswith("_hi") else _low_half
    return size, (lambda v: _extend(v, 8 * size)) if signed else (lambda v: v), merge


# -- global memory -------------------------------------------------------------------------------
def _load(words: int) -> Build:
    def build(ins: Instruction, target: Target) -> Built:
        if "lds" in ins.modifiers:
            return _load_to_lds(ins, target, words, 0)
        address = _address(ins, target, 1, 4 * words)
        out = register(ins.operands[0], target)

        def step(m: State) -> None:
            wanted, places = address(m)
            loaded = _checked(m, wanted, lambda: m.memory.load(places, words))
            for word in range(words):
                _put(m, out + word, wanted, loaded[word], None)

        return effect(step)

    return build


def _load_narrow(ins: Instruction, target: Target) -> Built:
    size, change, merge = _finish(ins.mnemonic)
    address = _address(ins, target, 1, size)
    out = register(ins.operands[0], target)
    if ins.operands[0].half:
        merge = _high_half if ins.operands[0].half == "h" else _low_half

    def step(m: State) -> None:
        wanted, places = address(m)
        loaded = _checked(m, wanted, lambda: m.memory.load_small(places, size))
        _put(m, out, wanted, change(loaded), merge)

    return effect(step)


def _load_to_lds(ins: Instruction, target: Target, words: int, first: int) -> Built:
    """Loads straight into LDS: lane l's words go to M0 + offset + l * size."""
    address = _address(ins, target, first, 4 * words)
    offset = ins.number("offset")

    def step(m: State) -> None:
        wanted, places = address(m)
        loaded = _checked(m, wanted, lambda: m.memory.load(places, words))
        running = _active(m)
        data = np.zeros((words, m.n * m.lanes), dtype=U32)
        data[:, wanted] = loaded
        wave, lane = running // m.lanes, running % m.lanes
        start = m.s(M0).astype(I64)[wave] + offset + lane * 4 * words
        _lds_store(m, running, start, data[:, running], 4 * words)

    return effect(step)


def _store(size: int) -> Build:
    def build(ins: Instruction, target: Target) -> Built:
        is_buffer = ins.mnemonic.startswith("buffer_")
        data_at, first = (0, 1) if is_buffer else (1, 0)
        if is_buffer:
            address = _buffer_address(ins, target, 1, size)
        else:
            order = (ins.operands[0], *ins.operands[2:])
            address = _global_address(_reordered(ins, order), target, first)
        data = ins.operands[data_at]
        high = data.half == "h" or ins.mnemonic.endswith("_d16_hi")
        reads = [raw_reader(data, target, word=i) for i in range(max(size // 4, 1))]

        def step(m: State) -> None:
            wanted, places = address(m)
            values = _flat(m, reads, wanted, high)
            _checked(m, wanted, lambda: m.memory.store(places, values, size))

        return effect(step)

    return build


def _reordered(ins: Instruction, operands: tuple[Operand, ...]) -> Instruction:
    return Instruction(ins.mnemonic, operands, ins.modifiers, ins.line, ins.source, ins.text)


def _flat(m: State, reads: list[Any], wanted: Places, high: bool = False) -> Lanes:
    """The data of the lanes that access memory: uint32 [words, lanes that do]."""
    rows = [np.broadcast_to(read(m), (m.n, m.lanes)).reshape(-1)[wanted] for read in reads]
    values = np.stack(rows)
    return values >> U32(16) if high else values


_ATOMICS: dict[str, Callable[[Lanes, Lanes], Lanes]] = {
    "add": lambda old, new: old + new,
    "sub": lambda old, new: old - new,
    "swap": lambda _old, new: new,
    "and": lambda old, new: old & new,
    "or": lambda old, new: old | new,
    "xor": lambda old, new: old ^ new,
    "umax": np.maximum,
    "umin": np.minimum,
    "smax": lambda old, new: np.maximum(old.view(np.int32), new.view(np.int32)).view(U32),
    "smin": lambda old, new: np.minimum(old.view(np.int32), new.view(np.int32)).view(U32),
    "add_f32": lambda old, new: (old.view(F32) + new.view(F32)).view(U32),
    "pk_add_f16": lambda old, new: _pair_sum(old, new, from_half, to_half),
    "pk_add_bf16": lambda old, new: _pair_sum(old, new, from_bf16, to_bf16),
    "max_f32": lambda old, new: np.fmax(old.view(F32), new.view(F32)).view(U32),
    "min_f32": lambda old, new: np.fmin(old.view(F32), new.view(F32)).view(U32),
}


def _pair_sum(old: Lanes, new: Lanes, decode: Any, encode: Any) -> Lanes:
    low = encode(decode(old & U32(0xFFFF)) + decode(new & U32(0xFFFF)))
    high = encode(decode(old >> U32(16)) + decode(new >> U32(16)))
    return low | (high << U32(16))


def _returns(ins: Instruction) -> bool:
    """Whether an atomic gives the old value back: glc or sc0, or gfx12's temporal hint."""
    hint = ins.modifiers.get("th", "")
    return "glc" in ins.modifiers or "sc0" in ins.modifiers or "ATOMIC_RETURN" in hint


def _atomic(operation: str) -> Build:
    """One lane after another, as hardware guarantees no more than some order."""

    def build(ins: Instruction, target: Target) -> Built:
        returning, is_buffer = _returns(ins), ins.mnemonic.startswith("buffer_")
        compare = operation == "cmpswap"
        if is_buffer:
            data, address = ins.operands[0], _buffer_address(ins, target, 1, 4)
            out = register(data, target)
        else:
            given = ins.operands[1:] if returning else ins.operands
            data = given[1]
            address = _global_address(_reordered(ins, (given[0], *given[2:])), target, 0)
            out = register(ins.operands[0], target) if returning else 0
        reads = [raw_reader(data, target, word=i) for i in range(2 if compare else 1)]

        def step(m: State) -> None:
            wanted, places = address(m)
            values = _flat(m, reads, wanted)
            old = _checked(
                m, wanted, lambda: _in_turn(m, places, values, _ATOMICS.get(operation), compare)
            )
            if returning:
                _put(m, out, wanted, old, None)

        return effect(step)

    return build


def _in_turn(m: State, places: Places, values: Lanes, function: Any, compare: bool) -> Lanes:
    """Applies an atomic in the order of lanes; distinct addresses go at once."""
    old = np.empty(places.size, dtype=U32)
    left = np.arange(places.size)
    while left.size:
        _, first = np.unique(places[left], return_index=True)
        now = left[np.sort(first)]
        before = m.memory.load(places[now], 1)[0]
        if compare:
            after = np.where(before == values[1, now], values[0, now], before)
        else:
            after = function(before, values[0, now])
        m.memory.store(places[now], after[None], 4)
        old[now] = before
        left = np.setdiff1d(left, now, assume_unique=True)
    return old


# -- LDS -----------------------------------------------------------------------------------------
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


def _lds_load(m: State, wanted: Places, start: Places, size: int) -> Lanes:
    """uint32 [words, lanes that do]; 1 and 2 bytes are zero-extended."""
    at = _lds_places(m, wanted, start, size)
    if size < 4:
        value = m.lds[at].astype(U32)
        return (value | (m.lds[at + 1].astype(U32) << U32(8)) if size == 2 else value)[None]
    if not (at & 3).any():
        words = m.lds.view(U32)
        return np.stack([words[(at >> 2) + i] for i in range(size // 4)])
    return np.stack([_unaligned(m.lds, at + 4 * i) for i in range(size // 4)])


def _unaligned(data: Lanes, at: Places) -> Lanes:
    value = data[at].astype(U32)
    for byte in range(1, 4):
        value |= data[at + byte].astype(U32) << U32(8 * byte)
    return value


def _lds_store(m: State, wanted: Places, start: Places, values: Lanes, size: int) -> None:
    at = _lds_places(m, wanted, start, size)
    if size >= 4 and not (at & 3).any():
        words = m.lds.view(U32)
        for i in range(size // 4):
            words[(at >> 2) + i] = values[i]
        return
    for byte in range(size):
        m.lds[at + byte] = (values[byte // 4] >> U32(8 * (byte % 4))).astype(np.uint8)


def _lds_start(ins: Instruction, target: Target, place: int) -> Callable[[State, Places], Places]:
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
    def build(ins: Instruction, target: Target) -> Built:
        _, change, merge = _finish(ins.mnemonic) if size < 4 else (0, None, None)
        start, out = _lds_start(ins, target, 1), register(ins.operands[0], target)
        offsets, words = _lds_offsets(ins, size, count), max(size // 4, 1)
        if ins.operands[0].half:
            merge = _high_half if ins.operands[0].half == "h" else _low_half

        def step(m: State) -> None:
            wanted = _active(m)
            at = start(m, wanted)
            loaded = [_lds_load(m, wanted, at + offset, size) for offset in offsets]
            for part, values in enumerate(loaded):
                for word in range(words):
                    value = values[word] if change is None else change(values[word])
                    _put(m, out + part * words + word, wanted, value, merge)

        return effect(step)

    return build


def _lds_write(size: int, count: int = 1) -> Build:
    def build(ins: Instruction, target: Target) -> Built:
        start, offsets = _lds_start(ins, target, 0), _lds_offsets(ins, size, count)
        words = max(size // 4, 1)
        data = ins.operands[1 : 1 + count]
        high = data[0].half == "h" or ins.mnemonic.endswith("_d16_hi")
        reads = [[raw_reader(o, target, word=i) for i in range(words)] for o in data]

        def step(m: State) -> None:
            wanted = _active(m)
            at = start(m, wanted)
            for read, offset in zip(reads, offsets, strict=True):
                _lds_store(m, wanted, at + offset, _flat(m, read, wanted, high), size)

        return effect(step)

    return build


def _lds_transposed(bits: int) -> Build:
    """``ds_read_b64_tr_b*`` (gfx950): 16 lanes read a tile and get it with rows as columns.

    Each lane reads 8 bytes; 16 lanes hold a matrix of 16 rows (lanes) x 64/bits columns. Lane l's
    result element j is that of flat position: element l of the 16-element row j of the same block
    of 16 x (64/bits) elements seen as (64/bits) rows of 16.
    """
    per_lane = 64 // bits

    def build(ins: Instruction, target: Target) -> Built:
        start, out = _lds_start(ins, target, 1), register(ins.operands[0], target)
        offset = ins.number("offset")
        kind = {16: np.uint16, 8: np.uint8}[bits]

        def step(m: State) -> None:
            if m.exec is not None:
                raise UnknownError("a transposing LDS read with lanes off")
            wanted = _active(m)
            loaded = _lds_load(m, wanted, start(m, wanted) + offset, 8)
            elements = np.ascontiguousarray(loaded.T).view(kind)
            blocks = elements.reshape(-1, per_lane, 16).transpose(0, 2, 1)
            words = np.ascontiguousarray(blocks).reshape(-1, per_lane).view(U32)
            for word in (0, 1):
                _put(m, out + word, wanted, words[:, word], None)

        return effect(step)

    return build


def _lds_atomic(operation: str, returning: bool) -> Build:
    def build(ins: Instruction, target: Target) -> Built:
        place = 1 if returning else 0
        start, offset = _lds_start(ins, target, place), ins.number("offset")
        reads = [raw_reader(ins.operands[place + 1], target)]
        function = _ATOMICS[operation]

        def step(m: State) -> None:
            wanted = _active(m)
            at, values = start(m, wanted) + offset, _flat(m, reads, wanted)[0]
            old = np.empty(wanted.size, dtype=U32)
            for i in range(wanted.size):
                one, here = wanted[i : i + 1], at[i : i + 1]
                before = _lds_load(m, one, here, 4)
                old[i] = before[0, 0]
                _lds_store(m, one, here, function(before, values[i : i + 1]), 4)
            if returning:
                _put(m, register(ins.operands[0], target), wanted, old, None)

        return effect(step)

    return build


# -- scratch: a wave's private memory, where spilled registers go ---------------------------------
def _scratch(words: int, is_load: bool) -> Build:
    def build(ins: Instruction, target: Target) -> Built:
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
                raise AccessError(0, 0, f"scratch byte {at} of {m.shape.scratch_bytes}")
            for word in range(words):
                if is_load:
                    m.set_v(data + word, m.scratch[at // 4 + word][m.sel])
                else:
                    _scratch_store(m, at // 4 + word, m.v(data + word))

        return effect(step)

    return build


def _scratch_half(is_load: bool) -> Build:
    """Half a register; the place in memory may be either half of a word."""

    def build(ins: Instruction, target: Target) -> Built:
        data = register(ins.operands[0] if is_load else ins.operands[1], target)
        high = "_hi" in ins.mnemonic
        offset = ins.number("offset")
        if any(not o.is_off for o in ins.operands if o.file in ("", "s")):
            raise UnknownError("16 bits of scratch addressed by a register")
        join = _high_half if high else _low_half
        shift = U32(8 * (offset % 4))

        def step(m: State) -> None:
            if offset % 2 or offset + 2 > m.shape.scratch_bytes:
                raise AccessError(0, 0, f"scratch byte {offset} of {m.shape.scratch_bytes}")
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


# -- the table -------------------------------------------------------------------------------------
_SIZES = {"": 1, "x2": 2, "x3": 3, "x4": 4}
_ATOMIC_NAMES = {
    "add": "add_u32 add",
    "sub": "sub_u32 sub",
    "swap": "swap_b32 swap",
    "and": "and_b32 and",
    "or": "or_b32 or",
    "xor": "xor_b32 xor",
    "umax": "max_u32 umax",
    "umin": "min_u32 umin",
    "smax": "max_i32 smax",
    "smin": "min_i32 smin",
    "add_f32": "add_f32",
    "pk_add_f16": "pk_add_f16",
    "pk_add_bf16": "pk_add_bf16",
    "max_f32": "max_f32 fmax max_num_f32",
    "min_f32": "min_f32 fmin min_num_f32",
    "cmpswap": "cmpswap_b32 cmpswap",
}
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
    "u8",
    "i8",
    "u16",
    "i16",
    "d16_b16",
    "d16_hi_b16",
    "d16_u8",
    "d16_hi_u8",
]


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
        for size, names in {1: "byte b8", 2: "short b16 short_d16_hi d16_hi_b16"}.items():
            for name in names.split():
                table[f"{space}_store_{name}"] = _store(size)
        for operation, names in _ATOMIC_NAMES.items():
            for name in names.split():
                table[f"{space}_atomic_{name}"] = _atomic(operation)
    return table


def _to_lds(words: int) -> Build:
    return lambda ins, target: _load_to_lds(ins, target, words, 0)


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
    for operation, names in _ATOMIC_NAMES.items():
        if operation in ("cmpswap", "pk_add_f16", "pk_add_bf16"):
            continue
        name = names.split()[0]
        table[f"ds_{name}"] = _lds_atomic(operation, returning=False)
        table[f"ds_{name.replace('_', '_rtn_', 1)}"] = _lds_atomic(operation, returning=True)
    table["ds_read_b64_tr_b16"] = _lds_transposed(16)
    table["ds_read_b64_tr_b8"] = _lds_transposed(8)
    return table


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


ACCESS: dict[str, Build] = {**_spaces(), **_lds(), **_scratches()}
