"""Vector instructions that sum several parts of their sources: dot products, differences, means.

Sources: the VOP3 and VOP3P chapters of AMD's MI300 (CDNA3), CDNA4, RDNA3 and RDNA4 instruction set
manuals. A name that RDNA gave to an old instruction stands beside the old name.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...assembly import Instruction
from ..numbers import from_bf16, from_half
from ..state import Lanes
from ..target import IsaTarget
from .alu import Build, Built, Function, vector
from .heeded import without

U32, I64, F64 = np.uint32, np.int64, np.float64


def _parts(word: Lanes, bits: int, signed: bool) -> list[Lanes]:
    """A word's parts of so many bits, from the lowest on: int64."""
    up, raw = I64(64 - bits), word.astype(I64)
    parts = [raw >> I64(bits * place) & I64((1 << bits) - 1) for place in range(32 // bits)]
    return [part << up >> up for part in parts] if signed else parts


def _absolute_differences(bits: int, shift: int = 0) -> Function:
    """Of the parts of two words the absolute differences, summed, plus a third word."""

    def total(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
        pairs = zip(_parts(a, bits, signed=False), _parts(b, bits, signed=False), strict=True)
        gaps = [np.abs(one - two) for one, two in pairs]
        return ((sum(gaps) << I64(shift)) + c).astype(U32)

    return total


def _masked_differences(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """The same of bytes, but for those that are zero in the second word."""
    pairs = zip(_parts(a, 8, signed=False), _parts(b, 8, signed=False), strict=True)
    gaps = [np.where(two == 0, I64(0), np.abs(one - two)) for one, two in pairs]
    return (sum(gaps) + c).astype(U32)


def _means(a: Lanes, b: Lanes, up: Lanes) -> Lanes:
    """Of each byte of two words the mean, rounded up where the third one's lowest bit says so."""
    words = (_parts(word, 8, signed=False) for word in (a, b, up))
    means = [(one + two + (three & 1)) >> 1 for one, two, three in zip(*words, strict=True)]
    total: Lanes = sum(mean << I64(8 * place) for place, mean in enumerate(means))
    return total.astype(U32)


def _dot(bits: int, kind: str, *, accumulate: bool = False, mixed: bool = False) -> Build:
    """Products of the parts of two words, summed, plus a third word; ``clamp`` saturates.

    ``kind``: i32 or u32, whose sign the parts have; with ``mixed`` a source's parts have one where
    its ``neg_lo`` is set.
    """
    low, high = (-(1 << 31), (1 << 31) - 1) if kind == "i32" else (0, (1 << 32) - 1)

    def build(ins: Instruction, target: IsaTarget) -> Built:
        signs = ins.bits("neg_lo", (0, 0, 0))[:2] if mixed else (kind == "i32",) * 2
        clamps = "clamp" in ins.modifiers

        def total(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
            one, two = (_parts(w, bits, bool(s)) for w, s in zip((a, b), signs, strict=True))
            exact = sum((x * y for x, y in zip(one, two, strict=True)), c.astype(I64))
            if clamps:
                exact = np.clip(exact, low, high)
            return exact.astype(U32)

        plain = replace(
            ins, modifiers=without(ins.modifiers, "clamp", *(["neg_lo"] if mixed else []))
        )
        sources = "b32 b32" if accumulate else f"b32 b32 {kind}"
        return vector(kind, sources, total, accumulate=accumulate)(plain, target)

    return build


def _dot_of_halves(decode: Function) -> Function:
    """a.low * b.low + a.high * b.high + c, rounded once, to a half."""

    def total(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
        halves = ((a, b), (a >> U32(16), b >> U32(16)))
        low, high = (decode(one).astype(F64) * decode(two) for one, two in halves)
        return low + high + c

    return total


def _packed(kind: str) -> Build:
    """Two integers of 32 bits to two of 16 in one word, each the nearest that there is."""
    low, high = (-(1 << 15), (1 << 15) - 1) if kind == "i32" else (0, (1 << 16) - 1)

    def pack(a: Lanes, b: Lanes) -> Lanes:
        one, two = (np.clip(word, low, high).astype(U32) & U32(0xFFFF) for word in (a, b))
        return one | (two << U32(16))

    return vector("u32", f"{kind} {kind}", pack)


SUMS: dict[str, Build] = {
    "v_sad_u8": vector("u32", "u32 u32 u32", _absolute_differences(8)),
    "v_sad_hi_u8": vector("u32", "u32 u32 u32", _absolute_differences(8, shift=16)),
    "v_sad_u16": vector("u32", "u32 u32 u32", _absolute_differences(16)),
    "v_sad_u32": vector("u32", "u32 u32 u32", _absolute_differences(32)),
    "v_msad_u8": vector("u32", "u32 u32 u32", _masked_differences),
    "v_lerp_u8": vector("u32", "u32 u32 u32", _means),
    "v_dot2_i32_i16": _dot(16, "i32"),
    "v_dot2_u32_u16": _dot(16, "u32"),
    "v_dot4_i32_i8": _dot(8, "i32"),
    "v_dot4_u32_u8": _dot(8, "u32"),
    "v_dot8_i32_i4": _dot(4, "i32"),
    "v_dot8_u32_u4": _dot(4, "u32"),
    "v_dot2c_i32_i16": _dot(16, "i32", accumulate=True),
    "v_dot4c_i32_i8": _dot(8, "i32", accumulate=True),
    "v_dot8c_i32_i4": _dot(4, "i32", accumulate=True),
    "v_dot4_i32_iu8": _dot(8, "i32", mixed=True),
    "v_dot8_i32_iu4": _dot(4, "i32", mixed=True),
    "v_dot2_f16_f16": vector("f16", "b32 b32 f16", _dot_of_halves(from_half), preserve=True),
    "v_dot2_bf16_bf16": vector("bf16", "b32 b32 bf16", _dot_of_halves(from_bf16), preserve=True),
    "v_cvt_pk_i16_i32": _packed("i32"),
    "v_cvt_pk_u16_u32": _packed("u32"),
}
