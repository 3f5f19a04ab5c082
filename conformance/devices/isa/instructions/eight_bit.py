"""Conversions between 8-bit floats and wider ones, of one value or of a pair.

Sources: as :mod:`.vector_integer`, and for scaled ones the CDNA4 manual. Encodings are the
target's: see :class:`conformance.devices.isa.numbers.Fp8`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...assembly import Instruction
from ..numbers import from_bf16, from_half, to_bf16, to_half
from ..state import Lanes, State
from ..target import IsaTarget, fp8_codec
from .alu import Build, Built
from .operands import Reader, raw_reader, reader, register

U32, F32 = np.uint32, np.float32
HIGH, LOW = U32(0xFFFF0000), U32(0x0000FFFF)


def _fp8_scale(ins: Instruction, place: int, target: IsaTarget, scaled: bool) -> Reader | None:
    """The power of two of a scale operand: only its exponent counts."""
    if not scaled:
        return None
    raw = raw_reader(ins.operands[place], target, "f32")
    return lambda m: (raw(m) & U32(0x7F800000)).view(F32)


def _selected(ins: Instruction) -> int:
    """Which byte of the source is meant, or which half; of halves op_sel has one bit."""
    select = ins.modifiers.get("src0_sel", "")
    if select.startswith(("BYTE_", "WORD_")):
        return int(select[-1])
    if "byte_sel" in ins.modifiers:
        return ins.number("byte_sel")
    bits = ins.bits("op_sel", (0, 0))
    return bits[0] + 2 * bits[1]


def _from_fp8(kind: str, scaled: bool) -> Build:
    """One byte to float32."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        shift = U32(8 * _selected(ins))
        codec, raw = fp8_codec(kind, target), raw_reader(ins.operands[1], target)
        scale = _fp8_scale(ins, 2, target, scaled)
        out = register(ins.operands[0], target)

        def compute(m: State) -> Lanes:
            value = codec.decode((raw(m) >> shift) & U32(0xFF))
            return (value if scale is None else value * scale(m)).view(U32)

        return Built(compute, lambda m, value: m.set_v(out, value))

    return build


def _pair_from_fp8(kind: str, scaled: bool, result: str = "f32") -> Build:
    """Two bytes to two float32 in a pair of registers, or to two halves of one register."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        half = ins.operands[1].half == "h"
        shift = U32(16 * (1 if half else _selected(ins)))
        codec, raw = fp8_codec(kind, target), raw_reader(ins.operands[1], target)
        scale = _fp8_scale(ins, 2, target, scaled)
        outs = [register(ins.operands[0], target, word) for word in (0, 1)]

        def compute(m: State) -> list[Lanes]:
            codes = raw(m) >> shift
            values = [codec.decode((codes >> U32(8 * i)) & U32(0xFF)) for i in (0, 1)]
            return values if scale is None else [value * scale(m) for value in values]

        def write(m: State, values: list[Lanes]) -> None:
            if result == "f32":
                m.set_v(outs[0], values[0].view(U32))
                m.set_v(outs[1], values[1].view(U32))
            else:
                encode = to_half if result == "f16" else to_bf16
                m.set_v(outs[0], encode(values[0]) | (encode(values[1]) << U32(16)))

        return Built(compute, write)

    return build


def _pair(ins: Instruction, target: IsaTarget, source: str) -> Callable[[State], list[Lanes]]:
    """Two sources, or the halves of one."""
    if source == "f32":
        plain = replace(ins, modifiers={})
        one, two = (reader(plain, 1 + i, "f32", target, i) for i in (0, 1))
        return lambda m: [one(m), two(m)]
    raw, decode = raw_reader(ins.operands[1], target), from_half if source == "f16" else from_bf16
    return lambda m: [decode(raw(m)), decode(raw(m) >> U32(16))]


def _pair_to_fp8(kind: str, scaled: bool, source: str = "f32") -> Build:
    """Two values to two bytes in one half of a register; the other half stays."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        codec = fp8_codec(kind, target)
        count = 2 if source == "f32" else 1
        values = _pair(ins, target, source)
        scale = _fp8_scale(ins, 1 + count, target, scaled)
        saturate = scaled or target.float_mode.saturates
        bits = ins.bits("op_sel", ())
        high = ins.operands[0].half == "h" or (len(bits) > count and bits[-1] == 1)
        out = register(ins.operands[0], target)

        def compute(m: State) -> Lanes:
            pair = values(m)
            if scale is not None:
                pair = [value / scale(m) for value in pair]
            codes = [codec.encode(value, saturate) for value in pair]
            return codes[0] | (codes[1] << U32(8))

        def write(m: State, value: Lanes) -> None:
            old = m.v(out)
            m.set_v(out, (value << U32(16)) | (old & LOW) if high else value | (old & HIGH))

        return Built(compute, write)

    return build


def _fp8_table() -> dict[str, Build]:
    table: dict[str, Build] = {}
    for kind in ("fp8", "bf8"):
        table[f"v_cvt_f32_{kind}"] = _from_fp8(kind, scaled=False)
        table[f"v_cvt_pk_f32_{kind}"] = _pair_from_fp8(kind, scaled=False)
        table[f"v_cvt_pk_{kind}_f32"] = _pair_to_fp8(kind, scaled=False)
        table[f"v_cvt_scalef32_f32_{kind}"] = _from_fp8(kind, scaled=True)
        for result in ("f32", "f16", "bf16"):
            name = f"v_cvt_scalef32_pk_{result}_{kind}"
            table[name] = _pair_from_fp8(kind, scaled=True, result=result)
            name = f"v_cvt_scalef32_pk_{kind}_{result}"
            table[name] = _pair_to_fp8(kind, scaled=True, source=result)
    return table


EIGHT_BIT: dict[str, Build] = _fp8_table()
