"""Whether what a launch leaves depends on memory that nothing wrote.

Reading such memory alone is no fault: compilers load a whole tile and leave out what a mask
excludes. So a launch that does is run once more with other garbage there: what it stores must be
the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..assembly import Program
from .machine import Tally, Violation
from .memory import Memory
from .native.machine import SavingMemory
from .unwritten import Reads, reads_of, replace_unwritten


def run_judged(program: Program, memory: Memory, run: Callable[[Memory], Tally]) -> Tally:
    """Runs a launch on ``memory``, and judges what it reads that nothing wrote.

    Raises:
        Violation: it did what it must not, this among it.
    """
    reads = reads_of(memory.buffers)
    if reads is None:
        return run(memory)
    saving = SavingMemory(memory.buffers)
    saving.reads = reads
    try:
        tally = run(saving)
    except Violation as violation:
        if not reads.found:
            raise
        raise Violation(f"{violation}; before, it read {_what(reads, program)}") from None
    if reads.found and _depends(saving, run):
        raise Violation(f"results depend on {_what(reads, program)}")
    return tally


def _what(reads: Reads, program: Program) -> str:
    return f"memory that nothing wrote: {reads.text(program)}"


def _depends(memory: SavingMemory, run: Callable[[Memory], Tally]) -> bool:
    """Whether anything is stored that is not stored with other garbage; memory stays as it is."""
    made = [buffer.data.copy() for buffer in memory.buffers]
    memory.restore()
    garbage = [replace_unwritten(buffer) for buffer in memory.buffers]
    before = [buffer.data.copy() for buffer in memory.buffers]
    try:
        run(Memory(memory.buffers))
        differs = False
        for buffer, first, where, old in zip(memory.buffers, made, garbage, before, strict=True):
            # Garbage that nobody touched is not the same, of course.
            untouched = where & (buffer.data == old)
            differs |= bool(((buffer.data != first) & ~untouched).any())
    except Violation:
        differs = True
    for buffer, first in zip(memory.buffers, made, strict=True):
        np.copyto(buffer.data, first)
    return differs
