"""What the rules of hazards ask of an instruction: its unit, its registers, its matrix passes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from ...assembly import Instruction
from ..instructions.table import base_name
from ..state import EXEC, VCC
from ..target import IsaTarget
from .registers import Register, Use, registers_of

_TRANS = re.compile(r"^v_(s_)?(exp|log|rcp|rcp_iflag|rsq|sqrt|sin|cos)_(f16|f32|f64|bf16)$")
_MATRIX = re.compile(
    r"^v_s?mfmac?_(scale_)?(?P<to>[fi]\d+)_(?P<size>\d+x\d+)x(?P<depth>\d+)(?P<rest>.*)$"
)
_MASK = frozenset({EXEC, EXEC + 1})
_VCC = frozenset({VCC, VCC + 1})
# Of an instruction on 8-bit floats, the first two of its formats (cbsz, blgp) are of 8 bits.
_EIGHT_BIT_FORMATS = 2


@dataclass(frozen=True, eq=False)
class Issued:
    """One instruction of a kernel, or a pair, as it is issued."""

    number: int
    ins: Instruction
    use: Use
    target: IsaTarget

    @cached_property
    def name(self) -> str:
        return base_name(self.ins.mnemonic)

    @cached_property
    def states(self) -> int:
        """Wait states that pass with it: one, but ``s_nop N`` makes N + 1."""
        if self.name != "s_nop" or not self.ins.operands:
            return 1
        return int(self.ins.operands[0].value or 0) + 1

    # -- units ------------------------------------------------------------------------------------
    @cached_property
    def vector(self) -> bool:
        """Whether the vector unit executes it, matrix instructions included."""
        return self.name.startswith("v_")

    @cached_property
    def scalar(self) -> bool:
        return self.name.startswith("s_") and not self.name.startswith(("s_load", "s_buffer"))

    @cached_property
    def vmem(self) -> bool:
        return self.name.startswith(("buffer_", "global_", "flat_", "scratch_", "tbuffer_"))

    @cached_property
    def lds(self) -> bool:
        return self.name.startswith("ds_")

    @cached_property
    def trans(self) -> bool:
        pair = self.ins.second
        return bool(_TRANS.match(self.name)) or (
            pair is not None and bool(_TRANS.match(base_name(pair.mnemonic)))
        )

    @cached_property
    def mfma(self) -> bool:
        return self.name.startswith(("v_mfma_", "v_smfmac_"))

    @cached_property
    def wmma(self) -> bool:
        return self.name.startswith(("v_wmma_", "v_swmmac_"))

    @cached_property
    def dot(self) -> bool:
        return self.name.startswith(("v_dot", "v_pk_dot"))

    @cached_property
    def dpp(self) -> bool:
        given = self.ins.modifiers
        return "_dpp" in self.ins.mnemonic or "quad_perm" in given or "row_mask" in given

    @cached_property
    def to_lds(self) -> bool:
        """Whether it loads from global memory straight into LDS."""
        return self.vmem and ("lds" in self.ins.modifiers or "_lds" in self.name)

    # -- registers --------------------------------------------------------------------------------
    @cached_property
    def vector_reads(self) -> frozenset[Register]:
        return frozenset(r for r in self.use.reads if r[0] == "v")

    @cached_property
    def vector_writes(self) -> frozenset[Register]:
        return frozenset(r for r in self.use.writes if r[0] == "v")

    @cached_property
    def scalar_writes(self) -> frozenset[Register]:
        return frozenset(r for r in self.use.writes if r[0] == "s" and r[1] not in _MASK)

    @cached_property
    def scalar_reads(self) -> frozenset[Register]:
        """Without EXEC, which nearly all vector instructions read."""
        return frozenset(r for r in self.use.reads if r[0] == "s" and r[1] not in _MASK)

    @cached_property
    def writes_exec(self) -> bool:
        return any(r[0] == "s" and r[1] in _MASK for r in self.use.writes)

    @cached_property
    def writes_vcc(self) -> bool:
        return any(r[0] == "s" and r[1] in _VCC for r in self.use.writes)

    def operand(self, place: int) -> frozenset[Register]:
        """The registers of one operand; none where it has no such operand."""
        return frozenset(registers_of(self.ins.operands[place : place + 1], self.target))

    # -- matrices ---------------------------------------------------------------------------------
    @cached_property
    def passes(self) -> int:
        """How many passes of four cycles a matrix product takes.

        Source: https://github.com/ROCm/llvm-project/blob/amd-staging/llvm/lib/Target/AMDGPU/SISchedule.td
        and the tables of matrix instructions in AMD's CDNA manuals.
        """
        match = _MATRIX.match(self.name)
        if match is None:
            raise ValueError(f"{self.name} is no matrix product")
        size, depth = match["size"], int(match["depth"])
        family = self.target.family.name
        if match["to"] == "f64":
            return 4 if size == "4x4" else 16 if family == "CDNA4" else 8
        if size == "4x4":
            return 2
        if family == "CDNA2":
            return 8 if size == "16x16" else 16
        return self._of_size(size == "32x32", depth, match["rest"])

    def _of_size(self, large: bool, depth: int, rest: str) -> int:
        if "f8f6f4" in rest:
            formats = (self.ins.number("cbsz"), self.ins.number("blgp"))
            slow = any(one < _EIGHT_BIT_FORMATS for one in formats)
            return (8 if large else 4) * (2 if slow else 1)
        if "xf32" in rest:
            return 8 if large else 4
        if self.name.startswith("v_smfmac"):
            return 8 if large else 4
        # The shallow shapes are CDNA1's, at half the rate.
        shallow = depth <= 4
        return (16 if large else 8) if shallow else (8 if large else 4)

    @cached_property
    def fast_matrix(self) -> bool:
        """Whether it is of those that LLVM calls XDL: all on CDNA2, without float32 and float64
        from CDNA3 on."""
        match = _MATRIX.match(self.name)
        if match is None or match["to"] == "f64":
            return False
        rest = match["rest"].strip("_")
        return self.target.family.name == "CDNA2" or not re.fullmatch(r"(\d+b_)?f32", rest)
