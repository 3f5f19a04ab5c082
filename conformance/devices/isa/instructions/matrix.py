"""Matrix instructions: MFMA of CDNA 2 to 4, WMMA of RDNA3, RDNA4 and CDNA5. D = A x B + C.

Layouts (lane l, element j of a lane's registers, register r), from the matrix chapters of AMD's
manuals and AMD's matrix instruction calculator
(https://github.com/ROCm/amd_matrix_instruction_calculator):

- MFMA, N x N: A row and B column l % N; k = K_lane * (l / N) + j, with K_lane elements a lane.
  D column l % N; row 8 * (r / 4) + 4 * (l / 32) + r % 4 for N = 32, 4 * (l / 16) + r for 16.
- WMMA, RDNA3 ("wmma-repeated"): A row and B column l % 16, k = j: lanes 16-31 hold the same as
  lanes 0-15.
  D column l % 16, row 2 * r + l / 16.
- WMMA, RDNA4 and CDNA5 ("wmma-divided"): A row and B column l % 16. The halves of a wave take
  turns: eight k each (or all that a lane holds, if it is less), so k = 16 * (j / 8) + 8 * (l / 16)
  + j % 8. D column l % 16, row 8 * (l / 16) + r. Triton lays out its operands so
  (https://github.com/triton-lang/triton/blob/main/lib/Dialect/TritonGPU/IR/LinearLayoutConversions.cpp).

Products are summed in float32 or better. Hardware documents no order of summation, so a last-bit
difference is nothing that can be judged. AMD's manuals have all lanes take part, whatever EXEC
holds; where ``masked``, lanes that are off bring zeros, and all lanes get the result.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...assembly import Instruction, Operand
from ..state import Lanes, State
from ..target import IsaTarget, UnknownError, fp8_codec
from .alu import Build, Built
from .operands import raw_reader, register

U32, F32, F64 = np.uint32, np.float32, np.float64
Decode = Callable[[Lanes], Lanes]
# How many k one half of a wave holds before the other half has its own.
IN_TURN = 8
# How many products are summed in a row, from the smallest k on.
AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class MatrixBuilt(Built):
    """A matrix instruction, and what its native form is made from: maps of places, and registers.

    ``rows_of`` and ``spread`` are as in :func:`_build`; ``registers`` are those of D, A, B and C,
    where a constant C has none. ``held`` elements of A and B, of ``kinds``, are in each lane.
    """

    kinds: tuple[str, str]
    rows_of: Callable[[Lanes], Lanes]
    spread: Callable[[Lanes], Lanes]
    count: int
    held: int
    registers: tuple[int, int, int, int | None]


_NAME = re.compile(
    r"^v_(s?mfma|wmma)_f32_(\d+)x(\d+)x(\d+)_?"
    r"(f32|xf32|f16|bf16|bf16_1k|fp8_fp8|fp8_bf8|bf8_fp8|bf8_bf8)(?:_w32)?$"
)
# Formats of the f8f6f4 instructions' cbsz and blgp operands.
_F8F6F4 = {0: "fp8", 1: "bf8"}


def matrix_instruction(mnemonic: str) -> Build | None:
    """The builder of a matrix instruction by its name, or None if it is none that is known."""
    if mnemonic.startswith("v_mfma_f32_") and mnemonic.endswith("_f8f6f4"):
        size, depth = (int(n) for n in re.findall(r"x(\d+)x(\d+)_f8", mnemonic)[0])
        return lambda ins, target: _f8f6f4(ins, target, size, depth)
    match = _NAME.match(mnemonic)
    if match is None or match.group(2) != match.group(3):
        return None
    family, size, depth = match.group(1), int(match.group(2)), int(match.group(4))
    kinds = match.group(5).removesuffix("_1k")
    one, _, two = kinds.partition("_")
    if family == "mfma" and size in (16, 32):
        return lambda ins, target: _mfma(ins, target, size, depth, (one, two or one))
    if family == "wmma" and size == 16:
        return lambda ins, target: _wmma(ins, target, depth, (one, two or one))
    return None


def _decoder(kind: str, target: IsaTarget) -> tuple[int, Decode]:
    """Elements per register, and how uint32 [..., registers] become float32 [..., elements]."""
    if kind in ("f32", "xf32"):
        return 1, lambda raw: raw.view(F32)
    if kind == "f16":
        return 2, lambda raw: raw.view(np.float16).astype(F32)
    if kind == "bf16":
        return 2, lambda raw: (raw.view(np.uint16).astype(U32) << 16).view(F32)
    codec = fp8_codec(kind, target)
    return 4, lambda raw: codec.decode(raw.view(np.uint8))


def operand_words(operand: Operand, target: IsaTarget) -> Callable[[State], Lanes]:
    """The registers of A or B: uint32 [n, lanes, registers]."""
    first, count = register(operand, target), operand.count

    def read(m: State) -> Lanes:
        raw = np.stack([m.v(first + i) for i in range(count)], axis=-1)
        if m.exec is not None:
            m.lanes_off = True
            if m.masked:
                raw[~m.exec] = 0
        return raw

    return read


def _elements(operand: Operand, kind: str, target: IsaTarget) -> Callable[[State], Lanes]:
    """A lane's elements of A or B: float32 [n, lanes, elements]."""
    _, decode = _decoder(kind, target)
    words = operand_words(operand, target)
    return lambda m: decode(words(m))


def _accumulator(operand: Operand, target: IsaTarget, count: int) -> Callable[[State], Lanes]:
    """C: float32 [count, n, lanes], or a constant."""
    if operand.is_constant:
        constant = raw_reader(operand, target, "f32")
        return lambda m: np.broadcast_to(constant(m).view(F32), (count, m.n, m.lanes))
    if operand.count != count:
        raise UnknownError(f"{operand.count} accumulators where {count} are known")
    first = register(operand, target)
    return lambda m: m.vector[first : first + count, m.sel].view(F32)


def _product(a: Lanes, b: Lanes) -> Lanes:
    """A x B, [n, N, K] and [n, N, K]: :data:`AT_ONCE` of k at a time, whose sums are then added.

    Every product and every sum is rounded to float32, one after another: a library's matrix product
    would sum in an order that differs from one CPU to another, and native code has to come to the
    same bits.
    """
    total: Lanes | None = None
    for first in range(0, a.shape[-1], AT_ONCE):
        part = np.zeros((*a.shape[:-1], b.shape[-2]), F32)
        for k in range(first, min(first + AT_ONCE, a.shape[-1])):
            part += a[..., :, None, k] * b[..., None, :, k]
        total = part if total is None else total + part
    assert total is not None
    return total


def _build(
    ins: Instruction,
    target: IsaTarget,
    kinds: tuple[str, str],
    rows_of: Callable[[Lanes], Lanes],
    spread: Callable[[Lanes], Lanes],
    count: int,
) -> Built:
    """``rows_of``: a lane's elements to [n, N, K]; ``spread``: D [n, N, N] to [count, n, lanes]."""
    if any(ins.number(name) for name in ("cbsz", "abid", "blgp")) and "f8f6f4" not in ins.mnemonic:
        raise UnknownError("broadcast or permuted matrix operands")
    if any(name in ins.modifiers for name in ("neg_lo", "neg_hi", "op_sel", "clamp")):
        raise UnknownError("modifiers of a matrix operand")
    one = _elements(ins.operands[1], kinds[0], target)
    two = _elements(ins.operands[2], kinds[1], target)
    third = _accumulator(ins.operands[3], target, count)
    out = register(ins.operands[0], target)

    def compute(m: State) -> Lanes:
        a, b = rows_of(one(m)), rows_of(two(m))
        return spread(_product(a, b)) + third(m)

    def write(m: State, value: Lanes) -> None:
        m.vector[out : out + count, m.sel] = np.asarray(value, dtype=F32).view(U32)

    given = ins.operands[3]
    registers = (
        out,
        register(ins.operands[1], target),
        register(ins.operands[2], target),
        None if given.is_constant else register(given, target),
    )
    held = ins.operands[1].count * _decoder(kinds[0], target)[0]
    return MatrixBuilt(
        compute,
        write,
        kinds=kinds,
        rows_of=rows_of,
        spread=spread,
        count=count,
        held=held,
        registers=registers,
    )


def _mfma(
    ins: Instruction, target: IsaTarget, size: int, depth: int, kinds: tuple[str, str]
) -> Built:
    if target.family.matrix_layout != "mfma":
        raise UnknownError(f"MFMA's matrix layout on {target.name}")
    groups, count = 64 // size, size * size // 64
    lane = depth // groups
    held = ins.operands[1].count * _decoder(kinds[0], target)[0]
    if held != lane:
        raise UnknownError(f"{held} elements a lane where {lane} are known")
    column = np.arange(64) % size
    part, number = np.arange(64) // size, np.arange(count)[:, None]
    row = (8 * (number // 4) + 4 * part + number % 4) if size == 32 else 4 * part + number

    def rows_of(elements: Lanes) -> Lanes:
        n = elements.shape[0]
        by_group = elements.reshape(n, groups, size, lane).transpose(0, 2, 1, 3)
        return by_group.reshape(n, size, depth)

    return _build(
        ins, target, kinds, rows_of, lambda d: d[:, row, column].transpose(1, 0, 2), count
    )


def _f8f6f4(ins: Instruction, target: IsaTarget, size: int, depth: int) -> Built:
    formats = (ins.number("cbsz"), ins.number("blgp"))
    if any(number not in _F8F6F4 for number in formats):
        raise UnknownError("matrix operands of 4 or 6 bits")
    return _mfma(ins, target, size, depth, (_F8F6F4[formats[0]], _F8F6F4[formats[1]]))


def _wmma(ins: Instruction, target: IsaTarget, depth: int, kinds: tuple[str, str]) -> Built:
    layout = target.family.matrix_layout
    if layout not in ("wmma-repeated", "wmma-divided"):
        raise UnknownError(f"WMMA's matrix layout on {target.name}")
    divided = layout == "wmma-divided"
    lane = depth // 2 if divided else depth
    held = ins.operands[1].count * _decoder(kinds[0], target)[0]
    if held != lane:
        raise UnknownError(f"{held} elements a lane where {lane} are known")
    column, part, number = np.arange(32) % 16, np.arange(32) // 16, np.arange(8)[:, None]
    row = 8 * part + number if divided else 2 * number + part

    def rows_of(elements: Lanes) -> Lanes:
        if not divided:
            return elements[:, :16]
        n, turn = elements.shape[0], min(lane, IN_TURN)
        turns = elements.reshape(n, 2, 16, lane // turn, turn)
        return turns.transpose(0, 2, 3, 1, 4).reshape(n, 16, depth)

    return _build(ins, target, kinds, rows_of, lambda d: d[:, row, column].transpose(1, 0, 2), 8)
