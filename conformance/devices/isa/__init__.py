"""An emulator of AMD GPU machine code: runs the assembly text of a compiled kernel on the CPU.

:func:`execute` runs one launch. The parts, from the bottom: :mod:`.target` and :mod:`.mode` (what
the meaning of an instruction depends on), :mod:`.memory` (what may be accessed), :mod:`.state`
(registers of many waves), the tables of :mod:`.instructions`, gathered in its ``table`` and made
of what ``operands`` and ``alu`` share, :mod:`.code` (a kernel made ready), :mod:`.machine` (which
waves run next), :mod:`.launch` (from a launch to waves) and :mod:`.native` (the same, compiled).

Not modelled: waits and hazards (every instruction completes before the next), caches, timing, and
concurrency between workgroups.
"""

from .launch import Run, execute
from .machine import Violation
from .target import UnknownInstructionError

__all__ = ["Run", "UnknownInstructionError", "Violation", "execute"]
