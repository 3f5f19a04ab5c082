"""What the meaning of an instruction can depend on besides itself, and what is not known of one."""

from __future__ import annotations

from dataclasses import dataclass

from ..assembly import Instruction
from ..targets import Family, TargetFacts
from .mode import PLAIN, Mode, decode_mode
from .numbers import FP8, Fp8


class UnknownError(Exception):
    """An instruction, operand or modifier that the emulator does not know."""


class UnknownInstructionError(Exception):
    """The kernel holds something the emulator does not know; nothing was run past it."""

    def __init__(self, ins: Instruction, reason: str) -> None:
        super().__init__(f"unknown to the emulator: {reason}, in {ins}")
        self.instruction = ins


@dataclass(frozen=True)
class IsaTarget:
    """A target as one kernel's instructions see it.

    ``lanes`` is the wave size that the kernel was compiled for. ``agprs_at`` is where the
    accumulation registers begin in the vector register file. ``mode`` are the bits of MODE when the
    instruction runs; None: they are not known before.
    """

    facts: TargetFacts
    lanes: int
    agprs_at: int = 0
    mode: int | None = None

    @property
    def float_mode(self) -> Mode:
        return decode_mode(PLAIN if self.mode is None else self.mode)

    @property
    def name(self) -> str:
        return self.facts.name

    @property
    def family(self) -> Family:
        return self.facts.family

    @property
    def is_cdna5(self) -> bool:
        """Whether the instruction set is gfx1250's: that of gfx12, and more."""
        return self.family.name == "CDNA5"

    @property
    def is_gfx9(self) -> bool:
        """Whether the instruction set is that of gfx9: CDNA's."""
        return self.family.isa == "gfx9"


def fp8_codec(kind: str, target: IsaTarget) -> Fp8:
    """How a target encodes "fp8" or "bf8"; UnknownError where it has no such instructions."""
    if (kind, target.family.fp8) not in FP8:
        raise UnknownError(f"{kind} on {target.name}, which has no fp8 instructions")
    return FP8[kind, target.family.fp8]
