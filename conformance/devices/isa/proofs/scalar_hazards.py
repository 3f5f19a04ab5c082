"""Scalar registers that the vector unit of RDNA4 may read with their old values.

The vector unit keeps scalar registers that it has read, by pairs. Once it has read a pair, what is
written to it afterwards is seen only behind a wait for the write, ``s_wait_alu``: ``sa_sdst`` for
scalar instructions, ``va_sdst`` and (of VCC) ``va_vcc`` for vector instructions. Scalar loads and
buffer accesses wait by themselves; a scalar read waits for the vector unit's writes.

Source: https://github.com/ROCm/llvm-project/blob/amd-staging/llvm/lib/Target/AMDGPU/AMDGPUWaitSGPRHazards.cpp
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..state import M0, VCC
from .hazard_rules import depctr
from .issued import Issued

_VCC = frozenset({VCC, VCC + 1})
_SCALAR, _VECTOR = "scalar", "vector"


@dataclass
class Scalars:
    """``kept``: pairs that the vector unit has read. ``written``: of registers written since, by
    which unit and by which instruction, by number."""

    kept: set[int] = field(default_factory=set)
    written: dict[tuple[int, str], int] = field(default_factory=dict)

    def copy(self) -> Scalars:
        return Scalars(set(self.kept), dict(self.written))

    def joined(self, other: Scalars) -> Scalars:
        """What may hold where two ways meet."""
        return Scalars(self.kept | other.kept, {**other.written, **self.written})

    def clear(self, unit: str, vcc: bool | None = None) -> None:
        """Forgets what one unit wrote: all of it, or but for VCC, or VCC's only."""
        for register, by in list(self.written):
            if by == unit and vcc in (None, register in _VCC):
                del self.written[register, by]

    def issue(self, one: Issued) -> Iterator[tuple[int, int, str]]:
        """Takes an instruction in; each register that it reads too early, with the number of the
        instruction that wrote it and the wait that is missing."""
        if one.name.startswith(("buffer_", "s_load_", "s_buffer_load_")):
            self.written.clear()
        elif one.name in ("s_waitcnt_depctr", "s_wait_alu"):
            self._wait(depctr(one))
        elif one.vector or one.scalar:
            for register in sorted(_registers(one, one.scalar_reads)):
                yield from self._read(one, register)
            unit = _VECTOR if one.vector else _SCALAR
            for register in _registers(one, one.scalar_writes):
                if register // 2 in self.kept:
                    self._write(register, unit, one.number)

    def _wait(self, fields: dict[str, int]) -> None:
        if fields["sa_sdst"] == 0:
            self.clear(_SCALAR)
        if fields["va_sdst"] == 0:
            self.clear(_VECTOR, vcc=False)
        if fields["va_vcc"] == 0:
            self.clear(_VECTOR, vcc=True)

    def _read(self, one: Issued, register: int) -> Iterator[tuple[int, int, str]]:
        if register // 2 not in self.kept:
            if one.vector:
                self.kept.add(register // 2)
            return
        if one.scalar:
            self.clear(_VECTOR, vcc=register in _VCC)
        for unit, wait in ((_SCALAR, "sa_sdst"), (_VECTOR, "va_sdst")):
            number = self.written.get((register, unit))
            if number is not None:
                of_vcc = unit == _VECTOR and register in _VCC
                yield register, number, "va_vcc" if of_vcc else wait
                self.clear(unit, vcc=None if unit == _SCALAR else of_vcc)

    def _write(self, register: int, unit: str, number: int) -> None:
        if register in _VCC:
            self.written = {key: n for key, n in self.written.items() if key[0] != register}
        self.written[register, unit] = number


def _registers(one: Issued, some: frozenset[tuple[str, int]]) -> set[int]:
    """Those that count: neither M0, nor the null register, nor EXEC."""
    found = {number for _, number in some if number < M0}
    return found | ({VCC} if one.name.startswith("s_cbranch_vcc") else set())
