"""A kernel made ready to run: straight runs of steps between instructions that move the counter."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from ..assembly import Instruction, Operand, Program
from .instructions.alu import Step
from .instructions.indexed import with_indices
from .instructions.table import CONTROL, SETS_MODE, SILENT, base_name, build_step
from .target import IsaTarget, UnknownError, UnknownInstructionError

# What an instruction's number is multiplied by where code computes with addresses of code.
CODE_UNIT = 4
_DIFFERENCE = re.compile(r"^\((\.\w+)-(\.\w+)\)(&4294967295|>>32)$")


@dataclass(frozen=True)
class Block:
    """Steps that run one after another, then ``last``, a control instruction, if any.

    ``steps`` are (instruction number, function); ``length`` counts every instruction of the block,
    those with nothing to do (waits) included; ``end`` is the number after the block.
    """

    start: int
    end: int
    steps: tuple[tuple[int, Step], ...]
    last: Instruction | None
    goal: int = -1


@dataclass
class Code:
    """A kernel's blocks by the number of their first instruction, made when first reached.

    ``ends`` holds where each block ends, by where it starts.
    """

    program: Program
    target: IsaTarget
    vgprs: int
    agprs: int
    ends: dict[int, int]
    _made: dict[tuple[int, int, int], Block] = field(default_factory=dict)

    def block(self, start: int, mode: int) -> Block:
        """The block that starts at an instruction, for waves in a mode.

        What is unknown in it is a step that stops.
        """
        return self._between(start, self.ends[start], mode)

    def single(self, number: int, mode: int) -> Block:
        """One instruction as a block of its own."""
        return self._between(number, number + 1, mode)

    def _between(self, start: int, end: int, mode: int) -> Block:
        made = self._made.get((start, end, mode))
        if made is None:
            target = replace(self.target, mode=mode)
            made = _block(self.program, target, start, end)
            self._made[start, end, mode] = made
        return made


def make_code(program: Program, target: IsaTarget) -> Code:
    """Finds the blocks of a program."""
    program = with_indices(program)
    vgprs, agprs = _registers(program)
    target = replace(target, agprs_at=vgprs)
    leaders = {0, *program.labels.values()}
    for number, ins in enumerate(program.instructions):
        if base_name(ins.mnemonic) in CONTROL | SETS_MODE:
            leaders.add(number + 1)
    starts = sorted(n for n in leaders if n < len(program.instructions))
    ends = dict(zip(starts, [*starts[1:], len(program.instructions)], strict=True))
    return Code(program, target, vgprs, agprs, ends)


def _block(program: Program, target: IsaTarget, start: int, end: int) -> Block:
    last = program.instructions[end - 1]
    is_control = base_name(last.mnemonic) in CONTROL
    steps = []
    for number in range(start, end - 1 if is_control else end):
        ins = resolved(program.instructions[number], program)
        if base_name(ins.mnemonic) not in SILENT:
            steps.append((number, _step(ins, target)))
    goal = -1
    if is_control and last.operands and last.operands[0].text in program.labels:
        goal = program.labels[last.operands[0].text]
    return Block(start, end, tuple(steps), last if is_control else None, goal)


def _step(ins: Instruction, target: IsaTarget) -> Step:
    try:
        return build_step(ins, target)
    except UnknownError as error:
        unknown = UnknownInstructionError(ins, str(error))

        def stop(_m: object) -> None:
            raise unknown

        return stop


def resolved(ins: Instruction, program: Program) -> Instruction:
    """Distances between labels, which long jumps add to the counter, as numbers."""
    if ".L" not in ins.text:
        return ins
    operands = list(ins.operands)
    for place, operand in enumerate(operands):
        match = _DIFFERENCE.match(operand.text)
        if match:
            one, two, part = match.groups()
            distance = CODE_UNIT * (program.labels[one] - program.labels[two])
            value = distance & 0xFFFFFFFF if part.startswith("&") else distance >> 32
            operands[place] = Operand(operand.text, value=value)
    return replace(ins, operands=tuple(operands))


def _registers(program: Program) -> tuple[int, int]:
    """How many registers of each vector file the code names; register 0 always exists."""
    highest = {"v": 0, "a": -1}
    for ins in program.instructions:
        for part in (ins, ins.second) if ins.second else (ins,):
            for operand in part.operands:
                if operand.file in highest:
                    top = operand.index + operand.count - 1
                    highest[operand.file] = max(highest[operand.file], top)
    return highest["v"] + 1, highest["a"] + 1
