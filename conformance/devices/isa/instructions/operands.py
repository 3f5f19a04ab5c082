"""How an instruction's operands are read and written: types, halves, signs, lane permutations.

A reader is a function of the state that gives an array; a writer takes one. They are made once per
instruction, when a kernel is loaded. Lane arrays are [waves, lanes] and may be [waves, 1] or
[1, 1] where every lane has the same value.

Types: u32 i32 b32 f32; u64 i64 f64 (two registers); u16 i16 f16 bf16 (half a register; floats are
read as float32 and rounded when written); u24 i24; mask (a bit per lane, in scalar registers).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...assembly import Instruction, Operand, float_bits
from ..mode import Mode
from ..numbers import flush16, flush32, from_bf16, from_half, half_encoder, to_bf16
from ..state import Bools, Lanes, State
from ..target import IsaTarget, UnknownError

Reader = Callable[[State], Lanes]
Writer = Callable[..., None]

WIDE = ("u64", "i64", "f64", "b64")
HALVES = ("u16", "i16", "f16", "bf16", "b16")
FLOATS = ("f16", "bf16", "f32", "f64")
# Integers that instructions hold themselves, without a literal after them.
INLINE_INTEGERS = range(-16, 65)
_SIGN = np.uint32(0x80000000)
_HALF_SIGN = np.uint32(0x8000)
_SELECT = {
    "BYTE_0": (0, 0xFF),
    "BYTE_1": (8, 0xFF),
    "BYTE_2": (16, 0xFF),
    "BYTE_3": (24, 0xFF),
    "WORD_0": (0, 0xFFFF),
    "WORD_1": (16, 0xFFFF),
}


_SOURCE_SELECT = tuple(f"src{source}_sel" for source in range(5))


# -- scalar -------------------------------------------------------------------------------------
def scalar_reader(operand: Operand, kind: str) -> Reader:
    """A scalar operand: [n] of the type."""
    if operand.file == "s":
        index = operand.index
        if kind in WIDE:
            return lambda m: _as(kind, m.s64(index))
        return lambda m: _as(kind, m.s(index))
    unsigned = np.uint64 if kind in WIDE else np.uint32
    if operand.text in ("src_scc", "scc"):
        return lambda m: _as(kind, m.scc[m.sel].astype(unsigned))
    typed = _as(kind, np.array([constant_bits(operand, kind)], dtype=unsigned))
    return lambda _m: typed


def scalar_writer(operand: Operand, kind: str) -> Writer:
    """Writes [n] to a scalar register or pair."""
    if operand.file != "s":
        raise UnknownError(f"{operand.text} as a scalar destination")
    index = operand.index
    if kind not in WIDE:

        def write(m: State, value: Lanes) -> None:
            m.set_s(index, _bits32(value))

        return write

    def write_pair(m: State, value: Lanes) -> None:
        bits = value.view(np.uint64)
        m.set_s(index, bits.astype(np.uint32))
        m.set_s(index + 1, (bits >> np.uint64(32)).astype(np.uint32))

    return write_pair


def constant_bits(operand: Operand, kind: str) -> int:
    """The bits of a constant as an operand of a type; integers are sign-extended.

    A literal that is no inline constant is the upper half of a float64.
    """
    if operand.value is None:
        raise UnknownError(f"operand {operand.text}")
    if isinstance(operand.value, float):
        return float_bits(operand.value, kind)
    if kind == "f64" and operand.value not in INLINE_INTEGERS:
        return (operand.value & 0xFFFFFFFF) << 32
    return operand.value & (0xFFFFFFFFFFFFFFFF if kind in WIDE else 0xFFFFFFFF)


def _as(kind: str, raw: Lanes) -> Lanes:
    if kind == "i16":
        return _sign_extend(raw, 16)
    if kind == "u16":
        return raw & np.uint32(0xFFFF)
    views = {"i32": np.int32, "f32": np.float32, "i64": np.int64, "f64": np.float64}
    return raw.view(views[kind]) if kind in views else raw


def _bits32(value: Lanes) -> Lanes:
    return value.view(np.uint32) if value.dtype.itemsize == 4 else value.astype(np.uint32)


# -- vector -------------------------------------------------------------------------------------
def register(operand: Operand, target: IsaTarget, word: int = 0) -> int:
    """The number of a vector register in the file that holds both kinds."""
    if operand.file not in ("v", "a"):
        raise UnknownError(f"{operand.text} where a vector register is needed")
    return operand.index + word + (target.agprs_at if operand.file == "a" else 0)


def raw_reader(operand: Operand, target: IsaTarget, kind: str = "b32", word: int = 0) -> Reader:
    """32 bits of an operand, with no type: uint32 [n, lanes], [n, 1] or [1, 1].

    Raises:
        UnknownError: its sign is to be changed, which bits without a type have none of.
    """
    if operand.neg or operand.abs or operand.sext:
        raise UnknownError(f"the sign of {operand.text} where bits are read")
    return bits_of(operand, target, kind, word)


def bits_of(operand: Operand, target: IsaTarget, kind: str = "b32", word: int = 0) -> Reader:
    """The same of an operand whose sign is changed afterwards, if it is to be."""
    if operand.file in ("v", "a"):
        index = register(operand, target, word)
        return lambda m: m.v(index)
    if operand.file == "s":
        number = operand.index + word
        return lambda m: m.s(number)[:, None]
    if operand.text in ("src_scc", "scc"):
        return lambda m: m.scc[m.sel].astype(np.uint32)[:, None]
    bits = constant_bits(operand, kind) >> (32 * word) & 0xFFFFFFFF
    value = np.array([[bits]], dtype=np.uint32)
    return lambda _m: value


def reader(ins: Instruction, place: int, kind: str, target: IsaTarget, source: int) -> Reader:
    """The operand at ``place``, source number ``source`` of the instruction, as a type."""
    operand = ins.operands[place]
    if kind == "mask":
        return mask_reader(operand)
    if kind in WIDE:
        return _wide_reader(operand, target, kind)
    raw = bits_of(operand, target, kind)
    select = ins.modifiers.get(_SOURCE_SELECT[source], "DWORD")
    if select != "DWORD":
        raw = _selecting(raw, select, operand.sext)
    elif kind in HALVES and is_high_half(ins, operand, source):
        raw = _shifted(raw)
    return flushing(typed(raw, kind, operand.neg, operand.abs), kind, target.float_mode)


def flushing(read: Reader, kind: str, mode: Mode) -> Reader:
    """The same source, with denormals as zeros where the mode says so."""
    if kind == "f32" and mode.flush_in32:
        return lambda m: flush32(read(m))
    if kind == "f16" and mode.flush_in16:
        return lambda m: flush16(read(m))
    return read


def mask_reader(operand: Operand) -> Reader:
    if operand.file == "s":
        index = operand.index
        return lambda m: m.mask(index)
    whole = constant_bits(operand, "b32") != 0
    return lambda m: np.full((m.n, m.lanes), whole)


def is_high_half(ins: Instruction, operand: Operand, source: int) -> bool:
    selected = ins.bits("op_sel", ())
    return operand.half == "h" or (source < len(selected) and selected[source] == 1)


def _shifted(raw: Reader) -> Reader:
    return lambda m: raw(m) >> np.uint32(16)


def _selecting(raw: Reader, select: str, sext: bool) -> Reader:
    shift, mask = (np.uint32(number) for number in _SELECT[select])
    if not sext:
        return lambda m: (raw(m) >> shift) & mask
    up = np.uint32(24 if mask == 0xFF else 16)
    return lambda m: (((raw(m) >> shift) << up).view(np.int32) >> up.view(np.int32)).view(np.uint32)


def typed(raw: Reader, kind: str, neg: bool, absolute: bool) -> Reader:
    """The bits as a type, their sign changed first: an instruction on integers of 16 bits takes
    them for halves then, as v_pack_b32_f16 and v_cndmask_b16 do."""
    if neg or absolute:
        raw = _signed(raw, neg, absolute, _HALF_SIGN if kind in HALVES else _SIGN)
    if kind in ("u32", "b32"):
        return raw
    views = {"i32": np.int32, "f32": np.float32}
    if kind in views:
        view = views[kind]
        return lambda m: raw(m).view(view)
    convert = _CONVERSIONS[kind]
    return lambda m: convert(raw(m))


def _signed(raw: Reader, neg: bool, absolute: bool, sign: np.uint32) -> Reader:
    """Sign bits, as hardware changes them: a NaN or an integer type is no exception."""
    if absolute and neg:
        return lambda m: raw(m) | sign
    if absolute:
        return lambda m: raw(m) & ~sign
    return lambda m: raw(m) ^ sign


def _sign_extend(raw: Lanes, bits: int) -> Lanes:
    up = 32 - bits
    return (raw << np.uint32(up)).view(np.int32) >> np.int32(up)


_CONVERSIONS: dict[str, Callable[[Lanes], Lanes]] = {
    "u16": lambda raw: raw & np.uint32(0xFFFF),
    "b16": lambda raw: raw & np.uint32(0xFFFF),
    "i16": lambda raw: _sign_extend(raw, 16),
    "f16": from_half,
    "bf16": from_bf16,
    "u24": lambda raw: raw & np.uint32(0xFFFFFF),
    "i24": lambda raw: _sign_extend(raw, 24),
}


def _wide_reader(operand: Operand, target: IsaTarget, kind: str) -> Reader:
    low, high = (bits_of(operand, target, kind, word) for word in (0, 1))
    view = {"i64": np.int64, "f64": np.float64}.get(kind, np.uint64)
    flip = np.uint64(1 << 63)

    def read(m: State) -> Lanes:
        value = low(m) | (high(m).astype(np.uint64) << 32)
        if operand.abs:
            value &= ~flip
        if operand.neg:
            value ^= flip
        return value.view(view)

    return read


def writer(ins: Instruction, place: int, kind: str, target: IsaTarget, preserve: bool) -> Writer:
    """Writes a result to the operand at ``place``, in the lanes that run.

    ``preserve``: a 16-bit result keeps the register's other half; else that half becomes zero.
    """
    operand = ins.operands[place]
    if kind == "mask":
        return mask_writer(operand)
    if kind in WIDE:
        return _wide_writer(operand, target, modified(ins.modifiers, kind, target.float_mode))
    index = register(operand, target)
    finish = finishing(ins.modifiers, kind, target.float_mode)
    select = ins.modifiers.get("dst_sel", "DWORD")
    if select != "DWORD":
        return _part_writer(index, finish, select, ins.modifiers.get("dst_unused", ""))
    if kind in HALVES:
        return _half_writer(ins, operand, index, finish, preserve)

    def write(m: State, value: Lanes, only: Bools | None = None) -> None:
        m.set_v(index, finish(value), only)

    return write


_SCALES = {("mul", "2"): 2.0, ("mul", "4"): 4.0, ("div", "2"): 0.5}


def modified(modifiers: Mapping[str, str], kind: str, mode: Mode) -> Callable[[Lanes], Lanes]:
    """Output modifiers of a float, which MODE's IEEE bit turns off, and ``clamp``."""
    factor = next((f for (k, v), f in _SCALES.items() if modifiers.get(k) == v), 1.0)
    factor = factor if mode.scales else 1.0
    clamp = "clamp" in modifiers
    if clamp and kind not in FLOATS:
        raise UnknownError("clamp on an integer result")

    def modify(value: Lanes) -> Lanes:
        value = value * value.dtype.type(factor) if factor != 1.0 else value
        if not clamp:
            return value
        inside = np.clip(value, 0, 1)
        return np.where(np.isnan(value), value.dtype.type(0), inside) if mode.clamps_nan else inside

    return modify


def finishing(modifiers: Mapping[str, str], kind: str, mode: Mode) -> Callable[[Lanes], Lanes]:
    """Output modifiers, then the bits of the result."""
    bits, modify = _encoder(kind, mode), modified(modifiers, kind, mode)
    return lambda value: bits(modify(value))


def _encoder(kind: str, mode: Mode) -> Callable[[Lanes], Lanes]:
    if kind == "f16":
        return half_encoder(mode)
    if kind == "bf16":
        return to_bf16
    if kind == "f32" and mode.flush_out32:
        return lambda value: flush32(value.astype(np.float32)).view(np.uint32)
    return _to_bits32


def _to_bits32(value: Lanes) -> Lanes:
    return _bits32(value.astype(np.float32) if value.dtype == np.float64 else value)


def _half_writer(
    ins: Instruction,
    operand: Operand,
    index: int,
    finish: Callable[[Lanes], Lanes],
    preserve: bool,
) -> Writer:
    sources = len(ins.operands) - 1
    selected = ins.bits("op_sel", ())
    high = operand.half == "h" or (len(selected) > sources and selected[sources] == 1)
    preserve = preserve or high
    shift = np.uint32(16 if high else 0)
    keep = np.uint32(0x0000FFFF if high else 0xFFFF0000)

    def write(m: State, value: Lanes, only: Bools | None = None) -> None:
        bits = (finish(value) & np.uint32(0xFFFF)) << shift
        if preserve:
            bits = bits | (m.v(index) & keep)
        m.set_v(index, bits, only)

    return write


def _part_writer(index: int, finish: Callable[[Lanes], Lanes], select: str, unused: str) -> Writer:
    """SDWA's destination: one byte or half; the rest is zero, the sign, or what it was."""
    shift, mask = (np.uint32(number) for number in _SELECT[select])
    width = 8 if mask == 0xFF else 16

    def write(m: State, value: Lanes, only: Bools | None = None) -> None:
        part = finish(value) & mask
        bits = part << shift
        if unused == "UNUSED_PRESERVE":
            bits = bits | (m.v(index) & ~(mask << shift))
        elif unused == "UNUSED_SEXT":
            bits = _sign_extend(part, width).view(np.uint32) << shift
        m.set_v(index, bits, only)

    return write


def _wide_writer(operand: Operand, target: IsaTarget, modify: Callable[[Lanes], Lanes]) -> Writer:
    low, high = register(operand, target), register(operand, target, 1)

    def write(m: State, value: Lanes, only: Bools | None = None) -> None:
        value = modify(value)
        bits: npt.NDArray[Any] = value if value.dtype == np.uint64 else value.view(np.uint64)
        m.set_v(low, bits.astype(np.uint32), only)
        m.set_v(high, (bits >> np.uint64(32)).astype(np.uint32), only)

    return write


def mask_writer(operand: Operand) -> Writer:
    """Writes a bit per lane; lanes that do not run get 0."""
    if operand.file != "s":
        raise UnknownError(f"{operand.text} as a lane mask")
    index = operand.index

    def write(m: State, value: Lanes, _only: Bools | None = None) -> None:
        lanes = np.broadcast_to(value, (m.n, m.lanes))
        m.set_mask(index, lanes if m.exec is None else lanes & m.exec)

    return write
