"""What a compiled kernel takes of its target, read from its assembly text.

The text's own LDS figure is 0, because Triton allocates LDS at launch: that one comes from the
compiler's metadata. Occupancy is the text's (registers), lowered to what LDS allows.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from .targets import TargetFacts

_MATRIX = re.compile(r"^\s+v_s?(?:mfma|wmma|swmmac)_\w+", re.M)
_FP8 = re.compile(r"^\s+v_\w*(?:fp8|bf8)\w*", re.M)
# Matrix instructions whose operands say each its format; what says none is fp8.
_ANY_FORMAT = re.compile(r"^\s+v_(?:mfma|wmma)_\w*f8f6f4\s(.*)$", re.M)
_NO_FP8 = re.compile(r"\b(?:cbsz|blgp):[2-4]\b|\bmatrix_[ab]_fmt:MATRIX_FMT_(?:BF6|FP6|FP4)\b")


@dataclass(frozen=True)
class Resources:
    """Registers are per lane (``sgprs`` per wave), ``lds`` bytes per workgroup, ``scratch`` bytes
    per lane, ``code`` bytes, ``occupancy`` waves per SIMD.

    ``spills`` counts spilled vector registers, ``sgpr_spills`` scalar ones. ``matrix`` and ``fp8``
    count matrix instructions and instructions on fp8. ``block`` is the workgroup's size in lanes as
    the code was compiled for, ``wave`` that of a wave, ``arguments`` the explicit ones.
    """

    vgprs: int
    agprs: int
    sgprs: int
    lds: int
    spills: int
    sgpr_spills: int
    scratch: int
    code: int
    occupancy: int
    matrix: int
    fp8: int
    block: int
    wave: int
    arguments: int

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def resources_of(text: str, shared: int, num_warps: int, facts: TargetFacts) -> Resources:
    """Reads the text of one kernel; ``shared`` is the LDS that its launch allocates."""
    by_registers = _number(text, r"^; Occupancy: (\d+)")
    occupancy = by_registers
    if shared:
        groups = facts.lds_pool // shared
        occupancy = min(
            by_registers, max(groups * num_warps // facts.family.simds, 0 if not groups else 1)
        )
    return Resources(
        vgprs=_number(text, r"^\s+\.vgpr_count:\s+(\d+)"),
        agprs=_number(text, r"^[\s-]+\.agpr_count:\s+(\d+)"),
        sgprs=_number(text, r"^\s+\.sgpr_count:\s+(\d+)"),
        lds=shared,
        spills=_number(text, r"^\s+\.vgpr_spill_count:\s+(\d+)"),
        sgpr_spills=_number(text, r"^\s+\.sgpr_spill_count:\s+(\d+)"),
        scratch=_number(text, r"^\s+\.private_segment_fixed_size:\s+(\d+)"),
        code=_number(text, r"^; codeLenInByte = (\d+)"),
        occupancy=occupancy,
        matrix=len(_MATRIX.findall(text)),
        fp8=_fp8_instructions(text),
        block=_number(text, r"^\s+\.max_flat_workgroup_size:\s+(\d+)"),
        wave=_number(text, r"^\s+\.wavefront_size:\s+(\d+)"),
        arguments=len(re.findall(r"^\s+\.value_kind:\s+(?:global_buffer|by_value)", text, re.M)),
    )


def _fp8_instructions(text: str) -> int:
    mixed = sum(len(_NO_FP8.findall(operands)) < 2 for operands in _ANY_FORMAT.findall(text))
    return len(_FP8.findall(text)) + mixed


def _number(text: str, pattern: str) -> int:
    match = re.search(pattern, text, re.M)
    return int(match.group(1)) if match else 0
