"""What of a kernel has native code: its instructions traced, its blocks split at the others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ...assembly import Instruction, Program
from ..code import Code, resolved
from ..instructions.table import CONTROL, SETS_MODE, SILENT, base_name
from ..mode import initial_mode
from ..state import EXEC
from ..target import IsaTarget, UnknownError
from .lower import check
from .matrices import product_of
from .symbols import Symbol, UntraceableError, plain
from .trace import Traced, trace

_INLINE = frozenset(["s_branch", "s_endpgm", "s_barrier", "s_barrier_signal", "s_barrier_wait"])


@dataclass
class Plan:
    """A kernel's blocks, split so that what is interpreted stands alone.

    ``traced`` are its instructions by number; ``why`` says of the others what kept them out.
    ``modes`` are the bits of MODE in each block, by where it starts.
    """

    code: Code
    traced: dict[int, Traced] = field(default_factory=dict)
    why: dict[int, str] = field(default_factory=dict)
    interpreted: set[int] = field(default_factory=set)
    modes: dict[int, int] = field(default_factory=dict)
    scratch_bytes: int = 0


def make_plan(code: Code) -> Plan:
    """Traces every instruction of a kernel and splits its blocks at those that cannot be.

    Raises:
        UntraceableError: MODE is not known wherever it counts.
    """
    program = code.program
    plan = Plan(code, scratch_bytes=program.descriptor.get("private_segment_fixed_size", 0))
    initial = initial_mode(program.descriptor, code.target.family)
    if any(base_name(ins.mnemonic) in SETS_MODE for ins in program.instructions):
        _follow_mode(plan, initial)
    for start in sorted(set(code.ends) - set(plan.modes)):
        # No way leads here but a computed jump; or MODE never changes.
        plan.modes[start] = initial
        _trace_block(plan, start)
    _split(plan)
    return plan


def _follow_mode(plan: Plan, initial: int) -> None:
    """The mode in which each block is entered; ways that meet must agree on it."""
    todo = [(0, initial)]
    while todo:
        start, mode = todo.pop()
        if start in plan.modes:
            if plan.modes[start] != mode:
                raise UntraceableError("MODE depends on the way taken")
            continue
        plan.modes[start] = mode
        after = _trace_block(plan, start)
        todo += [(goal, after) for goal in successors(plan.code, start)]


def _trace_block(plan: Plan, start: int) -> int:
    """Traces a block in its mode; the mode behind it."""
    code, mode = plan.code, plan.modes[start]
    target = replace(code.target, mode=mode)
    for number in range(start, code.ends[start]):
        ins = code.program.instructions[number]
        name = base_name(ins.mnemonic)
        if name in SILENT or name in CONTROL:
            continue
        try:
            plan.traced[number] = _traced(number, ins, plan, target)
            mode = plan.traced[number].mode
        except (UntraceableError, UnknownError) as error:
            if name in SETS_MODE:
                raise UntraceableError(str(error)) from None
            plan.why[number] = str(error)
    return mode


def successors(code: Code, start: int) -> list[int]:
    """Where a block can go, as far as its text says."""
    program, end = code.program, code.ends[start]
    last = program.instructions[end - 1]
    name = base_name(last.mnemonic)
    found = []
    if name == "s_branch" or name.startswith("s_cbranch"):
        label = last.operands[0].text if last.operands else ""
        found += [program.labels[label]] if label in program.labels else []
    if name not in ("s_branch", "s_endpgm", "s_setpc_b64", "s_trap"):
        found.append(end)
    return [goal for goal in found if goal in code.ends]


def _traced(number: int, ins: Instruction, plan: Plan, target: IsaTarget) -> Traced:
    """The trace of an instruction; UntraceableError if there is no native form of it."""
    traced = trace(number, resolved(ins, plan.code.program), target, plan.scratch_bytes)
    if traced.matrix is not None:
        d, _, _, c = traced.matrix.registers
        if c is not None and c != d and abs(c - d) < traced.matrix.count:
            raise UntraceableError("a matrix result that overlaps its accumulator")
        if c is None and ins.operands[3].value != 0:
            raise UntraceableError("a matrix accumulator that is a constant other than 0")
        product_of(ins, traced.matrix, target)
    for node in traced.nodes():
        check(node)
        if node.op == "readlane" and not _in_memory(node):
            raise UntraceableError("a lane of what is no register")
    return traced


def _in_memory(node: Symbol) -> bool:
    return plain(node.args[0]).op == "v"


def _split(plan: Plan) -> None:
    """Makes a block of its own of each instruction, or run of them, that is interpreted."""
    old, program = plan.code, plan.code.program
    starts = set(old.ends)
    for number in plan.why:
        starts |= {number, number + 1}
    starts = {s for s in starts if s < len(program.instructions)}
    ordered = sorted(starts)
    ends = dict(zip(ordered, [*ordered[1:], len(program.instructions)], strict=True))
    plan.code = Code(program, old.target, old.vgprs, old.agprs, ends)
    mode = 0
    for start, end in ends.items():
        mode = plan.modes.setdefault(start, mode)
        last = program.instructions[end - 1]
        inside = any(n in plan.why for n in range(start, end))
        if inside or not _goes_natively(last, program):
            plan.interpreted.add(start)


def _goes_natively(last: Instruction, program: Program) -> bool:
    name = base_name(last.mnemonic)
    if name not in CONTROL:
        return True
    if name == "s_branch" or name.startswith("s_cbranch"):
        return bool(last.operands) and last.operands[0].text in program.labels
    return name in _INLINE


def writes_exec(plan: Plan) -> bool:
    """Whether any instruction changes EXEC; where none does, every lane always runs."""
    for number in plan.why:
        ins = plan.code.program.instructions[number]
        scalars = [o for o in ins.operands[:2] if o.file == "s" and o.index + o.count > EXEC]
        if scalars or "exec" in ins.mnemonic or "cmpx" in ins.mnemonic:
            return True
    for traced in plan.traced.values():
        for effect in traced.effects:
            if effect.kind == "s" and effect.index >= EXEC:
                return True
            if effect.kind == "mask" and effect.index + 1 >= EXEC:
                return True
    return False
