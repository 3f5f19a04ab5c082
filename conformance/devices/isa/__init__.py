"""An emulator of AMD GPU machine code: runs the assembly text of a compiled kernel on the CPU.

:func:`execute` runs one launch. The parts, from the bottom: :mod:`.memory` (what may be accessed),
:mod:`.state` (registers of many waves), :mod:`.operands` and :mod:`.alu` (what instructions share),
the tables (:mod:`.scalar`, :mod:`.scalar_state`, :mod:`.vector_float`, :mod:`.vector_integer`,
:mod:`.packed`, :mod:`.crosslane`, :mod:`.matrix`, :mod:`.global_memory`, :mod:`.lds`,
:mod:`.scratch`), :mod:`.code` (a kernel made ready), :mod:`.machine` (which waves run next) and
:mod:`.launch` (from a launch to waves).

Not modelled: waits and hazards (every instruction completes before the next), caches, timing, and
concurrency between workgroups.
"""

from .launch import Run, execute
from .machine import Violation
from .target import UnknownInstructionError

__all__ = ["Run", "UnknownInstructionError", "Violation", "execute"]
