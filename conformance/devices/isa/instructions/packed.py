"""Instructions on pairs: two halves or two words at once, mixed precision, and fp8 conversions.

``op_sel`` says which half (or word) of each source makes the low result, ``op_sel_hi`` which one
the high result. Sources: the VOP3P chapters of AMD's MI300, CDNA4, RDNA3 and RDNA4 manuals.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...assembly import Instruction, Operand
from ..mode import NEAREST, Mode
from ..numbers import (
    flush16,
    fma32,
    from_bf16,
    from_half,
    half_towards_zero,
    max_num,
    maximum,
    min_num,
    minimum,
    to_int,
)
from ..state import Lanes, State
from ..target import IsaTarget, UnknownError
from .alu import Build, Built, Function, named, vector
from .heeded import without
from .operands import Reader, finishing, flushing, raw_reader, reader, register, writer

U32, F32, F64, I32 = np.uint32, np.float32, np.float64, np.int32
HIGH, LOW = U32(0xFFFF0000), U32(0x0000FFFF)
_SIGN = U32(0x80000000)


def _half_decoder(kind: str, mode: Mode) -> Function:
    """The low 16 bits as a value of a type."""
    if kind == "f16":
        return (lambda a: flush16(from_half(a))) if mode.flush_in16 else from_half
    decoders: dict[str, Function] = {
        "bf16": from_bf16,
        "u16": lambda a: a & LOW,
        "i16": lambda a: (a << U32(16)).view(I32) >> I32(16),
    }
    return decoders[kind]


def _half_finish(ins: Instruction, kind: str, mode: Mode) -> Function:
    """Clamps a result where it is asked to be, and gives its 16 bits."""
    if kind in ("f16", "bf16"):
        return finishing(ins.modifiers, kind, mode)
    if "clamp" not in ins.modifiers:
        return lambda value: value.astype(U32) & LOW
    low, high = (-32768, 32767) if kind == "i16" else (0, 65535)
    return lambda value: np.clip(value, low, high).astype(U32) & LOW


def _halves(kind: str, sources: int, function: Function, *, rounds: bool = False) -> Build:
    """The same operation on both halves.

    ``rounds``: a mode may say how; only rounding to the nearest is known.
    """

    def build(ins: Instruction, target: IsaTarget) -> Built:
        mode = target.float_mode
        if rounds and mode.round16 != NEAREST:
            raise UnknownError(f"packed float16 in rounding mode {mode.round16}")
        ones, zeros = (1,) * sources, (0,) * sources
        picks = (ins.bits("op_sel", zeros), ins.bits("op_sel_hi", ones))
        signs = (ins.bits("neg_lo", zeros), ins.bits("neg_hi", zeros))
        # A constant of two integers has float32's bits where it is written as a float.
        constant = kind if kind in ("f16", "bf16") else f"2x{kind}"
        raws = [raw_reader(o, target, constant) for o in ins.operands[1 : 1 + sources]]
        out = register(ins.operands[0], target)
        decode, finish = _half_decoder(kind, mode), _half_finish(ins, kind, mode)
        # Clamping needs the result that does not fit.
        wide = "clamp" in ins.modifiers and kind in ("u16", "i16")

        def half(words: list[Lanes], which: int) -> Lanes:
            values = []
            for word, pick, sign in zip(words, picks[which], signs[which], strict=True):
                value = decode(word >> U32(16) if pick else word)
                value = value.astype(np.int64) if wide else value
                values.append(-value if sign else value)
            result: Lanes = finish(function(*values))
            return result

        def compute(m: State) -> Lanes:
            words = [raw(m) for raw in raws]
            return half(words, 0) | (half(words, 1) << U32(16))

        return Built(compute, lambda m, value: m.set_v(out, value))

    return build


def _words(sources: int, function: Function) -> Build:
    """The same float32 operation on both registers of a pair."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        ones, zeros = (1,) * sources, (0,) * sources
        picks = (ins.bits("op_sel", zeros), ins.bits("op_sel_hi", ones))
        signs = (ins.bits("neg_lo", zeros), ins.bits("neg_hi", zeros))
        readers = [
            [
                _word(o, target, pick, sign)
                for o, pick, sign in zip(ins.operands[1:], picks[k], signs[k], strict=True)
            ]
            for k in (0, 1)
        ]
        outs = [register(ins.operands[0], target, word) for word in (0, 1)]
        mode = target.float_mode
        if mode.round32 != NEAREST:
            raise UnknownError(f"packed float32 in rounding mode {mode.round32}")
        finish = finishing(ins.modifiers, "f32", mode)
        typed = [[_as_float(read, mode) for read in of_word] for of_word in readers]

        def compute(m: State) -> list[Lanes]:
            return [finish(function(*[read(m) for read in of_word])) for of_word in typed]

        def write(m: State, values: list[Lanes]) -> None:
            m.set_v(outs[0], values[0])
            m.set_v(outs[1], values[1])

        return Built(compute, write)

    return build


def _as_float(raw: Reader, mode: Mode) -> Reader:
    return flushing(lambda m: raw(m).view(F32), "f32", mode)


def _word(operand: Operand, target: IsaTarget, pick: int, sign: int) -> Reader:
    word = pick if operand.count > 1 else 0
    raw = raw_reader(operand, target, "f32", word)
    return (lambda m: raw(m) ^ _SIGN) if sign else raw


def _move_pair(ins: Instruction, target: IsaTarget) -> Built:
    picks = ins.bits("op_sel", (0, 0))
    reads = [_word(o, target, p, 0) for o, p in zip(ins.operands[1:], picks, strict=True)]
    outs = [register(ins.operands[0], target, word) for word in (0, 1)]

    def write(m: State, values: list[Lanes]) -> None:
        m.set_v(outs[0], values[0])
        m.set_v(outs[1], values[1])

    return Built(lambda m: [read(m).copy() for read in reads], write)


def _mix(place: str) -> Build:
    """a*b+c, each source float32 or a half; the result float32, or rounded into one half."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        is_half, high = ins.bits("op_sel_hi", (0, 0, 0)), ins.bits("op_sel", (0, 0, 0))
        reads = [_mixed(ins, i, target, is_half[i], high[i]) for i in range(3)]
        out = register(ins.operands[0], target)
        mode = target.float_mode
        if (mode.round32, mode.round16) != (NEAREST, NEAREST):
            raise UnknownError(f"{ins.mnemonic} in rounding mode {mode.round32}")
        finish = finishing(ins.modifiers, "f16" if place else "f32", mode)

        def compute(m: State) -> Lanes:
            return finish(fma32(*[read(m) for read in reads]))

        def write(m: State, value: Lanes) -> None:
            if place == "":
                m.set_v(out, value)
            elif place == "low":
                m.set_v(out, value | (m.v(out) & HIGH))
            else:
                m.set_v(out, (value << U32(16)) | (m.v(out) & LOW))

        return Built(compute, write)

    return build


def _mixed(ins: Instruction, source: int, target: IsaTarget, is_half: int, high: int) -> Reader:
    operand = ins.operands[1 + source]
    plain = replace(ins, modifiers={})
    if not is_half:
        return reader(plain, 1 + source, "f32", target, source)
    place = replace(operand, half="h" if high else operand.half)
    return reader(replace(plain, operands=(place,)), 0, "f16", target, source)


def _dot2(kind: str, accumulate: bool) -> Build:
    """a.low*b.low + a.high*b.high + c in float32."""
    decode = from_half if kind == "f16" else from_bf16

    def total(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
        low = decode(a).astype(F64) * decode(b)
        high = decode(a >> U32(16)).astype(F64) * decode(b >> U32(16))
        return (low + high + c).astype(F32)

    sources = "b32 b32" if accumulate else "b32 b32 f32"
    return vector("f32", sources, total, accumulate=accumulate, rounds=False)


def _pack_rounded(kind: str) -> Build:
    """Two float32 to two halves of one register, as the mode rounds."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        encode = finishing(ins.modifiers, kind, target.float_mode)
        plain = replace(ins, modifiers=without(ins.modifiers, "clamp", "mul", "div"))
        return _pack(encode)(plain, target)

    return build


def _pack(encode: Function) -> Build:
    """Two float32 to two halves of one register."""
    return vector("b32", "f32 f32", lambda a, b: encode(a) | (encode(b) << U32(16)))


def _normalised(limit: int, signed: bool) -> Function:
    def encode(value: Lanes) -> Lanes:
        low = -1.0 if signed else 0.0
        scaled = np.rint(np.clip(np.nan_to_num(value), low, 1.0) * F32(limit))
        return scaled.astype(I32).view(U32) & LOW

    return encode


def _packed_integers(low: int, high: int) -> Build:
    """Two float32 to two integers of 16 bits, towards zero."""
    convert = to_int(low, high, I32)
    return _pack(lambda value: convert(value).view(U32) & LOW)


def _byte_put(a: Lanes, place: Lanes, rest: Lanes) -> Lanes:
    """A float32 as a byte, to the nearest, in the place of one of a word's."""
    byte = np.clip(np.rint(np.where(np.isnan(a), F32(0), a)), 0, 255).astype(U32)
    shift = (place & U32(3)) * U32(8)
    return (rest & ~(U32(0xFF) << shift)) | (byte << shift)


def _normalised_half(limit: int, signed: bool) -> Build:
    """A half between -1 (or 0) and 1 as a whole number of steps."""
    return vector("u16", "f16", _normalised(limit, signed=signed))


def _bitop(kind: str, count: int = 3) -> Build:
    """Any function of three bits: bit a*4 + b*2 + c of the table. Of two, c is 0."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        table = ins.number("bitop3")
        reads = [reader(ins, 1 + i, kind, target, i) for i in range(count)]
        put = writer(ins, 0, kind, target, preserve=True)

        def compute(m: State) -> Lanes:
            a, b, *last = (read(m) for read in reads)
            c = last[0] if last else a & U32(0)
            out: Lanes = np.zeros(np.broadcast_shapes(a.shape, b.shape, c.shape), dtype=U32)
            for row in range(8):
                if table >> row & 1:
                    out |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
            return out

        return Built(compute, put)

    return build


PACKED: dict[str, Build] = {
    "v_pk_add_f16": _halves("f16", 2, lambda a, b: a + b, rounds=True),
    "v_pk_mul_f16": _halves("f16", 2, lambda a, b: a * b, rounds=True),
    "v_pk_fma_f16": _halves("f16", 3, lambda a, b, c: a.astype(F64) * b + c, rounds=True),
    "v_pk_add_bf16": _halves("bf16", 2, lambda a, b: a + b),
    **{
        name: _halves("f16", 2, function)
        for function, names in (
            (max_num, ("v_pk_max_f16", "v_pk_max_num_f16")),
            (min_num, ("v_pk_min_f16", "v_pk_min_num_f16")),
        )
        for name in names
    },
    **{
        f"v_pk_{name}_f16": _halves("f16", 2, function)
        for name, function in {"maximum": maximum, "minimum": minimum}.items()
    },
    **{
        f"v_pk_{name}3_f16": _halves("f16", 3, lambda a, b, c, f=function: f(f(a, b), c))
        for name, function in {"maximum": maximum, "minimum": minimum}.items()
    },
    "v_pk_add_u16": _halves("u16", 2, lambda a, b: a + b),
    "v_pk_sub_u16": _halves("u16", 2, lambda a, b: a - b),
    "v_pk_mul_lo_u16": _halves("u16", 2, lambda a, b: a * b),
    "v_pk_mad_u16": _halves("u16", 3, lambda a, b, c: a * b + c),
    "v_pk_add_i16": _halves("i16", 2, lambda a, b: a + b),
    "v_pk_sub_i16": _halves("i16", 2, lambda a, b: a - b),
    "v_pk_min_i16": _halves("i16", 2, np.minimum),
    "v_pk_max_i16": _halves("i16", 2, np.maximum),
    "v_pk_min_u16": _halves("u16", 2, np.minimum),
    "v_pk_max_u16": _halves("u16", 2, np.maximum),
    "v_pk_lshlrev_b16": _halves("u16", 2, lambda n, a: a << (n & U32(15))),
    "v_pk_lshrrev_b16": _halves("u16", 2, lambda n, a: a >> (n & U32(15))),
    "v_pk_ashrrev_i16": _halves("i16", 2, lambda n, a: a >> (n & I32(15))),
    "v_pk_add_f32": _words(2, lambda a, b: a + b),
    "v_pk_mul_f32": _words(2, lambda a, b: a * b),
    "v_pk_fma_f32": _words(3, fma32),
    "v_pk_mov_b32": _move_pair,
    "v_fma_mix_f32": _mix(""),
    "v_fma_mixlo_f16": _mix("low"),
    "v_fma_mixhi_f16": _mix("high"),
    "v_dot2_f32_f16": _dot2("f16", accumulate=False),
    "v_dot2_f32_bf16": _dot2("bf16", accumulate=False),
    "v_dot2c_f32_f16": _dot2("f16", accumulate=True),
    "v_dot2acc_f32_f16": _dot2("f16", accumulate=True),
    "v_dot2c_f32_bf16": _dot2("bf16", accumulate=True),
    "v_dot2acc_f32_bf16": _dot2("bf16", accumulate=True),
    "v_cvt_pk_f16_f32": _pack_rounded("f16"),
    "v_cvt_pk_bf16_f32": _pack_rounded("bf16"),
    "v_cvt_pkrtz_f16_f32": _pack(half_towards_zero),
    "v_cvt_pk_rtz_f16_f32": _pack(half_towards_zero),
    **named("v_cvt_pknorm_u16_f32 v_cvt_pk_norm_u16_f32", _pack(_normalised(65535, signed=False))),
    **named("v_cvt_pknorm_i16_f32 v_cvt_pk_norm_i16_f32", _pack(_normalised(32767, signed=True))),
    **named("v_cvt_norm_u16_f16", _normalised_half(65535, signed=False)),
    **named("v_cvt_norm_i16_f16", _normalised_half(32767, signed=True)),
    "v_cvt_pk_u16_f32": _packed_integers(0, 65535),
    "v_cvt_pk_i16_f32": _packed_integers(-32768, 32767),
    "v_cvt_pk_u8_f32": vector("u32", "f32 u32 u32", _byte_put),
    "v_bitop2_b32": _bitop("u32", 2),
    "v_bitop3_b32": _bitop("u32"),
    "v_bitop3_b16": _bitop("u16"),
}
