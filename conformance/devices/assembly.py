"""Reads AMDGPU assembly text, one kernel of it: instructions, descriptor, arguments, lines.

The syntax is LLVM's: https://llvm.org/docs/AMDGPUOperandSyntax.html and
https://llvm.org/docs/AMDGPUModifierSyntax.html. Nothing here knows what an instruction does.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from functools import lru_cache

# Scalar registers that have names, by their number in the scalar register file.
NAMED_SCALARS = {
    "vcc_lo": 106,
    "vcc_hi": 107,
    "m0": 124,
    "null": 125,
    "exec_lo": 126,
    "exec_hi": 127,
    "vcc": 106,
    "exec": 126,
}
TTMP0 = 108
_PAIRS = ("vcc", "exec")

_LABEL = re.compile(r"^([.\w$]+):")
_LOC = re.compile(r"^\s*\.loc\s+.*;\s*(\S*:\d+:\d+)")
_REGISTER = re.compile(r"^(v|a|s|ttmp)(\d+)(?:\.([lh]))?$")
_RANGE = re.compile(r"^(v|a|s|ttmp)\[(\d+)(?::(\d+))?\]$")
_FLOAT = re.compile(r"^-?(\d+\.\d*(e[-+]?\d+)?|\d+e[-+]?\d+)$")
# Words after the operands: flags (offen), pairs (offset:16), counters are never looked at.
_WORD = re.compile(r"^[a-z_0-9]+$")
# LLVM writes the low eight bits of a register's number, and in a comment all of it, where
# s_set_vgpr_msb supplies the others (gfx1250).
_FULL_NUMBER = re.compile(r"\bv(?:\d+(?:\.[lh])?|\[\d+:\d+\]) /\*(v[^*]+)\*/")
# A comma after which no bracket closes that did not open: brackets are not nested.
_COMMA = re.compile(r",(?![^\[(]*[\])])")


class AssemblyError(Exception):
    """The text is not what this reader knows; the message names the line."""


@dataclass(frozen=True)
class Operand:
    """One operand: a range of registers, or a constant.

    ``file`` is "v", "a", "s" or "" for a constant; ``half`` "l"/"h" one half of a 16-bit register.
    ``value`` is an int or a float as written: a float's bits depend on the instruction.
    """

    text: str
    file: str = ""
    index: int = 0
    count: int = 1
    half: str = ""
    value: int | float | None = None
    neg: bool = False
    abs: bool = False
    sext: bool = False

    @property
    def is_constant(self) -> bool:
        return self.file == "" and self.value is not None

    @property
    def is_off(self) -> bool:
        return self.text in ("off", "null")


@dataclass(frozen=True)
class Instruction:
    """One instruction, and where it stands: ``line`` of the text (from 1), ``source`` file:line."""

    mnemonic: str
    operands: tuple[Operand, ...]
    modifiers: dict[str, str]
    line: int
    source: str
    text: str
    second: Instruction | None = None

    def number(self, name: str, default: int = 0) -> int:
        return int(self.modifiers[name], 0) if name in self.modifiers else default

    def bits(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """A modifier that is a list, such as ``op_sel:[0,1]``."""
        if name not in self.modifiers:
            return default
        return tuple(int(part, 0) for part in self.modifiers[name].strip("[]").split(","))

    def __str__(self) -> str:
        return f"{self.text} (assembly line {self.line}, {self.source or 'no source line'})"


@dataclass(frozen=True)
class Parameter:
    """One argument that a kernel takes: byte ``offset`` in the segment, ``size``, ``kind``."""

    offset: int
    size: int
    kind: str


@dataclass
class Program:
    """One kernel. ``labels`` are instruction numbers; ``descriptor`` the .amdhsa_ directives."""

    name: str
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    descriptor: dict[str, int] = field(default_factory=dict)
    arguments: list[Parameter] = field(default_factory=list)


def parse_program(text: str, name: str = "") -> Program:
    """Reads the kernel ``name``, or the only one of a text.

    Raises:
        AssemblyError: the kernel is not there, or a line cannot be read; the message says which.
    """
    lines = text.splitlines()
    names = [line.split()[1] for line in lines if line.strip().startswith(".amdhsa_kernel ")]
    if name not in names and (name or len(names) != 1):
        raise AssemblyError(f"expected {name or 'one kernel'}, found {names}")
    program = Program(name or names[0])
    _read_code(program, lines)
    _read_descriptor(program, lines)
    program.arguments = _read_arguments(text, program.name)
    return program


def _read_code(program: Program, lines: list[str]) -> None:
    inside, source = False, ""
    for number, line in enumerate(lines, 1):
        label = _LABEL.match(line)
        if label:
            inside = inside or label.group(1) == program.name
            if inside:
                program.labels[label.group(1)] = len(program.instructions)
            if label.group(1).startswith(".Lfunc_end"):
                return
            continue
        if not inside:
            continue
        loc = _LOC.match(line)
        if loc:
            source = loc.group(1) if not loc.group(1).startswith(":") else source
        code = _FULL_NUMBER.sub(r"\1", line.partition(";")[0].strip())
        if code and not code.startswith("."):
            program.instructions.append(parse_instruction(code, number, source))


def _read_descriptor(program: Program, lines: list[str]) -> None:
    inside = False
    for line in lines:
        words = line.split()
        if words[:1] == [".amdhsa_kernel"]:
            inside = words[1] == program.name
        elif words[:1] == [".end_amdhsa_kernel"]:
            inside = False
        elif inside and len(words) == 2 and words[0].startswith(".amdhsa_") and words[1].isdigit():
            program.descriptor[words[0].removeprefix(".amdhsa_")] = int(words[1])


def _read_arguments(text: str, name: str) -> list[Parameter]:
    """From the metadata: a list entry for each kernel, whose names are in alphabetical order."""
    for kernel in re.split(r"^  - (?=\.)", text.partition("amdhsa.kernels:")[2], flags=re.M):
        named = re.search(r"^    \.name:\s+(\S+)", kernel, re.M)
        if named is None or named.group(1).strip("'\"") != name:
            continue
        match = re.search(
            r"^\s*\.args:\s*\n(.*?)^\s+\.group_segment_fixed_size", kernel, re.S | re.M
        )
        return [] if match is None else [_argument(one) for one in _entries(match.group(1))]
    return []


def _entries(text: str) -> list[str]:
    return re.split(r"^\s+- ", text, flags=re.M)[1:]


def _argument(entry: str) -> Parameter:
    values = dict(re.findall(r"\.(\w+):\s*(\S+)", entry))
    return Parameter(int(values["offset"]), int(values["size"]), values["value_kind"])


def parse_instruction(code: str, line: int = 0, source: str = "") -> Instruction:
    """One instruction without its comment; ``a :: b`` is a pair that reads before it writes."""
    first, pair, rest = code.partition(" :: ")
    second = parse_instruction(rest.strip(), line, source) if pair else None
    mnemonic, _, tail = first.strip().partition(" ")
    pieces = _split(tail.strip()) if tail.strip() else []
    operands: list[Operand] = []
    modifiers: dict[str, str] = {}
    for piece in pieces:
        operand, rest_of_piece = _piece(piece)
        operands += operand
        modifiers.update(rest_of_piece)
    return Instruction(mnemonic, tuple(operands), modifiers, line, source, code, second)


@lru_cache(maxsize=1 << 16)
def _piece(text: str) -> tuple[tuple[Operand, ...], tuple[tuple[str, str], ...]]:
    """What stands between two commas: an operand, if any, and modifiers. Kernels repeat them."""
    first, *rest = _words(text)
    operands: tuple[Operand, ...] = ()
    if _is_modifier(first):
        rest = [first, *rest]
    else:
        operands = (parse_operand(first),)
    pairs = (word.partition(":") for word in rest)
    return operands, tuple((name, value) for name, _, value in pairs)


def parse_operand(text: str) -> Operand:
    """A register, a range, a named scalar register or a constant, with its input modifiers."""
    inner, neg, absolute, sext = text, False, False, False
    while True:
        if inner.startswith("neg(") and inner.endswith(")"):
            inner, neg = inner[4:-1], True
        elif inner.startswith("-|") or re.match(r"^-(v|a|s|ttmp|abs)", inner):
            inner, neg = inner[1:], True
        elif inner.startswith("|") and inner.endswith("|"):
            inner, absolute = inner[1:-1], True
        elif inner.startswith(("abs(", "sext(")) and inner.endswith(")"):
            absolute, sext = absolute or inner[0] == "a", sext or inner[0] == "s"
            inner = inner.partition("(")[2][:-1]
        elif inner.startswith("lit(") and inner.endswith(")"):
            inner = inner[4:-1]
        else:
            break
    return _plain_operand(text, inner, neg, absolute, sext)


def _plain_operand(text: str, inner: str, neg: bool, absolute: bool, sext: bool) -> Operand:
    if inner in NAMED_SCALARS:
        count = 2 if inner in _PAIRS else 1
        return Operand(text, "s", NAMED_SCALARS[inner], count, "", None, neg, absolute, sext)
    match = _REGISTER.match(inner)
    if match:
        file, index = _place(match.group(1), int(match.group(2)))
        return Operand(text, file, index, 1, match.group(3) or "", None, neg, absolute, sext)
    match = _RANGE.match(inner)
    if match:
        file, index = _place(match.group(1), int(match.group(2)))
        last = int(match.group(3) or match.group(2))
        return Operand(text, file, index, last - int(match.group(2)) + 1, "", None, neg, absolute)
    value: int | float | None = None
    if _FLOAT.match(inner):
        value = float(inner)
    else:
        try:
            value = int(inner, 0)
        except ValueError:
            value = None
    return Operand(text, "", 0, 1, "", value, neg, absolute, sext)


def _place(file: str, index: int) -> tuple[str, int]:
    return ("s", TTMP0 + index) if file == "ttmp" else (file, index)


def _is_modifier(word: str) -> bool:
    if word in NAMED_SCALARS or word == "off":
        return False
    if _REGISTER.match(word) or re.match(r"^-?\d", word):
        return False
    name = word.partition(":")[0]
    return bool(_WORD.match(name)) and "(" not in name and name not in ("src_scc",)


def _split(text: str) -> list[str]:
    """Splits at commas outside brackets."""
    return [part.strip() for part in _COMMA.split(text)]


def _words(text: str) -> list[str]:
    """Splits at spaces outside brackets."""
    return re.findall(r"(?:[^\s\[(]|\[[^\]]*\]|\([^)]*\))+", text)


def float_bits(value: float, kind: str) -> int:
    """The bits of a float constant as an operand of a type, of 16, 32 or 64 bits.

    A pair of halves that are integers ("2xu16") takes float32's bits.
    """
    if kind.endswith("64"):
        return int.from_bytes(struct.pack("<d", value), "little")
    if kind in ("f16", "u16", "i16", "b16"):
        return int.from_bytes(struct.pack("<e", value), "little")
    single = int.from_bytes(struct.pack("<f", value), "little")
    return single >> 16 if kind == "bf16" else single
