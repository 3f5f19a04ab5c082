"""Shows that no register is used before the wait that guards it, on every way through a kernel.

Memory operations end later than they begin; counters say how many have not ended, and a wait lets
the wave go on when a counter has come down. This is a forward analysis of what the compiler itself
must compute to place its waits: of each register that a load is to fill, how many operations of the
same counter have begun since; where ways meet, the smaller number. Operations of one counter end in
their order, except scalar loads and those of ``flat_``: with one of these under way only a wait for
0 says anything. LDS operations must have ended before a barrier, or other waves may see them late.

Sources: the chapters on manual dependency resolution of AMD's instruction set manuals, and
https://llvm.org/docs/AMDGPUUsage.html#memory-model. Loads straight into LDS are left out: which
barrier they must precede is the program's choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from ...assembly import Instruction, parse_program
from ...targets import target_facts
from ..code import Code, make_code
from ..instructions.table import base_name
from ..target import IsaTarget
from .flow import follow
from .registers import Register, Use, uses

# A count that is never reached: what is older has surely ended.
_OLDEST = 64
_WRITTEN, _READ = ("lds", 0), ("lds", 1)
_COUNT = re.compile(r"(vmcnt|lgkmcnt|vscnt|expcnt)\((\d+)\)")
# gfx12's names of counters; two in one instruction are packed, the first one from bit 8 on.
_NAMED = re.compile(r"^s_wait_(?:(load|store)cnt_)?(load|store|ds|km|sample|bvh|exp|x|async)cnt$")


@dataclass(frozen=True)
class Finding:
    """A register, or LDS, that ``use`` touches although ``pending`` may not have ended."""

    use: Instruction
    pending: Instruction
    what: str
    counter: str

    def __str__(self) -> str:
        return f"{self.what} by {self.use}, without a wait ({self.counter}) for {self.pending}"


@dataclass(frozen=True)
class _Pending:
    """An operation under way: ``age`` operations of its counter have begun since."""

    counter: str
    age: int
    number: int
    in_order: bool


_State = dict[Register, _Pending]


@dataclass(frozen=True)
class _Operation:
    """What a memory instruction adds to: its counters; ``lds`` whether it touches LDS."""

    counters: tuple[str, ...]
    in_order: bool
    lds: Register | None = None


@lru_cache(maxsize=512)
def wait_findings(text: str, target: str, lanes: int) -> tuple[Finding, ...]:
    """Every finding in the text of a compiled kernel."""
    program = parse_program(text)
    code = make_code(program, IsaTarget(target_facts(target), lanes))
    return tuple(check(code))


def check(code: Code) -> list[Finding]:
    """Every finding in a kernel, in the order of the instructions that are at fault."""
    program = code.program
    scratch = program.descriptor.get("private_segment_fixed_size", 0)
    analysis = _Analysis(code, uses(program, code.target, scratch))
    nothing: _State = {}
    follow(code, nothing, analysis.block, _joined)
    return [analysis.found[key] for key in sorted(analysis.found)]


def _joined(one: _State, two: _State) -> _State:
    """What may be under way where two ways meet: of each register the younger operation."""
    joined = dict(one)
    for register, pending in two.items():
        known = joined.get(register)
        if known is None or (pending.age, pending.number) < (known.age, known.number):
            joined[register] = pending
    return joined


class _Analysis:
    def __init__(self, code: Code, used: list[Use]) -> None:
        self.code, self.used = code, used
        self.isa = code.target.family.isa
        self.found: dict[tuple[int, int], Finding] = {}

    def block(self, start: int, entering: _State) -> _State:
        state = dict(entering)
        program = self.code.program
        for number in range(start, self.code.ends[start]):
            ins = program.instructions[number]
            for part in (ins,) if ins.second is None else (ins, ins.second):
                state = self._instruction(number, part, state)
        return state

    def _instruction(self, number: int, ins: Instruction, state: _State) -> _State:
        name = base_name(ins.mnemonic)
        waits = dict(waited(name, ins, self.isa))
        if waits:
            return _after_wait(state, waits)
        if name in ("s_barrier", "s_barrier_signal"):
            for place in (_WRITTEN, _READ):
                self._report(number, ins, state, place, "LDS that other waves see is passed")
                state.pop(place, None)
            return state
        use, operation = self.used[number], operation_of(name, ins, self.isa)
        for register in sorted(use.reads | use.writes):
            if register in state and not _follows(register, use, operation, state):
                verb = "read" if register in use.reads else "written"
                self._report(number, ins, state, register, f"{_name(register)} is {verb}")
                del state[register]
        return state if operation is None else _begun(number, use, operation, state)

    def _report(
        self, number: int, ins: Instruction, state: _State, register: Register, what: str
    ) -> None:
        pending = state.get(register)
        if pending is not None:
            other = self.code.program.instructions[pending.number]
            self.found.setdefault(
                (number, pending.number), Finding(ins, other, what, pending.counter)
            )


def _follows(register: Register, use: Use, operation: _Operation | None, state: _State) -> bool:
    """Whether the instruction is a load that ends after the one under way, of the same register."""
    pending = state[register]
    return (
        register in use.writes
        and operation is not None
        and operation.in_order
        and pending.in_order
        and pending.counter in operation.counters
        and not any(p.counter == pending.counter and not p.in_order for p in state.values())
    )


def _begun(number: int, use: Use, operation: _Operation, state: _State) -> _State:
    aged = {
        register: _Pending(p.counter, min(p.age + 1, _OLDEST), p.number, p.in_order)
        if p.counter in operation.counters
        else p
        for register, p in state.items()
    }
    for counter in operation.counters:
        for register in use.writes:
            aged[register] = _Pending(counter, 0, number, operation.in_order)
    if operation.lds is not None:
        aged[operation.lds] = _Pending(operation.counters[-1], 0, number, operation.in_order)
    return aged


def _after_wait(state: _State, waits: dict[str, int]) -> _State:
    out_of_order = {p.counter for p in state.values() if not p.in_order}

    def ended(pending: _Pending) -> bool:
        count = waits.get(pending.counter)
        if count is None:
            return False
        return count == 0 if pending.counter in out_of_order else pending.age >= count

    return {register: pending for register, pending in state.items() if not ended(pending)}


def waited(name: str, ins: Instruction, isa: str) -> Iterator[tuple[str, int]]:
    """The counters that an instruction waits for, and to which count."""
    if name == "s_wait_idle":
        yield from ((counter, 0) for counter in ("loadcnt", "storecnt", "dscnt", "kmcnt"))
    elif name == "s_waitcnt":
        yield from ((counter, int(count)) for counter, count in _COUNT.findall(ins.text))
        if ins.operands and isinstance(ins.operands[0].value, int):
            yield from _packed(ins.operands[0].value, isa)
    elif name.startswith("s_waitcnt_") and name != "s_waitcnt_depctr":
        value = ins.operands[-1].value
        yield name.removeprefix("s_waitcnt_"), int(value or 0)
    else:
        match = _NAMED.match(name)
        if match is None or not ins.operands:
            return
        value = int(ins.operands[0].value or 0)
        if match.group(1):
            yield f"{match.group(1)}cnt", value >> 8 & 0x3F
        yield f"{match.group(2)}cnt", value & 0x3F


def _packed(value: int, isa: str) -> Iterator[tuple[str, int]]:
    """``s_waitcnt`` with a number: the counters' fields."""
    if isa == "gfx11":
        yield from (("lgkmcnt", value >> 4 & 0x3F), ("vmcnt", value >> 10 & 0x3F))
    else:
        yield from (("lgkmcnt", value >> 8 & 0xF), ("vmcnt", value & 0xF | value >> 10 & 0x30))


def operation_of(  # noqa: PLR0911 - one a kind
    name: str, ins: Instruction, isa: str
) -> _Operation | None:
    """Which counters an instruction counts in; None if it is no memory operation."""
    new = isa == "gfx12"
    lds, scalar = ("dscnt", "kmcnt") if new else ("lgkmcnt", "lgkmcnt")
    if name.startswith(("s_load_", "s_buffer_load_")):
        return _Operation((scalar,), in_order=False)
    if name.startswith("ds_"):
        if "permute" in name or "swizzle" in name:
            return _Operation((lds,), in_order=True)
        reads = name.startswith(("ds_read", "ds_load"))
        return _Operation((lds,), in_order=True, lds=_READ if reads else _WRITTEN)
    if "_load_async_to_lds" in name:
        return _Operation(("asynccnt",), in_order=True, lds=_WRITTEN)
    if not name.startswith(("buffer_", "global_", "flat_", "scratch_")) or "_inv" in name:
        return None
    if name.partition("_")[2].startswith(("wb", "gl")):
        return None
    returns = "_load_" in name or ("atomic" in name and _gives_back(ins))
    if isa == "gfx9":
        memory = "vmcnt"
    elif new:
        memory = "loadcnt" if returns else "storecnt"
    else:
        memory = "vmcnt" if returns else "vscnt"
    if name.startswith("flat_"):
        return _Operation((memory, lds), in_order=False)
    return _Operation((memory,), in_order=True)


def _gives_back(ins: Instruction) -> bool:
    hint = ins.modifiers.get("th", "")
    return "glc" in ins.modifiers or "sc0" in ins.modifiers or "ATOMIC_RETURN" in hint


def _name(register: Register) -> str:
    return f"{register[0]}{register[1]}"
