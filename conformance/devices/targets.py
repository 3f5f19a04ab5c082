"""Every fact about an AMD target that a device, a worker or the emulator goes by: one row a target.

A target that has no row, or whose family has none, is refused: nothing is guessed from a name.
gfx1250, say, is written like RDNA4's gfx1201, and is of another family with other matrices.

This module needs the standard library only and imports nothing of the suite, so that a worker can
load it by its path. ``conformance/matrix/targets.toml`` has what only the judge needs (products,
queues); a test compares what both have. Sources, where a row names none:
https://llvm.org/docs/AMDGPUUsage.html for registers, LDS and what a kernel starts with,
https://rocm.docs.amd.com/en/latest/reference/gpu-specs.html for families and compute units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType


@dataclass(frozen=True)
class Family:
    """What the targets of a family share.

    ``isa`` is the instruction set generation, which LLVM names by the first digits of a target.
    ``wave_size`` lanes are what HIP and Triton compile for. A lane can have ``vgprs`` registers,
    accumulation registers included. LDS is shared by the workgroups on ``simds`` SIMDs: a compute
    unit's on CDNA, a work group processor's on RDNA. ``fp8`` is the encoding that instructions
    read, "none" where there are none. ``matrix_layout`` tells which lane holds which element of a
    matrix operand, see :mod:`conformance.devices.isa.instructions.matrix`. ``workgroup_ids`` says
    where a wave finds its workgroup's number: in the scalar registers after the user's ("sgprs")
    or in trap registers ("ttmps"). ``address_bits``: of the address in a buffer's descriptor; the
    size stands behind it, from the next word on or, where there are 57, at once.
    """

    name: str
    isa: str
    wave_size: int
    vgprs: int
    simds: int
    fp8: str
    matrix: str
    matrix_layout: str
    workgroup_ids: str
    address_bits: int = 48


@dataclass(frozen=True)
class TargetFacts:
    """One target. ``lds_bytes`` is the most that a workgroup can have, ``lds_pool`` what the
    workgroups on its family's SIMDs share; ``compute_units`` those of the largest product (of one
    die of an MI250X); ``market_name`` is what AMD's management library calls a GPU."""

    name: str
    family: Family
    lds_bytes: int
    lds_pool: int
    compute_units: int
    market_name: str

    @property
    def wave_size(self) -> int:
        return self.family.wave_size


class UnknownTargetError(ValueError):
    """A target that the table has no row for; the message lists the facts that it needs."""

    def __init__(self, name: str) -> None:
        of_target = ", ".join(f.name for f in fields(TargetFacts) if f.name != "name")
        of_family = ", ".join(f.name for f in fields(Family) if f.name != "name")
        super().__init__(
            f"unknown target {name!r}; known: {', '.join(TARGETS)}. Its facts are missing from "
            f"conformance/devices/targets.py: {of_target}; and, unless it is of a known family "
            f"({', '.join(FAMILIES)}), that family's {of_family}"
        )


def _families() -> Mapping[str, Family]:
    rows = (
        # name, isa, wave_size, vgprs, simds, fp8, matrix, matrix_layout, workgroup_ids, and
        # address_bits where it is not 48
        Family("CDNA2", "gfx9", 64, 512, 4, "none", "mfma", "mfma", "sgprs"),
        Family("CDNA3", "gfx9", 64, 512, 4, "fnuz", "mfma", "mfma", "sgprs"),
        Family("CDNA4", "gfx9", 64, 512, 4, "ocp", "mfma", "mfma", "sgprs"),
        Family("CDNA5", "gfx12", 32, 1024, 4, "ocp", "wmma", "wmma-divided", "ttmps", 57),
        Family("RDNA3", "gfx11", 32, 256, 4, "none", "wmma", "wmma-repeated", "sgprs"),
        Family("RDNA3.5", "gfx11", 32, 256, 4, "none", "wmma", "wmma-repeated", "sgprs"),
        Family("RDNA4", "gfx12", 32, 256, 4, "ocp", "wmma", "wmma-divided", "ttmps"),
    )
    return MappingProxyType({row.name: row for row in rows})


FAMILIES = _families()


def _targets() -> Mapping[str, TargetFacts]:
    def row(name: str, family: str, lds: int, pool: int, units: int, market: str) -> TargetFacts:
        """LDS in KiB, of a workgroup and of a pool."""
        return TargetFacts(name, FAMILIES[family], 1024 * lds, 1024 * pool, units, f"AMD {market}")

    rows = (
        row("gfx90a", "CDNA2", 64, 64, 110, "Instinct MI250X"),
        row("gfx942", "CDNA3", 64, 64, 304, "Instinct MI300X"),
        row("gfx950", "CDNA4", 160, 160, 256, "Instinct MI355X"),
        # No number of compute units is published: gfx950's stands in.
        row("gfx1250", "CDNA5", 320, 320, 256, "Instinct MI450"),
        row("gfx1100", "RDNA3", 64, 128, 96, "Radeon"),
        row("gfx1101", "RDNA3", 64, 128, 60, "Radeon"),
        row("gfx1150", "RDNA3.5", 64, 128, 16, "Radeon"),
        row("gfx1151", "RDNA3.5", 64, 128, 40, "Radeon"),
        row("gfx1200", "RDNA4", 64, 128, 32, "Radeon"),
        row("gfx1201", "RDNA4", 64, 128, 64, "Radeon"),
    )
    return MappingProxyType({facts.name: facts for facts in rows})


TARGETS = _targets()


def target_facts(name: str) -> TargetFacts:
    """The row of a target such as ``gfx942``.

    Raises:
        UnknownTargetError: there is none.
    """
    if name not in TARGETS:
        raise UnknownTargetError(name)
    return TARGETS[name]
