"""Vector instructions between ``s_set_gpr_idx_on`` and ``off`` (gfx9): registers by a number in M0.

The low byte of M0 is added to the numbers of the vector registers that the mode names: SRC0, SRC1,
SRC2, DST. Source: "VGPR indexing" in AMD's MI300 (CDNA3) instruction set manual.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...assembly import Instruction, Program
from ..state import M0, State
from ..target import IsaTarget, UnknownError
from .alu import Build, Built, Step, effect
from .operands import scalar_reader

U32 = np.uint32
# The bits of each place in s_set_gpr_idx_on's constant, and the operand that it is about.
_PLACES = {"SRC0": 1, "SRC1": 2, "SRC2": 3, "DST": 0}
_BITS = {"SRC0": 1, "SRC1": 2, "SRC2": 4, "DST": 8}
PREFIX = "indexed:"


def with_indices(program: Program) -> Program:
    """The program with every instruction that indexes registers under a name that says so."""
    labels, places, made = set(program.labels.values()), "", []
    for number, ins in enumerate(program.instructions):
        if places and number in labels:
            places = "a label between s_set_gpr_idx_on and off"
        if ins.mnemonic == "s_set_gpr_idx_on":
            places = ",".join(_names(ins))
        elif ins.mnemonic == "s_set_gpr_idx_off":
            places = ""
        elif places and ins.mnemonic.startswith("v_"):
            made.append(replace(ins, mnemonic=f"{PREFIX}{places}:{ins.mnemonic}"))
            continue
        made.append(ins)
    return replace(program, instructions=made)


def _names(ins: Instruction) -> list[str]:
    text = ins.operands[1].text
    if text.startswith("gpr_idx("):
        return [word.strip() for word in text[8:-1].split(",") if word.strip()]
    bits = int(text, 0)
    return [name for name, bit in _BITS.items() if bits & bit]


def _index_on(ins: Instruction, _target: IsaTarget) -> Built:
    """Sets M0's low byte to the index, and its highest four of 16 bits to the places."""
    read = scalar_reader(ins.operands[0], "u32")
    places = U32(sum(_BITS[name] for name in _names(ins)) << 12)

    def step(m: State) -> None:
        kept = m.s(M0) & U32(0xFFFF0F00)
        m.set_s(M0, kept | (read(m) & U32(0xFF)) | places)

    return effect(step)


def _index(ins: Instruction, _target: IsaTarget) -> Built:
    """Another index, for the same places."""
    read = scalar_reader(ins.operands[0], "u32")
    return effect(lambda m: m.set_s(M0, (m.s(M0) & U32(0xFFFFFF00)) | (read(m) & U32(0xFF))))


def indexed(
    ins: Instruction, target: IsaTarget, build_step: Callable[[Instruction, IsaTarget], Step]
) -> Built:
    """An instruction that :func:`with_indices` has renamed; waves may have indices of their own."""
    _, names, mnemonic = ins.mnemonic.split(":")
    plain = replace(ins, mnemonic=mnemonic)
    unknown = [name for name in names.split(",") if name not in _PLACES]
    if (
        unknown
        or mnemonic.startswith(("v_cmp", "v_readlane", "v_readfirstlane"))
        or "_co_" in mnemonic
    ):
        raise UnknownError(f"{mnemonic} with registers by index: {names}")
    places = [_PLACES[name] for name in names.split(",")]
    made = {0: build_step(plain, target)}

    def step(m: State) -> None:
        index = m.s(M0) & U32(0xFF)
        waves = np.arange(m.shape.waves)[m.sel]
        for value in np.unique(index):
            if int(value) not in made:
                made[int(value)] = build_step(_moved(plain, places, int(value)), target)
            mine = waves[index == value]
            m.select(mine)
            _within(m, plain, places, int(value))
            made[int(value)](m)
        m.select(waves)

    return effect(step)


def _moved(ins: Instruction, places: list[int], by: int) -> Instruction:
    operands = tuple(
        replace(operand, index=operand.index + by)
        if place in places and operand.file == "v"
        else operand
        for place, operand in enumerate(ins.operands)
    )
    return replace(ins, operands=operands)


def _within(m: State, ins: Instruction, places: list[int], by: int) -> None:
    for place, operand in enumerate(ins.operands):
        last = operand.index + by + operand.count
        if place in places and operand.file == "v" and last > m.shape.vgprs:
            raise UnknownError(f"register v{last - 1} of {m.shape.vgprs}, by index")


INDEXED: dict[str, Build] = {
    "s_set_gpr_idx_on": _index_on,
    "s_set_gpr_idx_idx": _index,
    "s_set_gpr_idx_off": lambda _ins, _target: effect(lambda _m: None),
}
