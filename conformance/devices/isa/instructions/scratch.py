"""Instructions that read and write scratch: a wave's private memory, where spilled registers go."""

from __future__ import annotations

import numpy as np

from ...assembly import Instruction, Operand
from ..state import Lanes, State
from ..target import IsaTarget, UnknownError
from .access import AccessError, high_half, low_half
from .alu import Build, Built, effect
from .operands import register

U32 = np.uint32
_SIZES = {"": 1, "x2": 2, "x3": 3, "x4": 4}


def _scratch(words: int, is_load: bool) -> Build:
    def build(ins: Instruction, target: IsaTarget) -> Built:
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
                raise AccessError(0, None, f"scratch byte {at} of {m.shape.scratch_bytes}")
            for word in range(words):
                if is_load:
                    m.set_v(data + word, m.scratch[at // 4 + word][m.sel])
                else:
                    _scratch_store(m, at // 4 + word, m.v(data + word))

        return effect(step)

    return build


def _scratch_half(is_load: bool) -> Build:
    """Half a register; the place in memory may be either half of a word."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        data = register(ins.operands[0] if is_load else ins.operands[1], target)
        high = "_hi" in ins.mnemonic
        offset = ins.number("offset")
        if any(not o.is_off for o in ins.operands if o.file in ("", "s")):
            raise UnknownError("16 bits of scratch addressed by a register")
        join = high_half if high else low_half
        shift = U32(8 * (offset % 4))

        def step(m: State) -> None:
            if offset % 2 or offset + 2 > m.shape.scratch_bytes:
                raise AccessError(0, None, f"scratch byte {offset} of {m.shape.scratch_bytes}")
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


SCRATCH: dict[str, Build] = _scratches()
