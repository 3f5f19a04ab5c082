"""What each instruction reads and writes: from its trace, or from its operands where it has none.

A register is ("v", number) in the file that holds both kinds of vector registers, or ("s", number).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ...assembly import Instruction, Operand, Program
from ..code import resolved
from ..instructions.table import CONTROL, SILENT, base_name
from ..mode import PLAIN
from ..native.symbols import UntraceableError
from ..native.trace import Traced, trace
from ..state import NULL
from ..target import IsaTarget, UnknownError

Register = tuple[str, int]
# Instructions without a result in a register, of those that have no trace.
_NO_RESULT = re.compile(
    r"_store_|^ds_write|^ds_store|^ds_(?!read|load|swizzle|.*permute|.*_rtn)\w+_[iufb]\d+$"
    r"|^s_setreg|_lds_"
)


@dataclass(frozen=True)
class Use:
    """The registers of one instruction."""

    reads: frozenset[Register]
    writes: frozenset[Register]


NONE = Use(frozenset(), frozenset())


def uses(program: Program, target: IsaTarget, scratch_bytes: int) -> list[Use]:
    """Of every instruction of a kernel."""
    plain = replace(target, mode=PLAIN)
    return [_use(resolved(ins, program), plain, scratch_bytes) for ins in program.instructions]


def _use(ins: Instruction, target: IsaTarget, scratch_bytes: int) -> Use:
    name = base_name(ins.mnemonic)
    if name in SILENT:
        return NONE
    if name in CONTROL:
        return Use(frozenset(registers_of(ins.operands[:1], target)), frozenset())
    # The same text is the same instruction wherever it stands; distances between labels are not.
    key = (ins.text, target, scratch_bytes)
    if ".L" in ins.text:
        return _made(ins, target, scratch_bytes)
    if key not in _KNOWN:
        if len(_KNOWN) > _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[key] = _made(ins, target, scratch_bytes)
    return _KNOWN[key]


_KNOWN: dict[tuple[str, IsaTarget, int], Use] = {}
_MOST_KNOWN = 1 << 16


def _made(ins: Instruction, target: IsaTarget, scratch_bytes: int) -> Use:
    try:
        return _of_trace(trace(0, ins, target, scratch_bytes), target)
    except (UntraceableError, UnknownError):
        return _of_operands(ins, target)


def _of_trace(traced: Traced, target: IsaTarget) -> Use:
    reads: set[Register] = set()
    writes: set[Register] = set()
    words = target.lanes // 32
    if traced.matrix is not None:
        built, ins = traced.matrix, traced.ins
        d, a, b, c = built.registers
        for first, operand in ((a, ins.operands[1]), (b, ins.operands[2])):
            reads |= {("v", first + i) for i in range(operand.count)}
        if c is not None:
            reads |= {("v", c + i) for i in range(built.count)}
        return Use(frozenset(reads), frozenset(("v", d + i) for i in range(built.count)))
    for node in traced.nodes():
        if node.op in ("v", "s"):
            reads.add((node.op, node.attr))
        elif node.op == "mask":
            reads |= {("s", node.attr + word) for word in range(words)}
    for effect in traced.effects:
        if effect.kind in ("v", "raw"):
            writes.add(("v", effect.index))
        elif effect.kind == "s":
            writes.add(("s", effect.index))
        elif effect.kind == "mask":
            writes |= {("s", effect.index + word) for word in range(words)}
    return Use(frozenset(reads), frozenset(writes))


def _of_operands(ins: Instruction, target: IsaTarget) -> Use:
    """The first operand is the result, where there is one; all others are read."""
    # A load straight into LDS has an address first.
    if _NO_RESULT.search(ins.mnemonic) or "lds" in ins.modifiers:
        return Use(frozenset(registers_of(ins.operands, target)), frozenset())
    returns = "atomic" not in ins.mnemonic or _returns(ins)
    sources = ins.operands[1:] if returns else ins.operands
    writes = registers_of(ins.operands[:1], target) if returns else set()
    return Use(frozenset(registers_of(sources, target)), frozenset(writes))


def _returns(ins: Instruction) -> bool:
    hint = ins.modifiers.get("th", "")
    return "glc" in ins.modifiers or "sc0" in ins.modifiers or "ATOMIC_RETURN" in hint


def registers_of(operands: tuple[Operand, ...], target: IsaTarget) -> set[Register]:
    found: set[Register] = set()
    for operand in operands:
        if operand.file not in ("v", "a", "s") or (operand.file, operand.index) == ("s", NULL):
            continue
        kind = "s" if operand.file == "s" else "v"
        first = operand.index + (target.agprs_at if operand.file == "a" else 0)
        found |= {(kind, first + i) for i in range(operand.count)}
    return found
