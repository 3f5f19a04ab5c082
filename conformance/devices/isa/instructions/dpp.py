"""Data-parallel primitives (DPP): which lane each lane reads from, and which lanes are written.

Source: the DPP chapters of AMD's Instinct MI300 and RDNA3 instruction set manuals.
https://www.amd.com/content/dam/amd/en/documents/instinct-tech-docs/instruction-set-architectures/amd-instinct-mi300-cdna3-instruction-set-architecture.pdf
https://www.amd.com/content/dam/amd/en/documents/radeon-tech-docs/instruction-set-architectures/rdna3-shader-instruction-set-architecture-feb-2023_0.pdf
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ...assembly import Instruction
from ..state import Bools, Lanes, State
from ..target import UnknownError
from .operands import Reader

Places = npt.NDArray[np.int64]
ROW = 16


def _row_shift(by: int) -> Callable[[Places], Places]:
    def move(lane: Places) -> Places:
        at = lane % ROW + by
        return np.where((at >= 0) & (at < ROW), lane + by, -1)

    return move


def _row_broadcast(last: int) -> Callable[[Places], Places]:
    """The last lane of each row, or half wave, to the whole of the next."""
    size = last + 1
    return lambda lane: lane // size * size - 1


_PERMUTATIONS: dict[str, Callable[[int], Callable[[Places], Places]]] = {
    "row_shl": _row_shift,
    "row_shr": lambda by: _row_shift(-by),
    "row_ror": lambda by: lambda lane: lane // ROW * ROW + (lane - by) % ROW,
    "row_bcast": _row_broadcast,
    "row_newbcast": lambda at: lambda lane: lane // ROW * ROW + at,
    "row_share": lambda at: lambda lane: lane // ROW * ROW + at,
    "row_xmask": lambda mask: lambda lane: lane ^ mask,
    "row_mirror": lambda _: lambda lane: lane // ROW * ROW + ROW - 1 - lane % ROW,
    "row_half_mirror": lambda _: lambda lane: lane // 8 * 8 + 7 - lane % 8,
}


def permutation(ins: Instruction, lanes: int) -> Places | None:
    """The lane each lane reads from (-1: outside its row); None if the instruction has no DPP."""
    lane = np.arange(lanes)
    if "quad_perm" in ins.modifiers:
        return lane // 4 * 4 + np.array(ins.bits("quad_perm", ()))[lane % 4]
    if "dpp8" in ins.modifiers:
        return lane // 8 * 8 + np.array(ins.bits("dpp8", ()))[lane % 8]
    for name, make in _PERMUTATIONS.items():
        if name in ins.modifiers:
            return make(int(ins.modifiers[name] or "0", 0))(lane)
    if any(name.startswith(("wave_", "row_")) and name != "row_mask" for name in ins.modifiers):
        raise UnknownError(f"lane permutation of {ins.text!r}")
    return None


class Dpp:
    """One instruction's permutation, applied to its first source.

    A lane that would read from outside its row, or from one that does not run, gets 0 with
    ``bound_ctrl:1`` and is else not written at all.
    """

    def __init__(self, ins: Instruction, source: Places, raw: Reader) -> None:
        lane = np.arange(source.size)
        rows, banks = ins.number("row_mask", 15), ins.number("bank_mask", 15)
        self.enabled = ((rows >> (lane // ROW % 4)) & (banks >> (lane % ROW // 4)) & 1) == 1
        self.inside = source >= 0
        self.source = np.maximum(source, 0)
        self.zero = ins.modifiers.get("bound_ctrl") in ("0", "1")
        self.inactive = ins.modifiers.get("fi") == "1"
        self.raw = raw
        self.plain = bool(self.enabled.all() and self.inside.all())

    def fetch(self, m: State) -> tuple[Lanes, Bools | None]:
        """The permuted source (uint32 [n, lanes]) and the lanes that may be written (None: all)."""
        value = np.broadcast_to(self.raw(m), (m.n, m.lanes))[:, self.source]
        running = None if self.inactive else m.exec
        if self.plain and running is None:
            return value, None
        valid = np.broadcast_to(self.inside, value.shape)
        if running is not None:
            valid = valid & running[:, self.source]
        allowed = np.broadcast_to(self.enabled, value.shape)
        if self.zero:
            return np.where(valid, value, np.uint32(0)), allowed
        return value, allowed & valid
