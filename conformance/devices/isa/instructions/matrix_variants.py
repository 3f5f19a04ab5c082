"""Further matrix instructions: several products at once, integers, 4- and 6-bit floats, scales.

Layouts as in :mod:`.matrix`, and, from the same sources
(https://github.com/ROCm/amd_matrix_instruction_calculator and AMD's manuals):

- MFMA of several blocks: each is a product of its own. N x N: A and B of block l / N, of which a
  lane holds every k of its row. D's registers are those of block 0, then of block 1 and so on; but
  4 x 4: column l % 4 and row r of block l / 4. ``cbsz`` and ``abid`` share A: of each 2^cbsz blocks
  all take that of block number abid among them.
- Scales (gfx950): a byte a lane, whose elements it multiplies by 2^(byte - 127); ``op_sel`` and
  ``op_sel_hi`` choose the byte of the register, low bit and high bit. NaN where it is 255.
- WMMA with 16-bit results: RDNA3 has one in the low half of each register, or with the last bit of
  ``op_sel`` in the high one; RDNA4 two in a register, rows 2 * r and 2 * r + 1 of the lane's eight.
- Integer WMMA: a source has a sign where its ``neg_lo`` is set; ``clamp`` saturates the sum.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...assembly import Instruction, Operand
from ..numbers import from_bf16, from_half, to_bf16, to_half
from ..state import Lanes, State
from ..target import IsaTarget, UnknownError, fp8_codec
from .alu import Build, Built
from .matrix import matrix_instruction, operand_words
from .operands import raw_reader, register

U32, I32, I64, F32, F64 = np.uint32, np.int32, np.int64, np.float32, np.float64
Read = Callable[[State], Lanes]

_MFMA = re.compile(
    r"^v_mfma_(?:f32|i32)_(\d+)x\1x(\d+)(_)?(?:(\d+)b_)?(f32|xf32|f16|bf16|bf16_1k|i8)$"
)
_SCALED = re.compile(r"^v_mfma_(scale_)?f32_(16|32)x\2x(64|128)_f8f6f4$")
_WMMA = re.compile(r"^v_wmma_(f16|bf16|i32)_16x16x(16|32)_(f16|bf16|iu8|iu4)(?:_w32)?$")
# Blocks that an instruction of each size can have.
_BLOCKS = {4: (16,), 16: (1, 4), 32: (1, 2)}
# cbsz and blgp of the f8f6f4 instructions: format, bits, exponent and mantissa bits.
_NARROW = {2: ("fp6", 6, 2, 3), 3: ("bf6", 6, 3, 2), 4: ("fp4", 4, 2, 1)}


def matrix_variant(mnemonic: str) -> Build | None:
    """The builder of a matrix instruction by its name, or None if it is none that is known."""
    match = _MFMA.match(mnemonic)
    if match is not None:
        size, depth, kind = int(match.group(1)), int(match.group(2)), match.group(5)
        # The older names (4x4x4f16) do not tell how many blocks there are.
        told = int(match.group(4) or 1) if match.group(3) else None
        plain = matrix_instruction(mnemonic)
        form = _Form(size, depth, kind.removesuffix("_1k"), told)
        return lambda ins, target: _mfma(ins, target, form, plain)
    match = _SCALED.match(mnemonic)
    if match is not None:
        size, plain = int(match.group(2)), matrix_instruction(mnemonic)
        return lambda ins, target: _f8f6f4(ins, target, size, plain)
    match = _WMMA.match(mnemonic)
    if match is not None:
        result, depth, kind = match.group(1), int(match.group(2)), match.group(3)
        if (result == "i32") != (kind in ("iu8", "iu4")) or result not in ("i32", kind):
            return None
        if result == "i32":
            return lambda ins, target: _integer_wmma(ins, target, depth, kind)
        return lambda ins, target: _half_wmma(ins, target, kind)
    return matrix_instruction(mnemonic)


# -- operands --------------------------------------------------------------------------------------
def _pieces(raw: Lanes, bits: int) -> Lanes:
    """Parts of so many bits of registers, from the lowest on: [n, lanes, parts]."""
    if bits == 8:
        return raw.view(np.uint8)
    every = np.unpackbits(raw.view(np.uint8), axis=-1, bitorder="little")
    return every.reshape(*every.shape[:-1], -1, bits) @ (1 << np.arange(bits))


def _signed(pieces: Lanes, bits: int) -> Lanes:
    wide = pieces.astype(I64)
    return np.where(wide >> (bits - 1) == 1, wide - (1 << bits), wide)


def _narrow_values(bits: int, exponent: int, mantissa: int) -> Lanes:
    """The values of a float of 4 or 6 bits, which has neither infinity nor NaN: float32 by code."""
    codes = np.arange(1 << bits)
    power = (codes >> mantissa) & ((1 << exponent) - 1)
    fraction = codes & ((1 << mantissa) - 1)
    bias = (1 << (exponent - 1)) - 1
    whole = np.where(power > 0, fraction + (1 << mantissa), fraction)
    value = whole * 2.0 ** (np.maximum(power, 1) - bias - mantissa)
    return np.where(codes >> (bits - 1), -value, value).astype(F32)


def _refuse(ins: Instruction, *names: str) -> None:
    for name in names:
        if ins.modifiers.get(name, "0") not in ("0", "[0,0,0]"):
            raise UnknownError(f"{name} of a matrix instruction")


def _accumulator(operand: Operand, target: IsaTarget, count: int, kind: str) -> Read:
    """C: [count, n, lanes] of float32 or int32, or a constant."""
    view = F32 if kind == "f32" else I32
    if operand.is_constant:
        constant = raw_reader(operand, target, kind)
        return lambda m: np.broadcast_to(constant(m).view(view), (count, m.n, m.lanes))
    if operand.count != count:
        raise UnknownError(f"{operand.count} accumulators where {count} are known")
    first = register(operand, target)
    return lambda m: m.vector[first : first + count, m.sel].view(view)


def _writes(out: int, count: int) -> Callable[[State, Lanes], None]:
    def write(m: State, value: Lanes) -> None:
        m.vector[out : out + count, m.sel] = value

    return write


# -- MFMA ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Form:
    """What a name says: N, the depth, the type, and how many blocks unless it keeps silent."""

    size: int
    depth: int
    kind: str
    blocks: int | None


def _mfma(ins: Instruction, target: IsaTarget, form: _Form, plain: Build | None) -> Built:
    """Of several blocks, or of integers; of one block of floats the plain one."""
    size, kind = form.size, form.kind
    if target.family.matrix_layout != "mfma":
        raise UnknownError(f"MFMA's matrix layout on {target.name}")
    each = {"f32": 1, "xf32": 1, "f16": 2, "bf16": 2, "i8": 4}[kind]
    held = ins.operands[1].count * each
    blocks, rest = divmod(64 * held, size * form.depth)
    if rest or blocks not in _BLOCKS.get(size, ()) or form.blocks not in (None, blocks):
        raise UnknownError(f"{held} elements a lane of {ins.mnemonic}")
    if blocks == 1 and kind != "i8" and plain is not None:
        return plain(ins, target)
    _refuse(ins, "blgp", "neg_lo", "neg_hi", "op_sel", "clamp")
    shared = 1 << ins.number("cbsz")
    if ins.number("abid") >= shared or shared > blocks:
        raise UnknownError("abid past the blocks that share a matrix")
    one, two = (_by_block(ins.operands[i], target, kind, blocks, size) for i in (1, 2))
    block, row, column = _places(size, blocks)
    count = len(row)
    result = "i32" if kind == "i8" else "f32"
    third = _accumulator(ins.operands[3], target, count, result)
    source = np.arange(blocks) // shared * shared + ins.number("abid")

    def compute(m: State) -> Lanes:
        a, b = one(m)[:, source], two(m)
        product = np.matmul(a, b.transpose(0, 1, 3, 2))[:, block, row, column].transpose(1, 0, 2)
        if result == "i32":
            return product.astype(I64) + third(m)
        return np.asarray(product + third(m), dtype=F32).view(U32)

    return Built(compute, _writes(register(ins.operands[0], target), count))


def _by_block(operand: Operand, target: IsaTarget, kind: str, blocks: int, size: int) -> Read:
    """A or B: [n, blocks, rows, k]; integers as float64, in which their products are exact."""
    words = operand_words(operand, target)
    groups = 64 // size // blocks

    def read(m: State) -> Lanes:
        raw = words(m)
        if kind == "i8":
            values = raw.view(np.int8).astype(F64)
        elif kind == "f16":
            values = raw.view(np.float16).astype(F32)
        elif kind == "bf16":
            values = (raw.view(np.uint16).astype(U32) << 16).view(F32)
        else:
            values = raw.view(F32)
        held = values.shape[-1]
        by_lane = values.reshape(m.n, blocks, groups, size, held).transpose(0, 1, 3, 2, 4)
        return by_lane.reshape(m.n, blocks, size, groups * held)

    return read


def _places(size: int, blocks: int) -> tuple[Lanes, Lanes, Lanes]:
    """Block, row and column of D by register and lane: [registers, 64]."""
    lane = np.arange(64)[None]
    if size == 4:
        number = np.arange(4)[:, None] + 0 * lane
        return lane // 4 + 0 * number, number, lane % 4 + 0 * number
    of_each = size * size // 64
    number = np.arange(of_each * blocks)[:, None] + 0 * lane
    place = number % of_each
    if size == 32:
        row = 8 * (place // 4) + 4 * (lane // 32) + place % 4
    else:
        row = 4 * (lane // 16) + place
    return number // of_each, row, lane % size + 0 * number


def _f8f6f4(ins: Instruction, target: IsaTarget, size: int, plain: Build | None) -> Built:
    """Each of A and B in a format of its own, of 8, 6 or 4 bits; with scales or without."""
    scaled = "_scale_" in ins.mnemonic
    formats = (ins.number("cbsz"), ins.number("blgp"))
    if plain is not None and all(number < 2 for number in formats):
        return plain(ins, target)
    _refuse(ins, "neg_lo", "neg_hi", "clamp")
    if target.family.matrix_layout != "mfma":
        raise UnknownError(f"MFMA's matrix layout on {target.name}")
    reads = [_of_format(ins.operands[1 + i], target, formats[i]) for i in (0, 1)]
    if scaled:
        low, high = ins.bits("op_sel", (0, 0, 0)), ins.bits("op_sel_hi", (0, 0, 0))
        for i in (0, 1):
            scale = _scale(ins.operands[4 + i], target, low[i] + 2 * high[i])
            reads[i] = _multiplied(reads[i], scale)
    _, row, column = _places(size, 1)
    third = _accumulator(ins.operands[3], target, len(row), "f32")
    groups = 64 // size

    def rows(elements: Lanes) -> Lanes:
        n, _, held = elements.shape
        by_group = elements.reshape(n, groups, size, held).transpose(0, 2, 1, 3)
        return by_group.reshape(n, size, groups * held)

    def compute(m: State) -> Lanes:
        product = np.matmul(rows(reads[0](m)), rows(reads[1](m)).transpose(0, 2, 1))
        value = product[:, row, column].transpose(1, 0, 2) + third(m)
        return np.asarray(value, dtype=F32).view(U32)

    return Built(compute, _writes(register(ins.operands[0], target), len(row)))


def _of_format(operand: Operand, target: IsaTarget, number: int) -> Read:
    """A lane's 32 elements of a format: float32 [n, lanes, 32]."""
    words = operand_words(operand, target)
    if number in (0, 1):
        codec, bits = fp8_codec(("fp8", "bf8")[number], target), 8
        values = codec.values
    elif number in _NARROW:
        _, bits, exponent, mantissa = _NARROW[number]
        values = _narrow_values(bits, exponent, mantissa)
    else:
        raise UnknownError(f"format {number} of a matrix operand")
    if operand.count * 32 != 32 * bits:
        raise UnknownError(f"{operand.count} registers where {bits} are known")
    return lambda m: values[_pieces(words(m), bits)]


def _scale(operand: Operand, target: IsaTarget, byte: int) -> Read:
    """A power of two a lane, from one byte of a register or of a constant: float32 [n, lanes]."""
    raw = raw_reader(operand, target)

    def read(m: State) -> Lanes:
        code = np.broadcast_to(raw(m) >> U32(8 * byte) & U32(0xFF), (m.n, m.lanes))
        power = np.ldexp(F64(1), code.astype(I32) - 127)
        return np.where(code == 0xFF, np.nan, power)

    return read


def _multiplied(elements: Read, scale: Read) -> Read:
    return lambda m: elements(m) * scale(m)[:, :, None]


# -- WMMA ------------------------------------------------------------------------------------------
def _wmma_places(target: IsaTarget) -> tuple[bool, Lanes, Lanes]:
    """Whether k is divided among the lanes, and row and column of D by register and lane."""
    layout = target.family.matrix_layout
    if layout not in ("wmma-repeated", "wmma-divided"):
        raise UnknownError(f"WMMA's matrix layout on {target.name}")
    lane, number = np.arange(32)[None], np.arange(8)[:, None]
    divided = layout == "wmma-divided"
    row = 8 * (lane // 16) + number if divided else 2 * number + lane // 16
    return divided, row, lane % 16 + 0 * number


def _wmma_rows(elements: Lanes, divided: bool) -> Lanes:
    """A lane's elements as rows: [n, 16, k]."""
    if not divided:
        return elements[:, :16]
    n, _, held = elements.shape
    return elements.reshape(n, 2, 16, held).transpose(0, 2, 1, 3).reshape(n, 16, 2 * held)


def _integer_wmma(ins: Instruction, target: IsaTarget, depth: int, kind: str) -> Built:
    _refuse(ins, "neg_hi", "op_sel")
    divided, row, column = _wmma_places(target)
    bits = int(kind[2:])
    held = 32 * ins.operands[1].count // bits
    if held * (2 if divided else 1) != depth:
        raise UnknownError(f"{held} elements a lane of {ins.mnemonic}")
    signs = ins.bits("neg_lo", (0, 0, 0))
    reads = [operand_words(ins.operands[1 + i], target) for i in (0, 1)]
    third = _accumulator(ins.operands[3], target, 8, "i32")
    clamps = "clamp" in ins.modifiers

    def rows(raw: Lanes, sign: int) -> Lanes:
        pieces = _pieces(raw, bits)
        values = _signed(pieces, bits) if sign else pieces.astype(I64)
        return _wmma_rows(values, divided)

    def compute(m: State) -> Lanes:
        a, b = (rows(read(m), sign) for read, sign in zip(reads, signs, strict=False))
        product = np.matmul(a, b.transpose(0, 2, 1))[:, row, column].transpose(1, 0, 2)
        total = product + third(m)
        return np.clip(total, -(1 << 31), (1 << 31) - 1) if clamps else total

    return Built(compute, _writes(register(ins.operands[0], target), 8))


def _half_wmma(ins: Instruction, target: IsaTarget, kind: str) -> Built:
    """Sums of halves, rounded to halves."""
    _refuse(ins, "neg_lo", "neg_hi", "clamp")
    divided, row, column = _wmma_places(target)
    decode, encode = (from_half, to_half) if kind == "f16" else (from_bf16, to_bf16)
    held = 2 * ins.operands[1].count
    if held * (2 if divided else 1) != 16:
        raise UnknownError(f"{held} elements a lane of {ins.mnemonic}")
    reads = [operand_words(ins.operands[1 + i], target) for i in (0, 1)]
    selected = ins.bits("op_sel", (0, 0, 0))
    count = 4 if divided else 8
    given, out = ins.operands[3], register(ins.operands[0], target)
    shift = U32(16 * selected[2])
    constant = raw_reader(given, target, kind) if given.is_constant else None
    first = 0 if given.is_constant else register(given, target)

    def third(m: State) -> Lanes:
        """C: float32 [8, n, lanes]."""
        if constant is not None:
            return np.broadcast_to(decode(constant(m)), (8, m.n, m.lanes))
        words = m.vector[first : first + count, m.sel]
        if divided:
            pairs = np.stack([words, words >> U32(16)], axis=1)
            return decode(pairs.reshape(8, m.n, m.lanes))
        return decode(words >> shift)

    def compute(m: State) -> Lanes:
        a, b = (_wmma_rows(decode(read(m).view(np.uint16)), divided).astype(F64) for read in reads)
        product = np.matmul(a, b.transpose(0, 2, 1))[:, row, column].transpose(1, 0, 2)
        return np.asarray(encode(product + third(m)))

    def write(m: State, value: Lanes) -> None:
        if divided:
            m.vector[out : out + count, m.sel] = value[0::2] | (value[1::2] << U32(16))
            return
        keep = U32(0xFFFF) << (U32(16) - shift)
        old = m.vector[out : out + count, m.sel]
        m.vector[out : out + count, m.sel] = (old & keep) | (value << shift)

    return Built(compute, write)
